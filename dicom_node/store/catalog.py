"""What has been received, and which revision of its study holds it.

`record` is the row of T1, `complete` is T2. A row is never changed by a later arrival: the same
UID with the same bytes is the same instance, with other bytes it is a conflict, kept aside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, Row, and_, bindparam, exists, func, insert, select, union, update

from dicom_node import log
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import Level, State
from dicom_node.domain.series import StoredInstance
from dicom_node.store.archive import Archive
from dicom_node.store.arrivals import Arrivals
from dicom_node.store.database import insert_new, reading, utc_now, writing
from dicom_node.store.history import stored_text, tell
from dicom_node.store.schema import conflicts, instances, jobs, results, revisions
from dicom_node.store.together import Together

ORPHAN_AFTER_S = 3600.0
"""A younger object without a row may be one whose row is just being written."""

OVERTAKEN = "a later revision of the study came before it ran"


class Recorded(StrEnum):
    """What became of an arrival."""

    NEW = "new"
    SAME = "same"
    """Known, same bytes: the sender repeats itself, nothing changes."""
    CONFLICT = "conflict"
    """Known, other bytes: kept aside, the first one stays what it is."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is known of an instance when it has arrived. `peer` is the sender's name in the configuration."""

    sop_instance_uid: UID
    sop_class_uid: UID
    transfer_syntax_uid: UID
    study_uid: UID
    series_uid: UID
    peer: str


@dataclass(frozen=True, slots=True)
class PendingStudy:
    """A study with instances that are in no revision yet."""

    study_uid: UID
    last_received_at: datetime
    new_instances: int
    peers: tuple[str, ...]
    """All that ever sent a part of it, sorted."""
    unread: int
    """How many of the new instances' headers were not read yet."""


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What T2 shall schedule."""

    subject_uid: UID
    level: Level
    pipeline: str
    version: str
    route: int
    input_key: str
    plan: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Completed:
    revision: int
    job_ids: tuple[int, ...]
    """The jobs that were scheduled; one that would only repeat a result is not among them."""


@dataclass(frozen=True, slots=True)
class Conflict:
    sop_instance_uid: UID
    digest: Digest
    size_bytes: int
    peer: str
    received_at: datetime


class Catalog:
    def __init__(self, engine: Engine, archive: Archive, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._archive = archive
        self._clock = clock
        self._arrivals = Arrivals(engine)
        self._rows = Together(self._record)

    def record(self, arrival: Arrival, digest: Digest, size_bytes: int) -> Recorded:
        """T1: the row of an instance whose file is already durable. When it returns, success may be answered.

        Instances that arrive at the same moment share a transaction. Raises LedgerUnavailable or
        OutOfStorage; then the sender must not see success.
        """
        return self._rows.add({
            "sop_instance_uid": arrival.sop_instance_uid, "sop_class_uid": arrival.sop_class_uid,
            "transfer_syntax_uid": arrival.transfer_syntax_uid, "study_uid": arrival.study_uid,
            "series_uid": arrival.series_uid, "digest": digest, "size_bytes": size_bytes,
            "peer": arrival.peer, "received_at": self._clock(),
        })  # fmt: skip

    def _record(self, rows: Sequence[dict[str, Any]]) -> list[Recorded]:  # Any: columns of `instances`
        new = self._arrivals.insert(rows)
        return [Recorded.NEW if is_new else self._known(row) for row, is_new in zip(rows, new, strict=True)]

    def _known(self, values: dict[str, Any]) -> Recorded:  # Any: columns of `instances`
        """What the row that is there says of this arrival; a conflicting one is kept aside."""
        with writing(self._engine) as connection:
            known = connection.execute(
                select(instances.c.digest, instances.c.study_uid).where(
                    instances.c.sop_instance_uid == values["sop_instance_uid"]
                )
            ).one()
            if known.digest == values["digest"]:
                return Recorded.SAME
            aside = {key: values[key] for key in conflicts.c.keys() if key in values}  # noqa: SIM118 - columns
            if insert_new(connection, conflicts, aside, conflicts.c.id).first() is not None:
                what = f"other bytes under the UID of a known instance: {values['size_bytes']}"
                tell(
                    connection, values["received_at"], known.study_uid, "instance.conflict",
                    f"{what}, from {values['peer']}",
                )  # fmt: skip
            return Recorded.CONFLICT

    def is_result(self, sop_instance_uid: UID) -> bool:
        """Whether this node made the object itself (and a PACS now routes it back)."""
        query = select(results.c.id).where(results.c.sop_instance_uid == sop_instance_uid)
        with reading(self._engine) as connection:
            return connection.execute(query).first() is not None

    def unread(self, limit: int) -> list[StoredInstance]:
        """The oldest instances whose header was not looked at yet."""
        query = (
            select(instances)
            .where(_unread())
            .order_by(instances.c.id)
            .limit(limit)
        )  # fmt: skip
        with reading(self._engine) as connection:
            return [self._instance(row) for row in connection.execute(query)]

    def keep_headers(
        self, headers: Mapping[UID, Mapping[str, object]], unreadable: Mapping[UID, str]
    ) -> None:
        """Keep what headers say, by SOP Instance UID, and why others could not be read.

        A header that is not JSON (NaN, infinity) counts as unreadable: it must not stop the others.
        """
        why = dict(unreadable)
        good = {}
        for uid, header in headers.items():
            try:
                json.dumps(header, allow_nan=False)
            except (TypeError, ValueError):
                why[uid] = "a value in the header is not a number"
            else:
                good[uid] = dict(header)
        by_uid = update(instances).where(instances.c.sop_instance_uid == bindparam("uid"))
        with writing(self._engine) as connection:
            if good:
                statement = by_uid.values(header=bindparam("what"))
                connection.execute(statement, [{"uid": uid, "what": header} for uid, header in good.items()])
            if why:
                statement = by_uid.values(unreadable=bindparam("what"))
                connection.execute(
                    statement, [{"uid": uid, "what": stored_text(reason)} for uid, reason in why.items()]
                )

    def pending(self) -> list[PendingStudy]:
        """Studies with instances in no revision, the one that is quiet longest first."""
        new = instances.c.revision.is_(None)
        last = func.max(instances.c.received_at)
        query = (
            select(
                instances.c.study_uid, last.label("last"), func.count().label("new"),
                func.count().filter(_unread()).label("unread"),
            )
            .where(new)
            .group_by(instances.c.study_uid)
            .order_by(last, instances.c.study_uid)
        )  # fmt: skip
        studies = select(instances.c.study_uid).where(new)
        senders = select(instances.c.study_uid, instances.c.peer).where(instances.c.study_uid.in_(studies))
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            peers: dict[str, set[str]] = {}
            for study_uid, peer in connection.execute(senders.distinct()) if rows else ():
                peers.setdefault(study_uid, set()).add(peer)
        return [
            PendingStudy(UID(uid), last_received_at, new_instances, tuple(sorted(peers.get(uid, ()))), unread)
            for uid, last_received_at, new_instances, unread in rows
        ]

    def instances(self, study_uid: UID, revision: int | None = None) -> tuple[StoredInstance, ...]:
        """A study's instances as of `revision`, or all there are, sorted by SOP Instance UID."""
        query = select(instances).where(instances.c.study_uid == study_uid)
        if revision is not None:
            query = query.where(instances.c.revision <= revision)
        with reading(self._engine) as connection:
            found = [self._instance(row) for row in connection.execute(query)]
        return tuple(sorted(found, key=lambda instance: instance.sop_instance_uid))

    def held(self, study_uid: UID) -> frozenset[UID]:
        """The SOP Instance UIDs of a study, without their headers."""
        query = select(instances.c.sop_instance_uid).where(instances.c.study_uid == study_uid)
        with reading(self._engine) as connection:
            return frozenset(map(UID, connection.execute(query).scalars()))

    def unreadable(self, study_uid: UID) -> dict[UID, str]:
        """Why headers of this study could not be read, by SOP Instance UID."""
        query = select(instances.c.sop_instance_uid, instances.c.unreadable).where(
            instances.c.study_uid == study_uid, instances.c.unreadable.is_not(None)
        )
        with reading(self._engine) as connection:
            return {UID(uid): why for uid, why in connection.execute(query)}

    def peers_of(self, study_uid: UID) -> tuple[str, ...]:
        query = select(instances.c.peer).where(instances.c.study_uid == study_uid).distinct()
        with reading(self._engine) as connection:
            return tuple(sorted(connection.execute(query).scalars()))

    def conflicts(self) -> tuple[Conflict, ...]:
        """Objects kept aside, oldest first."""
        with reading(self._engine) as connection:
            return tuple(
                Conflict(
                    UID(row.sop_instance_uid), Digest(row.digest), row.size_bytes, row.peer, row.received_at
                )
                for row in connection.execute(select(conflicts).order_by(conflicts.c.id))
            )

    def orphans(self, *, older_than_s: float = ORPHAN_AFTER_S) -> tuple[Digest, ...]:
        """Objects on disk that no row names: a process was killed between rename and commit.

        Nobody saw success for them. Younger ones are left out: their row may just be written.
        """
        old = [digest for digest in self._archive.digests() if self._archive.age_s(digest) >= older_than_s]
        named = union(*(select(table.c.digest) for table in (instances, conflicts, results)))
        with reading(self._engine) as connection:
            known = set(connection.execute(named).scalars())
        return tuple(digest for digest in old if digest not in known)

    def complete(
        self, study_uid: UID, because: str, planned: Sequence[PlannedJob], *, expected_new: int
    ) -> Completed | None:
        """T2: the study's next revision and its jobs, together or not at all.

        None when the new instances are no longer the `expected_new` that were judged: a late
        image came in between (or another process was faster), and the study is judged again.
        """
        with writing(self._engine) as connection:
            now = self._clock()
            revision = _next_revision(connection, study_uid)
            # This statement decides: what arrives after it stays in no revision and raises the next one.
            taken = connection.execute(
                update(instances)
                .where(instances.c.study_uid == study_uid, instances.c.revision.is_(None))
                .values(revision=revision)
            ).rowcount
            if taken != expected_new or not taken:
                connection.rollback()
                return None
            _insert_revision(connection, study_uid, revision, because, now)
            tell(connection, now, study_uid, "study.complete", f"revision {revision}, {taken} new: {because}")
            job_ids = _schedule_all(connection, study_uid, revision, planned, now)
            return Completed(revision, job_ids)

    def ask_for(
        self, study_uid: UID, planned: Sequence[PlannedJob], *, expected: int
    ) -> tuple[int, ...] | None:
        """T2 at somebody's request: these jobs on the revision there is; those it has already among them.

        None while not all of the study's `expected` instances are in a revision.
        """
        with writing(self._engine) as connection:
            mine = instances.c.study_uid == study_uid
            counted = select(func.count(), func.count(instances.c.revision)).where(mine)
            held, settled = connection.execute(counted).one()
            if not held or held != expected or settled != held:
                return None
            revision = _next_revision(connection, study_uid) - 1
            there = [_at_revision(connection, plan, revision) for plan in planned]
            new = [plan for plan, job_id in zip(planned, there, strict=True) if job_id is None]
            _schedule_all(connection, study_uid, revision, new, self._clock())
            ids = [one or _same_work(connection, plan) for plan, one in zip(planned, there, strict=True)]
            return tuple(one for one in ids if one is not None)

    def _instance(self, row: Row[Any]) -> StoredInstance:  # Any: columns of `instances`
        digest = Digest(row.digest)
        return StoredInstance(
            UID(row.sop_instance_uid), UID(row.sop_class_uid), UID(row.transfer_syntax_uid),
            UID(row.study_uid), UID(row.series_uid), digest, row.size_bytes,
            self._archive.path(digest), row.header or {},
        )  # fmt: skip


def _unread() -> Any:  # Any: SQLAlchemy's expression types
    return and_(instances.c.header.is_(None), instances.c.unreadable.is_(None))


def _next_revision(connection: Connection, study_uid: UID) -> int:
    last = connection.execute(
        select(func.max(revisions.c.revision)).where(revisions.c.study_uid == study_uid)
    ).scalar_one()
    return int(last or 0) + 1


def _insert_revision(
    connection: Connection, study_uid: UID, revision: int, because: str, now: datetime
) -> None:
    held, last = connection.execute(
        select(func.count(), func.max(instances.c.received_at)).where(
            instances.c.study_uid == study_uid, instances.c.revision <= revision
        )
    ).one()
    connection.execute(
        insert(revisions).values(
            study_uid=study_uid, revision=revision, because=stored_text(because), instances=held,
            last_received_at=last, completed_at=now,
        )
    )  # fmt: skip


def _schedule_all(
    connection: Connection, study_uid: UID, revision: int, planned: Sequence[PlannedJob], now: datetime
) -> tuple[int, ...]:
    scheduled: list[int] = []
    for plan in planned:
        known = _same_work(connection, plan)
        _cancel_earlier(connection, plan, now, keep=known)
        if known is not None:
            why = f"{plan.pipeline}: revision {revision} changes nothing of its input"
            tell(connection, now, study_uid, "job.unchanged", why, known)
            continue
        values = {
            "subject_uid": plan.subject_uid, "study_uid": study_uid, "level": Level(plan.level).value,
            "revision": revision, "pipeline": plan.pipeline, "version": plan.version, "route": plan.route,
            "input_key": plan.input_key, "plan": dict(plan.plan), "state": State.SCHEDULED.value,
            "scheduled_at": now,
        }  # fmt: skip
        job_id = insert_new(connection, jobs, values, jobs.c.id).scalar()
        if job_id is None:  # a second route of this pipeline for the same sender
            log.problem("job.two_routes", pipeline=plan.pipeline, route=plan.route)
            why = f"{plan.pipeline}: only its first route was taken"
            tell(connection, now, study_uid, "job.two_routes", why)
            continue
        tell(connection, now, study_uid, "job.scheduled", f"{plan.pipeline} {plan.version}", job_id)
        scheduled.append(job_id)
    return tuple(scheduled)


def _same_work(connection: Connection, plan: PlannedJob) -> int | None:
    """A job that makes, or made, the very result; one whose results were superseded no longer counts."""
    superseded = exists().where(
        results.c.job_id == jobs.c.id, results.c.superseded_at.is_not(None), results.c.notice == 0
    )
    query = (
        select(jobs.c.id)
        .where(
            jobs.c.subject_uid == plan.subject_uid, jobs.c.pipeline == plan.pipeline,
            jobs.c.version == plan.version, jobs.c.input_key == plan.input_key,
            jobs.c.state.not_in((State.FAILED.value, State.CANCELED.value)), ~superseded,
        )
        .order_by(jobs.c.id.desc())
        .limit(1)
    )  # fmt: skip
    found: int | None = connection.execute(query).scalar()
    return found


def _at_revision(connection: Connection, plan: PlannedJob, revision: int) -> int | None:
    """The job of this plan at a revision, whatever became of it: there can only be one."""
    query = select(jobs.c.id).where(
        jobs.c.subject_uid == plan.subject_uid, jobs.c.pipeline == plan.pipeline,
        jobs.c.version == plan.version, jobs.c.revision == revision,
    )  # fmt: skip
    found: int | None = connection.execute(query).scalar()
    return found


def _cancel_earlier(connection: Connection, plan: PlannedJob, now: datetime, *, keep: int | None) -> None:
    """SCHEDULED -> CANCELED: superseded by a later revision before it ran."""
    canceled = connection.execute(
        update(jobs)
        .where(
            jobs.c.subject_uid == plan.subject_uid, jobs.c.pipeline == plan.pipeline,
            jobs.c.state == State.SCHEDULED.value, jobs.c.id != (keep or 0),
        )
        .values(state=State.CANCELED.value, reason=OVERTAKEN, finished_at=now)
        .returning(jobs.c.id, jobs.c.study_uid)
    ).all()  # fmt: skip
    for job_id, study_uid in canceled:
        tell(connection, now, study_uid, "job.canceled", OVERTAKEN, job_id)
