"""What happened to a study and why: rows are only ever added, in the transaction they tell of.

`detail` holds ids, counts and the node's own sentences; never free text from a data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select

from dicom_node.domain.identity import UID
from dicom_node.store.database import reading, utc_now, writing
from dicom_node.store.schema import history


@dataclass(frozen=True, slots=True)
class HistoryRow:
    at: datetime
    study_uid: UID
    job_id: int | None
    event: str
    """Dotted name, as in the log."""
    detail: str


class History:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def of(self, study_uid: UID) -> tuple[HistoryRow, ...]:
        """All of a study's history, oldest first."""
        query = select(history).where(history.c.study_uid == study_uid).order_by(history.c.id)
        with reading(self._engine) as connection:
            return tuple(
                HistoryRow(row.at, UID(row.study_uid), row.job_id, row.event, row.detail)
                for row in connection.execute(query)
            )

    def add(self, study_uid: UID, event: str, detail: str = "", job_id: int | None = None) -> None:
        with writing(self._engine) as connection:
            tell(connection, self._clock(), study_uid, event, detail, job_id)


def tell(
    connection: Connection, at: datetime, study_uid: str, event: str, detail: str = "",
    job_id: int | None = None,
) -> None:  # fmt: skip
    """Add one row inside the transaction of what it tells."""
    row = {"at": at, "study_uid": study_uid, "job_id": job_id, "event": event, "detail": stored_text(detail)}
    connection.execute(insert(history).values(row))


def stored_text(sentence: str) -> str:
    """PostgreSQL takes no NUL in text; a sentence that quotes a bad header may hold one."""
    return sentence.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
