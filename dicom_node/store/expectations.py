"""What peers said they have of a study (C-FIND): one row per series and peer, the latest answer counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Engine, delete, insert, select

from dicom_node.domain.expectation import Expectation
from dicom_node.domain.identity import UID
from dicom_node.store.database import reading, utc_now, writing
from dicom_node.store.history import tell
from dicom_node.store.schema import expectations


class Expectations:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def keep(
        self, study_uid: UID, peer: str, series: Mapping[UID, int], asked_at: datetime, said: str
    ) -> None:
        """Put the peer's answer in the place of its earlier one; `said` goes into the study's history."""
        rows = [
            {
                "study_uid": study_uid,
                "series_uid": uid,
                "peer": peer,
                "instances": count,
                "asked_at": asked_at,
            }
            for uid, count in series.items()
        ]
        mine = (expectations.c.study_uid == study_uid) & (expectations.c.peer == peer)
        with writing(self._engine) as connection:
            connection.execute(delete(expectations).where(mine))
            if rows:
                connection.execute(insert(expectations), rows)
            tell(connection, self._clock(), study_uid, "study.asked", said)

    def of(self, study_uid: UID) -> tuple[Expectation, ...]:
        """By peer and series."""
        query = (
            select(expectations)
            .where(expectations.c.study_uid == study_uid)
            .order_by(expectations.c.peer, expectations.c.series_uid)
        )
        with reading(self._engine) as connection:
            return tuple(
                Expectation(UID(row.study_uid), UID(row.series_uid), row.peer, row.instances, row.asked_at)
                for row in connection.execute(query)
            )
