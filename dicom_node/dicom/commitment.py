"""Storage Commitment Push Model, PS3.4 Annex J: what is asked, and what a report says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.domain.commitment import Report
from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue, UnreadableObject

COMMITMENT = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST = 1
"""Action Type ID of "Request Storage Commitment", PS3.4 J.3.2."""

_REASONS = {  # PS3.3 C.14.1.1
    0x0110: "processing failure",
    0x0112: "no such object there",
    0x0213: "no room or other resource",
    0x0122: "SOP class not supported",
    0x0119: "known there with another SOP class",
    0x0131: "transaction known already",
}

_WARNINGS = {0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000)}
"""PS3.7 C.4: the action was performed, and the peer says something about it."""
_ANSWERS = {  # PS3.7 10.1.4.1.10: failures of N-ACTION
    0x0110: "Processing failure: something failed inside the peer",
    0x0112: "No such SOP instance: it does not know the service's well-known instance",
    0x0114: "No such argument: it does not understand the request",
    0x0115: "Invalid argument value: it does not understand the request",
    0x0117: "Invalid SOP instance: it does not know the service's well-known instance",
    0x0118: "No such SOP class: allow storage commitment there",
    0x0119: "Class-instance conflict: it does not know the service's well-known instance",
    0x0122: "SOP class not supported: allow storage commitment there",
    0x0123: "No such action: allow storage commitment there",
    0x0124: "Not authorised: allow this node's AE title to ask there",
    0x0210: "Duplicate invocation: it mistook the message for one still in progress",
    0x0211: "Unrecognised operation: is it the archive that host and port lead to?",
    0x0212: "Mistyped argument: it does not understand the request",
    0x0213: "Resource limitation: it is busy",
}


def refusal(status: int) -> str:
    """Why the peer did not take a request for commitment; "" for each status by which it did.

    Whatever it is, the request is put again later: the objects are delivered, and nothing is lost by it.
    Raises InvalidValue for what is no 16-bit number.
    """
    if not 0 <= status <= 0xFFFF:
        raise InvalidValue(f"not a DIMSE status: {status}")
    if status == 0x0000 or status in _WARNINGS:
        return ""
    return f"{_ANSWERS.get(status, 'Unknown status: see its manual and log')} (0x{status:04X})"


def request(transaction_uid: str, objects: Iterable[tuple[str, str]]) -> Dataset:
    """Action Information, PS3.4 Table J.3-1; `objects` are (SOP class, SOP instance)."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [_reference(*pair) for pair in objects]
    return ds


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def read_report(ds: Dataset) -> Report:
    """Event Information, PS3.4 Table J.3-2. Raises UnreadableObject, whatever is wrong with it."""
    try:
        failed = {uid: _why(item) for uid, item in _items(ds, "FailedSOPSequence")}
        kept = frozenset(uid for uid, _ in _items(ds, "ReferencedSOPSequence")) - failed.keys()
        return Report(UID(_text(ds.TransactionUID)), kept, failed)
    except Exception as error:  # the edge to a decoder on a peer's bytes, which raises anything
        raise UnreadableObject(f"no storage commitment report ({type(error).__name__})") from error


def _items(ds: Dataset, keyword: str) -> Iterator[tuple[str, Dataset]]:
    for item in ds.get(keyword) or ():
        yield UID(_text(item.ReferencedSOPInstanceUID)), item


def _why(item: Dataset) -> str:
    code = int(item.get("FailureReason") or 0)
    return f"{_REASONS.get(code, 'for a reason of its own')} (0x{code:04X})"


def _text(value: Any) -> str:  # Any: what a decoder made of it
    return str(value).strip("\0 ")
