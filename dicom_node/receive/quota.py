"""How much one peer may send: objects in a minute, bytes in an hour. What is above is answered 0xA700.

Counted in windows that begin with the first object; a node that starts anew begins to count anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dicom_node.config import Peer
from dicom_node.errors import OutOfStorage

_GB = 1_000_000_000


class QuotaReached(OutOfStorage):
    """The peer has sent as much as it may for now; it should try again later."""


class Quota:
    """Of one peer, over all its associations. Mutable, under its lock."""

    def __init__(self, peer: Peer, now_s: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._instances = _Window(peer.max_instances_per_minute, 60.0, now_s)
        self._bytes = _Window(int(peer.max_gb_per_hour * _GB), 3600.0, now_s)

    def begin(self) -> None:
        """One more object. Raises QuotaReached."""
        with self._lock:
            if self._bytes.spent():
                raise QuotaReached("this peer has sent peer.max_gb_per_hour; later again")
            if self._instances.spent():
                raise QuotaReached("this peer has sent peer.max_instances_per_minute; later again")
            self._instances.add(1)

    def add(self, count: int) -> None:
        """Bytes of an object, kept or not."""
        with self._lock:
            self._bytes.add(count)


class _Window:
    def __init__(self, limit: int, seconds: float, now_s: Callable[[], float]) -> None:
        self._limit, self._seconds, self._now_s = limit, seconds, now_s
        self._from, self._count = now_s(), 0

    def spent(self) -> bool:
        if self._now_s() - self._from >= self._seconds:
            self._from, self._count = self._now_s(), 0
        return bool(self._limit) and self._count >= self._limit

    def add(self, count: int) -> None:
        self._count += count
