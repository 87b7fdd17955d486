"""Start and stop: one process tree, watched by a supervisor that does nothing else.

    serve ── receive   C-ECHO, C-STORE (T1)
          ├─ web       STOW-RS (T1); health and metrics
          ├─ tick      headers, assemble, route (T2); deliver (T4); work items of worklists
          └─ work      one per worker: leases, T3 ── sandbox: pixels and networks

A part that dies is started again, with a growing pause. SIGTERM ends all of it cleanly;
SIGKILL of any part, or of all, loses nothing that was acknowledged.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node import log
from dicom_node.audit import Started, Stopped, Trail
from dicom_node.config import Config
from dicom_node.errors import ConfigurationError, DicomNodeError

GRACE_S = 10.0
"""Seconds the parts get to end after SIGTERM before they are killed."""
_EXIT_CONFIGURATION = 78  # EX_CONFIG: starting again cannot help
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass
class _Part:
    """One child process. Mutable: process, deaths, ready; only the supervisor's thread writes them."""

    role: str
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    start_at: float = 0.0
    started_at: float = 0.0
    ready: threading.Event = field(default_factory=threading.Event)


def serve(config: Config, *, workers: bool = True, announce: Callable[[], None] = lambda: None) -> int:
    """Run the node until SIGTERM or SIGINT; `announce` is called once it accepts associations and requests.

    Returns the exit code. Raises ConfigurationError when another node holds data_dir.
    """
    from dicom_node.node.build import build
    from dicom_node.node.recover import adopt_orphans
    from dicom_node.store.database import migrate

    keep_to_ourselves()
    with data_dir_lock(config.node.data_dir):
        node = build(config)
        migrate(node.engine)
        swept = node.archive.sweep_spool()
        adopt_orphans(node)
        node.engine.dispose()
        log.event("node.starting", swept=swept, routes=len(config.route), peers=len(config.peer))
        roles = ["receive", "web", "tick"] + ["work"] * (config.infer.workers if workers else 0)
        return _Supervisor(config, roles, announce).run()


def work(config: Config) -> int:
    """Run this machine's workers only (`dicom-node work`), against a node that runs elsewhere."""
    keep_to_ourselves()
    return _Supervisor(config, ["work"] * config.infer.workers, lambda: None).run()


def keep_to_ourselves() -> None:
    """What this process and its children write is the node's user's alone, and nothing dumps its memory."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log.withhold()


class _Supervisor:
    def __init__(self, config: Config, roles: list[str], announce: Callable[[], None]) -> None:
        self._config = config
        self._parts = [_Part(role) for role in roles]
        self._announce: Callable[[], None] | None = announce
        self._stop = threading.Event()
        self._exit_code = 0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            while not self._stop.is_set():
                for part in self._parts:
                    self._look_after(part)
                self._announce_when_ready()
                self._stop.wait(0.05)
        finally:
            self._end_all()
        return self._exit_code

    def _look_after(self, part: _Part) -> None:
        if part.process is not None:
            code = part.process.poll()
            if code is None:
                if part.deaths and time.monotonic() - part.started_at > 60.0:
                    part.deaths = 0
                return
            self._buried(part, code)
        if part.process is None and time.monotonic() >= part.start_at and not self._stop.is_set():
            self._start(part)

    def _buried(self, part: _Part, code: int) -> None:
        part.process = None
        if code == _EXIT_CONFIGURATION:  # its sentence stands in the log; starting again cannot help
            self._exit_code = 1
            self._stop.set()
            return
        pause_s = _PAUSES_S[min(part.deaths, len(_PAUSES_S) - 1)]
        part.deaths += 1
        part.start_at = time.monotonic() + pause_s
        log.problem("process.died", role=part.role, code=code, again_in_s=pause_s)

    def _start(self, part: _Part) -> None:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "dicom_node.service", part.role],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        part.process, part.started_at = process, time.monotonic()
        part.ready.clear()
        if process.stdin is None or process.stdout is None:
            raise ConfigurationError("no pipe to the parts of the node")
        try:
            process.stdin.write(self._config.model_dump_json(by_alias=True).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # died at once: buried at the next look
        threading.Thread(target=_wait_ready, args=(process, part.ready), daemon=True).start()
        log.event("process.started", role=part.role, pid=process.pid)

    def _announce_when_ready(self) -> None:
        gates = [part for part in self._parts if part.role in ("receive", "web")] or self._parts
        if self._announce and all(part.ready.is_set() for part in gates):
            self._announce()
            self._announce = None
            log.event("node.ready")

    def _end_all(self) -> None:
        living = [part.process for part in self._parts if part.process and part.process.poll() is None]
        for process in living:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in living:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.event("node.stopped", code=self._exit_code)


def _wait_ready(process: subprocess.Popen[bytes], ready: threading.Event) -> None:
    for line in process.stdout or ():
        if line.strip() == b"ready":
            ready.set()


@contextmanager
def data_dir_lock(data_dir: Path) -> Iterator[None]:
    """One node per data_dir. Raises ConfigurationError when another one holds it."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "node.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"another node is running on {data_dir}; stop it first") from error
        yield


# ---- inside the parts -------------------------------------------------------------------


def _receive(config: Config, stop: threading.Event) -> None:
    from dicom_node.node.build import build
    from dicom_node.node.flow import receive_and_store

    receiver = receive_and_store(build(config))
    _bind(receiver.start, config)
    _say_ready()
    with _alive_mark(config.node.data_dir):
        stop.wait()
        receiver.stop(GRACE_S / 2)


def _bind(start: Callable[[], None], config: Config) -> None:
    """Listen; the port of a receiver killed a moment ago may need that moment."""
    deadline = time.monotonic() + 5.0
    while True:
        try:
            return start()
        except OSError as error:
            if time.monotonic() > deadline:
                where = f"{config.receive.host}:{config.receive.port}"
                raise ConfigurationError(f"cannot listen on {where}: {error.strerror}") from error
            time.sleep(0.1)


def _web(config: Config, stop: threading.Event) -> None:
    """Apart from the rest: its parser faces the network. It loads neither pipelines nor models."""
    from dicom_node.web.door import open_door

    door = open_door(config, lambda: receiver_alive(config.node.data_dir))
    gc.collect()
    gc.freeze()  # what is there now stays: the collections that TLS connections need look at the rest only
    _say_ready()
    stop.wait()
    door.close()


def _tick(config: Config, stop: threading.Event) -> None:
    from dicom_node.node.build import build
    from dicom_node.node.flow import deliver
    from dicom_node.node.ticker import Ticker

    node = build(config)
    node.ledger.release()  # one ticker per node: whatever was being sent is sent by nobody now
    deliverer = deliver(node)
    deliverer.start()
    _say_ready()
    Ticker(node, stop).run()
    deliverer.stop()


def _work(config: Config, stop: threading.Event) -> None:
    from dicom_node.node.build import build
    from dicom_node.node.worker import Worker

    _say_ready()
    Worker(build(config), stop).run()


_ROLES = {"receive": _receive, "web": _web, "tick": _tick, "work": _work}


def _say_ready() -> None:
    os.write(1, b"ready\n")


@contextmanager
def _alive_mark(data_dir: Path) -> Iterator[None]:
    """A lock that lives exactly as long as the receiver does; see `receiver_alive`."""
    with (data_dir / "receiver.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def receiver_alive(data_dir: Path) -> bool:
    """Whether a receiver accepts associations for this data_dir."""
    try:
        with (data_dir / "receiver.lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def main() -> None:
    """One part: `python -m dicom_node.service ROLE`, configuration and lifeline on stdin."""
    from dicom_node.node.lifeline import Lifeline

    log.start()
    keep_to_ourselves()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    config = Config.model_validate_json(Lifeline(sys.stdin).line())
    role = sys.argv[1]
    trail = Trail(config.audit_folder, config.node.ae_title)
    try:
        trail.record(Started(role))
        _ROLES[role](config, stop)
        trail.record(Stopped(role))
    except ConfigurationError as error:
        log.problem("process.cannot_start", role=role, why=str(error))
        sys.exit(_EXIT_CONFIGURATION)
    except DicomNodeError as error:
        log.problem("process.failed", role=role, error=type(error).__name__, why=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
