"""What destinations show of what they took: each object is looked for there, after it was delivered.

    SCHEDULED -> COMPLETED   the destination shows the object: seen
    SCHEDULED                looked for again at `not_before`: not shown yet, or it could not be asked
    SCHEDULED -> FAILED      sent again too often and still not shown, or it could not be asked for too long

An object that is not shown after some questions is sent again, the same bytes; then it is looked for anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, or_, select, update

from dicom_node.domain.identity import UID
from dicom_node.domain.job import State
from dicom_node.store.database import insert_new, reading, utc_now, writing
from dicom_node.store.history import stored_text, tell
from dicom_node.store.schema import deliveries, jobs, results, sightings

ASK_AFTER_S = 10.0
"""From the delivery to the first question, and to the second; doubled for each further one."""
QUESTIONS = 7
"""Answers without the object, over some 20 minutes, before it is sent again."""
SENT_AGAIN_AT_MOST = 3

_DUE = State.SCHEDULED.value


@dataclass(frozen=True, slots=True)
class Unseen:
    """One object that a destination took and is to be asked about."""

    delivery_id: int
    study_uid: UID
    series_uid: UID
    sop_instance_uid: UID


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the answers of one association changed."""

    seen: int = 0
    waiting: int = 0
    """Not shown yet; asked about again."""
    sent_again: int = 0
    failed: int = 0


class Sightings:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def destinations_due(self) -> list[str]:
        """Names of the destinations that are to be asked about something now."""
        query = (
            select(deliveries.c.destination)
            .join_from(sightings, deliveries, deliveries.c.id == sightings.c.delivery_id)
            .where(_ready(self._clock()))
            .distinct()
        )
        with reading(self._engine) as connection:
            return sorted(connection.execute(query).scalars())

    def due(self, destination: str, limit: int) -> list[Unseen]:
        """What to ask `destination` about now, the oldest first."""
        query = (
            _rows()
            .where(_ready(self._clock()), deliveries.c.destination == destination)
            .order_by(sightings.c.not_before, sightings.c.delivery_id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [
                Unseen(row.id, UID(row.study_uid), UID(row.series_uid), UID(row.sop_instance_uid))
                for row in connection.execute(query)
            ]

    def answered(self, answers: Mapping[int, bool]) -> Outcome:
        """Delivery -> whether its destination shows the object. What is on its way again stays as it is."""
        now, counts = self._clock(), {State.COMPLETED: 0, State.SCHEDULED: 0, State.FAILED: 0}
        sent_again = 0
        with writing(self._engine) as connection:
            found = _rows().where(sightings.c.delivery_id.in_(list(answers)), _waiting())
            for row in connection.execute(found).all():
                if answers[row.id]:
                    state = _seen(connection, row, now)
                elif row.questions + 1 < QUESTIONS:
                    state = _not_yet(connection, row, now)
                else:
                    state = _missing(connection, row, now)
                    sent_again += state is State.SCHEDULED
                counts[state] += 1
        return Outcome(
            counts[State.COMPLETED], counts[State.SCHEDULED] - sent_again, sent_again, counts[State.FAILED]
        )

    def put_off(
        self, destination: str, reason: str, until: Callable[[int], datetime], *, asked_since: datetime
    ) -> int:
        """The destination cannot be asked: all that is due there waits, in one transaction.

        `until` is given the number of the attempt. What was delivered before `asked_since` is FAILED.
        Returns how many those are.
        """
        now, mine = self._clock(), _at(destination)
        said = stored_text(f"cannot be asked: {reason}")
        with writing(self._engine) as connection:
            ready = and_(mine, sightings.c.state == _DUE, sightings.c.not_before <= now)
            ended = connection.execute(
                update(sightings)
                .where(ready, sightings.c.since < asked_since)
                .values(state=State.FAILED.value, finished_at=now, reason=said)
            ).rowcount
            made = connection.execute(select(sightings.c.attempts).where(ready).distinct()).scalars().all()
            for attempts in sorted(made, reverse=True):  # else a row would be counted up twice
                connection.execute(
                    update(sightings)
                    .where(ready, sightings.c.attempts == attempts)
                    .values(attempts=attempts + 1, not_before=until(attempts + 1), reason=said)
                )
        return ended

    def of_job(self, job_id: int) -> Mapping[int, str]:
        """Delivery -> whether its object was seen at the destination, in words; for those that are asked."""
        query = (
            select(sightings)
            .join_from(sightings, deliveries, deliveries.c.id == sightings.c.delivery_id)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(results.c.job_id == job_id)
        )
        with reading(self._engine) as connection:
            return {row.delivery_id: _words(row) for row in connection.execute(query)}


def look_for(connection: Connection, delivery_id: int, now: datetime) -> None:
    """The destination is to be asked whether it shows what it has just taken; in T4's transaction."""
    anew = {
        "state": _DUE, "questions": 0, "attempts": 0, "since": now, "finished_at": None, "reason": "",
        "not_before": now + timedelta(seconds=ASK_AFTER_S),
    }  # fmt: skip
    new = {"delivery_id": delivery_id, **anew}
    if insert_new(connection, sightings, new, sightings.c.delivery_id).first() is None:
        connection.execute(update(sightings).where(sightings.c.delivery_id == delivery_id).values(**anew))


def forget_repeats(connection: Connection, delivery_ids: Sequence[int]) -> None:
    """A person has these sent again: how often the node did so by itself no longer counts."""
    mine = sightings.c.delivery_id.in_(delivery_ids)
    connection.execute(update(sightings).where(mine).values(sent_again=0))


def _words(row: Row[Any]) -> str:  # Any: columns of `sightings`
    if row.state == State.COMPLETED.value:
        return f"seen {row.finished_at:%Y-%m-%d %H:%M}"
    return row.reason or "not seen yet"


def _at(destination: str) -> ColumnElement[bool]:
    delivered = select(deliveries.c.id).where(
        deliveries.c.destination == destination, deliveries.c.state == State.COMPLETED.value
    )
    return sightings.c.delivery_id.in_(delivered)


def _waiting() -> ColumnElement[bool]:
    """Of what was delivered; what is on its way again is looked for when it has arrived."""
    return and_(sightings.c.state == _DUE, deliveries.c.state == State.COMPLETED.value)


def _ready(now: datetime) -> ColumnElement[bool]:
    return and_(_waiting(), or_(sightings.c.not_before.is_(None), sightings.c.not_before <= now))


def _rows() -> Any:  # Any: columns of four tables
    return (
        select(
            deliveries.c.id, deliveries.c.destination, results.c.kind, results.c.sop_instance_uid,
            results.c.series_uid, results.c.superseded_at, results.c.job_id, jobs.c.study_uid,
            sightings.c.questions, sightings.c.sent_again,
        )
        .join_from(sightings, deliveries, deliveries.c.id == sightings.c.delivery_id)
        .join(results, results.c.id == deliveries.c.result_id)
        .join(jobs, jobs.c.id == results.c.job_id)
    )  # fmt: skip


def _seen(connection: Connection, row: Row[Any], now: datetime) -> State:
    _set(connection, row, state=State.COMPLETED.value, finished_at=now, reason="", attempts=0)
    tell(connection, now, row.study_uid, "delivery.seen", f"{row.kind} at {row.destination}", row.job_id)
    return State.COMPLETED


def _not_yet(connection: Connection, row: Row[Any], now: datetime) -> State:
    questions = row.questions + 1
    _set(
        connection, row, questions=questions, attempts=0,
        not_before=now + timedelta(seconds=ASK_AFTER_S * 2.0 ** (questions - 1)),
        reason=f"not seen yet: question {questions} of {QUESTIONS}",
    )  # fmt: skip
    return State.SCHEDULED


def _missing(connection: Connection, row: Row[Any], now: datetime) -> State:
    """Sent again, as often as is sensible; SCHEDULED where it is, else FAILED."""
    reason = f"PACS {row.destination!r} took this object and does not show it (C-FIND, {QUESTIONS} times)"
    what = f"{row.kind} to {row.destination}: {reason}"
    if row.superseded_at is not None or row.sent_again >= SENT_AGAIN_AT_MOST:
        said = (
            f"not seen: {reason}. Sent again {row.sent_again} times: look among its deleted or quarantined"
            " objects, then `dicom-node redeliver`"
        )
        _set(connection, row, state=State.FAILED.value, finished_at=now, reason=stored_text(said))
        tell(connection, now, row.study_uid, "delivery.not_seen", what, row.job_id)
        return State.FAILED
    _set(connection, row, sent_again=row.sent_again + 1, reason=stored_text(f"not seen: {reason}"))
    again = {
        "state": State.SCHEDULED.value, "finished_at": None, "not_before": None, "scheduled_at": now,
        "reason": stored_text(f"{reason}: sent again"),
    }  # fmt: skip
    mine = and_(deliveries.c.id == row.id, deliveries.c.state == State.COMPLETED.value)
    connection.execute(update(deliveries).where(mine).values(**again))
    tell(connection, now, row.study_uid, "delivery.sent_again", what, row.job_id)
    return State.SCHEDULED


# Any: columns of `sightings`, and their values
def _set(connection: Connection, row: Row[Any], **values: Any) -> None:
    connection.execute(update(sightings).where(sightings.c.delivery_id == row.id).values(**values))
