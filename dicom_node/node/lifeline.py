"""A child process lives as long as the pipe to its parent: no orphan holds a port or a lease.

When the parent is killed the kernel closes the pipe, and the child ends at once, in the
middle of whatever it does. That is safe because every step is (see node/flow.py).
"""

from __future__ import annotations

import os
import queue
import threading
from typing import IO


class Lifeline:
    """Lines the parent says, read by a thread that ends the process when the parent is gone."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, name="lifeline", daemon=True).start()

    def line(self) -> str:
        """The next line; waits for it."""
        return self._lines.get()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.put(line)
        os._exit(0)
