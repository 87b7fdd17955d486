"""Work items of worklist managers that this node performs (work_items)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_time = sa.DateTime(timezone=True)
_STEPS = (
    "step IN ('CLAIMING', 'INPUTS', 'ASSEMBLING', 'JOBS', 'ENDING', 'COMPLETED', 'CANCELED', 'LOST',"
    " 'FAILED')"
)


def upgrade() -> None:
    op.create_table(
        "work_items",
        sa.Column("id", _key, nullable=False),
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("uid", sa.String(64), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("pipeline", sa.String(64), nullable=False),
        sa.Column("workitem", sa.String(64), nullable=False),
        sa.Column("step", sa.String(12), nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("jobs", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", _time),
        sa.Column("since", _time, nullable=False),
        sa.Column("claimed_at", _time, nullable=False),
        sa.Column("told_at", _time),
        sa.Column("said", sa.Text, nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("outcome", sa.JSON),
        sa.Column("finished_at", _time),
        sa.PrimaryKeyConstraint("id", name="pk_work_items"),
        sa.UniqueConstraint("peer", "uid", name="uq_work_items_peer_uid"),
        sa.UniqueConstraint("transaction_uid", name="uq_work_items_transaction_uid"),
        sa.CheckConstraint(_STEPS, name=op.f("ck_work_items_step")),
        sa.CheckConstraint("step <> 'ENDING' OR outcome IS NOT NULL", name=op.f("ck_work_items_outcome")),
    )
    op.create_index("ix_work_items_open", "work_items", ["peer", "step"])
