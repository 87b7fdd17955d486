"""What destinations accept: one row per peer and SOP class, the latest answer counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, delete, insert, select, update

from dicom_node.store.database import reading, utc_now, writing
from dicom_node.store.schema import capabilities


@dataclass(frozen=True, slots=True)
class Capability:
    """One peer's answer: SOP classes asked for, those of them it accepts, and when it was asked."""

    asked: frozenset[str]
    accepted: frozenset[str]
    asked_at: datetime


class Capabilities:
    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def keep(self, peer: str, answers: Mapping[str, bool]) -> None:
        """Put the peer's answer, by SOP class, in the place of its earlier one."""
        now = self._clock()
        rows = [
            {"peer": peer, "sop_class_uid": uid, "accepted": int(accepted), "asked_at": now}
            for uid, accepted in answers.items()
        ]
        with writing(self._engine) as connection:
            connection.execute(delete(capabilities).where(capabilities.c.peer == peer))
            if rows:
                connection.execute(insert(capabilities), rows)

    def refused(self, peer: str, sop_class_uid: str) -> None:
        """It refused an object of this class, whatever it answered when it was asked."""
        mine = (capabilities.c.peer == peer) & (capabilities.c.sop_class_uid == sop_class_uid)
        with writing(self._engine) as connection:
            connection.execute(update(capabilities).where(mine).values(accepted=0))

    def of(self, peer: str) -> Capability | None:
        """None where it was never asked."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(capabilities).where(capabilities.c.peer == peer)).all()
        if not rows:
            return None
        return Capability(
            frozenset(row.sop_class_uid for row in rows),
            frozenset(row.sop_class_uid for row in rows if row.accepted),
            min(row.asked_at for row in rows),
        )
