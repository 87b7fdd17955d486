"""A ledger filled by hand: arrivals, planned jobs and results as small as they can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine

from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import Job, Lease, Level, ResultKind, ResultObject
from dicom_node.store.archive import Archive
from dicom_node.store.catalog import Arrival, Catalog, Completed, PlannedJob, Recorded
from dicom_node.store.database import migrate, open_engine
from dicom_node.store.history import History
from dicom_node.store.ledger import Ledger
from dicom_node.store.notices import Notices
from dicom_node.store.queue import Queue

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
MR = UID("1.2.840.10008.5.1.4.1.1.4")
EXPLICIT_LITTLE = UID("1.2.840.10008.1.2.1")
STUDY = UID("1.2.3.1")


@dataclass
class Clock:
    """Time that passes when told to."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


@dataclass
class Books:
    """The store's parts on one database and one folder."""

    url: str
    folder: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.engine: Engine = open_engine(self.url)
        migrate(self.engine)
        self.archive = Archive(self.folder)
        self.catalog = Catalog(self.engine, self.archive, self.clock)
        self.queue = Queue(self.engine, self.clock)
        self.notices = Notices(self.engine, self.clock)
        self.ledger = Ledger(self.engine, self.clock)
        self.history = History(self.engine, self.clock)

    def arrives(
        self, number: int, content: bytes = b"", *, study: UID = STUDY, peer: str = "pacs"
    ) -> Recorded:
        """T1 of instance `number` of a study."""
        content = content or f"{study} {number}".encode()
        digest = self.archive.put(content)
        arrival = Arrival(instance_uid(number, study), MR, EXPLICIT_LITTLE, study, UID(f"{study}.9"), peer)
        return self.catalog.record(arrival, digest, len(content))

    def completes(self, *planned: PlannedJob, new: int = 1, study: UID = STUDY) -> Completed | None:
        return self.catalog.complete(study, "all slices are there", planned, expected_new=new)

    def scheduled(self, *, key: str = "k", number: int = 0, pipeline: str = "p", study: UID = STUDY) -> int:
        """One more image, one more revision, one job for it."""
        self.arrives(number, study=study)
        completed = self.completes(planned(key, pipeline=pipeline, study=study), study=study)
        assert completed is not None
        return completed.job_ids[0]

    def claimed(self, lease_s: float = 30.0) -> tuple[Job, Lease]:
        taken = self.queue.claim("worker", lease_s)
        assert taken is not None
        return taken

    def result(self, kind: ResultKind = ResultKind.SR, content: bytes = b"") -> tuple[ResultObject, Digest]:
        content = content or kind.value.encode()
        made = ResultObject(kind, MR, derived_uid(kind, content), derived_uid(kind), content)
        return made, self.archive.put(content)

    def events(self, study: UID = STUDY) -> list[str]:
        return [row.event for row in self.history.of(study)]


@contextmanager
def books(url: str, folder: Path) -> Iterator[Books]:
    opened = Books(url, folder)
    try:
        yield opened
    finally:
        opened.engine.dispose()


def planned(
    key: str = "k", *, pipeline: str = "p", version: str = "1", study: UID = STUDY, route: int = 0
) -> PlannedJob:
    return PlannedJob(study, Level.STUDY, pipeline, version, route, key, {"choices": ["T2 axial"]})


def instance_uid(number: int, study: UID = STUDY) -> UID:
    return UID(f"{study}.9.{number}")
