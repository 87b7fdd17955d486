"""Associations to peers, opened with a deadline and refused with a sentence.

Promises: every wait ends; a connection is always closed; what goes wrong before the first
message is a PeerUnreachable or PeerRefused that says what to change, and where.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any  # Any: pynetdicom ships no types

from pydicom.uid import UID as PydicomUID
from pynetdicom import AE, _config, build_context
from pynetdicom.transport import AssociationSocket

from dicom_node.config import Peer
from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.errors import PeerRefused, PeerUnreachable

_config.STORE_SEND_CHUNKED_DATASET = True  # a file goes out as its bytes, never decoded and encoded anew
_config.LOG_HANDLER_LEVEL = "none"  # the standard handlers write identifiers and a page per PDU

MAX_CONTEXTS = 128
"""Presentation context ids are the odd numbers of a byte, PS3.8 9.3.2.2."""

# PS3.8 Table 9-21: (source, reason) of an A-ASSOCIATE-RJ. {peer}, {called}, {calling} are filled in.
_REJECTED = {
    (1, 1): "{peer} rejected the association without a reason: see its log",
    (1, 2): "{peer} does not support the DICOM application context: is it a DICOM port?",
    (1, 3): "{peer} does not know calling AE {calling!r}: add it there",
    (1, 7): "{peer} does not answer to called AE {called!r}: correct `ae_title` of this peer",
    (2, 1): "{peer} rejected the association without a reason: see its log",
    (2, 2): "{peer} does not support this version of the DICOM protocol",
    (3, 1): "{peer} is congested and rejects associations for the moment",
    (3, 2): "{peer} has reached its limit of associations: raise it there, or wait",
}


class _Socket(AssociationSocket):  # type: ignore[misc]  # pynetdicom ships no types
    """pynetdicom's socket, with what an SCU that must not hang needs.

    No Nagle delay between the last PDU of a request and its answer. The timeout stays on the
    connected socket (pynetdicom takes it away) so that half a PDU or a full window cannot hold
    a thread for ever; and a deadline ends the connection, since every byte of a peer that drips
    starts pynetdicom's timers anew. Why connecting failed is kept; closing always closes.
    """

    socket: Any
    failure: OSError | None = None
    _timer: threading.Timer | None = None

    def connect(self, primitive: Any) -> None:
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(self.assoc.connection_timeout)
            self.socket.connect(primitive.address_info.as_tuple)
            self.socket.settimeout(self.assoc.network_timeout)
            self._is_connected = True
            self.arm(self.assoc.acse_timeout)
            primitive.result = "Evt2"
        except OSError as error:
            self.failure = error
            self.socket.close()
            self.socket = None
            primitive.result = "Evt17"
        self.provider_queue.put(primitive)
        self._ready.set()

    def arm(self, seconds: float) -> None:
        """End the connection in `seconds`, unless disarmed before."""
        self.disarm()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        if (connection := self.socket) is not None:
            with suppress(OSError):  # closed a moment ago: that is what was wanted
                connection.shutdown(socket.SHUT_RDWR)

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with suppress(OSError):  # the peer was quicker
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class _AE(AE):  # type: ignore[misc]  # pynetdicom ships no types
    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> _Socket:
        assoc.daemon = assoc.dul.daemon = True  # else a peer that hangs keeps a stopped node from ending
        return _Socket(assoc, address=address)


def contexts(wanted: Sequence[tuple[str, str]]) -> list[Any]:
    """One presentation context per (SOP class, transfer syntax): so the peer's answer is per pair."""
    return [build_context(sop_class, PydicomUID(syntax)) for sop_class, syntax in dict.fromkeys(wanted)]


@contextmanager
def associated(
    peer: Peer, ae_title: str, wanted: Sequence[tuple[str, str]], timeout_s: float
) -> Iterator[Any]:
    """An association with `peer` that proposes `wanted`: released at the end, aborted on an error.

    Where the peer accepted no context at all the association is given too, ended already, with
    no `accepted_contexts`. Raises PeerUnreachable or PeerRefused.
    """
    association = _open(peer, ae_title, wanted, timeout_s)
    try:
        yield association
    except GeneratorExit:  # the caller has had enough, between two messages
        _release(association, timeout_s)
        raise
    except BaseException:
        _abort(association, timeout_s)
        raise
    _release(association, timeout_s)


def _open(peer: Peer, ae_title: str, wanted: Sequence[tuple[str, str]], timeout_s: float) -> Any:
    ae = _AE(ae_title=ae_title)
    ae.implementation_class_uid = PydicomUID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    started = time.monotonic()
    try:
        association = ae.associate(peer.host, peer.port, contexts=contexts(wanted), ae_title=peer.ae_title)
    except (OSError, UnicodeError) as error:  # the resolver's, before anything is sent
        raise PeerUnreachable(
            f"{name(peer)}: host {peer.host!r} has no address: check `host`, or the DNS"
        ) from error
    association.dul.socket.disarm()
    if association.is_established or association.rejected_contexts:
        return association
    raise _why_not(association, peer, ae_title, timeout_s, time.monotonic() - started)


def _why_not(
    association: Any, peer: Peer, ae_title: str, timeout_s: float, waited_s: float
) -> PeerUnreachable | PeerRefused:
    if association.is_rejected:
        answer = association.acceptor.primitive
        said = _REJECTED.get((answer.result_source, answer.diagnostic), _REJECTED[1, 1])
        return PeerRefused(said.format(peer=name(peer), called=str(peer.ae_title), calling=ae_title))
    where = f"{name(peer)} ({peer.host} port {peer.port})"
    if (failure := association.dul.socket.failure) is not None:
        return PeerUnreachable(f"{where} {_connect_failure(failure, timeout_s)}")
    if waited_s >= timeout_s:
        return PeerUnreachable(
            f"{where} took the connection but did not answer within {timeout_s:g} s: is it a DICOM port?"
        )
    return PeerUnreachable(f"{where} ended the connection instead of answering: is it a DICOM port?")


def _connect_failure(failure: OSError, timeout_s: float) -> str:
    if isinstance(failure, ConnectionRefusedError):
        return "refuses the connection: is it running, is the port right?"
    if isinstance(failure, TimeoutError):
        return f"did not answer within {timeout_s:g} s: is the host up, or does a firewall drop it?"
    return f"cannot be reached: {failure.strerror or type(failure).__name__}"


def _release(association: Any, timeout_s: float) -> None:
    """End in order; the objects are stored already, so a peer that hangs here changes nothing."""
    if association.is_established:
        association.dul.socket.arm(timeout_s)
        association.release()
    _abort(association, timeout_s)


def _abort(association: Any, timeout_s: float) -> None:
    """Whatever state it is in, no thread and no socket stays."""
    transport = association.dul.socket
    if association.is_established:
        transport.arm(timeout_s)
        association.abort()
    if association.is_alive():
        association.join(timeout_s)
    transport.disarm()
    transport._shutdown_socket()


def name(peer: Peer) -> str:
    """The peer as the operator knows it."""
    return f"PACS {peer.name!r}"
