"""One association, from acceptance to its end: messages in, the data of each straight to disk, answers out.

PS3.8 9.3.5 (P-DATA-TF), PS3.7 9.3.1, 9.3.5 and 10.3.1 (C-STORE, C-ECHO, N-EVENT-REPORT). One thread,
one message at a time: no asynchronous operations window is agreed on. Nothing of an object is
held in memory; each piece
goes to the intake as it comes off the wire, whatever lengths the PDU announced.

pynetdicom's own association runs three threads that look for work every few milliseconds, collects
a data set before it gives it away, and reserves what a PDU header announces; so this loop stands
in its place. What is negotiated stays pynetdicom's (see `negotiation`).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from dicom_node.dicom.command import (
    C_ECHO_RQ,
    C_STORE_RQ,
    LONGEST_COMMAND_BYTES,
    N_EVENT_REPORT_RQ,
    VERIFICATION,
    Command,
)
from dicom_node.dicom.commitment import COMMITMENT
from dicom_node.errors import DicomNodeError, UnreadableObject
from dicom_node.receive.commitment import Announcement
from dicom_node.receive.intake import Incoming, Intake, Request
from dicom_node.receive.negotiation import (
    INVALID_PARAMETER,
    NO_REASON,
    RELEASED,
    UNEXPECTED_PDU,
    UNRECOGNISED_PDU,
    Agreed,
    aborted,
)
from dicom_node.receive.wire import Gone, TooSlow, Wire

LONGEST_PDU_BYTES = 2 << 20
"""Some senders overstep the length that was agreed on; since nothing is reserved, it costs nothing."""
LASTS_AT_MOST_S = 24 * 3600.0
"""An association older than this is aborted between two messages."""
PACE_S, PACE_BYTES = 30.0, 65536
"""A data set brings so many bytes in so many seconds: 2 kB/s, or its sender is taken for one that drips."""
PIECES_AT_A_TIME = 64
"""A PDU may be cut into thousands of values of a byte; writev takes 1024 pieces."""
LINGER_S = 0.5

_PDU_HEADER, _ITEM_HEADER = struct.Struct(">BxI"), struct.Struct(">IBB")
_HEADERS_BYTES = 12
_P_DATA, _RELEASE_RQ, _ABORT = 0x04, 0x05, 0x07
_KNOWN_PDUS = range(0x01, 0x08)
_COMMAND, _LAST = 1, 2  # Message Control Header, PS3.8 E.2


class End(Enum):
    """How an association ended."""

    RELEASED = "released"
    ABORTED = "aborted"
    """By the peer, or its connection broke."""
    CUT = "cut"
    """By this node: too slow, or something that has no place in the protocol."""


class Misused(DicomNodeError):
    """The peer sent what has no place here in the protocol; the association is aborted."""

    reason: ClassVar[int] = UNEXPECTED_PDU


class UnknownPdu(Misused):
    """A PDU of no known type."""

    reason = UNRECOGNISED_PDU


class InvalidPdu(Misused):
    """A PDU that is absurdly long, or whose lengths contradict each other."""

    reason = INVALID_PARAMETER


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed on, and within which limits."""

    peer: str
    agreed: Mapping[int, Agreed]
    timeout_s: float
    """For silence between messages, and for each PDU to arrive."""
    announcement: Callable[[str], Announcement] | None = None
    """Takes a storage commitment report, given its transfer syntax; None where the service is not offered."""


Keep = Callable[[Incoming | Announcement], tuple[int, str]]
"""Called with a whole data set; status and comment of the answer to it."""
_NO_STORAGE = frozenset({VERIFICATION, COMMITMENT})


class Association:
    """Mutable; run by one thread, `progress` is read by others."""

    def __init__(self, wire: Wire, terms: Terms, intake: Intake, keep: Keep):
        self._wire = wire
        self._terms = terms
        self._intake = intake
        self._keep = keep
        self._incoming: Incoming | Announcement | None = None
        self._asked: Command | None = None
        self._context_id = 0
        self._command = bytearray()
        self._pieces: list[memoryview] = []
        self._pace_from, self._pace_bytes = 0.0, 0
        self.messages = 0
        self.progress = self.started = time.monotonic()
        """When the last message, or a good part of one, had come."""

    def run(self) -> End:
        """Until the peer releases or aborts it, or misuses it. Never raises for what a peer does."""
        try:
            while self._pdu():
                pass
        except Gone:
            return End.ABORTED
        except TooSlow:
            self._abort(NO_REASON)
            return End.CUT
        except Misused as error:
            self._abort(error.reason)
            return End.CUT
        finally:
            if self._incoming is not None:
                self._incoming.close()
                self._incoming = None
        return End.RELEASED

    def _pdu(self) -> bool:
        """Take one PDU; False after a release."""
        now = time.monotonic()
        if now - self.started > LASTS_AT_MOST_S and self._incoming is None:
            raise TooSlow
        kind, length = _PDU_HEADER.unpack(self._wire.exactly(6, now + self._terms.timeout_s))
        if kind == _P_DATA:
            if not 6 <= length <= LONGEST_PDU_BYTES:
                raise InvalidPdu
            self._p_data(length, time.monotonic() + self._terms.timeout_s)
            return True
        if kind == _RELEASE_RQ and length == 4:
            self._wire.exactly(length, time.monotonic() + LINGER_S)
            self._wire.send(RELEASED)
            self._wire.linger(LINGER_S)
            return False
        if kind == _ABORT:
            raise Gone
        raise Misused if kind in _KNOWN_PDUS else UnknownPdu

    def _p_data(self, rest: int, until: float) -> None:
        """The presentation data values of one P-DATA-TF, PS3.8 9.3.5.1."""
        while rest:
            if rest < 6:
                raise InvalidPdu
            length, context_id, header = _ITEM_HEADER.unpack(self._wire.exactly(6, until))
            if not 2 <= length <= rest - 4:
                raise InvalidPdu
            rest -= 4 + length
            if header & _COMMAND:
                self._command_fragment(length - 2, context_id, until, last=bool(header & _LAST))
            else:
                self._data_fragment(length - 2, context_id, until, last=bool(header & _LAST))

    def _command_fragment(self, length: int, context_id: int, until: float, *, last: bool) -> None:
        if self._incoming is not None or len(self._command) + length > LONGEST_COMMAND_BYTES:
            raise Misused
        if self._command and context_id != self._context_id:
            raise Misused
        self._context_id = context_id
        while length:
            piece = self._wire.piece(length, until)
            self._command += piece
            length -= len(piece)
        if last:
            encoded, self._command = bytes(self._command), bytearray()
            self._message(encoded, context_id)

    def _message(self, encoded: bytes, context_id: int) -> None:
        """A whole command set: answered, or its data set awaited."""
        agreed = self._terms.agreed.get(context_id)
        try:
            asked = Command.decoded(encoded)
        except UnreadableObject as error:
            raise Misused from error
        if agreed is None:
            raise Misused
        if asked.field == C_ECHO_RQ and not asked.has_data_set:
            self._answer(asked.echo_response(), context_id)
        elif asked.field == C_STORE_RQ and asked.has_data_set and agreed.abstract_syntax not in _NO_STORAGE:
            self._asked = asked
            self._incoming = self._intake.begin(
                Request(
                    sop_class_uid=asked.sop_class_uid, sop_instance_uid=asked.sop_instance_uid,
                    agreed_class_uid=agreed.abstract_syntax, transfer_syntax_uid=agreed.transfer_syntax,
                    peer=self._terms.peer,
                )
            )  # fmt: skip
            self._pace_from, self._pace_bytes = time.monotonic(), 0
        elif asked.field == N_EVENT_REPORT_RQ and asked.has_data_set and self._announced(asked, agreed):
            self._pace_from, self._pace_bytes = time.monotonic(), 0
        else:
            raise Misused

    def _announced(self, asked: Command, agreed: Agreed) -> bool:
        """Await the report where it has its place."""
        announcement = self._terms.announcement
        if announcement is None or agreed.abstract_syntax != COMMITMENT:
            return False
        self._asked, self._incoming = asked, announcement(agreed.transfer_syntax)
        return True

    def _data_fragment(self, length: int, context_id: int, until: float, *, last: bool) -> None:
        incoming, asked = self._incoming, self._asked
        if incoming is None or asked is None or context_id != self._context_id:
            raise Misused
        while length:
            piece = self._wire.piece(length, until)
            length -= len(piece)
            self._pieces.append(piece)
            self._pace(len(piece))
            # Pieces of one reading go to the disk together, before the next one (of headers, too) makes
            # them invalid.
            if self._wire.buffered <= _HEADERS_BYTES or len(self._pieces) >= PIECES_AT_A_TIME:
                self._write(incoming)
        if last:
            self._write(incoming)
            status, comment = self._keep(incoming)
            self._incoming = self._asked = None
            self._answer(asked.store_response(status, comment), context_id)

    def _write(self, incoming: Incoming | Announcement) -> None:
        if self._pieces:
            incoming.write(*self._pieces)
            self._pieces.clear()

    def _pace(self, arrived: int) -> None:
        """Raises TooSlow when a window of PACE_S brought less than PACE_BYTES."""
        self._pace_bytes += arrived
        if self._pace_bytes >= PACE_BYTES:
            self.progress = self._pace_from = time.monotonic()
            self._pace_bytes = 0
        elif time.monotonic() - self._pace_from > PACE_S:
            raise TooSlow

    def _answer(self, command_set: bytes, context_id: int) -> None:
        self._wire.send(
            struct.pack(">BxIIBB", _P_DATA, len(command_set) + 6, len(command_set) + 2, context_id, 3)
            + command_set
        )
        self.messages += 1
        self.progress = time.monotonic()

    def _abort(self, reason: int) -> None:
        try:
            self._wire.send(aborted(reason))
        except Gone:
            return
        self._wire.linger(LINGER_S)
