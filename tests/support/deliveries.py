"""A ledger with results due for delivery, as T3 leaves it, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from sqlalchemy import insert, select

from dicom_node.audit import Trail
from dicom_node.config import Config, Deliver, Peer
from dicom_node.deliver.deliverer import Deliverer
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.identity import UID
from dicom_node.store.archive import Archive
from dicom_node.store.capabilities import Capabilities
from dicom_node.store.commitments import Commitments
from dicom_node.store.database import migrate, open_engine
from dicom_node.store.ledger import Ledger
from dicom_node.store.schema import deliveries, jobs, results
from dicom_node.store.sightings import Sightings

KIND = {"SR": "sr", "SEG": "seg", "OT": "pm", "ANN": "ann", "SM": "wsi"}


class VirtualClock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


class Bench:
    """Archive, ledger and Deliverer on a SQLite file, with peers at the given loopback ports."""

    def __init__(
        self, folder: Path, ports: dict[str, int], *, peer: Mapping[str, Any] | None = None, **settings: float
    ) -> None:
        defaults: dict[str, Any] = {"timeout_s": 5.0, "retry_after_s": 10.0, "retry_at_most_s": 1800.0}
        peers = tuple(
            Peer.model_validate(
                {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": port, **(peer or {})}
            )
            for name, port in ports.items()
        )
        self.config = Config(peer=peers, deliver=Deliver(**defaults | settings))
        self.clock = VirtualClock()
        self.engine = open_engine(f"sqlite:///{folder / 'node.sqlite3'}")
        migrate(self.engine)
        self.archive = Archive(folder)
        self.ledger = Ledger(self.engine, self.clock)
        self.capabilities = Capabilities(self.engine, self.clock)
        self.commitments = Commitments(self.engine, self.clock)
        self.sightings = Sightings(self.engine, self.clock)
        self.trail = Trail(folder / "audit", "DICOMNODE", self.clock)
        self.deliverer = Deliverer(
            self.config,
            self.archive,
            self.ledger,
            self.capabilities,
            self.commitments,
            self.sightings,
            self.trail,
            self.clock,
        )

    def close(self) -> None:
        self.deliverer.stop()
        self.engine.dispose()

    def schedule(self, contents: Sequence[bytes], *destinations: str, auto: bool = False) -> None:
        """What T3 commits: a finished job, its results, one delivery per object and destination."""
        with self.engine.begin() as connection:
            job = connection.execute(insert(jobs).values(self._job())).inserted_primary_key[0]  # type: ignore[index]
            for content in contents:
                row = self._result(job, content)
                result = connection.execute(insert(results).values(row)).inserted_primary_key[0]  # type: ignore[index]
                for destination in destinations:
                    values = {
                        "result_id": result, "destination": destination, "state": "SCHEDULED",
                        "scheduled_at": self.clock.now, "optional": int(auto),
                    }  # fmt: skip
                    connection.execute(insert(deliveries).values(values))

    def last_uids(self, count: int) -> list[str]:
        """SOP Instance UIDs of the results that were scheduled last, in order."""
        asked = select(results.c.sop_instance_uid).order_by(results.c.id.desc()).limit(count)
        with self.engine.connect() as connection:
            return list(connection.execute(asked).scalars())[::-1]

    def rows(self, destination: str | None = None) -> list[Any]:
        """The deliveries rows, in the order they were made."""
        asked = select(deliveries).order_by(deliveries.c.id)
        if destination:
            asked = asked.where(deliveries.c.destination == destination)
        with self.engine.connect() as connection:
            return list(connection.execute(asked))

    def states(self, destination: str | None = None) -> list[str]:
        return [row.state for row in self.rows(destination)]

    def next_attempt(self) -> datetime | None:
        """When the next row is due, if any waits."""
        waits = [row.not_before for row in self.rows() if row.state == "SCHEDULED" and row.not_before]
        return min((when if when.tzinfo else when.replace(tzinfo=UTC) for when in waits), default=None)

    def study(self, number: int) -> UID:
        """Study Instance UID of the job that was scheduled as number `number`."""
        return derived_uid("bench study", number)

    def _job(self) -> dict[str, object]:
        with self.engine.connect() as connection:
            number = len(list(connection.execute(select(jobs.c.id))))
        study = self.study(number)
        return {
            "subject_uid": study, "study_uid": study, "level": "study", "revision": 1, "pipeline": "test",
            "version": "1", "route": 0, "input_key": f"{number:064d}", "plan": {}, "state": "COMPLETED",
            "scheduled_at": self.clock.now,
        }  # fmt: skip

    def _result(self, job: int, content: bytes) -> dict[str, object]:
        ds = dcmread(DicomBytesIO(content))
        return {
            "job_id": job, "kind": KIND[ds.Modality], "sop_class_uid": str(ds.SOPClassUID),
            "sop_instance_uid": str(ds.SOPInstanceUID), "series_uid": str(ds.SeriesInstanceUID),
            "digest": str(self.archive.put(content)), "size_bytes": len(content),
            "created_at": self.clock.now,
        }  # fmt: skip
