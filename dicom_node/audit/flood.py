"""What gets a record of its own: a stranger who knocks all day must not fill the disk, nor a monitor.

Refusals past so many a minute are counted, and one record says how many there were, of whom the last was.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from dicom_node.audit.events import Admitted, Refused

EACH_MINUTE, MINUTE_S = 60, 60.0
HOUR_S, REMEMBERED = 3600.0, 10_000


@dataclass
class Flood:
    """Mutable: this minute's beginning, how many records it had, and who was left out; under `_lock`."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _since: float = float("-inf")
    _written: int = 0
    _left_out: int = 0
    _last: Refused | None = None

    def let_through(self, event: Refused, now_s: float) -> list[Refused]:
        """What to record now: the event, none, or first the sum of those that were left out."""
        with self._lock:
            summed = self._next_minute(now_s) if now_s - self._since >= MINUTE_S else []
            if self._written < EACH_MINUTE:
                self._written += 1
                return [*summed, event]
            self._left_out, self._last = self._left_out + 1, event
            return summed

    def rest(self) -> list[Refused]:
        """The sum of what is still left out, for the end."""
        with self._lock:
            return self._next_minute(float("-inf"))

    def _next_minute(self, now_s: float) -> list[Refused]:
        last, count = self._last, self._left_out
        self._since, self._written, self._left_out, self._last = now_s, 0, 0, None
        if last is None:
            return []
        return [replace(last, reason=f"{last.reason}; the last of {count} refusals without a record")]


@dataclass
class Hourly:
    """Lets each peer, from each address, be recorded once an hour. Mutable: when each was, under `_lock`."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _at: dict[Admitted, float] = field(default_factory=dict)

    def is_due(self, event: Admitted, now_s: float) -> bool:
        with self._lock:
            if now_s - self._at.get(event, float("-inf")) < HOUR_S:
                return False
            if len(self._at) >= REMEMBERED:
                self._at.clear()  # a peer that calls from ever new addresses is recorded more often
            self._at[event] = now_s
            return True
