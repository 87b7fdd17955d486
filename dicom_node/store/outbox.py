"""The results part of T3: rows of results, what they supersede, and what is to be sent where.

Only for `Queue.finish` and `Notices.finish`, inside their transactions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, or_, select, update

from dicom_node import log
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import ResultKind, ResultObject, State, StoredResult
from dicom_node.store.database import insert_new
from dicom_node.store.history import tell
from dicom_node.store.schema import deliveries, jobs, results

SUPERSEDED = "a later revision of the study, or a later attempt, has its own results"


def store_results(
    connection: Connection, job: Row[Any],  # Any: columns of `jobs`
    made: Sequence[tuple[ResultObject, Digest]], destinations: Mapping[str, Sequence[ResultKind]],
    now: datetime, *, auto: bool,
) -> list[StoredResult]:  # fmt: skip
    """The results of a job that is done; all that stood for its subject before is superseded."""
    earlier = select(jobs.c.id).where(_same_subject(job), jobs.c.revision < job.revision)
    return _stored(connection, job, made, destinations, now, earlier, notice=False, auto=auto)


def store_notice(
    connection: Connection, job: Row[Any],  # Any: columns of `jobs`
    made: Sequence[tuple[ResultObject, Digest]], destinations: Mapping[str, Sequence[ResultKind]],
    now: datetime, *, auto: bool,
) -> list[StoredResult]:  # fmt: skip
    """What a failed job has to say. Results of an earlier revision stand: there are none to replace them."""
    earlier = select(jobs.c.id).where(
        _same_subject(job), jobs.c.revision < job.revision, jobs.c.state == State.FAILED.value
    )
    return _stored(connection, job, made, destinations, now, earlier, notice=True, auto=auto)


def _stored(
    connection: Connection, job: Row[Any], made: Sequence[tuple[ResultObject, Digest]],
    destinations: Mapping[str, Sequence[ResultKind]], now: datetime, earlier: Select[Any], *, notice: bool,
    auto: bool,
) -> list[StoredResult]:  # fmt: skip
    stale = _later_is_done(connection, job)
    stored = [
        _store(connection, job, result, digest, now, stale=stale, notice=notice) for result, digest in made
    ]
    if stale:  # a slow worker: the later revision was faster, and its results already stand for the study
        tell(connection, now, job.study_uid, "results.superseded", SUPERSEDED, job.id)
        return stored
    _supersede(connection, job, earlier, [result.id for result in stored], now)
    for destination, kinds in destinations.items():
        for result in stored:
            if result.kind in kinds:
                _schedule(connection, result.id, destination, now, optional=int(auto))
    return stored


def _later_is_done(connection: Connection, job: Row[Any]) -> bool:
    later = select(jobs.c.id).where(
        _same_subject(job), jobs.c.revision > job.revision, jobs.c.state == State.COMPLETED.value
    )
    return connection.execute(later.limit(1)).first() is not None


def _same_subject(job: Row[Any]) -> ColumnElement[bool]:
    return and_(jobs.c.subject_uid == job.subject_uid, jobs.c.pipeline == job.pipeline)


def _store(
    connection: Connection, job: Row[Any], result: ResultObject, digest: Digest, now: datetime, *,
    stale: bool, notice: bool,
) -> StoredResult:  # fmt: skip
    superseded_at = now if stale else None
    values = {
        "job_id": job.id, "kind": result.kind.value, "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid, "series_uid": result.series_uid, "digest": digest,
        "size_bytes": len(result.content), "created_at": now, "superseded_at": superseded_at,
        "notice": int(notice),
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


def _supersede(
    connection: Connection, job: Row[Any], earlier: Select[Any], mine: Sequence[int], now: datetime
) -> None:
    """What jobs of `earlier`, and this job before it was repeated, had to say."""
    theirs = or_(results.c.job_id.in_(earlier), results.c.job_id == job.id)
    old = connection.execute(
        update(results)
        .where(theirs, results.c.superseded_at.is_(None), results.c.id.not_in(mine))
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
    tell(
        connection,
        now,
        job.study_uid,
        "results.superseded",
        f"{len(old)} of earlier revisions or attempts",
        job.id,
    )


def _schedule(
    connection: Connection, result_id: int, destination: str, now: datetime, *, optional: int
) -> None:
    values = {
        "result_id": result_id, "destination": destination, "state": State.SCHEDULED.value,
        "scheduled_at": now, "optional": optional,
    }  # fmt: skip
    if insert_new(connection, deliveries, values, deliveries.c.id).first() is None:
        connection.execute(  # CANCELED -> SCHEDULED: its result stands for the study again
            update(deliveries)
            .where(
                deliveries.c.result_id == result_id, deliveries.c.destination == destination,
                deliveries.c.state == State.CANCELED.value,
            )
            .values(
                state=State.SCHEDULED.value, attempts=0, reason="", not_before=None, finished_at=None,
                optional=optional,
            )
        )  # fmt: skip


def is_superseded() -> Any:  # Any: SQLAlchemy's expression types
    """Whether a delivery's result is superseded; a condition on `deliveries`."""
    return exists().where(results.c.id == deliveries.c.result_id, results.c.superseded_at.is_not(None))


def stored_result(row: Row[Any]) -> StoredResult:  # Any: columns of `results`
    return StoredResult(
        row.id, row.job_id, ResultKind(row.kind), UID(row.sop_class_uid), UID(row.sop_instance_uid),
        Digest(row.digest), row.size_bytes,
    )  # fmt: skip
