"""A node that performs work items, a PACS that has the images, and a worker's part played by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.config import Config, Peer
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.node.build import Node, build
from dicom_node.node.flow import assemble_and_route, read_headers
from dicom_node.node.performer import Performer
from dicom_node.store.catalog import Arrival
from dicom_node.store.database import migrate
from dicom_node.worklist.manager import Manager
from support import mr

TOYS = Path(__file__).parent / "toys"
SR = UID("1.2.840.10008.5.1.4.1.1.88.34")


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime(2026, 3, 1, 8, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def configuration(
    folder: Path, ris: Peer, pacs: Peer | None = None, *, routed: Sequence[str] = ("ris",),
    worklist: Mapping[str, object] | None = None, **deliver: object,
) -> Config:  # fmt: skip
    """`ris` manages work items for the pipeline `answers`; results go to `pacs`."""
    pacs = pacs or Peer(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=1)
    return Config.model_validate(
        {
            "node": {"data_dir": str(folder), "pipelines_dir": str(TOYS)},
            "receive": {"reserve_mb": 0, "settle_s": 0.0, "stable_after_s": 600.0},
            "deliver": {"timeout_s": 5.0, "retry_after_s": 1.0, **deliver},
            "peer": [ris.model_dump(by_alias=True), pacs.model_dump(by_alias=True)],
            "route": [{"pipeline": "answers", "from": list(routed), "to": ["pacs"]}],
            "worklist": [
                {"peer": "ris", "pipeline": "answers", "workitem": "110004^DCM", "poll_s": 1.0,
                 **(worklist or {})}
            ],
        }
    )  # fmt: skip


@dataclass
class Performing:
    """A node on a clock of its own, whose performer is turned by hand."""

    config: Config
    manager: Manager
    clock: Clock | Callable[[], datetime] = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.node: Node = build(self.config, clock=self.clock)
        migrate(self.node.engine)
        self.performer = Performer(self.node, self.config.peers["ris"], self.manager)

    def restart(self) -> None:
        """A process that was killed starts anew: all that is left is the ledger."""
        self.performer = Performer(self.node, self.config.peers["ris"], self.manager)

    def turn(self, after_s: float = 0.0) -> None:
        self.passes(after_s)
        self.performer.turn()

    def passes(self, seconds: float) -> None:
        if isinstance(self.clock, Clock):
            self.clock.passes(seconds)

    def arrive(self, instances: Sequence[Dataset]) -> None:
        """T1, as the front door does it."""
        for ds in instances:
            content = mr.file_bytes(ds)
            arrival = Arrival(
                UID(ds.SOPInstanceUID), UID(ds.SOPClassUID), UID("1.2.840.10008.1.2.1"),
                UID(ds.StudyInstanceUID), UID(ds.SeriesInstanceUID), "pacs",
            )  # fmt: skip
            self.node.catalog.record(arrival, self.node.archive.put(content), len(content))

    def complete(self) -> None:
        """T2, as the ticker does it."""
        while read_headers(self.node):
            pass
        for pending in self.node.catalog.pending():
            quiet_s = (self.clock() - pending.last_received_at).total_seconds()
            assemble_and_route(self.node, pending, quiet_s=quiet_s)

    def work(self) -> int:
        """T3, as a worker does it: an SR that is as small as can be. How many jobs there were."""
        count = 0
        while (claimed := self.node.queue.claim("worker", 30.0)) is not None:
            job, lease = claimed
            content = f"result of job {job.id}".encode()
            made = ResultObject(
                ResultKind.SR, SR, derived_uid("sr", job.id, job.study_uid), derived_uid("series", job.id),
                content,
            )  # fmt: skip
            self.node.queue.finish(
                lease, [(made, self.node.archive.put(content))], {"pacs": [ResultKind.SR]}, {}
            )
            count += 1
        return count

    def deliver(self) -> int:
        """T4, as the deliverer does it. How many objects the PACS took."""
        count = 0
        for delivery in self.node.ledger.claim("pacs", 30.0, 100):
            self.node.ledger.delivered(delivery, 0x0000)
            count += 1
        return count

    def steps(self) -> list[str]:
        return [claim.step.value for claim in reversed(self.node.work_items.latest())]
