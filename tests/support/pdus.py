"""PDUs by hand (PS3.8 9.3) and DIMSE command sets (PS3.7 9.3), honest or not, and a bare socket to send them.

Nothing here checks anything: what a test asks for goes out. `Line` is one connection; it reads whole
PDUs back. Works without any DICOM library, so that it shares no mistake with what it tests.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from support.mr import MR_IMAGE

VERIFICATION = "1.2.840.10008.1.1"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
COMMAND, LAST = 1, 2
"""Message Control Header, PS3.8 E.2."""
C_STORE_RQ, C_ECHO_RQ = 0x0001, 0x0030
NO_DATA_SET, DATA_SET = 0x0101, 0x0000


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """`length` lies where it is given."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A variable item of A-ASSOCIATE, PS3.8 9.3.2."""
    return struct.pack(">BxH", kind, (len(body) if length is None else length) & 0xFFFF) + body


@dataclass(frozen=True)
class Context:
    """A proposed presentation context."""

    number: int
    abstract_syntax: str = MR_IMAGE
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT,)

    def encoded(self) -> bytes:
        syntaxes = b"".join(item(0x40, uid.encode()) for uid in self.transfer_syntaxes)
        head = struct.pack(">B3x", self.number & 0xFF)
        return item(0x20, head + item(0x30, self.abstract_syntax.encode()) + syntaxes)


USUAL = (Context(1, VERIFICATION), Context(3))
ASYNCHRONOUS = item(0x53, struct.pack(">HH", 0, 0))
"""Asynchronous Operations Window without bound, PS3.7 D.3.3.3."""
BOTH_ROLES = item(0x54, struct.pack(">H", len(MR_IMAGE)) + MR_IMAGE.encode() + b"\1\1")
"""SCP/SCU Role Selection, PS3.7 D.3.3.4."""
IDENTITY = item(0x58, struct.pack(">BBH", 2, 1, 4) + b"user" + struct.pack(">H", 4) + b"pass")
"""User Identity with a passcode, PS3.7 D.3.3.7."""
EXTENDED = item(0x56, struct.pack(">H", len(MR_IMAGE)) + MR_IMAGE.encode() + b"\2\0\0\0\0\0")
COMMON_EXTENDED = item(0x57, struct.pack(">H", len(MR_IMAGE)) + MR_IMAGE.encode() + struct.pack(">HH", 0, 0))


def associate_rq(
    *, calling: str = "SCANNER", called: str = "DICOMNODE", contexts: Sequence[Context] = USUAL,
    max_pdu: int = 16384, user_items: bytes = b"", application: str = APPLICATION_CONTEXT, version: int = 1,
) -> bytes:  # fmt: skip
    titles = called.encode()[:16].ljust(16) + calling.encode()[:16].ljust(16)
    user = item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.826.0.1.3680043.9.1") + user_items
    body = struct.pack(">HH", version, 0) + titles + bytes(32) + item(0x10, application.encode())
    return pdu(ASSOCIATE_RQ, body + b"".join(context.encoded() for context in contexts) + item(0x50, user))


def release_rq() -> bytes:
    return pdu(RELEASE_RQ, bytes(4))


def abort() -> bytes:
    return pdu(ABORT, bytes(4))


def pdv(context: int, header: int, fragment: bytes, *, length: int | None = None) -> bytes:
    """One presentation data value item, PS3.8 9.3.5.1."""
    return (
        struct.pack(">IBB", len(fragment) + 2 if length is None else length, context & 0xFF, header)
        + fragment
    )


def p_data(*values: bytes) -> bytes:
    return pdu(P_DATA, b"".join(values))


def command_set(values: dict[int, bytes]) -> bytes:
    """Elements of group 0000 in implicit VR little endian, with the group length."""
    elements = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value for element, value in sorted(values.items())
    )
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def uid_value(text: str) -> bytes:
    value = text.encode()
    return value + b"\0" * (len(value) % 2)


def echo_rq(message: int = 1) -> bytes:
    return command_set({
        0x0002: uid_value(VERIFICATION), 0x0100: struct.pack("<H", C_ECHO_RQ),
        0x0110: struct.pack("<H", message), 0x0800: struct.pack("<H", NO_DATA_SET),
    })  # fmt: skip


def store_rq(
    instance: str, sop_class: str = MR_IMAGE, *, message: int = 7, data_set: int = DATA_SET
) -> bytes:
    return command_set({
        0x0002: uid_value(sop_class), 0x0100: struct.pack("<H", C_STORE_RQ),
        0x0110: struct.pack("<H", message), 0x0700: b"\2\0", 0x0800: struct.pack("<H", data_set),
        0x1000: uid_value(instance),
    })  # fmt: skip


def message(context: int, header: int, content: bytes, piece: int = 16000) -> list[bytes]:
    """A command set (header COMMAND) or a data set (0) as P-DATA-TF PDUs."""
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)] or [b""]
    return [
        p_data(pdv(context, header | LAST * (number == len(pieces)), fragment))
        for number, fragment in enumerate(pieces, start=1)
    ]


def echo_pdus(context: int = 1) -> list[bytes]:
    return message(context, COMMAND, echo_rq())


def store_pdus(
    instance: str, data_set: bytes, sop_class: str = MR_IMAGE, context: int = 3, piece: int = 16000
) -> list[bytes]:
    return message(context, COMMAND, store_rq(instance, sop_class)) + message(context, 0, data_set, piece)


def session(*stores: tuple[str, bytes], piece: int = 16000) -> list[bytes]:
    """A whole association as PDUs: C-ECHO, a C-STORE of each (instance, data set), release."""
    sent = [pdu for instance, data_set in stores for pdu in store_pdus(instance, data_set, piece=piece)]
    return [associate_rq(), *echo_pdus(), *sent, release_rq()]


class Closed(Exception):
    """The other side closed the connection, or broke it."""


class Line:
    """One connection, plain or TLS."""

    def __init__(self, port: int, *, timeout_s: float = 20.0, tls: ssl.SSLContext | None = None) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")

    def send(self, *content: bytes) -> None:
        """Raises Closed when nobody takes it any more."""
        try:
            self.socket.sendall(b"".join(content))
        except OSError as error:
            raise Closed from error

    def receive(self) -> tuple[int, bytes]:
        """The next PDU as (type, body). Raises Closed, and TimeoutError when nothing comes."""
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def associate(self, request: bytes | None = None) -> tuple[int, bytes]:
        self.send(request or associate_rq())
        return self.receive()

    def echo(self, context: int = 1) -> int:
        """The status."""
        self.send(*echo_pdus(context))
        return self.status()

    def store(self, instance: str, data_set: bytes, sop_class: str = MR_IMAGE) -> int:
        self.send(*store_pdus(instance, data_set, sop_class))
        return self.status()

    def status(self) -> int:
        """Of the next response. Raises Closed where an A-ABORT comes instead."""
        return int.from_bytes(self.response()[0x0900], "little")

    def response(self) -> dict[int, bytes]:
        """The command elements of the next response."""
        kind, body = self.receive()
        if kind != P_DATA:
            raise Closed(f"PDU type {kind} instead of a response")
        return command_elements(body[6:])

    def release(self) -> None:
        self.send(release_rq())
        while self.receive()[0] != RELEASE_RP:
            pass

    def ended(self) -> list[tuple[int, bytes]]:
        """Everything that still comes until the other side closes."""
        found = []
        with contextlib.suppress(Closed):
            while True:
                found.append(self.receive())
        return found

    def close(self) -> None:
        self.socket.close()

    def break_off(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _exactly(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            try:
                piece = self.socket.recv(count - len(received))
            except TimeoutError:
                raise
            except OSError as error:
                raise Closed from error
            if not piece:
                raise Closed
            received += piece
        return bytes(received)


@contextlib.contextmanager
def line(port: int, *, timeout_s: float = 20.0, tls: ssl.SSLContext | None = None) -> Iterator[Line]:
    opened = Line(port, timeout_s=timeout_s, tls=tls)
    try:
        yield opened
    finally:
        opened.close()


def good_echo(port: int, *, tls: ssl.SSLContext | None = None, timeout_s: float = 20.0) -> float:
    """A well-behaved peer: association, C-ECHO, release. The seconds it took; fails where not served."""
    started = time.monotonic()
    with line(port, tls=tls, timeout_s=timeout_s) as peer:
        kind, body = peer.associate()
        assert kind == ASSOCIATE_AC, (kind, body)
        assert 0x0000 == peer.echo()
        peer.release()
    return time.monotonic() - started


def command_elements(encoded: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 8 <= len(encoded):
        _, element, length = struct.unpack_from("<HHI", encoded, at)
        found[element] = encoded[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def results(associate_ac: bytes) -> dict[int, int]:
    """Presentation context id -> result of an A-ASSOCIATE-AC's body, PS3.8 9.3.3.2."""
    found, at = {}, 68
    while at + 4 <= len(associate_ac):
        kind, length = struct.unpack_from(">BxH", associate_ac, at)
        if kind == 0x21:
            found[associate_ac[at + 4]] = associate_ac[at + 6]
        at += 4 + length
    return found
