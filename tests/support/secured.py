"""A receiver with a TLS port, and peers with and without certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.audit import Trail
from dicom_node.config import Config
from dicom_node.receive.scp import Receiver
from support.certificates import Hospital, Issued
from support.ledger import Books
from support.ports import free_port
from support.storescu import Transmission, storescu


@dataclass
class Node:
    """A receiver with both ports: SCANNER has `peer`'s certificate, OTHER has `other`'s, PLAIN has none."""

    receiver: Receiver
    books: Books
    made: Hospital
    audit: Path

    def stored(self) -> int:
        with self.books.engine.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM instances").scalar_one())

    def audited(self) -> str:
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.audit.glob("*.jsonl")))

    def send(self, folder: Path, issued: Issued, calling: str) -> Transmission:
        """As a scanner would: DCMTK with this certificate, under this AE title."""
        files = [str(issued.private_key), str(issued.certificate), "+cf", str(self.made.authority.file)]
        return storescu(folder, self.receiver.tls_port, "+tls", *files, calling=calling)


@contextmanager
def node(folder: Path, made: Hospital, **tls: object) -> Iterator[Node]:
    peers = [
        {"name": "scanner", "ae_title": "SCANNER", "certificates": [made.peer.fingerprint]},
        {"name": "other", "ae_title": "OTHER", "certificates": [made.other.fingerprint]},
        {"name": "plain", "ae_title": "PLAIN"},
    ]
    config = Config.model_validate(
        {
            "node": {"data_dir": str(folder)},
            "receive": {"port": free_port(), "reserve_mb": 0},
            "tls": made.tls(port=free_port(), **tls),
            "peer": [{"host": "127.0.0.1", **peer} for peer in peers],
        }
    )
    folder.mkdir()
    books = Books(f"sqlite:///{folder / 'node.sqlite3'}", folder)
    trail = Trail(config.audit_folder, config.node.ae_title)
    receiver = Receiver(config, books.archive, books.catalog, trail)
    receiver.start()
    try:
        yield Node(receiver, books, made, config.audit_folder)
    finally:
        receiver.stop(5.0)
        books.engine.dispose()
