"""Values of raw data elements, leniently: what cannot be understood is absent, never an error.

Scanners write numbers with commas, VRs that are not theirs and text in undeclared character
sets; none of that may stop an image, and no library warning may quote it. Numbers that JSON
cannot hold (NaN, infinities) are absent too.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from pydicom.charset import decode_bytes
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicom_node.errors import UnreadableObject

_BINARY = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "L", "SL": "l"}
_TEXT = frozenset({"CS", "DS", "IS", "LO", "SH", "ST", "LT", "UT", "UI", "DA", "TM", "DT", "AS", "UC", "PN"})
_AT_MOST = 1024  # values of one element that are looked at

_DELIMITERS = set(b"\\^=\n\r\t\f")


def raw(data_set: Dataset, tag: int) -> tuple[str | None, bytes, bool] | None:
    """(VR as written or None, value, little endian), or None where absent, empty or a sequence."""
    # keep_deferred: an empty value of unknown VR would be converted, which raises
    item: Any = data_set.get_item(tag, keep_deferred=True) if tag in data_set else None  # Any: raw, or not
    if not isinstance(item, RawDataElement) or not isinstance(item.value, bytes) or not item.value:
        return None
    return item.VR, item.value, item.is_little_endian


def numbers(data_set: Dataset, tag: int, expected_vr: str) -> tuple[float, ...]:
    """All values as finite floats; () where absent or where one of them is no number."""
    if (found := raw(data_set, tag)) is None:
        return ()
    vr, value, little = found
    kind = _BINARY.get(vr if vr in _BINARY or vr in _TEXT else expected_vr)
    parsed = _unpacked(value, kind, little) if kind else _spelled(value)
    return parsed if all(math.isfinite(number) for number in parsed) else ()


def number(data_set: Dataset, tag: int, expected_vr: str = "DS") -> float | None:
    """The first value as a finite float."""
    found = numbers(data_set, tag, expected_vr)
    return found[0] if found else None


def integer(data_set: Dataset, tag: int, expected_vr: str = "IS") -> int | None:
    """The first value as an integer; None also where it has a fraction."""
    value = number(data_set, tag, expected_vr)
    return int(value) if value is not None and value == int(value) else None


def words(data_set: Dataset, tag: int) -> tuple[str, ...]:
    """The values of a code string or the like, upper case, without empty ones."""
    if (found := raw(data_set, tag)) is None:
        return ()
    parts = found[1].decode("ascii", "replace").upper().split("\\")[:_AT_MOST]
    return tuple(word for part in parts if (word := part.strip(" \0\n\r\t")))


def ascii_text(data_set: Dataset, tag: int) -> str:
    """A UID, date, time or the like."""
    found = raw(data_set, tag)
    return found[1].decode("ascii", "replace").strip(" \0") if found else ""


def text(data_set: Dataset, tag: int, at_most: int = 2000) -> str:
    """Text in the data set's character set, on one line, cut to `at_most` characters."""
    if (found := raw(data_set, tag)) is None:
        return ""
    value = found[1][: 4 * at_most].rstrip(b" \0")
    plain = value.isascii() and b"\x1b" not in value  # no escape to another character set, PS3.5 6.1.2.5
    decoded = value.decode("ascii") if plain else _decoded(value, data_set)
    return " ".join(decoded.replace("\0", " ").split())[:at_most]


def items(data_set: Dataset, tag: int) -> tuple[Dataset, ...]:
    """The items of a sequence; () where it is absent or no sequence.

    Raises UnreadableObject where its bytes are no sequence although it is one by name.
    """
    if tag not in data_set:
        return ()
    try:
        value = data_set[tag].value
    except RecursionError as error:
        raise UnreadableObject("sequences are nested too deeply") from error
    except Exception as error:  # the edge to a parser on hostile bytes, which raises anything
        raise UnreadableObject(f"a sequence cannot be read ({type(error).__name__})") from error
    if not isinstance(value, list) and not hasattr(value, "is_undefined_length"):
        return ()
    return tuple(item for item in value if isinstance(item, Dataset))


def _unpacked(value: bytes, kind: str, little: bool) -> tuple[float, ...]:
    size = struct.calcsize("<" + kind)
    count = min(len(value) // size, _AT_MOST)
    unpacked = struct.unpack(f"{'<' if little else '>'}{count}{kind}", value[: count * size])
    return tuple(float(number) for number in unpacked)


def _spelled(value: bytes) -> tuple[float, ...]:
    try:
        parts = value.decode("ascii").strip(" \0").split("\\")[:_AT_MOST]
        return tuple(float(part) for part in parts if part.strip(" \0"))
    except ValueError:  # not ASCII, or not a number
        return ()


def _decoded(value: bytes, data_set: Dataset) -> str:
    encodings: Any = data_set.original_character_set or ["iso8859"]  # Any: str or list
    try:
        return decode_bytes(value, [encodings] if isinstance(encodings, str) else encodings, _DELIMITERS)
    except Exception:  # noqa: BLE001  codecs on hostile bytes; readable enough is all this text has to be
        return value.decode("latin-1")
