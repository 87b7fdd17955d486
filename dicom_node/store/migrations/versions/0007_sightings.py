"""Whether destinations show what they took: sightings, one per delivery that is looked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_time = sa.DateTime(timezone=True)
_STATES = "state IN ('SCHEDULED', 'COMPLETED', 'FAILED')"


def upgrade() -> None:
    op.create_table(
        "sightings",
        sa.Column("delivery_id", _key, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("questions", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("sent_again", sa.Integer, nullable=False, server_default="0"),
        sa.Column("not_before", _time),
        sa.Column("since", _time, nullable=False),
        sa.Column("finished_at", _time),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.ForeignKeyConstraint(["delivery_id"], ["deliveries.id"], name="fk_sightings_delivery_id"),
        sa.PrimaryKeyConstraint("delivery_id", name="pk_sightings"),
        sa.CheckConstraint(_STATES, name=op.f("ck_sightings_state")),
    )
    op.create_index("ix_sightings_ready", "sightings", ["state", "not_before"])
