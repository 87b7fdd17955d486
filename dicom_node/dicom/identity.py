"""Which SOP instance is this? Read from the first bytes of a data set, cheaply.

The receiver asks while an object is still arriving, so nothing beyond (0020,000E) is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from dicom_node.dicom import elements
from dicom_node.domain.identity import UID, known_uid
from dicom_node.errors import InvalidValue, UnreadableObject

_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_PATIENT_ID = 0x00100020
_WANTED = (_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES, _PATIENT_ID)
_NAMES = {
    _SOP_CLASS: "SOP Class UID (0008,0016)",
    _SOP_INSTANCE: "SOP Instance UID (0008,0018)",
    _STUDY: "Study Instance UID (0020,000D)",
    _SERIES: "Series Instance UID (0020,000E)",
}
_HEAD = struct.Struct("<HH2sH")
_GROUP_LENGTH = b"\x02\0\0\0UL\x04\0"
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Value representations with lengths of 32 and of 16 bits, PS3.5 7.1.2."""


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
    plain = None if isinstance(head, Path) else _plainly(head, transfer_syntax_uid)
    if plain is not None:
        return _identity(lambda tag: plain.get(tag, b"").decode("ascii", "replace").strip("\0 "))
    if isinstance(head, Path):
        data_set, _ = elements.parse_file(head, stop=_past_series, wanted=_WANTED)
    elif head[128:132] == b"DICM":
        file = cast(BinaryIO, BytesIO(head))
        data_set, _ = elements.parse_part10(file, stop=_past_series, wanted=_WANTED)
    else:
        data_set = elements.parse(head, transfer_syntax_uid, stop=_past_series, wanted=_WANTED)
    return _identity(lambda tag: elements.text(data_set, tag))


def _identity(text: Callable[[int], str]) -> Identity:
    sop_class, study, series = (_uid(text(tag), tag, known_uid) for tag in (_SOP_CLASS, _STUDY, _SERIES))
    return Identity(
        sop_class, _uid(text(_SOP_INSTANCE), _SOP_INSTANCE, UID), study, series, text(_PATIENT_ID)[:64]
    )


def _plainly(head: bytes, transfer_syntax_uid: str) -> dict[int, bytes] | None:
    """The wanted values of a data set as nearly all are; None where anything is out of the ordinary.

    Ordinary is little endian, with defined lengths, ascending to beyond (0020,000E). It takes a
    quarter of the time of the parser that understands everything.
    """
    if transfer_syntax_uid in (elements.EXPLICIT_BE, elements.DEFLATED):
        return None
    implicit = transfer_syntax_uid == elements.IMPLICIT_LE
    found: dict[int, bytes] = {}
    at, end = 0, len(head)
    if head[128:132] == b"DICM":
        if head[132:140] != _GROUP_LENGTH:
            return None
        at = 144 + int.from_bytes(head[140:144], "little")
    while at + 12 <= end:
        group, element, vr, length = _HEAD.unpack_from(head, at)
        tag = group << 16 | element
        if tag > _SERIES:
            return found
        at += 8
        if implicit:
            length = int.from_bytes(head[at - 4 : at], "little")
        elif vr in _LONG:
            length = int.from_bytes(head[at : at + 4], "little")
            at += 4
        elif vr not in _SHORT:
            return None
        if length > end - at:  # undefined ones, too
            return None
        if tag in _WANTED:
            found[tag] = head[at : at + length]
        at += length
    return None


def _past_series(tag: int, vr: str | None, length: int) -> bool:
    return tag > _SERIES


def _uid(value: str, tag: int, valid: Callable[[str], UID]) -> UID:
    if not value:
        raise UnreadableObject(f"{_NAMES[tag]} is missing")
    try:
        return valid(value)
    except InvalidValue as error:
        raise UnreadableObject(f"{_NAMES[tag]} is {error}") from error
