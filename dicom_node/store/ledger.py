"""Deliveries: one row per result object and destination, with what the peer said. `delivered` is T4.

As in the queue, a sender holds a lease and writes under its token. A lapsed lease is claimed
anew and the object is sent again: same UID, same bytes, so a PACS that has it keeps one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, case, or_, select, update

from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import Delivery, ResultKind, State, StoredResult
from dicom_node.errors import LeaseLost
from dicom_node.store.commitments import clear_refusals, schedule
from dicom_node.store.database import insert_new, reading, utc_now, writing
from dicom_node.store.history import stored_text, tell
from dicom_node.store.outbox import SUPERSEDED, is_superseded, stored_result
from dicom_node.store.schema import deliveries, jobs, results
from dicom_node.store.sightings import forget_repeats, look_for


class Ledger:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def destinations_due(self) -> list[str]:
        """Names of the destinations that something can be sent to now."""
        query = select(deliveries.c.destination).where(_ready(self._clock())).distinct()
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def claim(self, destination: str, lease_s: float, limit: int) -> list[Delivery]:
        """SCHEDULED (or lapsed) -> IN PROGRESS: the oldest `limit` of a destination, in order."""
        now = self._clock()
        ready = and_(deliveries.c.destination == destination, _ready(now))
        with reading(self._engine) as connection:
            if connection.execute(select(deliveries.c.id).where(ready).limit(1)).first() is None:
                return []  # looking takes no lock
        with writing(self._engine) as connection:
            chosen = connection.execute(
                select(deliveries.c.id)
                .where(ready)
                .order_by(deliveries.c.id)
                .limit(limit)
                .with_for_update(skip_locked=True)
            ).scalars().all()  # fmt: skip
            connection.execute(
                update(deliveries)
                .where(deliveries.c.id.in_(chosen))
                .values(
                    state=State.IN_PROGRESS.value, lease_until=now + timedelta(seconds=lease_s),
                    not_before=None, token=deliveries.c.token + 1, attempts=deliveries.c.attempts + 1,
                )
            )  # fmt: skip
            rows = connection.execute(_joined().where(deliveries.c.id.in_(chosen)).order_by(deliveries.c.id))
            return [_delivery(row) for row in rows]

    def release(self) -> int:
        """IN PROGRESS -> SCHEDULED at once, all: the process that was sending is known to be gone."""
        statement = (
            update(deliveries)
            .where(deliveries.c.state == State.IN_PROGRESS.value)
            .values(state=State.SCHEDULED.value, lease_until=None, token=deliveries.c.token + 1)
        )
        with writing(self._engine) as connection:
            return connection.execute(statement).rowcount

    def renew(self, claimed: Sequence[Delivery], lease_s: float) -> None:
        """Hold on to deliveries that still wait for their turn in a long association. Raises LeaseLost."""
        until = self._clock() + timedelta(seconds=lease_s)
        with writing(self._engine) as connection:
            for delivery in claimed:
                statement = update(deliveries).where(_held_by(delivery)).values(lease_until=until)
                if connection.execute(statement).rowcount != 1:
                    raise LeaseLost("another process sends this object now")

    def delivered(
        self, delivery: Delivery, status: int | None, reason: str = "", *, commitment: bool = False,
        confirm: bool = False,
    ) -> None:  # fmt: skip
        """T4: IN PROGRESS -> COMPLETED with the peer's status. Raises LeaseLost.

        With `commitment` the peer is to be asked to vouch for it (`commitments.py`), with `confirm`
        whether it shows it (`sightings.py`).
        """
        values = {"state": State.COMPLETED.value, "finished_at": self._clock()}
        then = [schedule] * commitment + [look_for] * confirm
        self._end(delivery, "delivery.completed", status, reason, values, then)

    def retry_later(self, delivery: Delivery, status: int | None, reason: str, not_before: datetime) -> None:
        """IN PROGRESS -> SCHEDULED until `not_before`; CANCELED if superseded meanwhile. Raises LeaseLost."""
        now = self._clock()
        values = {
            "state": case((is_superseded(), State.CANCELED.value), else_=State.SCHEDULED.value),
            "finished_at": case((is_superseded(), now), else_=None),
            "not_before": not_before,
        }
        self._end(delivery, "delivery.will_be_repeated", status, reason, values)

    def put_off(
        self, destination: str, reason: str, until: Callable[[int], datetime], *, tried_since: datetime
    ) -> int:
        """What is due at a destination that was just found unreachable waits, as if it had been tried.

        All in one transaction and without a line of history each: thousands may wait. `until` is given
        the number of the attempt. Left out are superseded rows, and those tried since before `tried_since`.
        Returns how many.
        """
        waiting = and_(
            deliveries.c.destination == destination, deliveries.c.state == State.SCHEDULED.value,
            _ready(self._clock()), deliveries.c.scheduled_at >= tried_since, ~is_superseded(),
        )  # fmt: skip
        count = 0
        with writing(self._engine) as connection:
            attempts = (
                connection.execute(select(deliveries.c.attempts).where(waiting).distinct()).scalars().all()
            )
            for made in sorted(attempts, reverse=True):  # else a row would be counted up twice
                count += connection.execute(
                    update(deliveries)
                    .where(waiting, deliveries.c.attempts == made)
                    .values(
                        attempts=made + 1, token=deliveries.c.token + 1, not_before=until(made + 1),
                        status=None, reason=stored_text(reason),
                    )
                ).rowcount  # fmt: skip
        return count

    def hasten(self, destination: str) -> int:
        """The destination answers again: what waits only because it did not is due now. Returns how many."""
        waiting = and_(
            deliveries.c.destination == destination, deliveries.c.state == State.SCHEDULED.value,
            deliveries.c.status.is_(None), deliveries.c.not_before.is_not(None),
        )  # fmt: skip
        with writing(self._engine) as connection:
            return connection.execute(update(deliveries).where(waiting).values(not_before=None)).rowcount

    def failed(self, delivery: Delivery, status: int | None, reason: str) -> None:
        """IN PROGRESS -> FAILED: the peer will not take it, or it was tried long enough. Raises LeaseLost."""
        values = {"state": State.FAILED.value, "finished_at": self._clock()}
        self._end(delivery, "delivery.failed", status, reason, values)

    def withheld(self, delivery: Delivery, status: int | None, reason: str) -> None:
        """IN PROGRESS -> CANCELED: the destination takes other forms of this result. Raises LeaseLost."""
        values = {"state": State.CANCELED.value, "finished_at": self._clock()}
        self._end(delivery, "delivery.withheld", status, reason, values)

    def forms(self, delivery: Delivery) -> list[str]:
        """The SOP classes of what the destination is to get, or got, of the same job."""
        query = (
            select(results.c.sop_class_uid)
            .join_from(deliveries, results, results.c.id == deliveries.c.result_id)
            .where(
                deliveries.c.destination == delivery.destination,
                results.c.job_id == delivery.result.job_id, results.c.superseded_at.is_(None),
            )
            .order_by(deliveries.c.id)
        )  # fmt: skip
        with reading(self._engine) as connection:
            return list(connection.execute(query).scalars())

    def retry(
        self, *, job_id: int | None = None, destination: str | None = None, delivery_id: int | None = None
    ) -> int:
        """FAILED -> SCHEDULED, attempts anew: all, or those chosen. Returns how many."""
        now = self._clock()
        chosen = [deliveries.c.state == State.FAILED.value]
        if job_id is not None:
            chosen.append(deliveries.c.result_id.in_(select(results.c.id).where(results.c.job_id == job_id)))
        if destination is not None:
            chosen.append(deliveries.c.destination == destination)
        if delivery_id is not None:
            chosen.append(deliveries.c.id == delivery_id)
        with writing(self._engine) as connection:
            ids = _scheduled_anew(connection, chosen, now)
            again = _joined().where(deliveries.c.id.in_(ids)).order_by(deliveries.c.id)
            for row in connection.execute(again):
                tell(connection, now, row.study_uid, "delivery.retried", f"to {row.destination}", row.job_id)
            return len(ids)

    def redeliver(self, study_uid: UID, destination: str | None = None) -> int:
        """Whatever became of them -> SCHEDULED: the results that stand for a study, to where they went.

        With a destination only there, also where it got nothing before. The files are those first made.
        What is on its way at this moment is let through. Returns how many deliveries.
        """
        now = self._clock()
        standing = (
            select(results.c.id)
            .join_from(results, jobs, jobs.c.id == results.c.job_id)
            .where(jobs.c.study_uid == study_uid, results.c.superseded_at.is_(None))
        )
        with writing(self._engine) as connection:
            ids = connection.execute(standing.order_by(results.c.id)).scalars().all()
            chosen = [deliveries.c.result_id.in_(ids), deliveries.c.state != State.IN_PROGRESS.value]
            if destination is not None:
                chosen.append(deliveries.c.destination == destination)
                for result_id in ids:
                    new = {
                        "result_id": result_id, "destination": destination, "scheduled_at": now,
                        "state": State.SCHEDULED.value, "optional": 1,
                    }  # fmt: skip
                    insert_new(connection, deliveries, new)
            again = _scheduled_anew(connection, chosen, now)
            clear_refusals(connection, again)
            forget_repeats(connection, again)
            for row in connection.execute(_joined().where(deliveries.c.id.in_(again))):
                what = f"{row.kind} to {row.destination}"
                tell(connection, now, row.study_uid, "delivery.redelivered", what, row.job_id)
            return len(again)

    def rows(
        self, *, study_uid: UID | None = None, job_id: int | None = None, state: State | None = None,
        limit: int = 1000,
    ) -> tuple[Delivery, ...]:  # fmt: skip
        """Deliveries in the order they were scheduled."""
        query = _joined().order_by(deliveries.c.id).limit(limit)
        if study_uid is not None:
            query = query.where(jobs.c.study_uid == study_uid)
        if job_id is not None:
            query = query.where(results.c.job_id == job_id)
        if state is not None:
            query = query.where(deliveries.c.state == state.value)
        with reading(self._engine) as connection:
            return tuple(_delivery(row) for row in connection.execute(query))

    def results(self, job_id: int, *, superseded: bool = True) -> tuple[StoredResult, ...]:
        """A job's results; without the superseded ones when asked so."""
        query = select(results).where(results.c.job_id == job_id).order_by(results.c.id)
        if not superseded:
            query = query.where(results.c.superseded_at.is_(None))
        with reading(self._engine) as connection:
            return tuple(stored_result(row) for row in connection.execute(query))

    def scheduled_at(self, delivery: Delivery) -> datetime:
        """Since when it has been tried; delivering gives up by this."""
        query = select(deliveries.c.scheduled_at).where(deliveries.c.id == delivery.id)
        with reading(self._engine) as connection:
            at: datetime = connection.execute(query).scalar_one()
            return at

    # Any: values of columns
    def _end(
        self, delivery: Delivery, event: str, status: int | None, reason: str, values: dict[str, Any],
        then: Sequence[Callable[[Connection, int, datetime], None]] = (),
    ) -> None:  # fmt: skip
        said = stored_text(reason)
        statement = (
            update(deliveries)
            .where(_held_by(delivery))
            .values(lease_until=None, status=status, reason=said, **values)
            .returning(deliveries.c.state)
        )
        with writing(self._engine) as connection:
            state = connection.execute(statement).scalar()
            if state is None:
                raise LeaseLost("another process sends this object now")
            for also in then:
                also(connection, delivery.id, self._clock())
            row = connection.execute(_joined().where(deliveries.c.id == delivery.id)).one()
            answer = "no answer" if status is None else f"0x{status:04X}"
            what = f"{row.kind} to {row.destination}, attempt {row.attempts}: {answer}"
            if event == "delivery.withheld":
                what = f"{row.kind} to {row.destination}: {said}"
            elif state == State.CANCELED.value:
                event, what = "delivery.canceled", f"{what}; {SUPERSEDED}"
            tell(connection, self._clock(), row.study_uid, event, what, row.job_id)


def _scheduled_anew(
    connection: Connection, chosen: Sequence[ColumnElement[bool]], now: datetime
) -> Sequence[int]:
    """As if they had never been tried; their numbers."""
    return connection.execute(
        update(deliveries)
        .where(*chosen)
        .values(
            state=State.SCHEDULED.value, attempts=0, not_before=None, finished_at=None,
            scheduled_at=now,  # the days until giving up count anew
        )
        .returning(deliveries.c.id)
    ).scalars().all()  # fmt: skip


def _ready(now: datetime) -> ColumnElement[bool]:
    due = or_(deliveries.c.not_before.is_(None), deliveries.c.not_before <= now)
    lapsed = and_(deliveries.c.state == State.IN_PROGRESS.value, deliveries.c.lease_until < now)
    return or_(and_(deliveries.c.state == State.SCHEDULED.value, due), lapsed)


def _held_by(delivery: Delivery) -> ColumnElement[bool]:
    return and_(
        deliveries.c.id == delivery.id,
        deliveries.c.token == delivery.token,
        deliveries.c.state == State.IN_PROGRESS.value,
    )


def _joined() -> Select[Any]:  # Any: columns of three tables
    return (
        select(
            *(column for column in results.c if column.name != "id"),
            results.c.id.label("result_id"), deliveries.c.id.label("delivery_id"), deliveries.c.destination,
            deliveries.c.state, deliveries.c.attempts, deliveries.c.token, deliveries.c.status,
            deliveries.c.reason, deliveries.c.scheduled_at, deliveries.c.optional, deliveries.c.finished_at,
            jobs.c.study_uid,
        )
        .join_from(deliveries, results, results.c.id == deliveries.c.result_id)
        .join(jobs, jobs.c.id == results.c.job_id)
    )  # fmt: skip


def _delivery(row: Row[Any]) -> Delivery:  # Any: columns of `_joined`
    result = StoredResult(
        row.result_id, row.job_id, ResultKind(row.kind), UID(row.sop_class_uid), UID(row.sop_instance_uid),
        Digest(row.digest), row.size_bytes,
    )  # fmt: skip
    return Delivery(
        row.delivery_id, result, row.destination, State(row.state), row.attempts, row.token,
        row.status, row.reason, row.scheduled_at, bool(row.optional), row.finished_at,
    )  # fmt: skip
