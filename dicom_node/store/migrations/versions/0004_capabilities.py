"""What destinations accept: capabilities; and which deliveries may be withheld: deliveries.optional."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "capabilities",
        sa.Column("peer", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("peer", "sop_class_uid", name="pk_capabilities"),
    )
    op.add_column("deliveries", sa.Column("optional", sa.Integer, nullable=False, server_default="0"))
