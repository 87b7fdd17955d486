"""What vendors write in private elements although it decides what an image is.

The b value (Siemens, GE, Philips wrote it privately before (0018,9087) existed) and the
Siemens mosaic. A private element counts only under its creator, PS3.5 7.8.1.
"""

from __future__ import annotations

import re
import struct

from pydicom.dataset import Dataset

from dicom_node.dicom import values

_SIEMENS = (0x0019, "SIEMENS MR HEADER")
_GE = (0x0043, "GEMS_PARM_01")
_PHILIPS = (0x2001, "PHILIPS IMAGING DD 001")
_CSA = (0x0029, "SIEMENS CSA HEADER")
_BLOCKS = range(0x10, 0x18)  # private blocks that are looked for

_ELEMENTS = {0x0019: (0x0A, 0x0C), 0x0043: (0x39,), 0x2001: (0x03,), 0x0029: (0x10,)}
WANTED = frozenset(
    tag
    for group, elements in _ELEMENTS.items()
    for block in _BLOCKS
    for tag in (group << 16 | block, *(group << 16 | block << 8 | element for element in elements))
)
"""Tags, creators included, that the functions below look at."""

_SEQUENCE_B = re.compile(r"\bEP_B(\d+)(?:_(\d+))?")
_GE_OFFSET = 1_000_000_000  # added by GE to mark a b value that was measured with others


def b_value(data_set: Dataset) -> float | None:
    """The b value in s/mm2 from (0018,9087) or the vendor's own element; None where there is none."""
    for value in (
        values.number(data_set, 0x00189087, "FD"),
        _private(data_set, _SIEMENS, 0x0C, "IS"),
        _private(data_set, _PHILIPS, 0x03, "FL"),
        _ge_b_value(data_set),
        _csa_number(data_set, b"B_value"),
    ):
        if value is not None and 0 <= value < 100_000:
            return float(value)
    return _named_b_value(data_set)


def measured_b_range(data_set: Dataset) -> list[float] | None:
    """[lowest, highest] b value the sequence measured, from Siemens' sequence name (`*ep_b50_800`)."""
    found = _SEQUENCE_B.search(_sequence_name(data_set))
    return [float(found[1]), float(found[2])] if found and found[2] else None


def mosaic_images(data_set: Dataset) -> int | None:
    """Number of slices in a Siemens mosaic, (0019,100A) or the CSA header."""
    value = _private(data_set, _SIEMENS, 0x0A, "US")
    if value is None:
        value = _csa_number(data_set, b"NumberOfImagesInMosaic")
    return int(value) if value and value > 1 else None


def _sequence_name(data_set: Dataset) -> str:
    return " ".join((*values.words(data_set, 0x00180024), *values.words(data_set, 0x00189005)))


def _named_b_value(data_set: Dataset) -> float | None:
    found = _SEQUENCE_B.search(_sequence_name(data_set))
    return float(found[1]) if found and not found[2] else None


def _ge_b_value(data_set: Dataset) -> float | None:
    value = _private(data_set, _GE, 0x39, "IS")
    return None if value is None else value % _GE_OFFSET if value >= _GE_OFFSET else value


def _private_tag(data_set: Dataset, owner: tuple[int, str], element: int) -> int | None:
    group, creator = owner
    for block in _BLOCKS:
        if values.words(data_set, group << 16 | block)[:1] == (creator,):
            return group << 16 | block << 8 | element
    return None


def _private(data_set: Dataset, owner: tuple[int, str], element: int, vr: str) -> float | None:
    tag = _private_tag(data_set, owner, element)
    return None if tag is None else values.number(data_set, tag, vr)


def _csa_number(data_set: Dataset, name: bytes) -> float | None:
    tag = _private_tag(data_set, _CSA, 0x10)
    found = values.raw(data_set, tag) if tag is not None else None
    return _csa_value(found[1], name) if found else None


def _csa_value(header: bytes, name: bytes) -> float | None:
    """The first value of one element of a Siemens CSA2 header ("SV10").

    An element is its name (64 bytes), vm, VR, syngo type, number of items, a mark; an item is four
    integers, the first its length, then its bytes, padded to four.
    """
    at = header.find(name + b"\0") if header[:4] == b"SV10" else -1
    if at < 16 or at + 100 > len(header):
        return None
    (count,) = struct.unpack_from("<i", header, at + 76)
    position = at + 84
    for _ in range(max(0, min(count, 32))):
        if position + 16 > len(header):
            return None
        length = struct.unpack_from("<4i", header, position)[1]
        value = header[position + 16 : position + 16 + max(0, length)].strip(b" \0")
        if value:
            try:
                return float(value)
            except ValueError:
                return None
        position += 16 + (max(0, length) + 3) // 4 * 4
    return None
