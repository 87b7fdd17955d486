"""The line below HTTP to a peer: an httpx transport with a deadline, and with the peer's own certificates.

Promises: a request and its answer end within the request's timeout, however slowly either goes (httpx
bounds each read and write by itself: a peer that sends a byte a second would never be timed out); over
https not a byte of a request, and no token, goes out before the peer has shown a certificate as
`handshake.py` wants it. What goes wrong before that is a PeerUnreachable or PeerRefused.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any  # Any: httpcore's extensions and socket options

import httpcore
import httpx

from dicom_node.config import Peer
from dicom_node.errors import PeerRefused, PeerUnreachable
from dicom_node.scu.association import connect_failure, name
from dicom_node.scu.handshake import Handshake, why

_AT_ONCE_S = 0.001
"""Not 0, which would make a socket one that does not wait at all."""


class Transport(httpx.BaseTransport):
    """One connection at a time, kept open between requests. Used by one thread.

    Of a request's timeouts the one for reading counts, for all of it together.
    """

    def __init__(self, peer: Peer, handshake: Handshake | None) -> None:
        self._deadline = _Deadline()
        self._pool = httpcore.ConnectionPool(
            ssl_context=handshake.context if handshake else None, max_connections=1,
            network_backend=_Backend(peer, handshake, self._deadline),
        )  # fmt: skip

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._deadline.start(request.extensions["timeout"]["read"])
        assert isinstance(request.stream, httpx.SyncByteStream)  # noqa: S101  httpx.Client's are
        url = httpcore.URL(
            scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port,
            target=request.url.raw_path,
        )  # fmt: skip
        asked = httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream)
        with _translated():
            answer = self._pool.handle_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Content(answer))

    def close(self) -> None:
        self._pool.close()


class _Content(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _translated() -> Iterator[None]:
    """httpcore's exceptions as httpx's, which those who ask know."""
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout("the time for this request is over") from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise httpx.RemoteProtocolError("the answer is no HTTP") from error
    except httpcore.NetworkError as error:
        raise httpx.ReadError("the connection ended") from error


class _Deadline:
    """Mutable: when the request that is under way must be over."""

    allowed_s = ends = 0.0

    def start(self, allowed_s: float) -> None:
        self.allowed_s, self.ends = allowed_s, time.monotonic() + allowed_s

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends

    def left(self) -> float:
        """Seconds; when they are over so few that a wait for anything times out at once."""
        return max(self.ends - time.monotonic(), _AT_ONCE_S)


class _Backend(httpcore.NetworkBackend):
    """Connects, and says in a sentence why not."""

    def __init__(self, peer: Peer, handshake: Handshake | None, deadline: _Deadline) -> None:
        self._peer, self._handshake, self._deadline = peer, handshake, deadline

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        where = f"{name(self._peer)} ({self._peer.url})"
        try:
            connection = socket.create_connection((host, port), self._deadline.left())
        except (socket.gaierror, UnicodeError) as error:
            raise PeerUnreachable(f"{where}: its host has no address: check `url`, or the DNS") from error
        except OSError as error:
            said = connect_failure(error, self._deadline.allowed_s)
            raise PeerUnreachable(f"{where} {said}") from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Stream(connection, where, self._handshake, self._deadline)


class _Stream(httpcore.NetworkStream):
    """A connection of which every use ends by the deadline."""

    def __init__(
        self, connection: socket.socket, where: str, handshake: Handshake | None, deadline: _Deadline
    ) -> None:
        self._connection, self._where = connection, where
        self._handshake, self._deadline = handshake, deadline

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The handshake of a peer, whose certificate is checked before anything is sent."""
        assert self._handshake is not None  # noqa: S101  httpcore asks for TLS where `url` is https
        try:
            self._connection.settimeout(self._deadline.left())
            self._connection = secured = self._handshake.wrapped(self._connection)
            self._handshake.shake(secured)
        except TimeoutError as error:
            self.close()
            said = f"took the connection but came to no TLS within {self._deadline.allowed_s:g} s"
            raise PeerUnreachable(f"{self._where} {said}: is it an https port?") from error
        except OSError as error:
            self.close()
            said = why(error, self._handshake.peer, secured=False)
            raise PeerRefused(f"{self._where} {said}") from error
        return self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._deadline.over:
            raise httpcore.ReadTimeout
        try:
            self._connection.settimeout(self._deadline.left())
            return self._connection.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout from error
        except ssl.SSLEOFError as error:
            raise httpcore.ReadError from error
        except ssl.SSLError as error:  # since TLS 1.3 a refusal of our certificate comes this late
            assert self._handshake is not None  # noqa: S101  it was TLS
            said = why(error, self._handshake.peer, secured=True)
            raise PeerRefused(f"{self._where} {said}") from error
        except OSError as error:
            raise httpcore.ReadError from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        waiting = memoryview(buffer)
        try:
            while waiting:
                if self._deadline.over:
                    raise httpcore.WriteTimeout
                self._connection.settimeout(self._deadline.left())
                waiting = waiting[self._connection.send(waiting) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout from error
        except OSError as error:
            raise httpcore.WriteError from error

    def close(self) -> None:
        self._connection.close()

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        poll = select.poll()  # how the pool sees that the peer has closed a connection it kept
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))
