"""Both sides of DICOM by blocking sockets and nothing else, so that they cost next to nothing per crash.

`Sender` is a modality that hears the answers, `Peer` a destination that keeps what it acknowledged.
PS3.8 9.3, PS3.7 9.3.1.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Sequence

from crash.material import MR_IMAGE, Item

EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1"
TIMEOUT_S = 60.0
_APPLICATION = b"1.2.840.10008.3.1.1.1"
_ASSOCIATE_RQ, _ASSOCIATE_AC, _P_DATA, _RELEASE_RQ, _RELEASE_RP = 1, 2, 4, 5, 6
_C_STORE_RQ, _C_ECHO_RQ, _NO_DATA_SET = 0x0001, 0x0030, 0x0101


class Gone(Exception):
    """The other side is dead, or closed the connection."""


class Sender:
    """One association with a receiver, from construction to `release`."""

    def __init__(self, port: int) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        except OSError as error:
            raise Gone from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(_associate_rq())

    def accepted(self) -> None:
        if self._pdu()[0] != _ASSOCIATE_AC:
            raise Gone("not let in")

    def store(self, item: Item) -> None:
        """The request and its data set; `answer` waits for what comes of it."""
        command = _command({
            0x0002: _uid(MR_IMAGE), 0x0100: _us(_C_STORE_RQ), 0x0110: _us(1), 0x0700: _us(0),
            0x0800: _us(1), 0x1000: _uid(item.uid),
        })  # fmt: skip
        self._send(_fragment(1, 3, command) + b"".join(_data_set(item.data_set)))

    def answer(self) -> int:
        kind, body = self._pdu()
        if kind != _P_DATA:
            raise Gone("no answer")
        return int.from_bytes(_elements(body[6:])[0x0900], "little")

    def release(self) -> None:
        with contextlib.suppress(Gone):
            self._send(_pdu(_RELEASE_RQ, bytes(4)))
            self._pdu()
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _send(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise Gone from error

    def _pdu(self) -> tuple[int, bytes]:
        return _read_pdu(self._socket)


class Peer:
    """A destination that takes whatever it is offered. Mutable: what it acknowledged, as (UID, bytes)."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.acknowledged: list[tuple[str, bytes]] = []

    def forget(self) -> None:
        self.acknowledged = []

    def serve(self, until: int) -> None:
        """One association after the other, until the file descriptor `until` can be read."""
        while True:
            ready, _, _ = select.select([self._listening.fileno(), until], [], [], TIMEOUT_S)
            if not ready:
                raise TimeoutError("the node neither called nor ended")
            if self._listening.fileno() not in ready:
                return
            connection, _ = self._listening.accept()
            connection.settimeout(TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, contextlib.suppress(Gone, OSError):
                self._association(connection)

    def close(self) -> None:
        self._listening.close()

    def _association(self, connection: socket.socket) -> None:
        command, data = b"", bytearray()
        while True:
            kind, body = _read_pdu(connection)
            if kind == _ASSOCIATE_RQ:
                connection.sendall(_associate_ac(body))
            elif kind == _RELEASE_RQ:
                connection.sendall(_pdu(_RELEASE_RP, bytes(4)))
            elif kind == _P_DATA:
                for context, header, fragment in _values(body):
                    if header & 1:
                        command += fragment
                    else:
                        data += fragment
                    if header & 2 and (not header & 1 or _ends(command)):
                        connection.sendall(self._stored(context, _elements(command), bytes(data)))
                        command, data = b"", bytearray()
            else:
                return

    def _stored(self, context: int, asked: dict[int, bytes], data: bytes) -> bytes:
        if data:
            self.acknowledged.append((asked[0x1000].rstrip(b"\0").decode(), data))
        field = int.from_bytes(asked[0x0100], "little") | 0x8000
        answer = {
            0x0002: asked[0x0002], 0x0100: _us(field), 0x0120: asked[0x0110], 0x0800: _us(_NO_DATA_SET),
            0x0900: _us(0),
        }  # fmt: skip
        if 0x1000 in asked:
            answer[0x1000] = asked[0x1000]
        return _fragment(context, 3, _command(answer))


def in_step(senders: Sequence[Sender], items: Sequence[Item], told: Callable[[Item, int], None]) -> None:
    """One instance on each association, all at once; `told` hears of each answer. Raises Gone."""
    for sender, item in zip(senders, items, strict=False):
        sender.store(item)
    gone = False
    for sender, item in zip(senders, items, strict=False):
        try:
            told(item, sender.answer())
        except Gone:  # the others may have been answered before
            gone = True
    if gone:
        raise Gone


def _ends(command: bytes) -> bool:
    return _elements(command).get(0x0800) == _us(_NO_DATA_SET)


def _associate_rq() -> bytes:
    context = _item(0x20, b"\1\0\0\0" + _item(0x30, MR_IMAGE.encode()) + _item(0x40, EXPLICIT_LITTLE))
    user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3.4"))
    titles = b"DICOMNODE".ljust(16) + b"SCANNER".ljust(16)
    fixed = struct.pack(">HH", 1, 0) + titles + bytes(32)
    return _pdu(_ASSOCIATE_RQ, fixed + _item(0x10, _APPLICATION) + context + user)


def _associate_ac(request: bytes) -> bytes:
    """Every context is accepted, with the first transfer syntax that is offered."""
    contexts, at = b"", 68
    while at + 4 <= len(request):
        kind, length = struct.unpack_from(">BxH", request, at)
        if kind == 0x20:
            inner = request[at + 8 : at + 4 + length]
            skip = 4 + int.from_bytes(inner[2:4], "big")
            syntax = inner[skip : skip + 4 + int.from_bytes(inner[skip + 2 : skip + 4], "big")]
            contexts += _item(0x21, request[at + 4 : at + 5] + bytes(3) + syntax)
        at += 4 + length
    user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3.5"))
    return _pdu(_ASSOCIATE_AC, request[:68] + _item(0x10, _APPLICATION) + contexts + user)


def _data_set(content: bytes) -> list[bytes]:
    pieces = [content[at : at + 16000] for at in range(0, len(content), 16000)]
    return [_fragment(1, 2 * (piece is pieces[-1]), piece) for piece in pieces]


def _fragment(context: int, header: int, content: bytes) -> bytes:
    return _pdu(_P_DATA, struct.pack(">IBB", len(content) + 2, context, header) + content)


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _command(values: dict[int, bytes]) -> bytes:
    encoded = b"".join(struct.pack("<HHI", 0, n, len(value)) + value for n, value in sorted(values.items()))
    return struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded


def _elements(encoded: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 8 <= len(encoded):
        _, element, length = struct.unpack_from("<HHI", encoded, at)
        found[element] = encoded[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _values(body: bytes) -> list[tuple[int, int, bytes]]:
    found, at = [], 0
    while at < len(body):
        length, context, header = struct.unpack_from(">IBB", body, at)
        found.append((context, header, body[at + 6 : at + 4 + length]))
        at += 4 + length
    return found


def _us(number: int) -> bytes:
    return struct.pack("<H", number)


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    kind, length = struct.unpack(">BxI", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        try:
            piece = connection.recv(count - len(received))
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone from error
        if not piece:
            raise Gone
        received += piece
    return bytes(received)
