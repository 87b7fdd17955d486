"""Storage Commitment Push Model, PS3.4 Annex J: what is asked, and what a report says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.domain.commitment import Report
from dicom_node.domain.identity import UID
from dicom_node.errors import UnreadableObject

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
