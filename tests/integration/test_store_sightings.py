"""What destinations show, in the ledger: the same on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta

from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, State
from dicom_node.store.sightings import ASK_AFTER_S, QUESTIONS, SENT_AGAIN_AT_MOST, Outcome, Sightings
from support.ledger import STUDY, Books

SR, SEG = ResultKind.SR, ResultKind.SEG


def delivered(store: Books) -> tuple[Sightings, list[int], int]:
    """An SR and a SEG that the PACS took and is to be asked about; their deliveries, and their job."""
    job_id: int = store.scheduled()
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR), store.result(SEG)], {"pacs": [SR, SEG]}, {})
    for delivery in store.ledger.claim("pacs", 30, 10):
        store.ledger.delivered(delivery, 0x0000, confirm=True)
    ids = [row.id for row in store.ledger.rows(job_id=job_id)]
    return Sightings(store.engine, store.clock), ids, job_id


def states(store: Books) -> list[State]:
    return [row.state for row in store.ledger.rows()]


def test_what_was_delivered_is_due_after_a_while(store: Books) -> None:
    """With the UIDs that a question needs; and no longer once it was answered."""
    sightings, ids, job_id = delivered(store)
    assert [] == sightings.destinations_due()

    store.clock.passes(ASK_AFTER_S)
    assert ["pacs"] == sightings.destinations_due()
    assert [] == sightings.due("other", 10)
    due = sightings.due("pacs", 10)
    uids = [result.sop_instance_uid for result in store.ledger.results(job_id)]
    assert list(zip(ids, [STUDY] * 2, uids, strict=True)) == [
        (one.delivery_id, one.study_uid, one.sop_instance_uid) for one in due
    ]
    assert [due[0]] == sightings.due("pacs", 1)

    assert Outcome(seen=1, waiting=1) == sightings.answered({ids[0]: True, ids[1]: False})
    assert [] == sightings.destinations_due()
    seen, waits = sightings.of_job(job_id).values()
    assert ("seen 2026-03-01 08:00", "not seen yet: question 1 of 7") == (seen, waits)


def test_the_pauses_double(store: Books) -> None:
    """Seven questions take some twenty minutes."""
    sightings, ids, _ = delivered(store)
    began, at = store.clock(), []
    for _ in range(QUESTIONS - 1):
        while not sightings.destinations_due():
            store.clock.passes(1)
        at.append(round((store.clock() - began).total_seconds()))
        sightings.answered(dict.fromkeys(ids, False))

    assert [10, 20, 40, 80, 160, 320] == at


def test_what_is_not_shown_is_sent_again_three_times(store: Books) -> None:
    """SCHEDULED in the ledger, with a sentence; then FAILED here, while the delivery stays COMPLETED."""
    sightings, ids, job_id = delivered(store)
    sightings.answered({ids[0]: True})
    for _ in range(SENT_AGAIN_AT_MOST):
        for _ in range(QUESTIONS - 1):
            assert Outcome(waiting=1) == sightings.answered({ids[1]: False})
        assert Outcome(sent_again=1) == sightings.answered({ids[1]: False})
        assert [State.COMPLETED, State.SCHEDULED] == states(store)
        assert Outcome() == sightings.answered({ids[1]: False})  # it is on its way
        (again,) = store.ledger.claim("pacs", 30, 10)
        assert "does not show it (C-FIND, 7 times): sent again" in again.reason
        store.ledger.delivered(again, 0x0000, confirm=True)

    for _ in range(QUESTIONS - 1):
        sightings.answered({ids[1]: False})
    assert Outcome(failed=1) == sightings.answered({ids[1]: False})
    assert [State.COMPLETED, State.COMPLETED] == states(store)
    assert "Sent again 3 times" in list(sightings.of_job(job_id).values())[1]
    store.clock.passes(86400)
    assert [] == sightings.destinations_due()


def test_a_superseded_object_is_not_sent_again(store: Books) -> None:
    """A later revision has its own; what its PACS hides or not is of no interest any more."""
    sightings, ids, _ = delivered(store)
    store.scheduled(key="later", number=1)
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR, b"later")], {"pacs": [SR]}, {})
    for _ in range(QUESTIONS - 1):
        sightings.answered(dict.fromkeys(ids, False))

    assert Outcome(failed=2) == sightings.answered(dict.fromkeys(ids, False))
    assert [State.COMPLETED, State.COMPLETED, State.SCHEDULED] == states(store)


def test_what_cannot_be_asked_waits_and_ends(store: Books) -> None:
    """All that is due, with one reason; and for ever after the days."""
    sightings, _, job_id = delivered(store)
    store.clock.passes(ASK_AFTER_S)
    pauses: list[int] = []

    def until(attempt: int) -> datetime:
        pauses.append(attempt)
        return store.clock() + timedelta(seconds=60 * attempt)

    began = store.clock() - timedelta(days=7)
    assert 0 == sightings.put_off("other", "down", until, asked_since=began)
    assert 0 == sightings.put_off("pacs", "down", until, asked_since=began)
    assert [] == sightings.destinations_due()
    assert ["cannot be asked: down"] * 2 == list(sightings.of_job(job_id).values())
    store.clock.passes(61)
    sightings.put_off("pacs", "down", until, asked_since=began)
    assert [1, 2] == pauses

    store.clock.passes(121)
    assert 2 == sightings.put_off("pacs", "down", until, asked_since=store.clock())
    store.clock.passes(86400)
    assert [] == sightings.destinations_due()
    assert [State.COMPLETED] * 2 == states(store)


def test_redelivered_by_a_person_it_counts_anew(store: Books) -> None:
    """Looked for when it has arrived, not before."""
    sightings, ids, job_id = delivered(store)
    sightings.answered(dict.fromkeys(ids, True))

    assert 2 == store.ledger.redeliver(UID(STUDY))
    assert [] == sightings.destinations_due()
    for delivery in store.ledger.claim("pacs", 30, 10):
        store.ledger.delivered(delivery, 0x0000, confirm=True)

    assert ["not seen yet"] * 2 == list(sightings.of_job(job_id).values())
