"""Deliveries: claimed in order, ended under their token, with the peer's status on record."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from dicom_node.domain.job import Delivery, ResultKind, State
from dicom_node.errors import LeaseLost
from support.ledger import STUDY, Books

SR, SEG = ResultKind.SR, ResultKind.SEG


def finished(store: Books, key: str = "k", number: int = 0, *, to: tuple[str, ...] = ("pacs",)) -> int:
    """A job done, with an SR and a SEG on their way to each destination."""
    job_id = store.scheduled(key=key, number=number)
    _, lease = store.claimed()
    made = [store.result(SR, f"sr {key}".encode()), store.result(SEG, f"seg {key}".encode())]
    store.queue.finish(lease, made, dict.fromkeys(to, (SR, SEG)), {})
    return job_id


def one(store: Books) -> Delivery:
    return store.ledger.claim("pacs", 30, 1)[0]


def test_objects_are_claimed_in_order(store: Books) -> None:
    """SCHEDULED -> IN PROGRESS for at most `limit` of the destination, the oldest first."""
    finished(store, to=("pacs", "ris"))

    claimed = store.ledger.claim("pacs", 30, 1) + store.ledger.claim("pacs", 30, 10)

    assert [SR, SEG] == [delivery.result.kind for delivery in claimed]
    assert [(State.IN_PROGRESS, 1, "pacs")] * 2 == [(d.state, d.attempts, d.destination) for d in claimed]
    assert [] == store.ledger.claim("pacs", 30, 10)
    assert ["ris"] == store.ledger.destinations_due()


def test_a_delivered_object_has_the_peers_status(store: Books) -> None:
    """T4: COMPLETED with what the peer answered, a warning too."""
    finished(store)
    for status in (0x0000, 0xB000):
        store.ledger.delivered(one(store), status, "coerced" if status else "")

    assert [(State.COMPLETED, 0x0000, ""), (State.COMPLETED, 0xB000, "coerced")] == [
        (row.state, row.status, row.reason) for row in store.ledger.rows()
    ]
    assert [] == store.ledger.destinations_due()


def test_a_repeated_object_waits(store: Books) -> None:
    """SCHEDULED again, not claimed before its time; the status of the last attempt is kept."""
    finished(store)
    at = store.clock() + timedelta(seconds=10)
    for _ in range(2):
        store.ledger.retry_later(one(store), 0xA700, "full", at)

    assert ([], []) == (store.ledger.destinations_due(), store.ledger.claim("pacs", 30, 10))
    store.clock.passes(10)
    assert ["pacs"] == store.ledger.destinations_due()
    assert [(2, 0xA700)] * 2 == [(d.attempts, d.status) for d in store.ledger.claim("pacs", 30, 10)]


def test_a_lapsed_delivery_is_claimed_anew_and_fenced(store: Books) -> None:
    """A sender that died is replaced; when it lives on, it cannot end the delivery."""
    finished(store)
    old = one(store)
    store.clock.passes(31)

    new = one(store)

    assert (old.id, old.token + 1) == (new.id, new.token)
    for late in (
        lambda: store.ledger.delivered(old, 0),
        lambda: store.ledger.retry_later(old, None, "", store.clock()),
        lambda: store.ledger.failed(old, 0x0122, ""),
        lambda: store.ledger.renew([old], 30),
    ):
        with pytest.raises(LeaseLost):
            late()
    assert State.IN_PROGRESS is store.ledger.rows()[0].state


def test_a_renewed_lease_holds(store: Books) -> None:
    """An object that waits for its turn in a long association is not claimed by another."""
    finished(store)
    claimed = store.ledger.claim("pacs", 30, 10)
    store.clock.passes(20)

    store.ledger.renew(claimed, 30)

    store.clock.passes(20)
    assert [] == store.ledger.claim("pacs", 30, 10)


def test_a_failed_delivery_waits_for_an_operator(store: Books) -> None:
    """FAILED until `retry`, which counts anew; only what was asked for is retried."""
    job_id = finished(store, to=("pacs", "ris"))
    for destination in ("pacs", "ris"):
        for delivery in store.ledger.claim(destination, 30, 10):
            store.ledger.failed(delivery, 0x0122, "class not supported")
    assert [] == store.ledger.destinations_due()
    later = store.clock.passes(100)

    assert [1, 1, 2, 0] == [
        store.ledger.retry(delivery_id=store.ledger.rows()[0].id),
        store.ledger.retry(destination="pacs"),
        store.ledger.retry(job_id=job_id),
        store.ledger.retry(),
    ]
    again = store.ledger.claim("ris", 30, 10)
    assert [1, 1] == [delivery.attempts for delivery in again]
    assert later == store.ledger.scheduled_at(again[0]) == again[0].scheduled_at


def test_a_superseded_object_is_not_repeated(store: Books) -> None:
    """It was on its way when a later revision had its results: after a failure it is CANCELED."""
    finished(store, "a", 1)
    on_its_way = one(store)
    finished(store, "b", 2)

    store.ledger.retry_later(on_its_way, 0xA700, "full", store.clock())

    assert State.CANCELED is store.ledger.rows()[0].state
    assert "delivery.canceled" in store.events()


def test_rows_are_found_by_study_job_and_state(store: Books) -> None:
    """The same table for operators and pages."""
    job_id = finished(store)
    store.ledger.delivered(one(store), 0)

    assert 2 == len(store.ledger.rows(study_uid=STUDY)) == len(store.ledger.rows(job_id=job_id))
    assert 1 == len(store.ledger.rows(state=State.COMPLETED)) == len(store.ledger.rows(limit=1))
    assert () == store.ledger.rows(job_id=99)


def test_every_delivery_is_in_the_history(store: Books) -> None:
    """Kind, destination, attempt and the peer's status; no sentence of the peer's."""
    finished(store)
    store.ledger.retry_later(one(store), None, "does not answer", store.clock())
    store.ledger.delivered(one(store), 0)

    assert ["sr to pacs, attempt 1: no answer", "sr to pacs, attempt 2: 0x0000"] == [
        row.detail for row in store.history.of(STUDY) if row.event.startswith("delivery.")
    ]


def test_what_waits_for_an_unreachable_destination_is_put_off_together(store: Books) -> None:
    """Each by its own number of attempts; not what goes elsewhere, is superseded, or was tried too long."""
    first = finished(store, to=("pacs", "ris"))
    store.ledger.retry_later(one(store), None, "down", store.clock())
    since = store.clock.passes(60)
    finished(store, key="other", number=1)
    asked: list[int] = []

    def until(attempts: int) -> datetime:
        asked.append(attempts)
        return store.clock() + timedelta(seconds=attempts)

    assert 0 == store.ledger.put_off("pacs", "down", until, tried_since=store.clock() + timedelta(days=1))
    assert 2 == store.ledger.put_off("pacs", "down", until, tried_since=since)  # the first job is superseded
    assert [1] == asked
    assert [1, 0, 0, 0] == [row.attempts for row in store.ledger.rows(job_id=first)]
    assert [] == store.ledger.claim("pacs", 30, 10)

    store.clock.passes(2)
    assert [2, 2] == [delivery.attempts for delivery in store.ledger.claim("pacs", 30, 10)]
