"""A TCP proxy on loopback that is a bad line: it refuses, delays, cuts, goes silent and repeats, by seed."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

REPLAY_S = 5.0
_FAULTS = {
    "none": 15, "refuse": 8, "cut request": 33, "cut answer": 22, "delay": 8, "silence": 2, "repeat": 12,
}  # fmt: skip
"""Share of connections that each fault befalls."""


@dataclass
class BadLine:
    """Between `port` here and `target`. `up` False: nobody answers at all."""

    target: int
    seed: int
    silence_s: float = 1.5
    up: bool = True
    port: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    """Connections by what befell them."""
    _threads: list[threading.Thread] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> BadLine:
        self._dice = random.Random(self.seed)  # the same faults for the same seed
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.1)
        self.port = self._listening.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._accepting.join()
        self.settle()
        self._listening.close()

    def settle(self) -> None:
        """Until nothing is on its way any more, repeats among it."""
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listening.accept()
                fault = self._dice.choices(list(_FAULTS), list(_FAULTS.values()))[0] if self.up else "down"
                at = int(
                    10 ** self._dice.uniform(2.0, 5.5)
                )  # bytes: from the first words to far into the data
                self.faults[fault] += 1
                thread = threading.Thread(target=self._serve, args=(connection, fault, at))
                self._threads.append(thread)
                thread.start()

    def _serve(self, here: socket.socket, fault: str, at: int) -> None:
        with here:
            if fault in ("refuse", "down"):
                return
            sent = bytearray()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as there:
                ends = [threading.Event()]
                cut = {"cut request": at, "silence": at}.get(fault)
                answer = threading.Thread(
                    target=self._pump,
                    args=(
                        there,
                        here,
                        100 + at // 100 if fault == "cut answer" else None,
                        fault,
                        ends[0],
                        None,
                    ),
                )
                answer.start()
                self._pump(here, there, cut, fault, ends[0], sent if fault == "repeat" else None)
                answer.join()
            if fault == "repeat":
                self._repeat(bytes(sent))

    def _pump(
        self, source: socket.socket, sink: socket.socket, cut_at: int | None, fault: str,
        over: threading.Event, copy: bytearray | None,
    ) -> None:  # fmt: skip
        """Bytes one way until an end, the cut, or the end of the other way."""
        passed = 0
        with contextlib.suppress(OSError):
            source.settimeout(0.1)
            while not over.is_set():
                try:
                    piece = source.recv(16384)
                except TimeoutError:
                    continue
                if fault == "delay":
                    time.sleep(0.02)
                if cut_at is not None and passed + len(piece) >= cut_at:
                    sink.sendall(piece[: cut_at - passed])
                    if fault == "silence":
                        over.wait(self.silence_s)
                    break
                if not piece:
                    break
                sink.sendall(piece)
                passed += len(piece)
                if copy is not None:
                    copy += piece
        over.set()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _repeat(self, sent: bytes) -> None:
        """The same bytes once more on a connection of their own, as if another sender had them too."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as there:
            there.settimeout(REPLAY_S)
            there.sendall(sent)
            while there.recv(16384):
                pass
