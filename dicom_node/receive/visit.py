"""One connection, from accept to close: TLS, first words, who it is, its association, what is told of it."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_node import audit, log
from dicom_node.audit import Trail
from dicom_node.config import Peer, Receive
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError, UnreadableObject
from dicom_node.receive.association import LINGER_S, Association, End, Terms
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
from dicom_node.tls import fingerprint

FIRST_WORD_S = 10.0
"""Seconds from the connection to the end of its A-ASSOCIATE-RQ, TLS included (ARTIM timer, PS3.8 9.1.5)."""
LONGEST_REQUEST_BYTES = 256 * 1024
"""An A-ASSOCIATE-RQ of 128 contexts with all transfer syntaxes has some 150 kB."""
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110

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


@dataclass(slots=True)
class _Study:
    """What came of one study. Mutable."""

    patient_id: str
    classes: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Visit:
    """Counts of one association. Mutable, one thread."""

    peer: str
    address: str
    stored: int = 0
    refused: int = 0
    stored_bytes: int = 0
    studies: dict[UID, _Study] = field(default_factory=dict)
    declined: Counter[int] = field(default_factory=Counter)


def serve(house: House, tls: ssl.SSLContext | None, connection: socket.socket, address: str) -> None:
    """Never raises for what a peer does."""
    wire = Wire(connection)
    guest = house.places.enter(wire, address)
    secured = None
    try:
        until = time.monotonic() + min(FIRST_WORD_S, house.limits.network_timeout_s)
        certificate = None
        if tls is not None:
            secured = _secured(house, connection, address, tls, until)
            if secured is None:
                return
            wire.over(secured)
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


def _secured(
    house: House, connection: socket.socket, address: str, tls: ssl.SSLContext, until: float
) -> ssl.SSLSocket | None:
    """The TLS handshake, within its time; None where there is no agreement."""
    secured = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
    try:
        secured.settimeout(max(until - time.monotonic(), 0.001))
        secured.do_handshake()
    except OSError as error:  # SSLError and TimeoutError among them
        secured.close()
        reason = getattr(error, "reason", None) or type(error).__name__
        log.problem("receive.tls_refused", address=address, reason=str(reason).lower())
        if isinstance(error, ssl.SSLError):  # a port scan that only connects is no event for the trail
            house.trail.record(audit.Refused(address, "", "", f"TLS: {str(reason).lower()}"))
        return None
    return secured


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
    visit = _Visit(answer.name, guest.address)
    association = Association(
        guest.wire, Terms(answer.name, agreed, house.limits.network_timeout_s), house.intake,
        lambda incoming: _keep(house, visit, incoming),
    )  # fmt: skip
    if not house.places.let_in(guest, association, answer.name, answer.max_associations):
        _turn_away(house, guest, asked, Rejection.FULL)
        return
    guest.wire.widen()
    try:
        guest.wire.send(pdu)
        end = association.run()
    except Gone:
        end = End.ABORTED
    _tell(house, visit, end, time.monotonic() - association.started)


def _turn_away(house: House, guest: Guest, asked: Proposal, why: Rejection) -> None:
    log.problem("receive.rejected", reason=why.name.lower(), address=guest.address)
    house.trail.record(audit.Refused(guest.address, asked.calling, asked.called, why.name.lower()))
    _say_last(guest.wire, rejected(*why.value))


def _say_last(wire: Wire, pdu: bytes) -> None:
    wire.send(pdu)
    wire.linger(LINGER_S)


def _keep(house: House, visit: _Visit, incoming: Incoming) -> tuple[int, str]:
    """The edge: every error becomes a status, and only a committed row becomes success."""
    try:
        recorded = incoming.keep()
    except DicomNodeError as error:
        visit.refused += 1
        visit.declined[error.dimse_status] += 1
        log.problem(
            "instance.refused", peer=visit.peer, status=f"0x{error.dimse_status:04X}",
            error=type(error).__name__, bytes=incoming.size_bytes,
        )  # fmt: skip
        return error.dimse_status, str(error)
    except Exception as error:  # noqa: BLE001 - the edge: the sender must get an answer, and no success
        visit.refused += 1
        visit.declined[PROCESSING_FAILURE] += 1
        log.problem("instance.failed", peer=visit.peer, error=type(error).__name__)
        return PROCESSING_FAILURE, "something failed inside the node; its log says what"
    visit.stored += recorded is Recorded.NEW
    visit.stored_bytes += incoming.size_bytes
    _note(house, visit, incoming)
    return SUCCESS, ""


def _note(house: House, visit: _Visit, incoming: Incoming) -> None:
    """For the audit trail: the first instance of a study, and how many of each class."""
    identity = incoming.identity
    if identity is None:
        return
    study = visit.studies.get(identity.study_uid)
    if study is None:
        study = visit.studies[identity.study_uid] = _Study(identity.patient_id)
        house.trail.record(audit.Begun(visit.peer, visit.address, identity.study_uid, identity.patient_id))
    study.classes[identity.sop_class_uid] += 1


def _tell(house: House, visit: _Visit, end: End, seconds: float) -> None:
    log.event(
        "receive.association", peer=visit.peer, stored=visit.stored, refused=visit.refused,
        bytes=visit.stored_bytes, end=end.value, seconds=round(seconds, 3),
    )  # fmt: skip
    for study_uid, study in visit.studies.items():
        house.trail.record(
            audit.Transferred(
                visit.peer, visit.address, True, study_uid, study.patient_id, study.classes,
                end is End.RELEASED,
            )
        )  # fmt: skip
    for status, count in visit.declined.items():
        house.trail.record(audit.Declined(visit.peer, visit.address, status, count))
