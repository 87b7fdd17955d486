"""Jobs as leases: claimed once, fenced, repeated with a pause, finished all or not at all."""

from __future__ import annotations

import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import ResultKind, State
from dicom_node.errors import InvalidValue, LeaseLost
from dicom_node.store.schema import deliveries, jobs, results
from support.ledger import STUDY, Books, books, planned

SR, SEG = ResultKind.SR, ResultKind.SEG


def test_each_job_is_claimed_once_by_several_processes(database: str, tmp_path: Path) -> None:
    """400 jobs, 3 processes: every job once, none left."""
    with books(database, tmp_path / "archive") as store, store.engine.begin() as connection:
        connection.execute(
            sa.insert(jobs),
            [
                {
                    "subject_uid": f"1.2.{number}", "study_uid": "1.2", "level": "study", "revision": 1,
                    "pipeline": "p", "version": "1", "route": 0, "input_key": "k", "plan": {},
                    "state": "SCHEDULED", "scheduled_at": store.clock(), "priority": number % 3,
                }
                for number in range(400)
            ],
        )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        taken = pool.starmap(_claim_all, [(database, tmp_path / "archive", f"w{n}") for n in range(3)])

    claimed = [job for of_one in taken for job in of_one]
    assert 400 == len(claimed) == len(set(claimed))


def _claim_all(url: str, folder: Path, name: str) -> list[int]:
    with books(url, folder) as store:
        taken = []
        while claimed := store.queue.claim(name, 600.0):
            taken.append(claimed[0].id)
        return taken


def test_the_most_urgent_then_the_oldest_comes_first(store: Books) -> None:
    """Priority beats age; equals go in the order they were scheduled."""
    ids = [store.scheduled(study=UID(f"1.2.{number}"), number=number) for number in range(3)]
    with store.engine.begin() as connection:
        connection.execute(sa.update(jobs).where(jobs.c.id == ids[2]).values(priority=5))

    assert [ids[2], ids[0], ids[1]] == [store.claimed()[0].id for _ in range(3)]


def test_a_claimed_job_is_in_progress(store: Books) -> None:
    """SCHEDULED -> IN PROGRESS, attempt 1, and nobody else gets it while the lease holds."""
    job_id = store.scheduled()

    job, lease = store.claimed(lease_s=30)

    assert (State.IN_PROGRESS, 1, store.clock()) == (job.state, job.attempts, job.started_at)
    assert (job_id, 1, store.clock() + timedelta(seconds=30)) == (lease.job_id, lease.token, lease.until)
    assert store.queue.claim("other", 30) is None


def test_a_lapsed_lease_is_claimed_by_another(store: Books) -> None:
    """A worker that was not heard of loses its job; the token grows."""
    store.scheduled()
    _, old = store.claimed(lease_s=30)
    store.clock.passes(31)

    job, new = store.claimed()

    assert (2, old.token + 1) == (job.attempts, new.token)


def test_a_zombie_cannot_finish(store: Books) -> None:
    """A worker with an old token can neither hold, finish nor fail the job; nothing of it remains."""
    job_id = store.scheduled()
    _, old = store.claimed(lease_s=30)
    store.clock.passes(31)
    store.claimed()

    for late in (
        lambda: store.queue.heartbeat(old, 30, 0.5, "infer"),
        lambda: store.queue.finish(old, [store.result()], {"pacs": [SR]}, {}),
        lambda: store.queue.fail(old, "zombie", retry_at=None),
    ):
        with pytest.raises(LeaseLost):
            late()

    assert State.IN_PROGRESS is store.queue.job(job_id).state
    assert () == store.ledger.results(job_id)
    assert () == store.ledger.rows()


def test_a_finished_job_cannot_be_finished_again(store: Books) -> None:
    """The answer to the first commit was lost, the worker asks again: refused, nothing doubled."""
    job_id = store.scheduled()
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result()], {"pacs": [SR]}, {})

    with pytest.raises(LeaseLost):
        store.queue.finish(lease, [store.result()], {"pacs": [SR]}, {})

    assert 1 == len(store.ledger.rows(job_id=job_id))


def test_a_heartbeat_holds_the_lease(store: Books) -> None:
    """As long as the worker is heard of, nobody else gets the job; progress is seen."""
    job_id = store.scheduled()
    _, lease = store.claimed(lease_s=30)
    for _ in range(4):
        store.clock.passes(20)
        lease = store.queue.heartbeat(lease, 30, 0.5, "filter")

        assert store.queue.claim("other", 30) is None

    assert 0.5 == store.queue.job(job_id).progress


def test_a_failed_attempt_waits_before_the_next(store: Books) -> None:
    """IN PROGRESS -> SCHEDULED with a time before which nobody claims it, and the reason."""
    job_id = store.scheduled()
    _, lease = store.claimed()

    store.queue.fail(lease, "out of memory", retry_at=store.clock() + timedelta(seconds=10))

    assert (State.SCHEDULED, "out of memory") == (
        store.queue.job(job_id).state, store.queue.job(job_id).reason
    )  # fmt: skip
    store.clock.passes(9)
    assert store.queue.claim("w", 30) is None
    store.clock.passes(1)
    assert 2 == store.claimed()[0].attempts


def test_a_job_failed_for_good_waits_for_an_operator(store: Books) -> None:
    """FAILED until `retry`, which starts counting anew; other states are not retried."""
    job_id = store.scheduled()
    _, lease = store.claimed()
    store.queue.fail(lease, "the model is damaged", retry_at=None)
    assert (State.FAILED, None) == (store.queue.job(job_id).state, store.queue.claim("w", 30))

    store.queue.retry(job_id)

    assert (State.SCHEDULED, 0) == (store.queue.job(job_id).state, store.queue.job(job_id).attempts)
    assert 1 == store.claimed()[0].attempts
    with pytest.raises(InvalidValue, match="IN PROGRESS, not FAILED"):
        store.queue.retry(job_id)
    with pytest.raises(InvalidValue, match="there is no job 99"):
        store.queue.retry(99)


def test_a_job_that_kills_its_workers_is_failed(store: Books) -> None:
    """Lapsed leases with the attempts used up: FAILED by `expire`, not claimed again, zombie fenced."""
    job_id = store.scheduled()
    for _ in range(3):
        assert [] == store.queue.expire(3)
        taken = store.queue.claim("w", 30, max_attempts=3)
        assert taken is not None
        store.clock.passes(31)

    assert store.queue.claim("w", 30, max_attempts=3) is None
    assert [job_id] == store.queue.expire(3)
    assert State.FAILED is store.queue.job(job_id).state
    assert "not heard of" in store.queue.job(job_id).reason
    with pytest.raises(LeaseLost):
        store.queue.finish(taken[1], [], {}, {})


def test_finishing_commits_results_and_deliveries_together(store: Books) -> None:
    """T3: job COMPLETED, a row per result, a delivery per object and destination that wants its kind."""
    job_id = store.scheduled()
    _, lease = store.claimed()

    stored = store.queue.finish(
        lease, [store.result(SR), store.result(SEG)], {"pacs": [SR, SEG], "ris": [SR]}, {"infer": 1.5}
    )

    assert [SR, SEG] == [result.kind for result in stored]
    assert [("pacs", SR), ("pacs", SEG), ("ris", SR)] == [
        (row.destination, row.result.kind) for row in store.ledger.rows()
    ]
    assert {"infer": 1.5} == store.queue.seconds(job_id)
    assert State.COMPLETED is store.queue.job(job_id).state
    assert tuple(stored) == store.ledger.results(job_id)


def test_finishing_is_all_or_nothing(store: Books) -> None:
    """A failure in the last statement leaves the job IN PROGRESS, without results or deliveries."""
    job_id = store.scheduled()
    _, lease = store.claimed()

    with pytest.raises(sa.exc.SQLAlchemyError):
        store.queue.finish(lease, [store.result()], {None: [SR]}, {})  # type: ignore[dict-item]

    assert State.IN_PROGRESS is store.queue.job(job_id).state
    with store.engine.connect() as connection:
        assert (
            []
            == connection.execute(sa.select(results)).all() + connection.execute(sa.select(deliveries)).all()
        )
    store.queue.finish(lease, [store.result()], {"pacs": [SR]}, {})  # the worker may try again


def test_the_same_result_uid_twice_is_one_result(store: Books) -> None:
    """Two jobs that make the same object share its row; it is delivered to a destination once."""
    first = store.scheduled(pipeline="p")
    second = store.scheduled(pipeline="q", number=2)
    made = store.result()
    stored = []
    for _ in (first, second):
        _, lease = store.claimed()
        stored += store.queue.finish(lease, [made], {"pacs": [SR]}, {})

    assert stored[0] == stored[1]
    assert 1 == len(store.ledger.rows())


def test_a_result_is_never_replaced_by_other_bytes(store: Books) -> None:
    """A result UID stands for one file for ever; a pipeline that does not repeat itself is told on."""
    made, digest = store.result()
    for number, pipeline in enumerate("pq"):
        store.scheduled(pipeline=pipeline, number=number)
        _, lease = store.claimed()
        stored = store.queue.finish(lease, [(made, digest if pipeline == "p" else Digest("f" * 64))], {}, {})

    assert digest == stored[0].digest
    assert "result.not_repeatable" in store.events()


def test_a_later_revision_supersedes_earlier_results(store: Books) -> None:
    """Results of revision 1 are superseded; what was not sent yet is canceled, what was sent stays."""
    first = store.scheduled(key="a", number=1)
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR, b"1")], {"pacs": [SR], "ris": [SR]}, {})
    (sent,) = store.ledger.claim("ris", 30, 1)
    store.ledger.delivered(sent, 0)

    store.scheduled(key="b", number=2)
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR, b"2")], {"pacs": [SR]}, {})

    assert () == store.ledger.results(first, superseded=False)
    assert [("pacs", State.CANCELED), ("ris", State.COMPLETED), ("pacs", State.SCHEDULED)] == [
        (row.destination, row.state) for row in store.ledger.rows()
    ]
    assert "results.superseded" in store.events()


def test_another_pipeline_supersedes_nothing(store: Books) -> None:
    """Each pipeline has its own results of a study."""
    first = store.scheduled(pipeline="p", number=1)
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR, b"1")], {"pacs": [SR]}, {})
    store.scheduled(pipeline="q", number=2)
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result(SR, b"2")], {"pacs": [SR]}, {})

    assert 1 == len(store.ledger.results(first, superseded=False))


def test_a_slow_worker_does_not_supersede_a_later_revision(store: Books) -> None:
    """Revision 1 finishes after revision 2: its results are kept, superseded at once, sent nowhere."""
    first = store.scheduled(key="a", number=1)
    _, slow = store.claimed()
    second = store.scheduled(key="b", number=2)
    _, fast = store.claimed()
    store.queue.finish(fast, [store.result(SR, b"2")], {"pacs": [SR]}, {})

    store.queue.finish(slow, [store.result(SR, b"1")], {"pacs": [SR]}, {})

    assert () == store.ledger.results(first, superseded=False)
    assert 1 == len(store.ledger.results(second, superseded=False))
    assert [second] == [row.result.job_id for row in store.ledger.rows()]


def test_a_result_that_stands_again_is_sent_again(store: Books) -> None:
    """A later revision that comes back to an earlier input: its result is no longer superseded."""
    for number, key in enumerate(("a", "b", "a")):
        store.scheduled(key=key, number=number)
        _, lease = store.claimed()
        store.queue.finish(lease, [store.result(SR, key.encode())], {"pacs": [SR]}, {})

    states = {row.result.id: row.state for row in store.ledger.rows()}
    assert [State.SCHEDULED, State.CANCELED] == [states[key] for key in sorted(states)]


def test_jobs_are_listed_newest_first(store: Books) -> None:
    """By state and by study, at most `limit`."""
    ids = [store.scheduled(study=UID(f"1.2.{number}"), number=number) for number in range(3)]
    store.claimed()

    assert ids[::-1] == [job.id for job in store.queue.jobs()]
    assert ids[:0:-1] == [job.id for job in store.queue.jobs(State.SCHEDULED)]
    assert [ids[1]] == [job.id for job in store.queue.jobs(study_uid=UID("1.2.1"))]
    assert ids[2:] == [job.id for job in store.queue.jobs(limit=1)]
    with pytest.raises(InvalidValue, match="there is no job 99"):
        store.queue.job(99)


def test_every_transition_is_in_the_history(store: Books) -> None:
    """A job's life can be read from the study's history, in order, without anything about a person."""
    job_id = store.scheduled()
    _, lease = store.claimed()
    store.queue.fail(lease, "out of memory", retry_at=store.clock())
    _, lease = store.claimed()
    store.queue.fail(lease, "out of memory", retry_at=None)
    store.queue.retry(job_id)
    _, lease = store.claimed()
    store.queue.finish(lease, [], {}, {})

    assert [
        "study.complete", "job.scheduled", "job.started", "job.will_be_repeated", "job.started",
        "job.failed", "job.retried", "job.started", "job.completed",
    ] == store.events()  # fmt: skip
    assert [None, *[job_id] * 8] == [row.job_id for row in store.history.of(STUDY)]


def test_a_planned_job_needs_its_study(store: Books) -> None:
    """T2 on a study nobody sent does nothing."""
    assert store.completes(planned(study=UID("9.9")), study=UID("9.9")) is None


def test_a_job_knows_what_its_results_will_replace(store: Books) -> None:
    """The results of the latest earlier revision that was made of another input."""
    replaced, made = [], []
    for number, key in enumerate(["one", "two", "three"]):
        store.scheduled(key=key, number=number)
        job, lease = store.claimed()
        replaced.append([old.sop_instance_uid for old in store.queue.predecessors(job)])
        result = store.result(content=key.encode())
        made.append(result[0].sop_instance_uid)
        store.queue.finish(lease, [result], {}, {}, auto=True)
        assert [] == [old for old in store.queue.predecessors(job) if old.sop_instance_uid == made[-1]]

    assert [[], made[:1], made[1:2]] == replaced


def test_a_job_of_another_study_or_pipeline_is_not_replaced(store: Books) -> None:
    store.scheduled(key="one", number=0)
    _, lease = store.claimed()
    store.queue.finish(lease, [store.result()], {}, {}, auto=True)
    store.scheduled(key="two", number=1, pipeline="other")
    store.scheduled(key="two", number=2, study=UID("1.2.77"))

    assert [(), ()] == [store.queue.predecessors(store.claimed()[0]) for _ in range(2)]
