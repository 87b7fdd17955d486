"""The results part of T3: rows of results, what they supersede, and what is to be sent where.

Only for `Queue.finish`, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, exists, select, update

from dicom_node import log
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import ResultKind, ResultObject, State, StoredResult
from dicom_node.store.database import insert_new
from dicom_node.store.history import tell
from dicom_node.store.schema import deliveries, jobs, results

SUPERSEDED = "a later revision of the study has its own results"


def store_results(
    connection: Connection, job: Row[Any],  # Any: columns of `jobs`
    made: Sequence[tuple[ResultObject, Digest]], destinations: Mapping[str, Sequence[ResultKind]],
    now: datetime,
) -> list[StoredResult]:  # fmt: skip
    stale = _later_is_done(connection, job)
    stored = [_store(connection, job, result, digest, now, stale=stale) for result, digest in made]
    if stale:  # a slow worker: the later revision was faster, and its results already stand for the study
        tell(connection, now, job.study_uid, "results.superseded", SUPERSEDED, job.id)
        return stored
    _supersede_earlier(connection, job, [result.id for result in stored], now)
    for destination, kinds in destinations.items():
        for result in stored:
            if result.kind in kinds:
                _schedule(connection, result.id, destination, now)
    return stored


def _later_is_done(connection: Connection, job: Row[Any]) -> bool:
    later = select(jobs.c.id).where(
        jobs.c.subject_uid == job.subject_uid, jobs.c.pipeline == job.pipeline,
        jobs.c.revision > job.revision, jobs.c.state == State.COMPLETED.value,
    )  # fmt: skip
    return connection.execute(later.limit(1)).first() is not None


def _store(
    connection: Connection, job: Row[Any], result: ResultObject, digest: Digest, now: datetime, *, stale: bool
) -> StoredResult:  # fmt: skip
    superseded_at = now if stale else None
    values = {
        "job_id": job.id, "kind": result.kind.value, "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid, "series_uid": result.series_uid, "digest": digest,
        "size_bytes": len(result.content), "created_at": now, "superseded_at": superseded_at,
    }  # fmt: skip
    if insert_new(connection, results, values, results.c.id).first() is None and not stale:
        connection.execute(  # made before, for the same input: it stands for the study again
            update(results)
            .where(results.c.sop_instance_uid == result.sop_instance_uid)
            .values(superseded_at=None)
        )
    known = select(results).where(results.c.sop_instance_uid == result.sop_instance_uid)
    row = connection.execute(known).one()
    if row.digest != digest:  # what a PACS may hold already is never contradicted: the first one stays
        log.problem("result.not_repeatable", job=job.id, kind=result.kind.value)
        why = f"{result.kind.value}: the first is kept"
        tell(connection, now, job.study_uid, "result.not_repeatable", why, job.id)
    return stored_result(row)


def _supersede_earlier(connection: Connection, job: Row[Any], mine: Sequence[int], now: datetime) -> None:
    earlier = select(jobs.c.id).where(
        jobs.c.subject_uid == job.subject_uid, jobs.c.pipeline == job.pipeline, jobs.c.revision < job.revision
    )
    old = connection.execute(
        update(results)
        .where(results.c.job_id.in_(earlier), results.c.superseded_at.is_(None), results.c.id.not_in(mine))
        .values(superseded_at=now)
        .returning(results.c.id)
    ).scalars().all()  # fmt: skip
    if not old:
        return
    # SCHEDULED -> CANCELED; one that is on its way right now is let through
    connection.execute(
        update(deliveries)
        .where(deliveries.c.result_id.in_(old), deliveries.c.state == State.SCHEDULED.value)
        .values(state=State.CANCELED.value, reason=SUPERSEDED, finished_at=now)
    )
    tell(connection, now, job.study_uid, "results.superseded", f"{len(old)} of earlier revisions", job.id)


def _schedule(connection: Connection, result_id: int, destination: str, now: datetime) -> None:
    values = {
        "result_id": result_id, "destination": destination, "state": State.SCHEDULED.value,
        "scheduled_at": now,
    }  # fmt: skip
    if insert_new(connection, deliveries, values, deliveries.c.id).first() is None:
        connection.execute(  # CANCELED -> SCHEDULED: its result stands for the study again
            update(deliveries)
            .where(
                deliveries.c.result_id == result_id, deliveries.c.destination == destination,
                deliveries.c.state == State.CANCELED.value,
            )
            .values(state=State.SCHEDULED.value, attempts=0, reason="", not_before=None, finished_at=None)
        )  # fmt: skip


def is_superseded() -> Any:  # Any: SQLAlchemy's expression types
    """Whether a delivery's result is superseded; a condition on `deliveries`."""
    return exists().where(results.c.id == deliveries.c.result_id, results.c.superseded_at.is_not(None))


def stored_result(row: Row[Any]) -> StoredResult:  # Any: columns of `results`
    return StoredResult(
        row.id, row.job_id, ResultKind(row.kind), UID(row.sop_class_uid), UID(row.sop_instance_uid),
        Digest(row.digest), row.size_bytes,
    )  # fmt: skip
