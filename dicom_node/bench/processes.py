"""A receiver as processes of its own: started, seen to listen, its memory watched, ended.

Memory is the sum, over all processes of the receiver that ever were, of each one's peak resident
memory (VmHWM, proc(5)), looked at many times a second: what a forked process shares with its
parent counts twice, and what one takes in its last moment may be missed.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from dicom_node.demo.loopback import environment
from dicom_node.errors import DicomNodeError

_LISTENS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 20.0
_LOOK_S = 0.05


class Watch:
    """The peak memory of a process and all its children. Mutable: `_peaks`, by process id; the thread's."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, float] = {}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> float:
        """Look a last time, and no more: the peak so far, MB."""
        self._ends.set()
        self._thread.join()
        return sum(self._peaks.values())

    def _run(self) -> None:
        while not self._ends.wait(_LOOK_S):
            self._look()
        self._look()

    def _look(self) -> None:
        for pid in family(self._pid):
            with suppress(OSError, ValueError):
                status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
                line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0")
                self._peaks[pid] = int(line.split()[1]) * 1024 / 1e6


def family(pid: int) -> list[int]:
    """The process and all below it, as the kernel keeps them per thread: cheaper than a walk of /proc."""
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        for file in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            with suppress(OSError):
                left.extend(int(word) for word in file.read_text(encoding="ascii").split())
    return found


@contextmanager
def running(
    command: Sequence[str], port: int, log_file: Path, *, stdin: bytes = b"", nodelay: bool = True
) -> Iterator[int]:
    """Its process id, once it listens on `port`; ended with its children at the end.

    Raises DicomNodeError when it ends instead, or does not listen in time.
    """
    surroundings = environment() | ({"TCP_NODELAY": "1"} if nodelay else {})  # read by DCMTK's programs
    with log_file.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - programs found on the path, arguments of our own
            list(command), stdin=subprocess.PIPE, stdout=log, stderr=log, env=surroundings
        )
    try:
        if process.stdin is not None and stdin:
            process.stdin.write(stdin)
            process.stdin.flush()
        _wait_until_it_listens(process, port)
        yield process.pid
    finally:
        _end(process)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    ends = time.monotonic() + _LISTENS_WITHIN_S
    while not listens(port):
        if process.poll() is not None or time.monotonic() > ends:
            what = "does not listen" if process.returncode is None else f"ended with {process.returncode}"
            raise DicomNodeError(f"{Path(str(process.args[0])).name} {what} on port {port}")  # type: ignore[index]
        time.sleep(_LOOK_S)


def listens(port: int) -> bool:
    """Whether somebody listens there; asked of the kernel, so that no receiver sees a stray connection."""
    return any(
        found.status == psutil.CONN_LISTEN and found.laddr.port == port
        for found in psutil.net_connections("tcp")
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    below = [psutil.Process(pid) for pid in family(process.pid)[1:] if psutil.pid_exists(pid)]
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
    _, left = psutil.wait_procs(below, timeout=_ENDS_WITHIN_S)
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()
