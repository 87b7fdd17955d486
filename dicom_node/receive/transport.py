"""Where pynetdicom 3.0.4 must be bettered: each subclass with its reason, all of them here.

The association state machine, negotiation and the DIMSE services stay pynetdicom's. Nothing else
in the node subclasses it on the receiving side, so this file can be replaced.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import Counter
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_node import log
from dicom_node.errors import UnreadableObject
from dicom_node.receive.command import C_ECHO_RQ, C_STORE_RQ, VERIFICATION, Command
from dicom_node.receive.intake import Incoming, Intake, Request

LONGEST_PDU_BYTES = 2 << 20
"""Above any PDU this node agrees to (max_pdu_bytes), and above any A-ASSOCIATE-RQ."""
LONGEST_COMMAND_BYTES = 16384
"""A C-STORE or C-ECHO command set has some 200 bytes."""
WAITING_MESSAGES = 4
"""Requests read ahead of their answers; only one is allowed without an asynchronous operations window."""
UNANNOUNCED_PER_ADDRESS = 16
"""Connections of one address that have not yet asked for an association."""

_COMMAND, _LAST = 1, 2  # Message Control Header, PS3.8 E.2


class BoundedSocket(AssociationSocket):  # type: ignore[misc] # pynetdicom ships no types
    """Reads PDUs within a length and a time.

    pynetdicom reserves what a header announces (up to 4 GiB, before anybody is known), waits for
    it without a deadline (one byte a second holds a thread for days), reads 4 KiB at a time, and
    asks by select(), which fails for every descriptor above 1023.
    """

    deadline_s: float

    @classmethod
    def instead_of(cls, plain: AssociationSocket, deadline_s: float) -> BoundedSocket:
        bounded = cls.__new__(cls)
        bounded.__dict__ = plain.__dict__  # the same socket and state; __init__ would announce it twice
        bounded.deadline_s = deadline_s
        return bounded

    @property
    def ready(self) -> bool:
        if self.socket is None or not self._is_connected:
            return False
        try:
            poller = select.poll()
            poller.register(self.socket, select.POLLIN)
            return bool(poller.poll(0))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")  # transport connection closed, PS3.8 9.2
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """`nr_bytes`, or fewer when the peer closed. Raises OSError: too long, or too slow."""
        if nr_bytes > LONGEST_PDU_BYTES:
            raise OSError("PDU too long")
        until = time.monotonic() + self.deadline_s
        received, at = bytearray(nr_bytes), 0
        view = memoryview(received)
        while at < nr_bytes:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            count = self.socket.recv_into(view[at:])
            # A sender with Nagle's algorithm waits for this before it sends the data set: 40 ms each time.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if not count:
                break
            at += count
        self.socket.settimeout(self.deadline_s)  # for the answer: a peer that does not read is let go
        return received if at == nr_bytes else received[:at]


class StreamingDimse(DIMSEServiceProvider):  # type: ignore[misc] # pynetdicom ships no types
    """Writes each fragment of a C-STORE data set to its spool file as it comes.

    pynetdicom collects whole data sets in memory; with STORE_RECV_CHUNKED_DATASET it leaves a
    temporary file behind for each transfer that is cut. Other services than C-STORE and C-ECHO
    have no business here, and what nobody asked for is not collected either.

    Mutable, written by the association's reader thread: the message being received. The counters
    are written by the thread that answers.
    """

    def __init__(self, assoc: Association, intake: Intake) -> None:
        super().__init__(assoc)
        self._intake = intake
        self._command = bytearray()
        self._store: C_STORE | None = None
        self._incoming: Incoming | None = None
        self.peer = ""
        self.stored = 0
        self.refused = 0
        self.stored_bytes = 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        for context_id, pdv in primitive.presentation_data_value_list:
            if not self._fragment(context_id, pdv):
                self.dul.event_queue.put("Evt19")  # unexpected PDU: A-ABORT, PS3.8 9.2
                return

    def close(self) -> None:
        """After the association: remove what was cut off, and what nobody answered."""
        if self._incoming is not None:
            self._incoming.close()
        while not self.msg_queue.empty():
            _, message = self.msg_queue.get_nowait()
            if isinstance(getattr(message, "incoming", None), Incoming):
                message.incoming.close()

    def _fragment(self, context_id: int, pdv: bytes) -> bool:
        """Take one PDV; False when it has no place in the protocol."""
        if not pdv:
            return False
        header, fragment = pdv[0], memoryview(pdv)[1:]
        if header & _COMMAND:
            return self._take_command(context_id, fragment, last=bool(header & _LAST))
        if self._incoming is None or self._store is None or context_id != self._store._context_id:
            return False
        self._incoming.write(fragment)
        if header & _LAST:
            self.msg_queue.put((context_id, self._store))
            self._store = self._incoming = None
        return True

    def _take_command(self, context_id: int, fragment: memoryview, *, last: bool) -> bool:
        self._command += fragment
        if self._incoming is not None or len(self._command) > LONGEST_COMMAND_BYTES:
            return False
        if not last:
            return True
        command, self._command = self._command, bytearray()
        context = self.assoc._accepted_cx.get(context_id)
        if context is None or self.msg_queue.qsize() >= WAITING_MESSAGES:
            return False
        try:
            asked = Command.decoded(bytes(command))
        except UnreadableObject:
            return False
        if asked.field == C_ECHO_RQ and not asked.has_data_set:
            self.msg_queue.put((context_id, asked.echo()))
            return True
        if asked.field == C_STORE_RQ and asked.has_data_set and context.abstract_syntax != VERIFICATION:
            self._begin(asked, context_id, context)
            return True
        return False

    # Any: pynetdicom's PresentationContext
    def _begin(self, asked: Command, context_id: int, context: Any) -> None:
        request = Request(
            sop_class_uid=asked.sop_class_uid,
            sop_instance_uid=asked.sop_instance_uid,
            agreed_class_uid=str(context.abstract_syntax),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            peer=self.peer,
        )
        self._store, self._incoming = asked.store(request.agreed_class_uid), self._intake.begin(request)
        self._store._context_id = context_id
        self._store.incoming = self._incoming


class Connection(RequestHandler):  # type: ignore[misc] # pynetdicom ships no types
    """One connection from accept to close: its thread outlives the association and cleans up after it.

    pynetdicom's ends as soon as the association has started, so nobody would.
    """

    def handle(self) -> None:
        started = time.monotonic()
        assoc = self._create_association()
        assoc.dul.socket = BoundedSocket.instead_of(assoc.dul.socket, self.server.deadline_s)
        assoc.dimse = StreamingDimse(assoc, self.server.intake)
        try:
            assoc.start()
            assoc.join()
            assoc.dul.join()
        finally:
            assoc.dimse.close()
            self.server.gone(assoc, self.client_address[0])
        if assoc.dimse.peer:
            log.event(
                "receive.association", peer=assoc.dimse.peer, stored=assoc.dimse.stored,
                refused=assoc.dimse.refused, bytes=assoc.dimse.stored_bytes,
                aborted=bool(assoc.is_aborted), seconds=round(time.monotonic() - started, 3),
            )  # fmt: skip


class Door(ThreadedAssociationServer):  # type: ignore[misc] # pynetdicom ships no types
    """Accepts connections, within a number.

    pynetdicom counts connections that never said a word as associations, so that 10 silent
    clients lock a hospital out; here they are counted apart, by address, and the associations by
    those let in. Its own accept queue is 5 long.

    Mutable, under the lock: the connections by address, and how many associations were let in.
    """

    daemon_threads = True
    request_queue_size = 128

    # Any: passed on to pynetdicom
    def __init__(self, *args: Any, intake: Intake, deadline_s: float, **kwargs: Any) -> None:
        self.intake = intake
        self.deadline_s = deadline_s
        self._lock = threading.Lock()
        self._unannounced: Counter[str] = Counter()
        self._let_in: set[Association] = set()
        super().__init__(*args, request_handler=Connection, **kwargs)

    def let_in(self, assoc: Association, limit: int) -> bool:
        """Count an association in; False when there are `limit` already."""
        with self._lock:
            if len(self._let_in) >= limit:
                return False
            self._let_in.add(assoc)
            self._announced(assoc.requestor.address)
            return True

    def gone(self, assoc: Association, address: str) -> None:
        """The connection is closed."""
        with self._lock:
            if assoc in self._let_in:
                self._let_in.remove(assoc)
            else:
                self._announced(address)

    @property
    def associations(self) -> tuple[Association, ...]:
        with self._lock:
            return tuple(self._let_in)

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # answers are small: send at once
        return request, address

    def verify_request(self, request: object, client_address: Any) -> bool:
        with self._lock:
            self._unannounced[client_address[0]] += 1
            if self._unannounced[client_address[0]] <= UNANNOUNCED_PER_ADDRESS:
                return True
            self._announced(client_address[0])
            return False

    def handle_error(self, request: object, client_address: object) -> None:
        """socketserver would print a traceback."""
        log.problem("receive.connection_failed")

    def _announced(self, address: str) -> None:
        self._unannounced[address] -= 1
        if self._unannounced[address] <= 0:
            del self._unannounced[address]
