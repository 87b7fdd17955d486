"""Notices: the destinations get to see that a job failed, and why. Written beside the jobs.

A job that fails for good has `untold` attempts left to make its notice. As in the queue, a
claim raises the token; the notice is committed under it, together with its deliveries.

    FAILED, untold > 0   the notice is due; a worker makes it
    FAILED, untold = 0   it is made, or it could not be made; either way the job stays FAILED
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, or_, select, update

from dicom_node.domain.identity import Digest
from dicom_node.domain.job import Job, Lease, ResultKind, ResultObject, State, StoredResult
from dicom_node.errors import LeaseLost
from dicom_node.store.database import reading, utc_now, writing
from dicom_node.store.history import tell
from dicom_node.store.outbox import store_notice
from dicom_node.store.queue import job_of
from dicom_node.store.schema import jobs


class Notices:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def claim(self, worker: str, lease_s: float) -> tuple[Job, Lease, str] | None:
        """The oldest failed job to be told of, with the word for why it failed; or None."""
        now = self._clock()
        with reading(self._engine) as connection:
            if connection.execute(select(jobs.c.id).where(_due(now)).limit(1)).first() is None:
                return None  # looking takes no lock
        chosen = (
            select(jobs.c.id).where(_due(now)).order_by(jobs.c.id).limit(1)
            .with_for_update(skip_locked=True).scalar_subquery()
        )  # fmt: skip
        until = now + timedelta(seconds=lease_s)
        statement = (
            update(jobs)
            .where(jobs.c.id == chosen)
            .values(untold=jobs.c.untold - 1, token=jobs.c.token + 1, lease_until=until)
            .returning(*jobs.c)
        )
        with writing(self._engine) as connection:
            row = connection.execute(statement).first()
            return row and (job_of(row), Lease(row.id, row.token, worker, until), str(row.failure))

    def finish(
        self, lease: Lease, results: Sequence[tuple[ResultObject, Digest]],
        destinations: Mapping[str, Sequence[ResultKind]], *, auto: bool = False,
    ) -> list[StoredResult]:  # fmt: skip
        """The notice and its deliveries, together; the job stays FAILED. The files are durable before.

        Raises LeaseLost where somebody else made it, or where the job was put back to work meanwhile.
        """
        now = self._clock()
        held = and_(
            jobs.c.id == lease.job_id, jobs.c.token == lease.token, jobs.c.state == State.FAILED.value
        )
        with writing(self._engine) as connection:
            job = connection.execute(
                update(jobs).where(held).values(untold=0, lease_until=None).returning(*jobs.c)
            ).first()
            if job is None:
                raise LeaseLost
            stored = store_notice(connection, job, results, destinations, now, auto=auto)
            tell(connection, now, job.study_uid, "job.failure_told", f"{len(stored)} results", job.id)
            return stored


def _due(now: datetime) -> ColumnElement[bool]:
    free = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < now)
    return and_(jobs.c.state == State.FAILED.value, jobs.c.untold > 0, free)
