"""What the ledger holds, in numbers: for metrics and readiness. Reads only; no UID leaves here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, Connection, Engine, Select, func, literal, select
from sqlalchemy.exc import SQLAlchemyError

from dicom_node.domain.job import State
from dicom_node.errors import LedgerUnavailable
from dicom_node.store.database import reading
from dicom_node.store.schema import conflicts, deliveries, instances, jobs

WAITING = (State.SCHEDULED, State.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Counts:
    """One look at the ledger. Ages are seconds since the oldest unfinished row was scheduled; 0 when none."""

    instances: int
    conflicts: int
    unreadable: int
    jobs: Mapping[tuple[str, State], int]
    """By (pipeline, state)."""
    deliveries: Mapping[tuple[str, State], int]
    """By (destination, state)."""
    job_age_s: float
    delivery_age_s: Mapping[str, float]
    """By destination."""


def reachable(engine: Engine) -> bool:
    """Ask the database for nothing. Raises LedgerUnavailable when it cannot answer."""
    with _looking(engine) as connection:
        return bool(connection.execute(select(literal(1))).scalar_one() == 1)


def count(engine: Engine, now: datetime) -> Counts:
    """Count everything in one look. Raises LedgerUnavailable when the database cannot answer."""
    with _looking(engine) as connection:
        return Counts(
            instances=_rows(connection, select(func.count()).select_from(instances)),
            conflicts=_rows(connection, select(func.count()).select_from(conflicts)),
            unreadable=_rows(
                connection,
                select(func.count()).select_from(instances).where(instances.c.unreadable.is_not(None)),
            ),
            jobs=_by_state(connection, jobs.c.pipeline, jobs.c.state),
            deliveries=_by_state(connection, deliveries.c.destination, deliveries.c.state),
            job_age_s=_job_age_s(connection, now),
            delivery_age_s=_delivery_age_s(connection, now),
        )


@contextmanager
def _looking(engine: Engine) -> Iterator[Connection]:
    """As `reading`, and a damaged file is no answer either: the driver says so while it connects."""
    try:
        with reading(engine) as connection:
            yield connection
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise LedgerUnavailable from error


def _rows(connection: Connection, query: Select[int]) -> int:
    return connection.execute(query).scalar_one()


def _by_state(connection: Connection, name: Column[str], state: Column[str]) -> dict[tuple[str, State], int]:
    rows = connection.execute(select(name, state, func.count()).group_by(name, state))
    return {(str(what), State(where)): int(number) for what, where, number in rows}


def _job_age_s(connection: Connection, now: datetime) -> float:
    oldest = connection.execute(
        select(func.min(jobs.c.scheduled_at)).where(jobs.c.state.in_(WAITING))
    ).scalar_one()
    return _age_s(oldest, now)


def _delivery_age_s(connection: Connection, now: datetime) -> dict[str, float]:
    rows = connection.execute(
        select(deliveries.c.destination, func.min(deliveries.c.scheduled_at))
        .where(deliveries.c.state.in_(WAITING))
        .group_by(deliveries.c.destination)
    )
    return {str(destination): _age_s(oldest, now) for destination, oldest in rows}


def _age_s(oldest: datetime | None, now: datetime) -> float:
    return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
