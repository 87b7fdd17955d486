"""Alembic's entry: runs on the connection, and inside the transaction, that `migrate` hands over."""

from __future__ import annotations

from alembic import context

from dicom_node.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table only by making it again
)
context.run_migrations()
