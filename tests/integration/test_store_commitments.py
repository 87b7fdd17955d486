"""Commitments, capabilities and redelivery in the ledger: the same on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta

from dicom_node.domain.commitment import Report
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, State
from dicom_node.store.capabilities import Capabilities
from dicom_node.store.commitments import Commitments, Outcome
from support.ledger import STUDY, Books

SR, SEG = ResultKind.SR, ResultKind.SEG
T1, T2 = UID("2.25.1"), UID("2.25.2")


def delivered(store: Books) -> tuple[Commitments, list[str], int]:
    """An SR and a SEG that the PACS took and is to be asked about; their UIDs, and their job."""
    job_id: int = store.scheduled()
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR), store.result(SEG)], {"pacs": [SR, SEG]}, {})
    for delivery in store.ledger.claim("pacs", 30, 10):
        store.ledger.delivered(delivery, 0x0000, commitment=True)
    uids = [str(result.sop_instance_uid) for result in store.ledger.results(job_id)]
    return Commitments(store.engine, store.clock), uids, job_id


def in_an_hour(store: Books) -> datetime:
    return store.clock() + timedelta(hours=1)


def test_what_was_delivered_is_asked_about_once_an_hour(store: Books) -> None:
    """In one transaction; and again in another one when no report came."""
    commitments, uids, _ = delivered(store)
    assert ["pacs"] == commitments.destinations_due()

    asked = commitments.begin("pacs", T1, 10, lambda _: in_an_hour(store))
    assert uids == [one.sop_instance_uid for one in asked]
    assert [] == commitments.destinations_due()
    assert [] == commitments.begin("pacs", T2, 10, lambda _: in_an_hour(store))

    store.clock.passes(3601)
    assert [2, 2] == [one.attempts for one in commitments.begin("pacs", T2, 10, lambda _: in_an_hour(store))]


def test_a_report_commits_and_sends_again(store: Books) -> None:
    """Kept: COMPLETED. Failed: its delivery is SCHEDULED again, and asks anew once it is delivered."""
    commitments, (sr, seg), job_id = delivered(store)
    commitments.begin("pacs", T1, 10, lambda _: in_an_hour(store))

    assert Outcome(known=False) == commitments.report("other", Report(T1, frozenset([sr]), {}))
    assert Outcome(True, 1, 1, 0) == commitments.report("pacs", Report(T1, frozenset([sr]), {seg: "full"}))
    assert [State.COMPLETED, State.SCHEDULED] == [row.state for row in store.ledger.rows(job_id=job_id)]
    assert Outcome(True) == commitments.report("pacs", Report(T1, frozenset([sr]), {seg: "full"}))

    store.clock.passes(61)
    (again,) = store.ledger.claim("pacs", 30, 10)
    store.ledger.delivered(again, 0x0000, commitment=True)
    (asked,) = commitments.begin("pacs", T2, 10, lambda _: in_an_hour(store))
    assert seg == asked.sop_instance_uid
    assert Outcome(True, 1, 0, 0) == commitments.report("pacs", Report(T2, frozenset([seg]), {}))
    assert ["committed"] * 2 == [words.split()[0] for words in commitments.of_job(job_id).values()]


def test_a_report_of_many_thousands_is_taken(store: Books) -> None:
    """More objects than one query takes; those of others change nothing."""
    commitments, uids, _ = delivered(store)
    commitments.begin("pacs", T1, 10, lambda _: in_an_hour(store))
    strangers = [f"1.2.{number}" for number in range(7000)]

    assert Outcome(True, 2, 0, 0) == commitments.report(
        "pacs", Report(T1, frozenset([*uids, *strangers]), {})
    )


def test_a_question_put_off_or_given_up_has_its_reason(store: Books) -> None:
    """Put off: asked again then. Given up: FAILED, while the delivery stays COMPLETED."""
    commitments, _, job_id = delivered(store)
    asked = commitments.begin("pacs", T1, 10, lambda _: in_an_hour(store))
    commitments.put_off(T1, "down", store.clock() + timedelta(seconds=10))
    assert ["commitment asked for: down"] * 2 == list(commitments.of_job(job_id).values())
    store.clock.passes(11)
    assert ["pacs"] == commitments.destinations_due()

    for one in asked:
        commitments.give_up(one.delivery_id, "no report")

    assert ["not committed: no report"] * 2 == list(commitments.of_job(job_id).values())
    assert [State.COMPLETED] * 2 == [row.state for row in store.ledger.rows(job_id=job_id)]


def test_results_are_redelivered_and_asked_about_anew(store: Books) -> None:
    """To where they went, and to one that had none of them."""
    _, _, job_id = delivered(store)

    assert 2 == store.ledger.redeliver(STUDY)
    assert 2 == store.ledger.redeliver(STUDY, "ris")
    assert 0 == store.ledger.redeliver(UID("1.2.99"))

    assert ["pacs", "pacs", "ris", "ris"] == [row.destination for row in store.ledger.rows(job_id=job_id)]
    assert {State.SCHEDULED} == {row.state for row in store.ledger.rows(job_id=job_id)}


def test_the_latest_answer_of_a_peer_counts(store: Books) -> None:
    """An answer replaces the one before; a refusal takes a class from it."""
    capabilities = Capabilities(store.engine, store.clock)
    assert capabilities.of("pacs") is None

    capabilities.keep("pacs", {"1.1": True, "1.2": True, "1.3": False})
    store.clock.passes(60)
    capabilities.keep("pacs", {"1.1": True, "1.2": True})
    capabilities.refused("pacs", "1.2")
    capabilities.keep("other", {"1.2": True})

    known = capabilities.of("pacs")
    assert known is not None
    assert (frozenset({"1.1", "1.2"}), frozenset({"1.1"}), store.clock()) == (
        known.asked, known.accepted, known.asked_at,
    )  # fmt: skip
