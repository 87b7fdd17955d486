"""Failed jobs of which the destinations are to be told: jobs.failure, jobs.untold, results.notice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Jobs that had failed before stay untold: nobody wants a wave of old notices after an upgrade.
    op.add_column("jobs", sa.Column("failure", sa.String(16), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("untold", sa.Integer, nullable=False, server_default="0"))
    op.add_column("results", sa.Column("notice", sa.Integer, nullable=False, server_default="0"))
