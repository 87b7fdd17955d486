"""A whole node on loopback, for `demo` and `bench`: the real `serve` in a process of its own.

Promises: it listens on free ports of 127.0.0.1, keeps everything in a folder that the caller
names, writes its log to a file, and is gone, with all its children, when the block is left.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import psutil

from dicom_node.config import Config, Peer, load
from dicom_node.errors import DicomNodeError, NodeStopping

SENDER = "scanner"
PACS = "pacs"
WRITTEN_BY = "# Written by `dicom-node"
"""How a configuration begins that a run may overwrite."""
_LOOK_S = 0.05
_ENDS_WITHIN_S = 20.0
_KEPT_OVERRIDES = ("DICOM_NODE_INFER__", "DICOM_NODE_NODE__MODELS_DIR", "DICOM_NODE_NODE__PIPELINES_DIR")


@dataclass(frozen=True, slots=True)
class Setup:
    """What differs between two nodes on loopback; all else is the default."""

    command: str
    """The command that starts it, for the first line of the configuration."""
    data_dir: Path
    pacs_port: int
    settle_s: float
    stable_after_s: float
    intended_use: str
    pipeline: str = "uterine_mri"


def configuration(setup: Setup, dicom_port: int, http_port: int) -> str:
    """The TOML of a node between a scanner and a PACS, all on this machine."""
    data_dir = json.dumps(str(setup.data_dir))  # a JSON string is a TOML basic string
    return f"""{WRITTEN_BY} {setup.command}`: a node between a scanner and a PACS, all on this machine.

[node]
ae_title = "DICOMNODE"
data_dir = {data_dir}

[receive]
host = "127.0.0.1"
port = {dicom_port}
settle_s = {setup.settle_s}
stable_after_s = {setup.stable_after_s}

[http]
host = "127.0.0.1"
port = {http_port}

[[peer]]
name = "{SENDER}"
ae_title = "SCANNER"
host = "127.0.0.1"

[[peer]]
name = "{PACS}"
ae_title = "STANDIN"
host = "127.0.0.1"
port = {setup.pacs_port}
may_send = false

[[route]]
pipeline = "{setup.pipeline}"
from = ["{SENDER}"]
to = ["{PACS}"]
intended_use = "{setup.intended_use}"
"""


class LoopbackNode:
    """`with LoopbackNode(...) as node:` runs `dicom-node serve`; `start` returns once it accepts images."""

    def __init__(self, setup: Setup, config_file: Path, log_file: Path) -> None:
        self.log_file = log_file
        dicom_port, http_port = free_ports(2)
        config_file.write_text(configuration(setup, dicom_port, http_port), encoding="utf-8")
        self._config_file = config_file
        self.config: Config = load(config_file, environment())
        self._process: subprocess.Popen[bytes] | None = None
        self._said_ready = threading.Event()

    @property
    def as_peer(self) -> Peer:
        """The node, as the scanner knows it."""
        receive = self.config.receive
        return Peer(name="node", ae_title=self.config.node.ae_title, host=receive.host, port=receive.port)

    def __enter__(self) -> LoopbackNode:
        log = self.log_file.open("wb")
        with log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "dicom_node.cli", "serve", "--config", str(self._config_file)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment(),
            )  # fmt: skip
        threading.Thread(target=self._read_stdout, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until it accepts associations and its models are loaded. Raises DicomNodeError."""
        ends = time.monotonic() + timeout_s
        self._wait(self._said_ready.is_set, ends, "accept associations")
        self._wait(lambda: any(self.events("worker.ready", "worker.models_failed")), ends, "load its models")
        for event in self.events("worker.models_failed"):
            raise DicomNodeError(f"the node cannot load its models: {event.get('why')}; log: {self.log_file}")

    def check(self) -> None:
        """Raises DicomNodeError when the node has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            why = next((f": {event['why']}" for event in self.events() if "why" in event), "")
            raise DicomNodeError(f"the node ended with code {code}{why}; log: {self.log_file}")

    def events(self, *names: str) -> Iterator[Mapping[str, object]]:
        """What it logged, one mapping per event; of these names only, if any are given."""
        for line in self.log_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # a library's own line, or one still being written
            if isinstance(event, dict) and (not names or event.get("event") in names):
                yield event

    def peak_mb(self) -> dict[str, float]:
        """Peak resident memory, MB, of each part of the node by its role; empty where nobody counts it."""
        if self._process is None:
            return {}
        parts = {"supervisor": psutil.Process(self._process.pid)}
        for child in psutil.Process(self._process.pid).children(recursive=True):
            parts[_role(child)] = child
        return {role: peak for role, part in parts.items() if (peak := _peak_mb(part.pid)) is not None}

    def stop(self) -> None:
        """SIGTERM, and wait until it and its children are gone."""
        process = self._process
        if process is None:
            return
        self._process = None
        family = _family(process.pid)
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its children end with the pipes to it, see lifeline.py
            process.wait()
        psutil.wait_procs(family, timeout=_ENDS_WITHIN_S)

    def _wait(self, done: Callable[[], bool], ends: float, what: str) -> None:
        while not done():
            self.check()
            if time.monotonic() > ends:
                raise DicomNodeError(f"the node did not {what} in time; log: {self.log_file}")
            time.sleep(_LOOK_S)

    def _read_stdout(self, process: subprocess.Popen[bytes]) -> None:
        with process.stdout or Path(os.devnull).open("rb") as stdout:
            for line in stdout:
                if line.strip() == b"ready":
                    self._said_ready.set()


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _role(process: psutil.Process) -> str:
    """`receive`, `web`, `tick`, `work` or `sandbox`, from how it was started."""
    words = process.cmdline()
    return "sandbox" if words and words[-1].endswith("sandboxed") else (words[-1] if words else "?")


def _peak_mb(pid: int) -> float | None:
    """VmHWM, the high-water mark of resident memory, as proc(5) counts it; None where there is no /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; all held at once, so that no two are the same."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def environment() -> dict[str, str]:
    """Ours, without what would point the node at the configuration or the data of another one."""
    return {
        name: value for name, value in os.environ.items()
        if not name.startswith("DICOM_NODE_") or name.startswith(_KEPT_OVERRIDES)
    }  # fmt: skip


@contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block by an exception, so that nothing started in it is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise NodeStopping("stopped by a signal")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
