"""One connection, from accept to close: TLS, first words, who it is, its association, what is told of it."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node import audit, log
from dicom_node.audit import Trail
from dicom_node.config import Peer, Receive
from dicom_node.errors import DicomNodeError, UnreadableObject
from dicom_node.receive.account import Account
from dicom_node.receive.association import LINGER_S, Association, End, Terms
from dicom_node.receive.commitment import Announcement
from dicom_node.receive.intake import Incoming, Intake
from dicom_node.receive.negotiation import (
    INVALID_PARAMETER,
    UNEXPECTED_PDU,
    UNRECOGNISED_PDU,
    Proposal,
    aborted,
    accepted,
    proposal,
    rejected,
)
from dicom_node.receive.peers import Peers, Rejection
from dicom_node.receive.places import Guest, Places
from dicom_node.receive.wire import Gone, TooSlow, Wire
from dicom_node.store.catalog import Recorded
from dicom_node.store.commitments import Commitments
from dicom_node.tls import fingerprint

FIRST_WORD_S = 10.0
"""Seconds from the connection to the end of its A-ASSOCIATE-RQ, TLS included (ARTIM timer, PS3.8 9.1.5)."""
LONGEST_REQUEST_BYTES = 256 * 1024
"""An A-ASSOCIATE-RQ of 128 contexts with all transfer syntaxes has some 150 kB."""
SUCCESS = 0x0000

_ASSOCIATE_RQ, _KNOWN_PDUS = 0x01, range(0x01, 0x08)


@dataclass(frozen=True, slots=True)
class House:
    """What all connections share."""

    limits: Receive
    peers: Peers
    places: Places
    intake: Intake
    trail: Trail
    contexts: Sequence[Any]  # Any: pynetdicom ships no types
    commitments: Commitments | None = None
    """Where storage commitment is reported to; None where it is asked of nobody."""


@dataclass(slots=True)
class _Visit:
    """Counts of one association. Mutable, one thread."""

    peer: str
    account: Account
    stored: int = 0
    refused: int = 0
    stored_bytes: int = 0


def serve(house: House, tls: ssl.SSLContext | None, connection: socket.socket, address: str) -> None:
    """Never raises for what a peer does."""
    wire = Wire(connection)
    guest = house.places.enter(wire, address)
    secured = None
    try:
        until = time.monotonic() + min(FIRST_WORD_S, house.limits.network_timeout_s)
        certificate = None
        if tls is not None:
            secured = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            if not _agreed(house, wire, secured, address, until):
                return
            certificate = fingerprint(secured.getpeercert(binary_form=True) or b"")
        asked = _first_words(wire, until)
        if asked is not None:
            _judge(house, guest, asked, certificate)
    except (Gone, TooSlow):
        pass
    finally:
        house.places.leave(guest)
        if secured is not None:
            secured.close()


def _agreed(house: House, wire: Wire, secured: ssl.SSLSocket, address: str, until: float) -> bool:
    """The TLS handshake, within its time."""
    try:
        wire.over(secured, until)
    except OSError as error:  # SSLError and TimeoutError among them
        reason = str(getattr(error, "reason", None) or type(error).__name__).lower()
        log.problem("receive.tls_refused", address=address, reason=reason)
        if isinstance(error, ssl.SSLError):  # a connection that says nothing is no event for the trail
            house.trail.record(audit.Refused(address, "", "", f"TLS: {reason}"))
        return False
    return True


def _first_words(wire: Wire, until: float) -> Proposal | None:
    """The A-ASSOCIATE-RQ; None, and an answer where one is due, when it is none."""
    kind, length = struct.unpack(">BxI", wire.exactly(6, until))
    if kind != _ASSOCIATE_RQ:
        if kind in _KNOWN_PDUS or kind == 0:
            _say_last(wire, aborted(UNEXPECTED_PDU if kind else UNRECOGNISED_PDU))
        return None  # no DICOM at all: nothing to say to it
    if length > LONGEST_REQUEST_BYTES:
        _say_last(wire, aborted(INVALID_PARAMETER))
        return None
    body = bytearray()
    while len(body) < length:
        body += wire.piece(length - len(body), until)
    try:
        return proposal(struct.pack(">BxI", kind, length) + body)
    except UnreadableObject:
        _say_last(wire, aborted(INVALID_PARAMETER))
        return None


def _judge(house: House, guest: Guest, asked: Proposal, certificate: str | None) -> None:
    """Let the peer in, or reject it with the Standard's reason."""
    answer: Peer | Rejection = Rejection.CONTEXT
    if asked.speaks_dicom:
        answer = house.peers.admit(asked.calling, asked.called, guest.address, certificate)
    if isinstance(answer, Rejection):
        _turn_away(house, guest, asked, answer)
        return
    pdu, agreed = accepted(asked, house.contexts, house.limits.max_pdu_bytes)
    visit = _Visit(answer.name, Account(house.trail, answer.name, guest.address))
    terms = Terms(
        answer.name, agreed, house.limits.network_timeout_s, _announcement(house, guest, asked, answer.name)
    )
    association = Association(
        guest.wire, terms, house.intake, lambda incoming: _answered(visit, incoming)
    )  # fmt: skip
    if not house.places.let_in(guest, association, answer.name, answer.max_associations):
        _turn_away(house, guest, asked, Rejection.FULL)
        return
    guest.wire.widen()
    by = "certificate" if certificate else "AE title and address"
    house.trail.record(audit.Admitted(answer.name, guest.address, asked.calling, by))
    try:
        guest.wire.send(pdu)
        end = association.run()
    except Gone:
        end = End.ABORTED
    log.event(
        "receive.association", peer=visit.peer, stored=visit.stored, refused=visit.refused,
        bytes=visit.stored_bytes, end=end.value, seconds=round(time.monotonic() - association.started, 3),
    )  # fmt: skip
    visit.account.close(whole=end is End.RELEASED)


def _announcement(
    house: House, guest: Guest, asked: Proposal, peer: str
) -> Callable[[str], Announcement] | None:
    if (commitments := house.commitments) is None:
        return None
    titles = (asked.calling, asked.called)
    return lambda syntax: Announcement(commitments, house.trail, peer, guest.address, titles, syntax)


def _answered(visit: _Visit, incoming: Incoming | Announcement) -> tuple[int, str]:
    return incoming.answer() if isinstance(incoming, Announcement) else _keep(visit, incoming)


def _turn_away(house: House, guest: Guest, asked: Proposal, why: Rejection) -> None:
    log.problem("receive.rejected", reason=why.name.lower(), address=guest.address)
    house.trail.record(audit.Refused(guest.address, asked.calling, asked.called, why.sentence))
    _say_last(guest.wire, rejected(*why.value))


def _say_last(wire: Wire, pdu: bytes) -> None:
    wire.send(pdu)
    wire.linger(LINGER_S)


def _keep(visit: _Visit, incoming: Incoming) -> tuple[int, str]:
    kept = visit.account.keep(incoming)
    if isinstance(kept, DicomNodeError):
        visit.refused += 1
        return kept.dimse_status, str(kept)
    visit.stored += kept is Recorded.NEW
    visit.stored_bytes += incoming.size_bytes
    return SUCCESS, ""
