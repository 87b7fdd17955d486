"""What lies on the disk before each workload: made by the node itself."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crash.area import Content, Link
from crash.gate import Gate
from crash.material import MR_IMAGE, image
from crash.node import configured, opened, receiver, started
from crash.wire import EXPLICIT_LITTLE, Sender
from crash.workloads import assemble, commit_results
from dicom_node.config import Config
from dicom_node.domain.identity import UID
from dicom_node.node.build import Node
from dicom_node.store.catalog import Arrival
from dicom_node.store.database import migrate
from support import mr

SLICES = 4


@dataclass(frozen=True)
class Bases:
    """A node that has just been set up, and one before T2, T3 and T4 of a small study."""

    empty: Content
    received: Content
    assembled: Content
    finished: Content


def bases(gate: Gate, *, wal: bool) -> Bases:
    """With `wal` the database was not closed: its last transactions stand in the -wal."""
    empty = gate.base({}, _doing(lambda node: migrate(node.engine), wal=wal))
    received = gate.base(empty, _doing(_receive, wal=wal))
    assembled = gate.base(received, _doing(assemble, wal=wal))
    return Bases(empty, received, assembled, gate.base(assembled, _doing(commit_results, wal=wal)))


def _doing(work: Callable[[Node], None], *, wal: bool) -> Callable[[Link, Config], None]:
    def child(link: Link, config: Config) -> None:
        node = opened(config)
        work(node)
        if not wal:
            node.engine.dispose()

    return child


def _receive(node: Node) -> None:
    for ds in mr.mr_series(slices=SLICES):
        content = mr.file_bytes(ds)
        arrival = Arrival(
            UID(ds.SOPInstanceUID), UID(MR_IMAGE), UID(EXPLICIT_LITTLE.decode()),
            UID(ds.StudyInstanceUID), UID(ds.SeriesInstanceUID), "scanner",
        )  # fmt: skip
        node.catalog.record(arrival, node.archive.put(content), len(content))


def warm_up(folder: Path, port: int, peer_port: int) -> None:
    """Everything is imported and done once before the first fork, which inherits it."""
    config = configured(folder, port, peer_port)
    node = opened(config)
    migrate(node.engine)
    node.engine.dispose()
    node = started(config)
    scp = receiver(node)
    scp.start()
    sender = Sender(scp.port)
    sender.accepted()
    for _ in range(2):
        sender.store(image("warm", 1))
        assert sender.answer() == 0
    sender.release()
    scp.stop(5.0)
    assemble(node)
    commit_results(node)
    node.engine.dispose()
    gc.collect()
    gc.freeze()
