"""A receiver with its store: in this process, or in one of its own that may be killed.

`python -m support.receiving FOLDER PORT [KEYS]` is the latter; it prints `ready`. KEYS are configuration
tables as JSON.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node import log
from dicom_node.audit import Trail
from dicom_node.config import Config
from dicom_node.receive.scp import Receiver
from dicom_node.store.archive import Archive
from dicom_node.store.catalog import Catalog
from dicom_node.store.database import engine_for, migrate
from support.ledger import Books
from support.ports import free_port

SCANNER = {"name": "scanner", "ae_title": "SCANNER", "host": "127.0.0.1", "port": 104}
ELSEWHERE = {"name": "elsewhere", "ae_title": "ELSEWHERE", "host": "192.0.2.7", "port": 104}
LISTENER = {"name": "viewer", "ae_title": "VIEWER", "host": "127.0.0.1", "may_send": False}


def configured(folder: Path, port: int, **receive: object) -> Config:
    return Config.model_validate(tables(folder, port, {"receive": receive}))


def tables(folder: Path, port: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a receiver, with the tables of `more` put over it."""
    return {
        "node": {"data_dir": str(folder)},
        "peer": [SCANNER, ELSEWHERE, LISTENER],
        **more,
        "receive": {"port": port, "reserve_mb": 0, **more.get("receive", {})},
    }


@dataclass
class Receiving:
    receiver: Receiver
    books: Books

    @property
    def port(self) -> int:
        return self.receiver.port

    def spooled(self) -> list[Path]:
        """Files of data sets that are still on their way."""
        return list((self.books.folder / "spool").iterdir())

    def data_sets(self) -> dict[str, bytes]:
        """SOP Instance UID -> the stored data set's bytes, read back from disk."""
        with self.books.engine.connect() as connection:
            rows = connection.exec_driver_sql("SELECT sop_instance_uid, digest FROM instances").all()
        verified = self.books.archive.verified
        return {uid: after_file_meta(verified(digest).read_bytes()) for uid, digest in rows}


@contextmanager
def receiving(folder: Path, **receive: object) -> Iterator[Receiving]:
    config = configured(folder, free_port(), **receive)
    books = Books(f"sqlite:///{folder / 'node.sqlite3'}", folder)
    receiver = Receiver(
        config, books.archive, books.catalog, Trail(config.audit_folder, config.node.ae_title)
    )
    receiver.start()
    try:
        yield Receiving(receiver, books)
    finally:
        receiver.stop(5.0)
        books.engine.dispose()


@contextmanager
def receiver_process(
    folder: Path, port: int, *, prefix: Sequence[str] = (), **more: Mapping[str, Any] | Sequence[Any]
) -> Iterator[subprocess.Popen[str]]:
    """A receiver that accepts associations, in a process of its own, whose log is `FOLDER.log`.

    `prefix` is a command it is started by; `more` are tables of its configuration.
    """
    with folder.with_suffix(".log").open("ab") as lines:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "support.receiving", str(folder), str(port), json.dumps(more)],
            cwd=Path(__file__).resolve().parent.parent, text=True, stdout=subprocess.PIPE, stderr=lines,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        assert "ready\n" == process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def after_file_meta(file: bytes) -> bytes:
    """The data set of a PS3.10 file: what stands behind the group length's reach."""
    assert file[128:132] == b"DICM"
    return file[144 + int.from_bytes(file[140:144], "little") :]


def recorded(folder: Path) -> dict[str, str]:
    """SOP Instance UID -> digest, as the ledger on disk says."""
    with closing(sqlite3.connect(folder / "node.sqlite3")) as connection:
        return dict(connection.execute("SELECT sop_instance_uid, digest FROM instances").fetchall())


def main() -> None:
    log.start("WARNING")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    folder = Path(sys.argv[1])
    more = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    config = Config.model_validate(tables(folder, int(sys.argv[2]), more))
    engine = engine_for(config)
    migrate(engine)
    archive = Archive(folder)
    trail = Trail(config.audit_folder, config.node.ae_title)
    receiver = Receiver(config, archive, Catalog(engine, archive), trail)
    receiver.start()
    print("ready", flush=True)
    stop.wait()
    receiver.stop(5.0)


if __name__ == "__main__":
    main()
