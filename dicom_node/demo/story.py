"""What the ledger says of one study, at one look: how far it is, and what took how long.

Reads only, in one short transaction, and needs nothing but the database; so a program beside
the node may ask ten times a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any  # Any: JSON columns, and rows of SQLAlchemy

from sqlalchemy import Connection, Engine, func, select

from dicom_node.domain.identity import UID
from dicom_node.domain.job import State
from dicom_node.store.schema import deliveries, instances, jobs, results, revisions


@dataclass(frozen=True, slots=True)
class Revision:
    """T2: the study was complete, and why."""

    number: int
    because: str
    instances: int
    completed_at: datetime


@dataclass(frozen=True, slots=True)
class JobStory:
    """One job, with what routing wrote down for people (`plan`) and the seconds per step."""

    id: int
    state: State
    progress: float
    step: str
    reason: str
    attempts: int
    plan: Mapping[str, Any]
    seconds: Mapping[str, float]
    scheduled_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Sending:
    """One result object on its way to one destination."""

    kind: str
    sop_instance_uid: str
    size_bytes: int
    destination: str
    state: State
    status: int | None
    reason: str
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Story:
    """How far a study is: what is not there yet is None or empty."""

    received: int = 0
    unassigned: int = 0
    """Images that no revision holds yet."""
    first_received_at: datetime | None = None
    last_received_at: datetime | None = None
    revision: Revision | None = None
    job: JobStory | None = None
    sendings: tuple[Sending, ...] = ()

    @property
    def delivered(self) -> int:
        return sum(sending.state is State.COMPLETED for sending in self.sendings)

    @property
    def over(self) -> bool:
        """The newest job has ended, none of its results is still to be sent and no image waits."""
        if self.unassigned or self.job is None or self.job.state not in (State.COMPLETED, State.FAILED):
            return False
        return all(sending.state in (State.COMPLETED, State.FAILED) for sending in self.sendings)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the path: when it began, after the first image, and how long it took, in seconds."""

    name: str
    start_s: float
    seconds: float
    note: str = ""


def read_story(engine: Engine, study_uid: UID) -> Story:
    """The newest revision of a study and the newest job on it."""
    with engine.connect() as connection:
        count, assigned, first, last = connection.execute(
            select(
                func.count(), func.count(instances.c.revision),
                func.min(instances.c.received_at), func.max(instances.c.received_at),
            ).where(instances.c.study_uid == study_uid)
        ).one()  # fmt: skip
        job = _job(connection, study_uid)
        return Story(
            received=int(count),
            unassigned=int(count) - int(assigned),
            first_received_at=_aware(first),
            last_received_at=_aware(last),
            revision=_revision(connection, study_uid),
            job=job,
            sendings=_sendings(connection, job.id) if job else (),
        )


def _revision(connection: Connection, study_uid: UID) -> Revision | None:
    row = connection.execute(
        select(revisions).where(revisions.c.study_uid == study_uid).order_by(revisions.c.revision.desc())
    ).first()
    if row is None:
        return None
    return Revision(row.revision, row.because, row.instances, _time(row.completed_at))


def _job(connection: Connection, study_uid: UID) -> JobStory | None:
    row = connection.execute(
        select(jobs).where(jobs.c.study_uid == study_uid).order_by(jobs.c.id.desc())
    ).first()
    if row is None:
        return None
    return JobStory(
        id=row.id, state=State(row.state), progress=row.progress, step=row.step, reason=row.reason,
        attempts=row.attempts, plan=row.plan or {}, seconds=row.seconds or {},
        scheduled_at=_time(row.scheduled_at), started_at=_aware(row.started_at),
        finished_at=_aware(row.finished_at),
    )  # fmt: skip


def _sendings(connection: Connection, job_id: int) -> tuple[Sending, ...]:
    rows = connection.execute(
        select(deliveries, results.c.kind, results.c.sop_instance_uid, results.c.size_bytes)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(results.c.job_id == job_id)
        .order_by(deliveries.c.id)
    )
    return tuple(
        Sending(
            kind=row.kind, sop_instance_uid=row.sop_instance_uid, size_bytes=row.size_bytes,
            destination=row.destination, state=State(row.state), status=row.status, reason=row.reason,
            finished_at=_aware(row.finished_at),
        )
        for row in rows
    )  # fmt: skip


def _aware(value: datetime | None) -> datetime | None:
    return None if value is None else _time(value)


def _time(value: datetime | str) -> datetime:
    """SQLite keeps UTC without saying so, and gives aggregates back as text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def timeline(story: Story, quiet_s: float) -> tuple[Step, ...]:
    """The stages of a finished study, from its first image to the last object delivered.

    `quiet_s` is the waiting time that the configuration gave this study: it is shown by itself,
    since it is a decision and not work.
    """
    first, last, revision, job = story.first_received_at, story.last_received_at, story.revision, story.job
    if first is None or last is None or revision is None or job is None or job.finished_at is None:
        return ()
    started = job.started_at or job.scheduled_at
    waited = _seconds(last, revision.completed_at)
    quiet = min(quiet_s, waited)
    delivered = [sending.finished_at for sending in story.sendings if sending.finished_at]
    lengths = [
        ("receive + store", _seconds(first, last), f"{story.received} images, durable before the answer"),
        ("quiet time", quiet, "stated wait for a late image"),
        ("assemble + route", waited - quiet, revision.because),
        ("wait for a worker", _seconds(job.scheduled_at, started), "the models are loaded already"),
        *_inside(job, _seconds(started, job.finished_at)),
        ("deliver", _seconds(job.finished_at, max(delivered)) if delivered else 0.0, "C-STORE to the PACS"),
    ]
    steps, at = [], 0.0
    for name, seconds, note in lengths:
        steps.append(Step(name, round(at, 3), round(seconds, 3), note))
        at += seconds
    return tuple(steps)


def _inside(job: JobStory, total_s: float) -> list[tuple[str, float, str]]:
    """The job itself: reading, networks, the rest of inference, encoding, committing."""
    spent = job.seconds
    infer, encode = spent.get("infer", 0.0), spent.get("encode", 0.0)
    read, forward = spent.get("read", 0.0), spent.get("forward", 0.0)
    steps = [
        ("read pixels", read, "decode the chosen series into volumes"),
        ("networks", forward, "forward passes"),
        ("rest of inference", max(0.0, infer - read - forward), "preparation, fusion, heatmaps"),
        ("encode", encode, "SR, SEG, Parametric Map, Secondary Capture"),
        ("store + commit", max(0.0, total_s - infer - encode), "files durable, then results and deliveries"),
    ]
    return [step for step in steps if step[1] > 0.0]  # nothing is read or run for "not performed"


def _seconds(start: datetime, end: datetime) -> float:
    return max(0.0, (end - start).total_seconds())
