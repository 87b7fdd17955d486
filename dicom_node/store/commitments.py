"""Storage commitment in the ledger: what destinations were asked to vouch for, and what they said.

    SCHEDULED -> COMPLETED   the destination has taken responsibility for the object
    SCHEDULED                asked again when `not_before` has passed without a report
    SCHEDULED -> FAILED      refused and sent again too often, or not answered for too long

An object that a report refuses is sent again; the new delivery asks anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, insert, or_, select, update

from dicom_node.domain.commitment import Report
from dicom_node.domain.job import State
from dicom_node.store.database import insert_new, reading, utc_now, writing
from dicom_node.store.history import stored_text, tell
from dicom_node.store.schema import commitment_requests, commitments, deliveries, jobs, results

SENT_AGAIN_AT_MOST = 10
"""Times an object is sent again because its destination stored it and would not commit it."""
SEND_AGAIN_AFTER_S = 60.0
"""Pause before that, times the number of refusals."""

_DUE = State.SCHEDULED.value


@dataclass(frozen=True, slots=True)
class Asked:
    """One object of a transaction."""

    delivery_id: int
    sop_class_uid: str
    sop_instance_uid: str
    attempts: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a report changed. `known` is False for a transaction that was not asked of this peer."""

    known: bool
    committed: int = 0
    sent_again: int = 0
    failed: int = 0


class Commitments:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def destinations_due(self) -> list[str]:
        """Names of the destinations that are to be asked about something now."""
        query = (
            select(deliveries.c.destination)
            .join_from(commitments, deliveries, deliveries.c.id == commitments.c.delivery_id)
            .where(_ready(self._clock()))
            .distinct()
        )
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def begin(
        self, destination: str, transaction_uid: str, limit: int, ask_again_at: Callable[[int], datetime]
    ) -> list[Asked]:
        """Put up to `limit` objects into a transaction, before it is sent: its report may come at once.

        `ask_again_at` is given the number of the attempt.
        """
        now = self._clock()
        query = (
            select(
                commitments.c.delivery_id, commitments.c.attempts, commitments.c.since,
                results.c.sop_class_uid, results.c.sop_instance_uid,
            )
            .join_from(commitments, deliveries, deliveries.c.id == commitments.c.delivery_id)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(_ready(now), deliveries.c.destination == destination)
            .order_by(commitments.c.delivery_id)
            .limit(limit)
        )  # fmt: skip
        with writing(self._engine) as connection:
            rows = connection.execute(query).all()
            if not rows:
                return []
            connection.execute(
                insert(commitment_requests).values(
                    transaction_uid=transaction_uid, destination=destination, asked_at=now
                )
            )
            asked = [
                Asked(row.delivery_id, row.sop_class_uid, row.sop_instance_uid, row.attempts + 1, row.since)
                for row in rows
            ]
            for one in asked:
                connection.execute(
                    update(commitments)
                    .where(commitments.c.delivery_id == one.delivery_id)
                    .values(
                        transaction_uid=transaction_uid, attempts=one.attempts,
                        not_before=ask_again_at(one.attempts),
                    )
                )  # fmt: skip
            return asked

    def put_off(self, transaction_uid: str, reason: str, not_before: datetime) -> None:
        """The request could not be made, or was refused: asked again then."""
        mine = and_(commitments.c.transaction_uid == transaction_uid, commitments.c.state == _DUE)
        with writing(self._engine) as connection:
            connection.execute(
                update(commitments).where(mine).values(reason=stored_text(reason), not_before=not_before)
            )

    def give_up(self, delivery_id: int, reason: str) -> None:
        """SCHEDULED -> FAILED: nobody answered for too long. The object was delivered; that stays."""
        mine = and_(commitments.c.delivery_id == delivery_id, commitments.c.state == _DUE)
        with writing(self._engine) as connection:
            if _end(connection, mine, State.FAILED, reason, self._clock()):
                row = connection.execute(_told().where(deliveries.c.id == delivery_id)).one()
                what = f"{row.kind} to {row.destination}: {reason}"
                tell(connection, self._clock(), row.study_uid, "commitment.failed", what, row.job_id)

    def report(self, peer: str, report: Report) -> Outcome:
        """What `peer` says of a transaction, by one report or several, on time, late or repeated.

        What it vouches for counts whichever transaction says so. A refusal counts only of the
        transaction that was asked last, so that a report that comes twice sends nothing twice.
        """
        now, counts = self._clock(), {State.COMPLETED: 0, State.SCHEDULED: 0, State.FAILED: 0}
        known = select(commitment_requests.c.destination).where(
            commitment_requests.c.transaction_uid == report.transaction_uid
        )
        with writing(self._engine) as connection:
            if connection.execute(known).scalar() != peer:
                return Outcome(known=False)
            named = [*report.kept, *report.failed]
            for row in _waiting(connection, peer, named):
                if row.sop_instance_uid in report.kept:
                    _committed(connection, row, now)
                    counts[State.COMPLETED] += 1
                elif row.transaction_uid == report.transaction_uid:
                    counts[_refused(connection, row, report.failed[row.sop_instance_uid], now)] += 1
        return Outcome(True, counts[State.COMPLETED], counts[State.SCHEDULED], counts[State.FAILED])

    def of_job(self, job_id: int) -> Mapping[int, str]:
        """Delivery -> how far its commitment is, in words; for those whose destination was asked."""
        query = (
            select(commitments)
            .join_from(commitments, deliveries, deliveries.c.id == commitments.c.delivery_id)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(results.c.job_id == job_id)
        )
        with reading(self._engine) as connection:
            return {row.delivery_id: _words(row) for row in connection.execute(query)}


def schedule(connection: Connection, delivery_id: int, now: datetime) -> None:
    """The destination is to be asked about what it has just taken; in T4's transaction."""
    values = {"delivery_id": delivery_id, "state": _DUE, "since": now}
    if insert_new(connection, commitments, values, commitments.c.delivery_id).first() is None:
        connection.execute(
            update(commitments)
            .where(commitments.c.delivery_id == delivery_id)
            .values(state=_DUE, attempts=0, not_before=None, since=now, finished_at=None, reason="")
        )


def clear_refusals(connection: Connection, delivery_ids: Sequence[int]) -> None:
    """A person has these sent again: what their destination did not commit before no longer counts."""
    mine = commitments.c.delivery_id.in_(delivery_ids)
    connection.execute(update(commitments).where(mine).values(refusals=0))


def _words(row: Row[Any]) -> str:  # Any: columns of `commitments`
    if row.state == State.COMPLETED.value:
        return f"committed {row.finished_at:%Y-%m-%d %H:%M}"
    asked = "commitment asked for" if row.transaction_uid else "commitment to be asked for"
    words = "not committed" if row.state == State.FAILED.value else asked
    return f"{words}: {row.reason}" if row.reason else words


def _ready(now: datetime) -> ColumnElement[bool]:
    """Of what was delivered; what is on its way again asks when it has arrived."""
    due = or_(commitments.c.not_before.is_(None), commitments.c.not_before <= now)
    return and_(commitments.c.state == _DUE, due, deliveries.c.state == State.COMPLETED.value)


def _told() -> Any:  # Any: columns of three tables
    return (
        select(
            deliveries.c.id, deliveries.c.destination, results.c.kind, results.c.sop_instance_uid,
            results.c.superseded_at, jobs.c.study_uid, results.c.job_id,
        )
        .join_from(deliveries, results, results.c.id == deliveries.c.result_id)
        .join(jobs, jobs.c.id == results.c.job_id)
    )  # fmt: skip


def _waiting(connection: Connection, peer: str, named: list[str]) -> list[Row[Any]]:
    """Objects of the report that wait for one; in parts, as SQLite takes some thousands of values at most."""
    query = (
        _told()
        .add_columns(commitments.c.transaction_uid, commitments.c.refusals)
        .join(commitments, commitments.c.delivery_id == deliveries.c.id)
        .where(
            deliveries.c.destination == peer, deliveries.c.state == State.COMPLETED.value,
            commitments.c.state == _DUE,
        )
    )  # fmt: skip
    found: list[Row[Any]] = []
    for at in range(0, len(named), 1000):
        some = query.where(results.c.sop_instance_uid.in_(named[at : at + 1000]))
        found += connection.execute(some).all()
    return found


def _committed(connection: Connection, row: Row[Any], now: datetime) -> None:
    _end(connection, commitments.c.delivery_id == row.id, State.COMPLETED, "", now)
    tell(
        connection, now, row.study_uid, "commitment.completed", f"{row.kind} at {row.destination}", row.job_id
    )


def _refused(connection: Connection, row: Row[Any], why: str, now: datetime) -> State:
    """Sent again, as often as is sensible; SCHEDULED where it is, else FAILED."""
    refusals, mine = row.refusals + 1, commitments.c.delivery_id == row.id
    reason = f"PACS {row.destination!r} took this object and does not commit it: {why}"
    what = f"{row.kind} to {row.destination}: {reason}"
    if row.superseded_at is not None or refusals > SENT_AGAIN_AT_MOST:
        reason = f"{reason}. Sent again {row.refusals} times: see its log, then `dicom-node redeliver`"
        _end(connection, mine, State.FAILED, reason, now)
        tell(connection, now, row.study_uid, "commitment.failed", what, row.job_id)
        return State.FAILED
    connection.execute(update(commitments).where(mine).values(refusals=refusals, reason=stored_text(reason)))
    again = {
        "state": State.SCHEDULED.value, "finished_at": None, "reason": stored_text(reason),
        "not_before": now + timedelta(seconds=SEND_AGAIN_AFTER_S * refusals), "scheduled_at": now,
    }  # fmt: skip
    connection.execute(update(deliveries).where(deliveries.c.id == row.id).values(**again))
    tell(connection, now, row.study_uid, "commitment.refused", what, row.job_id)
    return State.SCHEDULED


def _end(
    connection: Connection, which: ColumnElement[bool], state: State, reason: str, now: datetime
) -> bool:
    values = {"state": state.value, "reason": stored_text(reason), "finished_at": now}
    return connection.execute(update(commitments).where(which).values(**values)).rowcount > 0
