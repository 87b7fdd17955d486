"""How many refusals a minute get a record of their own: a stranger who knocks all day must not fill the disk.

Past the limit they are counted, and one record says how many there were, of whom the last was.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace

from dicom_node.audit.events import Refused

EACH_MINUTE, MINUTE_S = 60, 60.0


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
