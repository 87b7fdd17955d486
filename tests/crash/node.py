"""A node on a folder, built and started by the product's own functions."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from dicom_node.config import Config
from dicom_node.node.build import Node, build
from dicom_node.node.recover import adopt_orphans
from dicom_node.node.worker import gone, sweep_scratch
from dicom_node.receive.scp import Receiver
from dicom_node.store.database import migrate
from support.ledger import START

TOYS = Path(__file__).parent.parent / "support" / "toys"


def configured(folder: Path, port: int, peer_port: int) -> Config:
    peers = [
        {"name": "scanner", "ae_title": "SCANNER", "host": "127.0.0.1", "port": 104},
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": peer_port},
    ]
    return Config.model_validate({
        "node": {"data_dir": str(folder), "pipelines_dir": str(TOYS)},
        "receive": {"port": port, "reserve_mb": 0},
        "peer": peers,
        "route": [{"pipeline": "answers", "from": ["scanner"], "to": ["pacs"]}],
        "deliver": {"timeout_s": 20.0},
    })  # fmt: skip


def opened(config: Config, *, days: int = 0) -> Node:
    """On a clock that stands still, `days` after the beginning: leases of earlier days are over."""
    return build(config, clock=lambda: START + timedelta(days=days))


def started(config: Config, *, days: int = 1) -> Node:
    """As `dicom-node serve` and its parts start on whatever a crash left."""
    node = opened(config, days=days)
    migrate(node.engine)
    node.archive.sweep_spool()
    adopt_orphans(node)
    node.ledger.release()
    for worker in filter(gone, node.queue.holders()):
        node.queue.release(worker)
    sweep_scratch(config.node.data_dir)
    return node


def receiver(node: Node) -> Receiver:
    return Receiver(node.config, node.archive, node.catalog, node.trail)
