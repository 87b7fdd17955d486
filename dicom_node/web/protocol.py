"""Where uvicorn must be bettered: each override with its reason, all of them here.

Parsing HTTP/1.1 stays h11's, and the ASGI cycle uvicorn's.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from dicom_node.tls import fingerprint

FIRST_WORD_S = 10.0
"""Seconds a client has for the head of a request, and for the rest of a body that nobody wants."""
HANDSHAKE_S = 10.0
CONNECTIONS = 128
"""At a time, TLS handshakes included, of which each takes half a MB."""
PER_ADDRESS = 96
BACKLOG = 64
"""Connections that asyncio accepts in one go, before it looks at anything else."""
COLLECT_EVERY = 32
"""TLS connections. What asyncio holds of one, half a MB, hangs together in cycles: without this, those of
3,000 silent clients that are long gone were 1 GB."""


class Protocol(H11Protocol):
    """One connection.

    uvicorn waits for ever for a request line, for a head that comes byte by byte, and for the rest
    of a body after its answer: a deadline for each. It does not tell the application which
    certificate the client showed: `scope["state"]["certificate"]` does, "" for none.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        shown = secured.getpeercert(binary_form=True) if secured is not None else None
        self.app_state = {**self.app_state, "certificate": fingerprint(shown) if shown else ""}
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self.answering:
            self._wait()
        super().data_received(data)
        if self.answering:
            self._wait_no_more()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(FIRST_WORD_S, self._too_late)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.answering:
            self.transport.abort()


class Loop(asyncio.SelectorEventLoop):
    """uvicorn leaves a TLS handshake the 60 s that asyncio gives it."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:  # Any: passed on
        if kwargs.get("ssl") is not None:
            kwargs["ssl_handshake_timeout"] = HANDSHAKE_S
        return await super().create_server(*args, **kwargs)


class Listening(socket.socket):
    """Accepts within a number; where it is reached, the oldest connection without a request makes room.

    asyncio accepts whatever comes, and a TLS connection that says nothing costs half a MB there before
    any protocol of ours is asked. Mutable, touched by the event loop alone: the connections that are open.
    """

    def __init__(self, plain: socket.socket) -> None:
        """In place of `plain`, which is listening. `protocols` is uvicorn's set of those it talks to,
        `collects` whether they are TLS connections."""
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self._open: list[socket.socket] = []
        self._accepted = 0
        self.protocols: Collection[object] = ()
        self.collects = False

    # Any: an address, as the family has it
    def accept(self) -> tuple[socket.socket, Any]:
        """As socket.accept. Raises ConnectionAbortedError, on which asyncio goes on, for one too many."""
        connection, address = super().accept()
        self._accepted += 1
        if self.collects and self._accepted % COLLECT_EVERY == 0:
            gc.collect()
        self._open = [other for other in self._open if other.fileno() >= 0]
        neighbours = [other for other in self._open if _address(other) == address[0]]
        crowd = neighbours if len(neighbours) >= PER_ADDRESS else self._open
        if (crowd is neighbours or len(crowd) >= CONNECTIONS) and not self._make_room(crowd):
            connection.close()
            raise ConnectionAbortedError
        self._open.append(connection)
        return connection, address

    def _make_room(self, crowd: Iterable[socket.socket]) -> bool:
        busy = {
            one.transport.get_extra_info("socket").fileno()
            for one in self.protocols if isinstance(one, Protocol) and one.answering
        }  # fmt: skip
        for other in crowd:  # the oldest first
            if other.fileno() not in busy:
                with suppress(OSError):
                    other.shutdown(socket.SHUT_RDWR)
                self._open.remove(other)
                return True
        return False


def listening(host: str, port: int) -> Listening:
    """A socket bound and listening. Raises OSError."""
    return Listening(socket.create_server((host, port), family=_family(host), backlog=BACKLOG))


def _address(connection: socket.socket) -> str:
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return ""


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
