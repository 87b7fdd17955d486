"""The first schema: instances, conflicts, revisions, jobs, results, deliveries, history.

Frozen: `schema.py` says what is now, this file what was made by version 0.1.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_uid = sa.String(64)
_time = sa.DateTime(timezone=True)
_json = sa.JSON(none_as_null=True)
_STATES = "state IN ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED', 'FAILED')"


def upgrade() -> None:
    _incoming()
    _work()
    _outgoing()
    op.create_table(
        "history",
        sa.Column("id", _key, nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("study_uid", _uid, nullable=False),
        sa.Column("job_id", _key),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_history"),
    )
    op.create_index("ix_history_study", "history", ["study_uid", "id"])


def _incoming() -> None:
    op.create_table(
        "instances",
        sa.Column("id", _key, nullable=False),
        sa.Column("sop_instance_uid", _uid, nullable=False),
        sa.Column("sop_class_uid", _uid, nullable=False),
        sa.Column("transfer_syntax_uid", _uid, nullable=False),
        sa.Column("study_uid", _uid, nullable=False),
        sa.Column("series_uid", _uid, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("received_at", _time, nullable=False),
        sa.Column("header", _json),
        sa.Column("unreadable", sa.Text),
        sa.Column("revision", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_instances_sop_instance_uid"),
    )
    op.create_index("ix_instances_study", "instances", ["study_uid", "revision"])
    op.create_index("ix_instances_digest", "instances", ["digest"])
    op.create_index(
        "ix_instances_pending", "instances", ["study_uid"],
        sqlite_where=sa.text("revision IS NULL"), postgresql_where=sa.text("revision IS NULL"),
    )  # fmt: skip
    op.create_table(
        "conflicts",
        sa.Column("id", _key, nullable=False),
        sa.Column("sop_instance_uid", _uid, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("received_at", _time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conflicts"),
        sa.UniqueConstraint("sop_instance_uid", "digest", name="uq_conflicts_sop_instance_uid_digest"),
    )


def _work() -> None:
    op.create_table(
        "revisions",
        sa.Column("id", _key, nullable=False),
        sa.Column("study_uid", _uid, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("because", sa.Text, nullable=False),
        sa.Column("instances", sa.Integer, nullable=False),
        sa.Column("last_received_at", _time, nullable=False),
        sa.Column("completed_at", _time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revisions"),
        sa.UniqueConstraint("study_uid", "revision", name="uq_revisions_study_uid_revision"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", _key, nullable=False),
        sa.Column("subject_uid", _uid, nullable=False),
        sa.Column("study_uid", _uid, nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("pipeline", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("route", sa.Integer, nullable=False),
        sa.Column("input_key", sa.String(64), nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("token", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.String(128)),
        sa.Column("lease_until", _time),
        sa.Column("not_before", _time),
        sa.Column("progress", sa.Float, nullable=False, server_default="0"),
        sa.Column("step", sa.String(64), nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("seconds", sa.JSON),
        sa.Column("scheduled_at", _time, nullable=False),
        sa.Column("started_at", _time),
        sa.Column("finished_at", _time),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.CheckConstraint(_STATES, name=op.f("ck_jobs_state")),
        sa.CheckConstraint(
            "state <> 'IN PROGRESS' OR lease_until IS NOT NULL", name=op.f("ck_jobs_lease")
        ),
        sa.UniqueConstraint(
            "subject_uid", "revision", "pipeline", "version",
            name="uq_jobs_subject_uid_revision_pipeline_version",
        ),
    )  # fmt: skip
    op.create_index("ix_jobs_ready", "jobs", ["state", "priority", "id"])
    op.create_index("ix_jobs_study", "jobs", ["study_uid"])


def _outgoing() -> None:
    op.create_table(
        "results",
        sa.Column("id", _key, nullable=False),
        sa.Column("job_id", _key, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("sop_class_uid", _uid, nullable=False),
        sa.Column("sop_instance_uid", _uid, nullable=False),
        sa.Column("series_uid", _uid, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("superseded_at", _time),
        sa.PrimaryKeyConstraint("id", name="pk_results"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_results_job_id"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_results_sop_instance_uid"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", _key, nullable=False),
        sa.Column("result_id", _key, nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("token", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease_until", _time),
        sa.Column("not_before", _time),
        sa.Column("status", sa.Integer),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("scheduled_at", _time, nullable=False),
        sa.Column("finished_at", _time),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.ForeignKeyConstraint(["result_id"], ["results.id"], name="fk_deliveries_result_id"),
        sa.CheckConstraint(_STATES, name=op.f("ck_deliveries_state")),
        sa.UniqueConstraint("result_id", "destination", name="uq_deliveries_result_id_destination"),
    )
    op.create_index("ix_deliveries_ready", "deliveries", ["destination", "state", "id"])
