"""Storage commitment: commitments (per delivery) and commitment_requests (per transaction)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_time = sa.DateTime(timezone=True)
_STATES = "state IN ('SCHEDULED', 'COMPLETED', 'FAILED')"


def upgrade() -> None:
    op.create_table(
        "commitments",
        sa.Column("delivery_id", _key, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=False, server_default=""),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", _time),
        sa.Column("since", _time, nullable=False),
        sa.Column("finished_at", _time),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_commitments_delivery_id"),
        sa.PrimaryKeyConstraint("delivery_id", name="pk_commitments"),
        sa.CheckConstraint(_STATES, name=op.f("ck_commitments_state")),
    )
    op.create_index("ix_commitments_ready", "commitments", ["state", "not_before"])
    op.create_table(
        "commitment_requests",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("destination", sa.String(64), nullable=False),
        sa.Column("asked_at", _time, nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", name="pk_commitment_requests"),
    )
