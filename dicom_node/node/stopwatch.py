"""Seconds per step."""

from __future__ import annotations

import time


class Stopwatch:
    """`lap(step)` adds the time since the last lap to that step; `seconds` has them all."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> float:
        now = time.perf_counter()
        took = now - self._last
        self.seconds[step] = round(self.seconds.get(step, 0.0) + took, 4)
        self._last = now
        return took
