"""The ledger's tables: SQLite and PostgreSQL alike, SQLAlchemy Core.

Invariants stand here as constraints, each with the accident it prevents. The tables change
only through the migrations in `store/migrations`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import JSON, TypeDecorator

from dicom_node.errors import InvalidValue


class UtcTime(TypeDecorator[datetime]):
    """A moment: aware UTC in Python on both databases. SQLite has no zones; what stands there is UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise InvalidValue("a time without zone was about to be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)  # fmt: skip

_key = BigInteger().with_variant(Integer, "sqlite")  # SQLite autoincrements INTEGER only
_uid = String(64)
_time = UtcTime()
_STATES = "('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED', 'FAILED')"
_STEPS = "('CLAIMING', 'INPUTS', 'ASSEMBLING', 'JOBS', 'ENDING', 'COMPLETED', 'CANCELED', 'LOST', 'FAILED')"

instances = Table(
    "instances", metadata,
    Column("id", _key, primary_key=True),
    Column("sop_instance_uid", _uid, nullable=False),
    Column("sop_class_uid", _uid, nullable=False),
    Column("transfer_syntax_uid", _uid, nullable=False),
    Column("study_uid", _uid, nullable=False),
    Column("series_uid", _uid, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("peer", String(64), nullable=False),  # name of the peer that sent it
    Column("received_at", _time, nullable=False),
    Column("header", JSON(none_as_null=True)),  # extract by dicom/header.py; NULL until it was read
    Column("unreadable", Text),  # why the header could not be read; such an instance joins no stack
    Column("revision", Integer),  # study revision that first held it; NULL: not yet in any
    # the same image sent twice is one image: never two rows, never a second job
    UniqueConstraint("sop_instance_uid"),
)  # fmt: skip
Index("ix_instances_study", instances.c.study_uid, instances.c.revision)
Index("ix_instances_digest", instances.c.digest)
Index(
    "ix_instances_pending", instances.c.study_uid,
    sqlite_where=text("revision IS NULL"), postgresql_where=text("revision IS NULL"),
)  # fmt: skip

conflicts = Table(
    "conflicts", metadata,  # same SOP Instance UID, other bytes: kept aside, never overwriting
    Column("id", _key, primary_key=True),
    Column("sop_instance_uid", _uid, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("peer", String(64), nullable=False),
    Column("received_at", _time, nullable=False),
    UniqueConstraint("sop_instance_uid", "digest"),
)  # fmt: skip

revisions = Table(
    "revisions", metadata,
    Column("id", _key, primary_key=True),
    Column("study_uid", _uid, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("because", Text, nullable=False),  # why it counted as complete
    Column("instances", Integer, nullable=False),
    Column("last_received_at", _time, nullable=False),
    Column("completed_at", _time, nullable=False),
    # two assemblers cannot both make revision n
    UniqueConstraint("study_uid", "revision"),
)  # fmt: skip

jobs = Table(
    "jobs", metadata,
    Column("id", _key, primary_key=True),
    Column("subject_uid", _uid, nullable=False),  # the study, or the series, it is about
    Column("study_uid", _uid, nullable=False),
    Column("level", String(8), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("pipeline", String(64), nullable=False),
    Column("version", String(32), nullable=False),
    Column("route", Integer, nullable=False),  # index of the [[route]] that asked for it
    Column("input_key", String(64), nullable=False),  # sha256 of all that decides the result
    Column("plan", JSON, nullable=False),  # choices with reasons, warnings: for people
    Column("state", String(12), nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("token", Integer, nullable=False, server_default="0"),  # fencing: grows with every claim
    Column("worker", String(128)),
    Column("lease_until", _time),
    Column("not_before", _time),  # backoff: not claimed earlier
    Column("progress", Float, nullable=False, server_default="0"),
    Column("step", String(64), nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("failure", String(16), nullable=False, server_default=""),  # why it failed, as one stable word
    Column("untold", Integer, nullable=False, server_default="0"),  # attempts left to tell the destinations
    Column("seconds", JSON),  # time per step of the attempt that finished
    Column("scheduled_at", _time, nullable=False),
    Column("started_at", _time),
    Column("finished_at", _time),
    CheckConstraint(f"state IN {_STATES}", name="state"),
    CheckConstraint("state <> 'IN PROGRESS' OR lease_until IS NOT NULL", name="lease"),
    # a repeat of T2 cannot schedule the same work twice
    UniqueConstraint("subject_uid", "revision", "pipeline", "version"),
)  # fmt: skip
Index("ix_jobs_ready", jobs.c.state, jobs.c.priority, jobs.c.id)
Index("ix_jobs_study", jobs.c.study_uid)

results = Table(
    "results", metadata,
    Column("id", _key, primary_key=True),
    Column("job_id", _key, ForeignKey("jobs.id"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("sop_class_uid", _uid, nullable=False),
    Column("sop_instance_uid", _uid, nullable=False),
    Column("series_uid", _uid, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", _time, nullable=False),
    Column("superseded_at", _time),  # a later revision of the study has its own results
    Column("notice", Integer, nullable=False, server_default="0"),  # 1: says that the job failed, and why
    # a result UID stands for one file for ever: a repeated job cannot contradict the PACS
    UniqueConstraint("sop_instance_uid"),
)  # fmt: skip

deliveries = Table(
    "deliveries", metadata,
    Column("id", _key, primary_key=True),
    Column("result_id", _key, ForeignKey("results.id"), nullable=False),
    Column("destination", String(64), nullable=False),  # name of the peer
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("token", Integer, nullable=False, server_default="0"),
    Column("lease_until", _time),
    Column("not_before", _time),
    Column("status", Integer),  # the peer's DIMSE status of the last attempt
    Column("reason", Text, nullable=False, server_default=""),
    Column("scheduled_at", _time, nullable=False),
    Column("finished_at", _time),
    # 1: outputs = "auto"; withheld where the destination accepts another form of the result, not this one
    Column("optional", Integer, nullable=False, server_default="0"),
    CheckConstraint(f"state IN {_STATES}", name="state"),
    # one row per object and destination: nothing is sent by two ledgers
    UniqueConstraint("result_id", "destination"),
)  # fmt: skip
Index("ix_deliveries_ready", deliveries.c.destination, deliveries.c.state, deliveries.c.id)

expectations = Table(
    "expectations", metadata,  # what a peer said it has (C-FIND), of what this node takes
    # one answer per series and peer: the latest; two would have to be weighed against each other
    Column("study_uid", _uid, primary_key=True),
    Column("series_uid", _uid, primary_key=True),
    Column("peer", String(64), primary_key=True),
    Column("instances", Integer, nullable=False),
    Column("asked_at", _time, nullable=False),  # when the question went out, not when the answer came
)  # fmt: skip

capabilities = Table(
    "capabilities", metadata,  # what a destination accepts, as it said when it was asked
    Column("peer", String(64), primary_key=True),
    Column("sop_class_uid", _uid, primary_key=True),
    Column("accepted", Integer, nullable=False),  # 0 or 1
    Column("asked_at", _time, nullable=False),
)  # fmt: skip

commitments = Table(
    "commitments", metadata,  # deliveries that their destination is asked to vouch for
    Column("delivery_id", _key, ForeignKey("deliveries.id"), primary_key=True, autoincrement=False),
    Column("state", String(12), nullable=False),
    Column("transaction_uid", _uid, nullable=False, server_default=""),  # the last request it stood in
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("refusals", Integer, nullable=False, server_default="0"),  # reports that it was not committed
    Column("not_before", _time),
    Column("since", _time, nullable=False),
    Column("finished_at", _time),
    Column("reason", Text, nullable=False, server_default=""),
    CheckConstraint("state IN ('SCHEDULED', 'COMPLETED', 'FAILED')", name="state"),
)  # fmt: skip
Index("ix_commitments_ready", commitments.c.state, commitments.c.not_before)

commitment_requests = Table(
    "commitment_requests", metadata,  # transactions this node began; a report on another one is a stranger's
    Column("transaction_uid", _uid, primary_key=True),
    Column("destination", String(64), nullable=False),
    Column("asked_at", _time, nullable=False),
)  # fmt: skip

work_items = Table(
    "work_items", metadata,  # work items of worklist managers that this node claimed, or was about to
    Column("id", _key, primary_key=True),
    Column("peer", String(64), nullable=False),  # name of the peer that manages the worklist
    Column("uid", _uid, nullable=False),  # SOP Instance UID of the Unified Procedure Step
    Column("transaction_uid", _uid, nullable=False),  # the lock: here before the manager hears of it
    Column("pipeline", String(64), nullable=False),
    Column("workitem", String(64), nullable=False),
    Column("step", String(12), nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("jobs", JSON, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("not_before", _time),
    Column("since", _time, nullable=False),
    Column("claimed_at", _time, nullable=False),
    Column("told_at", _time),
    Column("said", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("outcome", JSON(none_as_null=True)),  # from ENDING on: what the manager is told, word for word
    Column("finished_at", _time),
    CheckConstraint(f"step IN {_STEPS}", name="step"),
    # what became of it is decided once: a repeat tells the manager the same
    CheckConstraint("step <> 'ENDING' OR outcome IS NOT NULL", name="outcome"),
    # an item is claimed under one Transaction UID for ever: never two claims of one item
    UniqueConstraint("peer", "uid"),
    UniqueConstraint("transaction_uid"),
)  # fmt: skip
Index("ix_work_items_open", work_items.c.peer, work_items.c.step)

sightings = Table(
    "sightings", metadata,  # deliveries that are looked for at their destination (C-FIND, QIDO-RS)
    Column("delivery_id", _key, ForeignKey("deliveries.id"), primary_key=True, autoincrement=False),
    Column("state", String(12), nullable=False),
    Column("questions", Integer, nullable=False, server_default="0"),  # without the object, since sent
    Column("attempts", Integer, nullable=False, server_default="0"),  # in a row that it could not be asked
    Column("sent_again", Integer, nullable=False, server_default="0"),
    Column("not_before", _time),
    Column("since", _time, nullable=False),
    Column("finished_at", _time),  # seen then, or given up
    Column("reason", Text, nullable=False, server_default=""),
    CheckConstraint("state IN ('SCHEDULED', 'COMPLETED', 'FAILED')", name="state"),
)  # fmt: skip
Index("ix_sightings_ready", sightings.c.state, sightings.c.not_before)

history = Table(
    "history", metadata,  # what happened to a study and why; rows are only ever added
    Column("id", _key, primary_key=True),
    Column("at", _time, nullable=False),
    Column("study_uid", _uid, nullable=False),
    Column("job_id", _key),
    Column("event", String(64), nullable=False),  # dotted name, as in the log
    Column("detail", Text, nullable=False, server_default=""),
)  # fmt: skip
Index("ix_history_study", history.c.study_uid, history.c.id)
