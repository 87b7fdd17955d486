"""Jobs, as leases: a worker holds one until it finishes, fails, or is not heard of any longer.

Every claim raises the job's token. What a worker writes counts only under the token it was
given, so one that was thought dead and comes back cannot commit (LeaseLost). `finish` is T3.
Leases run on the clock of the machine that writes them; the nodes of one database keep time (NTP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, and_, or_, select, update

from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import (
    Job,
    Lease,
    Level,
    Predecessor,
    ResultKind,
    ResultObject,
    State,
    StoredResult,
)
from dicom_node.errors import InvalidValue, LeaseLost
from dicom_node.store.database import reading, utc_now, writing
from dicom_node.store.history import stored_text, tell
from dicom_node.store.outbox import store_results
from dicom_node.store.schema import jobs, results

TELL_ATTEMPTS = 3
"""Attempts to make the notice of a failed job: what kept the job from ending may keep the notice too."""


class Queue:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def claim(
        self, worker: str, lease_s: float, *, max_attempts: int | None = None
    ) -> tuple[Job, Lease] | None:
        """SCHEDULED (or lapsed) -> IN PROGRESS: the most urgent, then the oldest job, or None.

        With `max_attempts`, a lapsed job that used them up is left to `expire`.
        """
        now = self._clock()
        # On PostgreSQL the row is locked as it is chosen, and rows locked by others are passed over;
        # SQLite has one writer at a time and ignores FOR UPDATE.
        chosen = (
            select(jobs.c.id)
            .where(_ready(now, max_attempts))
            .order_by(jobs.c.priority.desc(), jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        until = now + timedelta(seconds=lease_s)
        statement = (
            update(jobs)
            .where(jobs.c.id == chosen)
            .values(
                state=State.IN_PROGRESS.value, worker=worker[:128], lease_until=until, not_before=None,
                token=jobs.c.token + 1, attempts=jobs.c.attempts + 1, progress=0.0, step="",
                started_at=now, finished_at=None,
            )
            .returning(*jobs.c)
        )  # fmt: skip
        if not self._any_ready(now, max_attempts):
            return None  # an idle worker looks often; looking takes no lock
        with writing(self._engine) as connection:
            row = connection.execute(statement).first()
            if row is None:
                return None
            tell(connection, now, row.study_uid, "job.started", f"attempt {row.attempts} on {worker}", row.id)
            return job_of(row), Lease(row.id, row.token, worker, until)

    def _any_ready(self, now: datetime, max_attempts: int | None) -> bool:
        ready = select(jobs.c.id).where(_ready(now, max_attempts)).limit(1)
        with reading(self._engine) as connection:
            return connection.execute(ready).first() is not None

    def heartbeat(self, lease: Lease, lease_s: float, progress: float, step: str) -> Lease:
        """Hold on to the job, and say how far it is. Raises LeaseLost when another worker has it."""
        until = self._clock() + timedelta(seconds=lease_s)
        statement = (
            update(jobs)
            .where(_held_by(lease))
            .values(lease_until=until, progress=min(max(progress, 0.0), 1.0), step=step[:64])
        )
        with writing(self._engine) as connection:
            if connection.execute(statement).rowcount != 1:
                raise LeaseLost
        return Lease(lease.job_id, lease.token, lease.worker, until)

    def finish(
        self, lease: Lease, results: Sequence[tuple[ResultObject, Digest]],
        destinations: Mapping[str, Sequence[ResultKind]], seconds: Mapping[str, float], *,
        auto: bool = False,
    ) -> list[StoredResult]:  # fmt: skip
        """T3: IN PROGRESS -> COMPLETED with its results and a delivery per object and destination.

        The files are durable before. `destinations` says which kinds go where; with `auto` one that
        a destination does not accept is withheld where it accepts another (`deliver/selection.py`).
        Results of earlier revisions are superseded, and what of them was not yet sent is not sent
        any more. A result UID that is known stays the file it is. Raises LeaseLost; then nothing has changed.
        """
        with writing(self._engine) as connection:
            now = self._clock()
            # The job first: its token guards all that follows in this transaction.
            job = connection.execute(
                update(jobs)
                .where(_held_by(lease))
                .values(
                    state=State.COMPLETED.value, lease_until=None, progress=1.0, step="", reason="",
                    seconds=dict(seconds), finished_at=now,
                )
                .returning(*jobs.c)
            ).first()  # fmt: skip
            if job is None:
                raise LeaseLost
            stored = store_results(connection, job, results, destinations, now, auto=auto)
            tell(connection, now, job.study_uid, "job.completed", f"{len(stored)} results", job.id)
            return stored

    def unfinished(self) -> frozenset[int]:
        """The jobs that wait or run."""
        live = (State.SCHEDULED.value, State.IN_PROGRESS.value)
        with reading(self._engine) as connection:
            return frozenset(connection.execute(select(jobs.c.id).where(jobs.c.state.in_(live))).scalars())

    def fail(self, lease: Lease, reason: str, *, retry_at: datetime | None, failure: str = "") -> None:
        """IN PROGRESS -> SCHEDULED until `retry_at`, or -> FAILED for good with None. Raises LeaseLost.

        With the word `failure` the destinations are told of a failure for good, see `notices.py`.
        """
        now = self._clock()
        again = retry_at is not None
        statement = (
            update(jobs)
            .where(_held_by(lease))
            .values(
                state=(State.SCHEDULED if again else State.FAILED).value, not_before=retry_at,
                lease_until=None, reason=stored_text(reason), finished_at=None if again else now,
                **({} if again or not failure else {"failure": failure, "untold": TELL_ATTEMPTS}),
            )
            .returning(jobs.c.study_uid)
        )  # fmt: skip
        with writing(self._engine) as connection:
            row = connection.execute(statement).first()
            if row is None:
                raise LeaseLost
            event = "job.will_be_repeated" if again else "job.failed"
            tell(connection, now, row.study_uid, event, reason, lease.job_id)

    def expire(self, max_attempts: int) -> list[int]:
        """IN PROGRESS -> FAILED: lapsed leases whose attempts are used up. Returns the jobs.

        A lapsed job with attempts left needs nothing: the next `claim` takes it.
        """
        now = self._clock()
        reason = f"the worker was not heard of again, in {max_attempts} attempts"
        lapsed = and_(_lapsed(now), jobs.c.attempts >= max_attempts)
        with reading(self._engine) as connection:
            if connection.execute(select(jobs.c.id).where(lapsed).limit(1)).first() is None:
                return []
        with writing(self._engine) as connection:
            rows = connection.execute(
                update(jobs)
                .where(lapsed)
                .values(
                    # the token grows, so that a worker that does come back is fenced off
                    state=State.FAILED.value, reason=reason, lease_until=None, token=jobs.c.token + 1,
                    finished_at=now, failure="stopped", untold=TELL_ATTEMPTS,
                )
                .returning(jobs.c.id, jobs.c.study_uid)
            ).all()  # fmt: skip
            for row in rows:
                tell(connection, now, row.study_uid, "job.failed", reason, row.id)
        return sorted(row.id for row in rows)

    def holders(self) -> set[str]:
        """Names of the workers that hold a lease now."""
        query = select(jobs.c.worker).where(jobs.c.state == State.IN_PROGRESS.value).distinct()
        with reading(self._engine) as connection:
            return {str(name) for name in connection.execute(query).scalars()}

    def release(self, worker: str) -> list[int]:
        """IN PROGRESS -> SCHEDULED at once: this worker is known to be gone. Returns its jobs.

        Its attempt does not count: that a process was killed says nothing about the job.
        """
        now = self._clock()
        with writing(self._engine) as connection:
            rows = connection.execute(
                update(jobs)
                .where(jobs.c.state == State.IN_PROGRESS.value, jobs.c.worker == worker)
                .values(
                    state=State.SCHEDULED.value, lease_until=None, attempts=jobs.c.attempts - 1,
                    token=jobs.c.token + 1,  # should it live after all, it is fenced off
                )
                .returning(jobs.c.id, jobs.c.study_uid)
            ).all()  # fmt: skip
            for row in rows:
                tell(connection, now, row.study_uid, "job.released", f"{worker} is gone", row.id)
        return sorted(row.id for row in rows)

    def retry(self, job_id: int) -> None:
        """FAILED -> SCHEDULED, attempts anew. Raises InvalidValue when the job is not FAILED."""
        now = self._clock()
        statement = (
            update(jobs)
            .where(jobs.c.id == job_id, jobs.c.state == State.FAILED.value)
            .values(
                state=State.SCHEDULED.value, attempts=0, not_before=None, finished_at=None, reason="",
                failure="", untold=0, lease_until=None,
                token=jobs.c.token + 1,  # a notice in the making is fenced off
            )
            .returning(jobs.c.study_uid)
        )  # fmt: skip
        with writing(self._engine) as connection:
            row = connection.execute(statement).first()
            if row is None:
                state = connection.execute(select(jobs.c.state).where(jobs.c.id == job_id)).scalar()
                is_not = f"job {job_id} is {state}, not FAILED" if state else f"there is no job {job_id}"
                raise InvalidValue(is_not)
            tell(connection, now, row.study_uid, "job.retried", "", job_id)

    def jobs(
        self, state: State | None = None, *, study_uid: UID | None = None, limit: int = 100
    ) -> tuple[Job, ...]:
        """Jobs, the newest first."""
        query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(jobs.c.state == state.value)
        if study_uid is not None:
            query = query.where(jobs.c.study_uid == study_uid)
        with reading(self._engine) as connection:
            return tuple(job_of(row) for row in connection.execute(query))

    def job(self, job_id: int) -> Job:
        """Raises InvalidValue when there is none."""
        return job_of(self._row(job_id))

    def plan(self, job_id: int) -> dict[str, object]:
        """What routing decided, as it stood when the job was scheduled."""
        return dict(self._row(job_id).plan)

    def input_key(self, job_id: int) -> str:
        return str(self._row(job_id).input_key)

    def predecessors(self, job: Job) -> tuple[Predecessor, ...]:
        """What the job's results will replace: those of the latest earlier revision made of another input.

        One made of the same input is the same objects, and replaces nothing.
        """
        own = self.input_key(job.id)
        query = (
            select(results, jobs.c.revision)
            .join(jobs, results.c.job_id == jobs.c.id)
            .where(
                jobs.c.subject_uid == job.subject_uid, jobs.c.pipeline == job.pipeline,
                jobs.c.revision < job.revision, jobs.c.input_key != own,
                jobs.c.state == State.COMPLETED.value,
            )
            .order_by(jobs.c.revision.desc(), results.c.id)
        )  # fmt: skip
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        return tuple(
            Predecessor(
                ResultKind(row.kind), UID(row.sop_class_uid), UID(row.sop_instance_uid), UID(row.series_uid)
            )
            for row in rows if row.revision == rows[0].revision
        )  # fmt: skip

    def seconds(self, job_id: int) -> dict[str, float]:
        """Time per step of the attempt that finished; empty before."""
        return dict(self._row(job_id).seconds or {})

    def _row(self, job_id: int) -> Row[Any]:  # Any: columns of `jobs`
        with reading(self._engine) as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
        if row is None:
            raise InvalidValue(f"there is no job {job_id}")
        return row


def _lapsed(now: datetime) -> ColumnElement[bool]:
    return and_(jobs.c.state == State.IN_PROGRESS.value, jobs.c.lease_until < now)


def _ready(now: datetime, max_attempts: int | None) -> ColumnElement[bool]:
    due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
    lapsed = _lapsed(now)
    if max_attempts is not None:
        lapsed = and_(lapsed, jobs.c.attempts < max_attempts)
    return or_(and_(jobs.c.state == State.SCHEDULED.value, due), lapsed)


def _held_by(lease: Lease) -> ColumnElement[bool]:
    return and_(
        jobs.c.id == lease.job_id, jobs.c.token == lease.token, jobs.c.state == State.IN_PROGRESS.value
    )


def job_of(row: Row[Any]) -> Job:  # Any: columns of `jobs`
    return Job(
        id=row.id, subject_uid=UID(row.subject_uid), study_uid=UID(row.study_uid), level=Level(row.level),
        revision=row.revision, pipeline=row.pipeline, version=row.version, route=row.route,
        state=State(row.state), attempts=row.attempts, reason=row.reason, progress=row.progress,
        scheduled_at=row.scheduled_at, started_at=row.started_at, finished_at=row.finished_at,
    )  # fmt: skip
