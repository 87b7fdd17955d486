"""The row each image waits for, put in by the driver itself: what T1 costs beside the bytes.

SQLAlchemy writes the statement, once; executing it through SQLAlchemy would take ten times as
long as SQLite takes for it. Everything that is not a plain new row is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine

from dicom_node.store.database import driver_translated, insert_statement
from dicom_node.store.schema import instances

COLUMNS = (
    "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_uid", "series_uid", "digest",
    "size_bytes", "peer", "received_at",
)  # fmt: skip


class Arrivals:
    """Inserts rows of `instances`. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        dialect = engine.dialect
        compiled = insert_statement(dialect.name, instances, COLUMNS).compile(dialect=dialect)
        self._sql = str(compiled)
        self._by_position = compiled.positiontup
        self._begin = "BEGIN IMMEDIATE" if dialect.name == "sqlite" else None
        processors = {name: instances.c[name].type.bind_processor(dialect) for name in COLUMNS}
        self._processors = {name: process for name, process in processors.items() if process}

    # Any: what the columns hold
    def insert(self, rows: Sequence[Mapping[str, Any]]) -> list[bool]:
        """One durable transaction; for each row whether it is new, or its SOP Instance UID was known.

        Raises LedgerUnavailable or OutOfStorage; then none of them is in.
        """
        with driver_translated(self._engine):
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                if self._begin and len(rows) > 1:  # psycopg begins by itself; one statement needs no bracket
                    cursor.execute(self._begin)
                new = [self._insert(cursor, row) for row in rows]
                connection.commit()
            except BaseException as error:
                connection.invalidate(error)  # whatever state it is in: closed, and nothing committed
                raise
            connection.close()  # back to the pool
            return new

    def _insert(self, cursor: Any, row: Mapping[str, Any]) -> bool:
        values = dict(row)
        for name, process in self._processors.items():
            values[name] = process(values[name])
        cursor.execute(
            self._sql, [values[name] for name in self._by_position] if self._by_position else values
        )
        return bool(cursor.rowcount)
