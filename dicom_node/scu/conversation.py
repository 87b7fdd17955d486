"""Requests to a peer and their answers: C-FIND, C-GET, C-MOVE as SCU (PS3.7 9.1.2 to 9.1.4, 9.3).

Promises: every wait ends; what the peer answers is bounded before it is held; the data set of a
C-STORE sub-operation goes to its spool file fragment by fragment. pynetdicom, which opens and
ends the association, would hold whole data sets in memory, decode whatever stands in an answer,
and wait anew for each message of a peer that never comes to an end.
"""

from __future__ import annotations

import queue
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol  # Any: pynetdicom ships no types

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.dicom.command import LONGEST_COMMAND_BYTES, command_set, elements, number, text
from dicom_node.dicom.query_status import Service
from dicom_node.errors import RetrieveError, UnreadableObject

LONGEST_IDENTIFIER_BYTES = 1 << 20
"""A match has some 500 bytes; a list of failed SOP Instance UIDs has 65 for each."""
WAITING_BYTES = 32 << 20
"""Answers that came and were not looked at yet; a peer that is faster than this node is cut off."""
SLOWEST_BYTES_PER_S = 125_000
"""A line slower than 1 Mbit/s is taken for one that hangs; large objects get their time by it."""

_MESSAGE_BYTES, _STORE_BYTES = 512, WAITING_BYTES // 8
"""What a message that waits counts beside its identifier; sub-operations hold a file each."""
_ENDED = "ended the association before it had answered: see its log"
_IDLE = "Sta1"  # no association, PS3.8 9.2.2
_COMMAND, _LAST = 1, 2  # Message Control Header, PS3.8 E.2
_NO_DATA_SET = 0x0101
_REQUEST = {Service.FIND: 0x0020, Service.GET: 0x0010, Service.MOVE: 0x0021}  # Command Field, PS3.7 E.1
_RESPONSE = {0x8020, 0x8010, 0x8021}
_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_CLASS, _FIELD, _ID, _RESPONDED, _DESTINATION = 0x0002, 0x0100, 0x0110, 0x0120, 0x0600
_PRIORITY, _DATA_SET_TYPE, _STATUS, _INSTANCE = 0x0700, 0x0800, 0x0900, 0x1000
_REMAINING, _COMPLETED, _FAILED, _WARNING = 0x1020, 0x1021, 0x1022, 0x1023


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. The numbers of sub-operations are None where the peer does not state them."""

    status: int
    remaining: int | None
    completed: int | None
    failed: int | None
    warning: int | None
    identifier: bytes


class Sink(Protocol):
    """Where the data set of a sub-operation goes, fragment by fragment."""

    def write(self, *fragments: bytes | bytearray | memoryview) -> None: ...

    def close(self) -> None:
        """It is cut off, or nobody wants it: nothing of it stays."""


@dataclass(frozen=True, slots=True)
class SubOperation:
    """One C-STORE request of a C-GET, its data set written. `incoming` is None where it was not asked for."""

    context_id: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    incoming: Sink | None


@dataclass(frozen=True, slots=True)
class Offer:
    """What a sub-operation offers before its data set comes; the UIDs are as sent, unchecked."""

    sop_class_uid: str
    sop_instance_uid: str
    agreed_class_uid: str
    transfer_syntax_uid: str


Taker = Callable[[Offer], Sink | None]
"""Where the data set of a sub-operation goes; None drops it."""


def _nobody(offer: Offer) -> None:
    return None


class Conversation:
    """Requests over one association, one after the other.

    Mutable, used by one thread: the number of the last request.
    """

    def __init__(self, association: Any, who: str, timeout_s: float, take: Taker | None = None) -> None:
        self._association = association
        self._who = who
        self._timeout_s = timeout_s
        self._last_id = 0
        self._listener = _Listener(association, take or _nobody, stores=take is not None)

    @contextmanager
    def open(self) -> Iterator[Conversation]:
        """Take the association over from pynetdicom's own loop, and give it back to be ended."""
        self._pause()
        self._association.dimse = self._listener
        try:
            yield self
        finally:
            self._listener.close()
            self._association._reactor_checkpoint.set()

    def _pause(self) -> None:
        """Its loop stops at the checkpoint; where the peer has aborted already there is no loop any more."""
        association, until = self._association, time.monotonic() + self._timeout_s
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            if not association.is_alive() or time.monotonic() > until:
                raise RetrieveError(f"{self._who} {_ENDED}")
            time.sleep(0.0005)

    def ask(
        self, service: Service, sop_class_uid: str, identifier: bytes, *, destination: str = "",
        alive: Callable[[], object] = lambda: None,
    ) -> Iterator[Answer | SubOperation]:  # fmt: skip
        """Send one request and yield what comes back; the caller stops at the answer that is final.

        A peer may be silent for `timeout_s`; a change of what `alive` says counts as a word of it.
        Raises RetrieveError when the peer is silent for longer, ends the association, or sends what has no
        place here.
        """
        context_id = self._context(sop_class_uid)
        self._last_id += 1
        values = {
            _CLASS: _uid(sop_class_uid), _FIELD: _us(_REQUEST[service]), _ID: _us(self._last_id),
            _PRIORITY: _us(0), _DATA_SET_TYPE: _us(0x0001),
        }  # fmt: skip
        if destination:
            values[_DESTINATION] = _even(destination.encode("ascii"), b" ")
        self._send(context_id, command_set(values), identifier)
        while True:
            message = self._next(alive)
            if isinstance(message, SubOperation) or message.request == self._last_id:
                yield message if isinstance(message, SubOperation) else message.answer

    def respond(self, sub: SubOperation, status: int) -> None:
        """C-STORE-RSP, PS3.7 9.3.1.2; after T1 where the status is success."""
        values = {
            _CLASS: _uid(sub.sop_class_uid), _FIELD: _us(_C_STORE_RSP), _RESPONDED: _us(sub.message_id),
            _DATA_SET_TYPE: _us(_NO_DATA_SET), _STATUS: _us(status), _INSTANCE: _uid(sub.sop_instance_uid),
        }  # fmt: skip
        self._send(sub.context_id, command_set(values), b"")

    def _context(self, sop_class_uid: str) -> int:
        for context in self._association.accepted_contexts:
            if context.abstract_syntax == sop_class_uid:
                return int(context.context_id)
        raise RetrieveError(f"{self._who} does not offer this service (presentation context rejected)")

    def _send(self, context_id: int, command: bytes, data_set: bytes) -> None:
        longest = (self._listener.maximum_pdu_size or 1 << 17) - 6
        for kind, message in ((_COMMAND, command), (0, data_set)):
            for at in range(0, len(message), longest):
                last = _LAST if at + longest >= len(message) else 0
                pdu = P_DATA()
                pdu.presentation_data_value_list.append(
                    (context_id, bytes([kind | last]) + message[at : at + longest])
                )
                self._association.dul.send_pdu(pdu)

    def _next(self, alive: Callable[[], object]) -> _Response | SubOperation:
        since, seen = time.monotonic(), alive()
        while True:
            allowed_s = self._timeout_s + self._listener.arriving_bytes / SLOWEST_BYTES_PER_S
            try:
                return self._listener.take(min(0.5, self._timeout_s))
            except queue.Empty:
                if self._association.dul.state_machine.current_state == _IDLE:
                    raise RetrieveError(f"{self._who} {_ENDED}") from None
                if (now := alive()) != seen:
                    since, seen = time.monotonic(), now
                elif time.monotonic() - since >= allowed_s:
                    raise RetrieveError(
                        f"{self._who} did not go on within {self._timeout_s:g} s: see its log"
                    ) from None
            except _Over as over:
                raise RetrieveError(f"{self._who} {over}") from None


class _Over(RetrieveError):
    """The peer ended the association, or has to be stopped."""


@dataclass(frozen=True, slots=True)
class _Response:
    request: int
    answer: Answer


@dataclass(slots=True)
class _Arriving:
    """The message that is being received. Mutable, written by the association's reader thread."""

    context_id: int
    values: Mapping[int, bytes]
    incoming: Sink | None = None
    identifier: bytearray = field(default_factory=bytearray)

    @property
    def is_store(self) -> bool:
        return number(self.values, _FIELD) == _C_STORE_RQ


class _Listener(DIMSEServiceProvider):  # type: ignore[misc] # pynetdicom ships no types
    """Stands in for pynetdicom's collector of messages; see the module.

    Mutable: what is arriving, written by the reader thread; the bytes that wait, under the lock.
    """

    def __init__(self, association: Any, take: Taker, *, stores: bool) -> None:
        super().__init__(association)
        self._take = take
        self._stores = stores
        self._command = bytearray()
        self._arriving: _Arriving | None = None
        self._deaf = False
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self.arriving_bytes = 0

    def take(self, within_s: float) -> _Response | SubOperation:
        """The next whole message. Raises queue.Empty, or _Over when there will be none."""
        _, message = self.msg_queue.get(timeout=within_s)
        if message is None:
            raise _Over(_ENDED)
        if isinstance(message, _Over):
            raise message
        self._wait_for(-_weight(message))
        return message  # type: ignore[no-any-return] # pynetdicom's queue

    def close(self) -> None:
        """Remove what was cut off, and what nobody answered."""
        self._deaf = True
        if self._arriving is not None and self._arriving.incoming is not None:
            self._arriving.incoming.close()
        while not self.msg_queue.empty():
            _, message = self.msg_queue.get_nowait()
            if isinstance(message, SubOperation) and message.incoming is not None:
                message.incoming.close()

    def receive_primitive(self, primitive: P_DATA) -> None:
        for context_id, pdv in primitive.presentation_data_value_list:
            if self._deaf:
                return
            try:
                self._fragment(context_id, pdv)
            except (_Over, UnreadableObject) as error:
                over = error if isinstance(error, _Over) else _Over(f"sent {error}")
                self._deaf = True
                self.msg_queue.put((None, over))

    def _fragment(self, context_id: int, pdv: bytes) -> None:
        if not pdv:
            raise _Over("sent an empty fragment")
        header, fragment = pdv[0], memoryview(pdv)[1:]
        self.arriving_bytes += len(fragment)
        if header & _COMMAND:
            self._take_command(context_id, fragment, last=bool(header & _LAST))
            return
        arriving = self._arriving
        if arriving is None or arriving.context_id != context_id:
            raise _Over("sent a data set that belongs to no message")
        if arriving.is_store:
            if arriving.incoming is not None:
                arriving.incoming.write(fragment)
        else:
            self._hold(arriving, fragment)
        if header & _LAST:
            self._whole(arriving)

    def _hold(self, arriving: _Arriving, fragment: memoryview) -> None:
        arriving.identifier += fragment
        if len(arriving.identifier) > LONGEST_IDENTIFIER_BYTES:
            raise _Over("sends longer answers than this node holds")

    def _wait_for(self, size_bytes: int) -> None:
        with self._lock:
            self._waiting_bytes += size_bytes
            if self._waiting_bytes > WAITING_BYTES:
                raise _Over("sends more, and sooner, than it was asked for")

    def _take_command(self, context_id: int, fragment: memoryview, *, last: bool) -> None:
        self._command += fragment
        if self._arriving is not None or len(self._command) > LONGEST_COMMAND_BYTES:
            raise _Over("sent a message within a message, or a command set of no reasonable length")
        if not last:
            return
        command, self._command = bytes(self._command), bytearray()
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise _Over("sent a message for a presentation context that was not agreed on")
        self._begin(_Arriving(context_id, elements(command)), context)

    # Any: pynetdicom's PresentationContext
    def _begin(self, arriving: _Arriving, context: Any) -> None:
        what = number(arriving.values, _FIELD)
        if what == _C_STORE_RQ and self._stores:
            number(arriving.values, _ID)
            arriving.incoming = self._take(
                Offer(
                    sop_class_uid=text(arriving.values, _CLASS),
                    sop_instance_uid=text(arriving.values, _INSTANCE),
                    agreed_class_uid=str(context.abstract_syntax),
                    transfer_syntax_uid=str(context.transfer_syntax[0]),
                )
            )
        elif what in _RESPONSE:
            number(arriving.values, _RESPONDED), number(arriving.values, _STATUS)
        else:
            raise _Over("sent a message that has no place in an answer")
        self._arriving = arriving
        if number(arriving.values, _DATA_SET_TYPE) == _NO_DATA_SET:
            self._whole(arriving)

    def _whole(self, arriving: _Arriving) -> None:
        self._arriving, self.arriving_bytes = None, 0
        message = _sub_operation(arriving) if arriving.is_store else _response(arriving)
        try:
            self._wait_for(_weight(message))
        except _Over:
            if arriving.incoming is not None:
                arriving.incoming.close()
            raise
        self.msg_queue.put((arriving.context_id, message))


def _weight(message: SubOperation | _Response) -> int:
    if isinstance(message, SubOperation):
        return _STORE_BYTES
    return _MESSAGE_BYTES + len(message.answer.identifier)


def _sub_operation(arriving: _Arriving) -> SubOperation:
    values = arriving.values
    return SubOperation(
        arriving.context_id, number(values, _ID), text(values, _CLASS), text(values, _INSTANCE),
        arriving.incoming,
    )  # fmt: skip


def _response(arriving: _Arriving) -> _Response:
    values = arriving.values
    answer = Answer(
        number(values, _STATUS), _count(values, _REMAINING), _count(values, _COMPLETED),
        _count(values, _FAILED), _count(values, _WARNING), bytes(arriving.identifier),
    )  # fmt: skip
    return _Response(number(values, _RESPONDED), answer)


def _count(values: Mapping[int, bytes], element: int) -> int | None:
    value = values.get(element, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(value: str) -> bytes:
    return _even(value.encode("ascii", "replace"), b"\0")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)
