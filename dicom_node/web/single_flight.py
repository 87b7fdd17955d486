"""Ask something slow with a deadline, and never twice at a time, however often it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """A call that hangs holds one thread, not one each time. Mutable, under its lock: what is under way."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._under_way: Future[Answer] | None = None

    def within(self, seconds: float, *, else_: Answer) -> Answer:
        """The call's answer, or `else_` when it does not come in time. What the call raises is raised."""
        try:
            return self._flight().result(seconds)
        except TimeoutError:
            return else_

    def _flight(self) -> Future[Answer]:
        with self._lock:
            if self._under_way is None or self._under_way.done():
                self._under_way = Future()
                threading.Thread(target=self._run, args=(self._under_way,), daemon=True).start()
            return self._under_way

    def _run(self, flight: Future[Answer]) -> None:
        try:
            flight.set_result(self._call())
        except Exception as error:  # noqa: BLE001 - carried to whoever asked
            flight.set_exception(error)
