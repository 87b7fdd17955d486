"""Which SOP instance is this? Read from the first bytes of a data set, cheaply.

The receiver asks while an object is still arriving, so nothing beyond (0020,000E) is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from pydicom.dataset import Dataset

from dicom_node.dicom import elements
from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue, UnreadableObject

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PATIENT_ID = 0x00100020
_UIDS = (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES)
_WANTED = (*_UIDS, _PATIENT_ID)
_NAMES = {
    _SOP_CLASS: "SOP Class UID (0008,0016)",
    _SOP_INSTANCE: "SOP Instance UID (0008,0018)",
    _STUDY: "Study Instance UID (0020,000D)",
    _SERIES: "Series Instance UID (0020,000E)",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """The four UIDs that say where an instance belongs, PS3.3 A.1.2."""

    sop_class_uid: UID
    sop_instance_uid: UID
    study_uid: UID
    series_uid: UID
    patient_id: str = field(repr=False)
    """For the audit trail and for nothing else; "" where there is none."""


def identify(head: bytes | Path, transfer_syntax_uid: str) -> Identity:
    """The identity of the data set that begins with `head`.

    `head` is the start of a data set as C-STORE carries it (64 KiB is enough for nearly all);
    a PS3.10 file, or its path, is understood too, and then the file's own transfer syntax
    counts. Sequences before (0020,000E) are skipped.

    Raises UnreadableObject that names the UID which is missing or not one. Where the head was
    too short for a long Referenced Series Sequence, asking again with the path helps.
    """
    if isinstance(head, Path):
        data_set, _ = elements.parse_file(head, stop=_past_series, wanted=_WANTED)
    elif head[128:132] == b"DICM":
        file = cast(BinaryIO, BytesIO(head))
        data_set, _ = elements.parse_part10(file, stop=_past_series, wanted=_WANTED)
    else:
        data_set = elements.parse(head, transfer_syntax_uid, stop=_past_series, wanted=_WANTED)
    uids = [_uid(data_set, tag) for tag in _UIDS]
    return Identity(*uids, patient_id=elements.text(data_set, _PATIENT_ID)[:64])


def _past_series(tag: int, vr: str | None, length: int) -> bool:
    return tag > _SERIES


def _uid(data_set: Dataset, tag: int) -> UID:
    value = elements.text(data_set, tag)
    if not value:
        raise UnreadableObject(f"{_NAMES[tag]} is missing")
    try:
        return UID(value)
    except InvalidValue as error:
        raise UnreadableObject(f"{_NAMES[tag]} is {error}") from error
