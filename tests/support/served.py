"""A node as a hospital runs it: `dicom-node serve` in a process tree of its own, and a look at its ledger."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from support.ports import end, free_port, wait_until

PROGRAM = Path(sys.executable).with_name("dicom-node")
READY_WITHIN_S = 60.0

_CONFIG = """\
[node]
ae_title = "DICOMNODE"
data_dir = "var"
[receive]
port = {port}
settle_s = 1
stable_after_s = {stable_after_s}
reserve_mb = 64
[http]
port = {http_port}
[infer]
device = "cpu"
lease_s = 3
retry_after_s = 0.2
max_attempts = 20
[deliver]
timeout_s = 5
retry_after_s = 0.5
retry_at_most_s = 2
[[peer]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {pacs_port}
[[peer]]
name = "scanner"
ae_title = "STORESCU"
host = "127.0.0.1"
[[route]]
pipeline = "{pipeline}"
from = ["pacs", "scanner"]
to = ["pacs"]
intended_use = "warn"
"""


class ServedNode:
    """`serve` in `folder`, sending to the PACS at `pacs_port`. `start()` again after any death."""

    ae_title = "DICOMNODE"

    def __init__(
        self, folder: Path, pacs_port: int, *, stable_after_s: float = 20.0, pipeline: str = "uterine_mri"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.http_port = folder, free_port(), free_port()
        self.config = folder / "node.toml"
        self.log = folder / "node.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        text = _CONFIG.format(
            port=self.port, http_port=self.http_port, pacs_port=pacs_port, stable_after_s=stable_after_s,
            pipeline=pipeline,
        )  # fmt: skip
        self.config.write_text(text, encoding="utf-8")

    def start(self) -> ServedNode:
        """Start, and wait for the line `ready`."""
        self._ready.clear()
        command = [str(PROGRAM), "serve", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        wait_until(lambda: self._ready.is_set() or not self.alive, READY_WITHIN_S, "the node says `ready`")
        if not self.alive:
            raise AssertionError(f"the node ended at start:\n{self.log_tail()}")
        return self

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        assert self.process is not None
        end(self.process, grace_s=30.0)
        return int(self.process.returncode)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tree(self) -> list[psutil.Process]:
        """The supervisor and every process under it, at this moment."""
        if self.process is None or not self.alive:
            return []
        try:
            supervisor = psutil.Process(self.process.pid)
            return [supervisor, *supervisor.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def log_tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """A read-only look into the SQLite ledger."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.folder / 'var' / 'node.sqlite3'}?mode=ro", uri=True, timeout=30)
        ) as ledger:
            return list(ledger.execute(query))

    def idle(self) -> bool:
        """Nothing waits: every instance is in a revision, every job and delivery has ended."""
        pending = self.rows("SELECT count(*) FROM instances WHERE revision IS NULL")
        busy = self.rows(
            "SELECT (SELECT count(*) FROM jobs WHERE state IN ('SCHEDULED', 'IN PROGRESS')) +"
            " (SELECT count(*) FROM deliveries WHERE state IN ('SCHEDULED', 'IN PROGRESS'))"
        )
        done = self.rows("SELECT count(*) FROM jobs WHERE state = 'COMPLETED'")
        return [(0,)] == pending == busy and done != [(0,)]

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == b"ready":
                self._ready.set()
        process.stdout.close()


@contextlib.contextmanager
def served(
    folder: Path, pacs_port: int, *, stable_after_s: float = 20.0, pipeline: str = "uterine_mri"
) -> Iterator[ServedNode]:
    """A started node; ended with SIGTERM when the block ends, whatever happened in it."""
    node = ServedNode(folder, pacs_port, stable_after_s=stable_after_s, pipeline=pipeline)
    try:
        yield node.start()
    finally:
        left = node.tree()
        if node.process is not None:
            end(node.process, grace_s=30.0)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
