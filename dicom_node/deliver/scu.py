"""C-STORE and C-ECHO as SCU (PS3.4 Annex B, PS3.7 9.1).

Promises: a data set goes out as the bytes it is stored as; every file gets exactly one `Sent`;
every wait ends. Refuses nothing by itself: what the peer said decides, by `dicom/status.py`.
The one case where bytes change is a peer that takes only Implicit VR Little Endian (PS3.5 10.1).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # Any: pynetdicom ships no types

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.config import Peer, Tls
from dicom_node.dicom.status import Kind, classify
from dicom_node.errors import DeliveryError, PeerRefused, PeerUnreachable, UnreadableObject
from dicom_node.scu.association import MAX_CONTEXTS, associated, name

_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
VERIFICATION = "1.2.840.10008.1.1"
SLOWEST_BYTES_PER_S = 125_000
"""A line slower than 1 Mbit/s is taken for one that hangs; large objects get their time by it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file. `status` is None where the peer gave none."""

    path: Path
    kind: Kind
    status: int | None
    sentence: str
    tried: bool = True
    """False where the association ended before this file's turn: it is not its fault."""
    refused_context: bool = False
    """The peer accepted no presentation context for its SOP class."""
    wait_s: float = 0.0
    """It asks to be left alone for so long (Retry-After); the other objects wait too."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str
    size_bytes: int


def send(
    peer: Peer, ae_title: str, files: Sequence[Path], timeout_s: float, *, tls: Tls | None = None
) -> Generator[Sent, None, None]:
    """Store `files` (PS3.10) at `peer` over one association; yields one Sent per file as it is known.

    `timeout_s` bounds connecting, associating and each answer. Nothing is raised for what a
    peer or a network does.
    """
    readable: list[_File] = []
    for path in files:
        try:
            readable.append(_file(path))
        except UnreadableObject as error:
            yield Sent(path, Kind.REFUSED, None, str(error))
    if not readable:
        return
    waiting = list(readable)
    try:
        with associated(peer, ae_title, _wanted(readable), timeout_s, tls=tls) as association:
            while waiting:
                sent = _store(association, peer, waiting[0], timeout_s)
                del waiting[0]
                yield sent
                if sent.kind is Kind.RETRY_LATER and sent.status is None:
                    break  # no answer: the association is over, whatever pynetdicom knows of it yet
        why = f"{name(peer)}: the association ended before this object's turn"
    except DeliveryError as error:
        why = str(error)
    yield from (Sent(file.path, Kind.RETRY_LATER, None, why, tried=False) for file in waiting)


def echo(peer: Peer, ae_title: str, timeout_s: float, *, tls: Tls | None = None) -> float:
    """C-ECHO (PS3.4 Annex A); seconds from connecting to the answer.

    Raises PeerUnreachable or PeerRefused with what to change.
    """
    started = time.monotonic()
    wanted = [(VERIFICATION, ImplicitVRLittleEndian)]
    with associated(peer, ae_title, wanted, timeout_s, tls=tls) as association:
        if not association.accepted_contexts:
            raise PeerRefused(f"{name(peer)} lets this node in but does not answer C-ECHO")
        association.dul.socket.arm(timeout_s)
        answer = association.send_c_echo()
        if "Status" not in answer:
            raise PeerUnreachable(f"{name(peer)} did not answer C-ECHO within {timeout_s:g} s")
        if answer.Status != 0x0000:
            raise PeerRefused(f"{name(peer)} answered C-ECHO with status 0x{answer.Status:04X}")
    return time.monotonic() - started


def accepted_classes(
    peer: Peer, ae_title: str, sop_classes: Sequence[str], timeout_s: float, *, tls: Tls | None = None
) -> frozenset[str]:
    """Those of `sop_classes` the peer would take now, by negotiation only: nothing is sent.

    Raises PeerUnreachable or PeerRefused.
    """
    accepted: set[str] = set()
    at_a_time = MAX_CONTEXTS // 2
    for first in range(0, len(sop_classes), at_a_time):
        some = sop_classes[first : first + at_a_time]
        wanted = [(uid, syntax) for uid in some for syntax in _PLAIN]
        with associated(peer, ae_title, wanted, timeout_s, tls=tls) as association:
            accepted |= {str(context.abstract_syntax) for context in association.accepted_contexts}
    return frozenset(accepted)


def _file(path: Path) -> _File:
    try:
        meta = read_file_meta_info(path)
        return _File(
            path, str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID), path.stat().st_size
        )
    except (OSError, InvalidDicomError, AttributeError, EOFError, ValueError) as error:
        raise UnreadableObject("the file of this object cannot be read as DICOM: see the archive") from error


def _wanted(files: Sequence[_File]) -> list[tuple[str, str]]:
    """Each object as it is and, in a context of its own, the default transfer syntax (PS3.5 10.1)."""
    pairs = {(file.sop_class_uid, file.transfer_syntax_uid): None for file in files}
    plain = {
        (file.sop_class_uid, ImplicitVRLittleEndian): None
        for file in files
        if file.transfer_syntax_uid == ExplicitVRLittleEndian
    }
    return [*pairs, *plain]


def _store(association: Any, peer: Peer, file: _File, timeout_s: float) -> Sent:
    accepted = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    if (file.sop_class_uid, file.transfer_syntax_uid) in accepted:
        what: Any = file.path  # pynetdicom streams the stored bytes
    elif (file.sop_class_uid, ImplicitVRLittleEndian) in accepted:
        what = dcmread(file.path)
    else:
        why = _not_accepted(association, peer, file)
        return Sent(file.path, Kind.REFUSED, None, why, refused_context=True)
    return _answer(association, peer, file, what, timeout_s + file.size_bytes / SLOWEST_BYTES_PER_S)


def _not_accepted(association: Any, peer: Peer, file: _File) -> str:
    """PS3.8 Table 9-18: 3 is the abstract syntax, 4 the transfer syntaxes."""
    results = {
        context.result for context in association.rejected_contexts
        if context.abstract_syntax == file.sop_class_uid
    }  # fmt: skip
    kind = UID(file.sop_class_uid).name
    again = "then send again with `dicom-node retry --deliveries`"
    if results == {4}:
        return f"{name(peer)} takes {kind}, but not as Explicit VR Little Endian: allow that there, {again}"
    return f"{name(peer)} does not accept {kind} (presentation context rejected): allow it there, {again}"


def _answer(association: Any, peer: Peer, file: _File, what: Any, seconds: float) -> Sent:
    """Send one object and wait for its answer, at most `seconds`."""
    if not association.is_established:
        why = f"{name(peer)}: the association ended before this object's turn"
        return Sent(file.path, Kind.RETRY_LATER, None, why, tried=False)
    association.dimse_timeout = seconds
    association.dul.socket.arm(seconds)
    started = time.monotonic()
    try:
        answer = association.send_c_store(what)
    except (RuntimeError, OSError) as error:  # ended between the look and the send; or the file went away
        why = f"{name(peer)} ended the association ({type(error).__name__})"
        return Sent(file.path, Kind.RETRY_LATER, None, why)
    finally:
        association.dul.socket.disarm()
    if "Status" in answer:
        return _said(file, int(answer.Status), answer.get("ErrorComment", ""))
    if time.monotonic() - started >= seconds:
        why = f"{name(peer)} did not answer within {seconds:.0f} s: see its log"
    else:
        why = f"{name(peer)} ended the association without an answer to this object: see its log"
    return Sent(file.path, Kind.RETRY_LATER, None, why)


def _said(file: _File, status: int, comment: str) -> Sent:
    meaning = classify(status)
    said = f". The peer says: {comment[:64]!r}" if comment else ""
    return Sent(file.path, meaning.kind, status, meaning.sentence + said)
