"""Waiting for things on loopback, with a deadline and no sleeping blindly."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from subprocess import Popen, TimeoutExpired


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(true: Callable[[], bool], within_s: float, what: str | Callable[[], str]) -> None:
    """Poll until `true()`; fails the test with `what` (asked for then) after `within_s`."""
    ends = time.monotonic() + within_s
    while not true():
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


def end(process: Popen[bytes], grace_s: float = 10.0) -> None:
    """SIGTERM, then SIGKILL, to this one process, and reap it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except TimeoutExpired:
            process.kill()
    process.wait(grace_s)
