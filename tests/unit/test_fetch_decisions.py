"""Pulling, decided without a network: what is proposed, what is missing, when a peer is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.config import Receive, Route
from dicom_node.domain.identity import UID
from dicom_node.node.fetch import compare
from dicom_node.node.fetcher import LONGEST_PAUSE_S, Question, Step, failed, next_question, wants
from dicom_node.receive.policy import MR_IMAGES, REPORTS, storage_classes
from dicom_node.receive.query import PeerInstance, PeerSeries, PeerStudy
from dicom_node.receive.retrieve import AT_A_TIME, requests, storage_contexts

MR, ENHANCED = MR_IMAGES[:2]
SR, SC = REPORTS[3], "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
STUDY, SERIES = UID("1.2"), UID("1.2.1")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STATE = (NOW, 9)


def uids(count: int) -> list[UID]:
    return [UID(f"1.2.1.{number}") for number in range(1, count + 1)]


# ---- what is proposed for C-GET ----------------------------------------------------------


def test_only_classes_that_are_taken_are_proposed() -> None:
    """Of what the peer says it has, the node asks for what its policy takes."""
    pairs = storage_contexts(Receive(), [MR, SC, SR])

    assert {MR, SR} == {uid for uid, _ in pairs}
    assert [(MR, EXPLICIT), (SR, EXPLICIT), (MR, IMPLICIT), (SR, IMPLICIT)] == pairs[:4]


@pytest.mark.parametrize("unwanted", ["refuse", "store"])
def test_one_context_is_left_for_the_service(unwanted: str) -> None:
    """Presentation context ids are 128 odd numbers (PS3.8 9.3.2.2), one of which is for C-GET itself."""
    pairs = storage_contexts(Receive.model_validate({"unwanted": unwanted}), [])

    assert 127 == len(pairs) == len(set(pairs))


def test_a_peer_that_states_no_classes_is_offered_all_that_is_taken() -> None:
    assert set(storage_classes(Receive())) == {uid for uid, _ in storage_contexts(Receive(), [])}


def test_requests_name_not_too_many_instances() -> None:
    """A list of UIDs fits any peer's buffer; a whole series is asked for as such."""
    wanted = uids(2 * AT_A_TIME + 1)

    split = requests(STUDY, SERIES, wanted, whole=False)
    (whole,) = requests(STUDY, SERIES, wanted, whole=True)

    assert [AT_A_TIME, AT_A_TIME, 1] == [len(one.instances) for one in split]
    assert wanted == [uid for one in split for uid in one.instances] == list(whole.instances)
    assert b"IMAGE" in split[0].identifier()
    assert b"SERIES" in whole.identifier()
    assert wanted[0].encode() + b"\\" not in whole.identifier()


# ---- what is missing --------------------------------------------------------------------


def study(*instances: PeerInstance, modality: str = "MR") -> PeerStudy:
    return PeerStudy(STUDY, None, (PeerSeries(SERIES, 4, modality, None, instances),))


def test_missing_is_what_is_taken_and_not_here() -> None:
    """Counted are images: what policy refuses never comes, and reports come when they come."""
    one, two, report, capture = uids(4)
    there = study(
        PeerInstance(one, MR), PeerInstance(two, MR), PeerInstance(report, SR), PeerInstance(capture, SC)
    )

    (found,) = compare(there, {one}, set(), Receive()).series

    assert (4, 2) == (found.there, found.images)
    assert (one, two, report) == found.taken
    assert (two, report) == found.missing


def test_results_of_this_node_are_not_missing() -> None:
    """They stand in the study at the PACS, and are no input."""
    image, result = uids(2)
    there = study(PeerInstance(image, MR), PeerInstance(result, SC))

    (found,) = compare(there, {image}, {result}, Receive(unwanted="store")).series

    assert (1, ()) == (found.images, found.missing)


def test_where_no_class_is_stated_the_modality_decides() -> None:
    unstated = PeerInstance(uids(1)[0], "")

    missing = [
        compare(study(unstated, modality=modality), (), (), Receive()).missing
        for modality in ("MR", "", "PR")
    ]

    assert [1, 1, 0] == missing


# ---- when a peer is asked ---------------------------------------------------------------


def route(fetch: str, *senders: str) -> Route:
    return Route.model_validate({"pipeline": "p", "from": list(senders), "to": ["pacs"], "fetch": fetch})


def test_only_senders_of_routes_that_say_so_are_asked() -> None:
    """`missing` on one route is enough to retrieve; a peer that sent nothing of it is not asked."""
    routes = [route("no", "a"), route("count", "b", "c"), route("missing", "c", "d")]

    assert {"b": False, "c": True} == wants(routes, ("a", "b", "c"))


def test_a_state_of_the_study_is_asked_about_once() -> None:
    """A later image makes a new state, and a new question; the passing of time does not."""
    first = next_question(None, STATE, None, NOW)
    answered = Question(STATE, Step.ANSWERED)
    later = (NOW + timedelta(seconds=9), 10)

    assert Question(STATE, Step.AWAITED) == first
    assert first is next_question(first, STATE, None, NOW + timedelta(days=1))
    assert answered is next_question(answered, STATE, None, NOW + timedelta(days=1))
    assert Question(later, Step.AWAITED) == next_question(answered, later, None, NOW)


def test_a_node_that_starts_anew_believes_an_answer_that_is_not_older_than_the_study() -> None:
    before, after = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)

    assert Question(STATE, Step.ANSWERED) == next_question(None, STATE, after, after)
    assert Question(STATE, Step.AWAITED) == next_question(None, STATE, before, after)


def test_a_peer_that_failed_is_asked_again_after_a_growing_pause() -> None:
    """10 s, 20 s, 40 s ... and never longer than ten minutes."""
    question, pauses = Question(STATE, Step.AWAITED), []
    for _ in range(9):
        after = failed(question, NOW)
        assert after.not_before is not None
        pauses.append((after.not_before - NOW).total_seconds())
        assert after is next_question(after, STATE, None, after.not_before - timedelta(seconds=1))
        question = next_question(after, STATE, None, after.not_before)
        assert Step.AWAITED is question.step

    assert [10, 20, 40, 80, 160, 320, 600, 600, 600] == pauses
    assert LONGEST_PAUSE_S == max(pauses)
