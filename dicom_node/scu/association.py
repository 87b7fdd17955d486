"""Associations to peers, opened with a deadline and refused with a sentence.

Promises: every wait ends; a connection is always closed; it is a TLS one where the peer's `tls`
says so, and then never anything less; what goes wrong before the first message is a
PeerUnreachable or PeerRefused that says what to change, and where.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any  # Any: pynetdicom ships no types

from pydicom.uid import UID as PydicomUID
from pynetdicom import AE, _config, build_context
from pynetdicom.transport import AssociationSocket

from dicom_node.config import Peer, Tls
from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.errors import ConfigurationError, PeerRefused, PeerUnreachable
from dicom_node.scu.handshake import Handshake, why

_config.STORE_SEND_CHUNKED_DATASET = True  # a file goes out as its bytes, never decoded and encoded anew
_config.LOG_HANDLER_LEVEL = "none"  # the standard handlers write identifiers and a page per PDU

LONGEST_PDU_BYTES = 2 << 20
"""Above any PDU that this node asks for; pynetdicom would collect 4 GiB where a header announces them."""
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
    handshake: Handshake | None = None
    failure: OSError | None = None
    shaking = secured = False
    """Whether the TLS handshake has begun, and whether it is done."""
    _timer: threading.Timer | None = None
    _ahead: bytes = b""
    """What `ready` had to read to know that there is something to read."""

    def connect(self, primitive: Any) -> None:
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.settimeout(self.assoc.connection_timeout)
            self.socket.connect(primitive.address_info.as_tuple)
            self.socket.settimeout(self.assoc.network_timeout)
            self.arm(self.assoc.acse_timeout)
            self._secure()
            self._is_connected = True
            primitive.result = "Evt2"
        except OSError as error:
            self.failure = error
            self.socket.close()
            self.socket = None
            primitive.result = "Evt17"
        self.provider_queue.put(primitive)
        self._ready.set()

    def _secure(self) -> None:
        """The handshake, under the deadline that is armed; one as long is then armed for what follows."""
        if self.handshake is not None:
            self.shaking = True
            self.socket = self.handshake.wrapped(self.socket)
            self.handshake.shake(self.socket)
            self.secured = True
            self.arm(self.assoc.acse_timeout)

    @property
    def ready(self) -> bool:
        """TLS has messages of its own (tickets, new keys): with nothing but those, `recv` would wait."""
        if self._ahead or not isinstance(self.socket, ssl.SSLSocket):
            return bool(self._ahead or super().ready)
        if not super().ready:
            return False
        waits = self.socket.gettimeout()
        try:
            self.socket.settimeout(0.0)
            self._ahead = self.socket.recv(1)
            self.socket.settimeout(waits)
        except ssl.SSLWantReadError:
            self.socket.settimeout(waits)
            return False
        except OSError as error:
            self.failure = error
            self.event_queue.put("Evt17")
            return False
        return True

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > LONGEST_PDU_BYTES:
            self.failure = OSError("announced a PDU of no reasonable length")
            raise self.failure
        ahead, self._ahead = self._ahead, b""
        try:
            return bytearray(ahead + super().recv(nr_bytes - len(ahead)))
        except ssl.SSLError as error:  # an alert: since TLS 1.3 a refusal of our certificate comes this late
            self.failure = error
            raise

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
                _shut(connection)

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with suppress(OSError):  # the peer was quicker
                _shut(self.socket)
            self.socket.close()


def _shut(connection: Any) -> None:
    """`SSLSocket.shutdown` makes it a plain socket first: another thread might write in the clear."""
    socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _AE(AE):  # type: ignore[misc]  # pynetdicom ships no types
    handshake: Handshake | None = None

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> _Socket:
        assoc.daemon = assoc.dul.daemon = True  # else a peer that hangs keeps a stopped node from ending
        made = _Socket(assoc, address=address)
        made.handshake = self.handshake
        return made


def contexts(wanted: Sequence[tuple[str, str]]) -> list[Any]:
    """One presentation context per (SOP class, transfer syntax): so the peer's answer is per pair."""
    return [build_context(sop_class, PydicomUID(syntax)) for sop_class, syntax in dict.fromkeys(wanted)]


@contextmanager
def associated(
    peer: Peer,
    ae_title: str,
    wanted: Sequence[tuple[str, str]],
    timeout_s: float,
    *,
    tls: Tls | None = None,
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Any]:
    """An association with `peer` that proposes `wanted`: released at the end, aborted on an error.

    A peer with `tls` needs `tls`, this node's table of it. `roles` are SCP/SCU role selections
    (pynetdicom's items, PS3.7 D.3.3.4) and `handlers` what answers the peer's requests in them.
    Where the peer accepted no context at all the association is given too, ended already, with
    no `accepted_contexts`. Raises PeerUnreachable or PeerRefused.
    """
    ae = _entity(peer, ae_title, timeout_s, tls)
    association = _open(
        ae, peer, timeout_s, contexts=contexts(wanted), ext_neg=list(roles), evt_handlers=list(handlers)
    )
    try:
        yield association
    except GeneratorExit:  # the caller has had enough, between two messages
        _release(association, timeout_s)
        raise
    except BaseException:
        _abort(association, timeout_s)
        raise
    _release(association, timeout_s)


def _entity(peer: Peer, ae_title: str, timeout_s: float, tls: Tls | None) -> _AE:
    ae = _AE(ae_title=ae_title)
    ae.implementation_class_uid = PydicomUID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    if peer.tls:
        try:
            ae.handshake = Handshake.of(peer, tls or Tls())
        except ConfigurationError as error:  # results wait until it is mended, as for a peer that is down
            raise PeerUnreachable(f"{name(peer)} is spoken to by TLS: {error}") from error
    return ae


def _open(ae: _AE, peer: Peer, timeout_s: float, **proposed: Any) -> Any:
    started = time.monotonic()
    try:
        association = ae.associate(peer.host, peer.port, ae_title=peer.ae_title, **proposed)
    except (OSError, UnicodeError) as error:  # the resolver's, before anything is sent
        raise PeerUnreachable(
            f"{name(peer)}: host {peer.host!r} has no address: check `host`, or the DNS"
        ) from error
    association.dul.socket.disarm()
    if association.is_established or association.rejected_contexts:
        return association
    raise _why_not(association, peer, str(ae.ae_title), timeout_s, time.monotonic() - started)


def _why_not(
    association: Any, peer: Peer, ae_title: str, timeout_s: float, waited_s: float
) -> PeerUnreachable | PeerRefused:
    if association.is_rejected:
        answer = association.acceptor.primitive
        said = _REJECTED.get((answer.result_source, answer.diagnostic), _REJECTED[1, 1])
        return PeerRefused(said.format(peer=name(peer), called=str(peer.ae_title), calling=ae_title))
    where = f"{name(peer)} ({peer.host} port {peer.port})"
    transport = association.dul.socket
    if transport.shaking and waited_s < timeout_s:
        return PeerRefused(f"{where} {why(transport.failure, peer, secured=transport.secured)}")
    if (failure := transport.failure) is not None and not transport.shaking:
        return PeerUnreachable(f"{where} {connect_failure(failure, timeout_s)}")
    if waited_s >= timeout_s:
        return PeerUnreachable(
            f"{where} took the connection but did not answer within {timeout_s:g} s: "
            f"is it a DICOM port{' with TLS' * transport.shaking}?"
        )
    return PeerUnreachable(
        f"{where} ended the connection instead of answering: is it a DICOM port? does it want TLS?"
    )


def connect_failure(failure: OSError, timeout_s: float) -> str:
    """Goes on from where the peer is."""
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
