"""Work items in the ledger, on both databases: claimed once, moved by one hand, found again after a crash."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from dicom_node.domain.identity import UID
from dicom_node.domain.job import State
from dicom_node.domain.workitem import Claim, Input, Step
from dicom_node.store.workitems import WorkItems
from support.ledger import STUDY, Books, instance_uid, planned

INPUT = Input(STUDY, UID(f"{STUDY}.9"), ((instance_uid(1), "1.2.840.10008.5.1.4.1.1.4"),), ("PACS",))


def begun(items: WorkItems, uid: str = "1.2.3", lock: str = "2.25.1") -> Claim | None:
    return items.begin("ris", UID(uid), UID(lock), "p", "110004^DCM")


def test_an_item_is_begun_once(store: Books) -> None:
    """A second look at the same worklist, or a second process, makes no second Transaction UID."""
    items = WorkItems(store.engine, store.clock)
    first = begun(items)

    assert first is not None
    assert (Step.CLAIMING, "2.25.1", ()) == (first.step, first.transaction_uid, first.inputs)
    assert begun(items, lock="2.25.2") is None
    assert frozenset({"1.2.3"}) == items.known("ris", [UID("1.2.3"), UID("1.2.4")])
    assert [first] == list(items.due("ris"))
    assert 1 == items.open_count("ris", "110004^DCM")


def test_a_step_is_taken_by_one_hand(store: Books) -> None:
    """What comes late, from another process or an earlier look, changes nothing."""
    items = WorkItems(store.engine, store.clock)
    first = begun(items)
    assert first is not None
    second = items.go_on(first, Step.INPUTS, inputs=[INPUT])
    assert second is not None

    items.put_off(first, "late", store.clock.now + timedelta(hours=1))

    assert (Step.INPUTS, (INPUT,), "") == (second.step, second.inputs, items.item(first.id).reason)
    assert items.go_on(first, Step.LOST) is None
    assert ["workitem.inputs"] == store.events()


def test_a_pause_is_kept(store: Books) -> None:
    """Put off, it is not due before; its attempts count until the next step."""
    items = WorkItems(store.engine, store.clock)
    first = begun(items)
    assert first is not None
    items.put_off(first, "the manager is away", store.clock.now + timedelta(seconds=10))
    assert () == items.due("ris")
    store.clock.passes(10)
    (due,) = items.due("ris")

    after = items.go_on(due, Step.INPUTS, inputs=[])
    assert after is not None
    assert (1, "the manager is away") == (due.attempts, due.reason)
    assert (0, "") == (after.attempts, after.reason)


def test_no_end_is_told_that_is_not_written_down(store: Books) -> None:
    """ENDING without an outcome is refused by the database itself."""
    items = WorkItems(store.engine, store.clock)
    first = begun(items)
    assert first is not None

    with pytest.raises(IntegrityError):
        items.go_on(first, Step.ENDING)
    outcome: dict[str, object] = {"state": "CANCELED", "attributes": {"00741002": {"vr": "SQ"}}}
    ended = items.go_on(first, Step.ENDING, outcome=outcome)

    assert ended is not None
    assert outcome == ended.outcome


def test_jobs_that_are_asked_for_are_scheduled_once(store: Books) -> None:
    """T2 at somebody's request: at the revision there is, and the same job whoever asks again."""
    store.arrives(1)
    assert store.catalog.ask_for(STUDY, [planned()], expected=1) is None
    assert store.completes() is not None

    asked = store.catalog.ask_for(STUDY, [planned()], expected=1)

    assert asked is not None
    assert asked == store.catalog.ask_for(STUDY, [planned()], expected=1)
    assert [(asked[0], 1, State.SCHEDULED)] == [(j.id, j.revision, j.state) for j in store.queue.jobs()]
    assert store.catalog.ask_for(STUDY, [planned()], expected=2) is None


def test_a_job_of_an_earlier_revision_with_the_same_input_answers_too(store: Books) -> None:
    """A later image that changes nothing of its input makes no second job; a FAILED one at this revision is
    what became of it.
    """  # fmt: skip
    first = store.scheduled(number=1)
    store.arrives(2)
    store.completes()

    assert (first,) == store.catalog.ask_for(STUDY, [planned()], expected=2)
    other = store.catalog.ask_for(STUDY, [planned("other", pipeline="q")], expected=2)
    assert other is not None
    _, _ = store.claimed()
    taken, lease = store.claimed()
    store.queue.fail(lease, "why", retry_at=None, failure="memory")
    items = WorkItems(store.engine, store.clock)

    assert taken.id == other[0]
    assert other == store.catalog.ask_for(STUDY, [planned("other", pipeline="q")], expected=2)
    assert {other[0]: "memory"} == items.failures([first, *other])


def test_outputs_are_what_was_delivered(store: Books) -> None:
    """State and place of each object of the jobs, and whether a later revision replaced it."""
    items = WorkItems(store.engine, store.clock)
    job_id = store.scheduled(number=1)
    _, lease = store.claimed()
    made = store.result()
    store.queue.finish(lease, [made], {"pacs": [made[0].kind], "archive": [made[0].kind]}, {})
    (delivery,) = store.ledger.claim("pacs", 30.0, 1)
    store.ledger.delivered(delivery, 0x0000)

    found = {output.destination: (state, output, old) for state, _, output, old in items.outputs([job_id])}

    assert {"pacs": State.COMPLETED, "archive": State.SCHEDULED} == {
        name: state for name, (state, _, _) in found.items()
    }
    output = found["pacs"][1]
    assert (STUDY, made[0].series_uid, made[0].sop_instance_uid) == (
        output.study_uid, output.series_uid, output.sop_instance_uid,
    )  # fmt: skip
    assert replace(output, destination="archive") == found["archive"][1]
    assert not found["pacs"][2]
