"""A connection, read through one buffer: every wait has an end, nothing announced is reserved.

No polling: a read blocks in the kernel until there are bytes, and takes all there are. A peer that
sends a byte now and then is held to a time by `until`, which bounds the whole of what is awaited.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time

from dicom_node.errors import DicomNodeError

FIRST_BYTES = 16384
"""Buffer of a connection whose peer is not known yet."""
BUFFER_BYTES = 262144
"""Buffer of an association: fits a processor's cache, holds two PDUs of 128 KiB."""
LOOK_EVERY_S = 1
"""A blocked read returns so often to look at its deadline."""
ANSWER_WITHIN_S = 10
"""A peer that does not read its answers for so long is let go."""


class Gone(DicomNodeError):
    """The peer closed the connection, or it broke."""


class TooSlow(DicomNodeError):
    """The deadline passed before what was awaited had come."""


class Wire:
    """Mutable; read by one thread. `shut` may be called by any."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray(FIRST_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        seconds = struct.pack("ll", LOOK_EVERY_S, 0)
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", ANSWER_WITHIN_S, 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # answers are small: send at once

    def over(self, secured: ssl.SSLSocket, until: float) -> None:
        """From here on by TLS; the handshake first. Raises OSError, of which SSLError is one.

        OpenSSL does not know SO_RCVTIMEO: the socket's own timeout serves.
        """
        self._socket = secured
        secured.settimeout(max(until - time.monotonic(), 0.001))
        secured.do_handshake()
        secured.settimeout(LOOK_EVERY_S)

    def widen(self) -> None:
        """Give a peer that was let in a larger buffer."""
        rest = self._view[self._start : self._end]
        self._buffer = bytearray(BUFFER_BYTES)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        self._view = memoryview(self._buffer)

    def exactly(self, count: int, until: float) -> memoryview:
        """`count` bytes, fewer than the buffer holds; valid until the next read. Raises Gone, TooSlow."""
        while self._end - self._start < count:
            if self._start:
                rest = self._end - self._start
                self._buffer[:rest] = self._buffer[self._start : self._end]
                self._start, self._end = 0, rest
            self._receive(until)
        self._start += count
        return self._view[self._start - count : self._start]

    def piece(self, at_most: int, until: float) -> memoryview:
        """Some bytes, at least one; valid until the next read. Raises Gone, TooSlow."""
        if self._start == self._end:
            self._start = self._end = 0
            self._receive(until)
        taken = min(at_most, self._end - self._start)
        self._start += taken
        return self._view[self._start - taken : self._start]

    @property
    def buffered(self) -> int:
        """Bytes that can be read without waiting, and without making earlier pieces invalid."""
        return self._end - self._start

    def send(self, content: bytes) -> None:
        """Raises Gone, also when the peer does not read."""
        try:
            self._socket.sendall(content)
        except OSError as error:  # BlockingIOError when SO_SNDTIMEO passed
            raise Gone from error

    def shut(self) -> None:
        """End the connection from outside: a blocked read returns at once."""
        with contextlib.suppress(OSError):  # the peer was quicker
            socket.socket.shutdown(
                self._socket, socket.SHUT_RDWR
            )  # an SSLSocket's would drop its state as well

    def linger(self, seconds: float) -> None:
        """Let the last answer reach the peer: closing with bytes unread would overtake it."""
        until = time.monotonic() + seconds
        self._start = self._end = 0
        with contextlib.suppress(OSError, Gone, TooSlow):
            self._socket.shutdown(socket.SHUT_WR)
            while True:
                self._end = 0
                self._receive(until)

    def _receive(self, until: float) -> None:
        while True:
            try:
                count = self._socket.recv_into(self._view[self._end :])
            except (BlockingIOError, TimeoutError):
                if time.monotonic() >= until:
                    raise TooSlow from None
                continue
            except OSError as error:
                raise Gone from error
            if not count:
                raise Gone
            self._end += count
            # A sender with Nagle's algorithm waits for this before it sends on: 40 ms each time.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if time.monotonic() >= until:
                raise TooSlow
            return
