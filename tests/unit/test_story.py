"""Times per stage, as the demo and the latency benchmark tell them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.bench.latency import Moments, split, totals
from dicom_node.demo.story import JobStory, Revision, Sending, Story, timeline
from dicom_node.demo.summary import chosen, notes, route_line
from dicom_node.domain.job import State

ZERO = datetime(2026, 1, 2, 10, tzinfo=UTC)
SPENT = {"infer": 4.0, "read": 0.5, "forward": 3.0, "encode": 0.6}


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def job(state: State = State.COMPLETED) -> JobStory:
    return JobStory(
        id=1, state=state, progress=1.0, step="", reason="", attempts=1, plan={}, seconds=SPENT,
        scheduled_at=at(3.3), started_at=at(3.5), finished_at=at(8.5),
    )  # fmt: skip


def sending(state: State = State.COMPLETED) -> Sending:
    return Sending("sr", "1.2.3", 10, "pacs", state, 0, "", at(9.0))


def story(**changes: object) -> Story:
    facts: dict[str, object] = {
        "received": 200, "first_received_at": at(0), "last_received_at": at(2.0),
        "revision": Revision(1, "every series is whole", 200, at(3.3)), "job": job(),
        "sendings": (sending(),),
    }  # fmt: skip
    return Story(**(facts | changes))  # type: ignore[arg-type]


def test_the_timeline_has_no_hole() -> None:
    """The stages follow one another, and their sum is the time from the first image to the last object."""
    steps = timeline(story(), 1.0)

    assert [pytest.approx(sum(s.seconds for s in steps[:n])) for n in range(len(steps))] == [
        step.start_s for step in steps
    ]
    assert pytest.approx(9.0) == sum(step.seconds for step in steps)


def test_the_quiet_time_is_shown_by_itself() -> None:
    """Waiting is a stated decision: it is neither hidden nor called work."""
    seconds = {step.name: step.seconds for step in timeline(story(), 1.0)}

    assert (1.0, 0.3) == (seconds["quiet time"], seconds["assemble + route"])
    assert (3.0, 0.5) == (seconds["networks"], seconds["rest of inference"])


@pytest.mark.parametrize(
    ("changes", "over"),
    [
        ({}, True),
        ({"job": None}, False),
        ({"job": job(State.IN_PROGRESS)}, False),
        ({"job": job(State.FAILED), "sendings": ()}, True),
        ({"sendings": (sending(), sending(State.SCHEDULED))}, False),
        ({"sendings": (sending(State.FAILED),)}, True),
        ({"unassigned": 1}, False),
    ],
)
def test_a_study_is_over_when_nothing_waits(changes: dict[str, object], over: bool) -> None:
    """Every image is in a revision, the newest job has ended, and so have its deliveries."""
    assert over == story(**changes).over


def test_an_unfinished_study_has_no_timeline() -> None:
    """Times are told when they are known, not guessed."""
    assert () == timeline(story(job=None), 1.0)


def test_latency_is_split_without_remainder() -> None:
    """The steps sum to the time from the last image acknowledged to the SR accepted."""
    moments = Moments(at(2.0), at(3.3), at(3.3), at(3.5), at(8.5), at(8.7))

    steps = split(moments, SPENT, 1.0)

    assert pytest.approx(6.7) == sum(steps.values())
    assert {"total_s": 6.7, "overhead_s": 2.7} == totals(steps)


def test_overhead_is_all_but_the_networks_and_the_stated_wait() -> None:
    """A longer quiet time or a larger network changes the total, never the overhead."""
    moments = Moments(at(2.0), at(9.3), at(9.3), at(9.5), at(19.5), at(19.7))

    assert 2.7 == totals(split(moments, SPENT | {"infer": 9.0, "forward": 8.0}, 7.0))["overhead_s"]


PLAN = {
    "choices": [
        {"need": "t2", "asked": "T2 axial", "stack": "4: T2 axial, 19 slices",
         "reasons": ["chosen 4: T2 axial, 19 slices", "spin echo"]},
        {"need": "adc", "asked": "ADC", "stack": None, "reasons": ["no ADC among 3 usable stacks"]},
    ]
}  # fmt: skip


def test_a_choice_is_told_with_its_reasons() -> None:
    """The stack's name is not given as a reason for itself."""
    assert [("T2 axial", ("spin echo",)), ("ADC", ("no ADC among 3 usable stacks",))] == [
        (choice.need, choice.reasons) for choice in chosen(PLAN)
    ]
    assert "T2 axial = series 4: T2 axial, 19 slices; without ADC" == route_line(PLAN)


def test_a_study_outside_the_intended_use_is_said_to_be_shown_for_the_demo() -> None:
    """Loudly, with the reason, and with what a node would do instead."""
    passed = "outside the intended use, but run as configured: the patient's sex is male"

    (note,) = notes({"warnings": [passed, "the patient's age is not stated"]})

    assert "Outside its intended use (the patient's sex is male): shown because this is a demo." in note
    assert () == notes({"warnings": ["the patient's age is not stated"]})
    assert () == notes({"warnings": [passed], "because": "no T2 series is there"})
