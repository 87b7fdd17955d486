"""A job that failed for good: its destinations get to see that AI did not run, and why, once."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.domain.job import ResultKind, State
from dicom_node.errors import LeaseLost
from dicom_node.node import failure
from support.ledger import Books, planned

SR = ResultKind.SR


def failed_job(store: Books, *, number: int = 0) -> int:
    """One job, scheduled, begun and FAILED for good."""
    job_id: int = store.scheduled(number=number)
    _, lease = store.claimed()
    store.queue.fail(lease, "boom", retry_at=None, failure="error")
    return job_id


def noticed(store: Books, content: bytes = b"notice") -> Any:
    claimed = store.notices.claim("worker", 30.0)
    assert claimed is not None
    return store.notices.finish(claimed[1], [store.result(SR, content)], {"pacs": [SR]})


def test_a_failed_job_is_told_of_once(store: Books) -> None:
    """Its notice and delivery are there together; the job stays FAILED, and no second notice is due."""
    job_id = failed_job(store)

    noticed(store)

    assert ["SCHEDULED"] == [row.state.value for row in store.ledger.rows(job_id=job_id)]
    assert State.FAILED is store.queue.job(job_id).state
    assert store.notices.claim("worker", 30.0) is None


def test_a_job_that_will_be_repeated_is_not_told_of(store: Books) -> None:
    """Only what failed for good is; and not what an older version left FAILED without a word."""
    store.scheduled()
    _, lease = store.claimed()
    store.queue.fail(lease, "boom", retry_at=store.clock.passes(5), failure="error")
    assert store.notices.claim("worker", 30.0) is None

    _, lease = store.claimed()
    store.queue.fail(lease, "boom", retry_at=None)

    assert store.notices.claim("worker", 30.0) is None


def test_a_lapsed_job_is_told_of(store: Books) -> None:
    """Its worker was not heard of in any attempt: the ticker fails it, and the notice is due."""
    store.scheduled()
    store.claimed(lease_s=30)
    store.clock.passes(31)

    store.queue.expire(max_attempts=1)

    claimed = store.notices.claim("worker", 30.0)
    assert claimed is not None
    assert "stopped" == claimed[2]


def test_a_notice_is_made_by_one_and_given_up_after_three(store: Books) -> None:
    """A worker that dies over it leaves it to another when the lease lapses; the third is the last."""
    failed_job(store)

    tokens = []
    for _ in range(3):
        claimed = store.notices.claim("worker", 30.0)
        assert claimed is not None
        tokens.append(claimed[1])
        assert store.notices.claim("other", 30.0) is None
        store.clock.passes(31)

    assert store.notices.claim("worker", 30.0) is None
    with pytest.raises(LeaseLost):
        store.notices.finish(tokens[0], [store.result()], {"pacs": [SR]})


def test_a_retried_job_takes_its_notice_back(store: Books) -> None:
    """Put back to work, nothing of the notice in the making can be committed."""
    job_id = failed_job(store)
    claimed = store.notices.claim("worker", 30.0)
    assert claimed is not None

    store.queue.retry(job_id)

    with pytest.raises(LeaseLost):
        store.notices.finish(claimed[1], [store.result()], {"pacs": [SR]})
    assert () == store.ledger.rows()


def test_a_success_supersedes_the_notice(store: Books) -> None:
    """The notice that still waits is not sent; the result is; the work counts as done for later images."""
    job_id = failed_job(store)
    noticed(store)
    store.queue.retry(job_id)
    _, lease = store.claimed()

    store.queue.finish(lease, [store.result(SR, b"result")], {"pacs": [SR]}, {})

    assert ["CANCELED", "SCHEDULED"] == [row.state.value for row in store.ledger.rows(job_id=job_id)]
    assert 1 == len(store.ledger.results(job_id, superseded=False))
    store.arrives(1)
    completed = store.completes(planned())
    assert completed is not None
    assert () == completed.job_ids


def test_a_notice_leaves_the_results_of_earlier_images(store: Books) -> None:
    """A later revision that failed has nothing to put in their place; its own success has."""
    store.scheduled(key="a")
    _, lease = store.claimed()
    (first,) = store.queue.finish(lease, [store.result(SR, b"first")], {"pacs": [SR]}, {})
    store.scheduled(key="b", number=1)
    _, lease = store.claimed()
    store.queue.fail(lease, "boom", retry_at=None, failure="error")

    noticed(store)

    assert [first] == list(store.ledger.results(first.job_id, superseded=False))
    assert ["SCHEDULED", "SCHEDULED"] == [row.state.value for row in store.ledger.rows()]


def test_every_cause_has_a_sentence_of_its_own() -> None:
    """Fixed words, without numbers or an exception's text, so that a repeat says the same."""
    said = {refused.because for refused in _refusals()}

    assert len(failure._BECAUSE) == len(said)
    assert not any(letter.isdigit() for because in said for letter in because)
    assert {word for _, word in failure._KINDS} | {"error"} == set(failure._BECAUSE)


def _refusals() -> list[Any]:
    return [failure.refusal("p", "1", word).not_performed for word in failure._BECAUSE]
