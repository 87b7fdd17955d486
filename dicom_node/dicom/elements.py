"""Raw data elements out of untrusted bytes: the one place where pydicom's parser is let loose.

Promises: a `Dataset` of undecoded elements, whatever the bytes were, or UnreadableObject;
never RecursionError, MemoryError or a library's own exception. Values are not converted
here, so that nothing quotes them in a warning. Refuses deflate (a bomb of 1:1000) and
anything that is not DICOM.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Collection
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from dicom_node.errors import UnreadableObject

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1"})

_PREAMBLE = 128
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

Stop = Callable[[int, str | None, int], bool]


def at_pixel_data(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXEL_DATA


def parse(buffer: bytes, syntax: str, *, stop: Stop = at_pixel_data, wanted: Collection[int] = ()) -> Dataset:
    """The elements of a data set that stands in `buffer` without file meta."""
    return _parse(cast(BinaryIO, BytesIO(buffer)), syntax, stop, wanted)


def parse_file(
    path: Path, *, stop: Stop = at_pixel_data, wanted: Collection[int] = ()
) -> tuple[Dataset, str]:
    """The elements of a file, PS3.10 or a bare data set, and its transfer syntax; pixels stay on disk."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return parse_part10(cast(BinaryIO, content), stop=stop, wanted=wanted)
    except (OSError, ValueError) as error:  # ValueError: mmap of an empty file
        raise UnreadableObject(f"the file cannot be read: {type(error).__name__}") from error


def parse_part10(
    file: BinaryIO, *, stop: Stop = at_pixel_data, wanted: Collection[int] = ()
) -> tuple[Dataset, str]:
    """As `parse_file`, from an open file."""
    start = file.read(_PREAMBLE + 4)
    file.seek(_PREAMBLE + 4 if start[_PREAMBLE:] == b"DICM" else 0)
    syntax = _file_meta_syntax(file) or _guessed_syntax(file)
    return _parse(file, syntax, stop, wanted), syntax


def text(data_set: Dataset, tag: int) -> str:
    """The element's value as ASCII text, stripped; "" where it is absent."""
    if tag not in data_set:
        return ""
    value = data_set.get_item(tag).value
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip("\0 ")
    return str(value or "").strip()


def _parse(file: BinaryIO, syntax: str, stop: Stop, wanted: Collection[int]) -> Dataset:
    if syntax in DEFLATED:
        raise UnreadableObject("deflated data sets are not read")
    specific: Any = list(wanted) or None  # Any: pydicom wants a list that may also hold BaseTag
    try:
        return read_dataset(
            file, syntax == IMPLICIT_LE, syntax != EXPLICIT_BE,
            stop_when=cast(Any, stop), specific_tags=specific,  # Any: typed by pydicom as BaseTag, an int
        )  # fmt: skip
    except RecursionError as error:
        raise UnreadableObject("sequences are nested too deeply") from error
    except Exception as error:  # the edge to a parser on hostile bytes, which raises anything
        raise UnreadableObject(f"not a DICOM data set ({type(error).__name__})") from error


def _file_meta_syntax(file: BinaryIO) -> str:
    """Reads group 0002 (always explicit VR little endian, PS3.10 7.1) and leaves `file` behind it."""
    start = file.tell()
    if file.read(2) != b"\x02\0":
        file.seek(start)
        return ""
    file.seek(start)
    meta = _parse(file, "", lambda tag, vr, length: tag >> 16 != 2, ())
    return text(meta, 0x00020010)


def _guessed_syntax(file: BinaryIO) -> str:
    """The transfer syntax of a bare data set, from its first element."""
    start = file.tell()
    head = file.read(8)
    file.seek(start)
    if len(head) < 8:
        raise UnreadableObject("the file is empty or ends within its first element")
    little, big = struct.unpack("<H", head[:2])[0], struct.unpack(">H", head[:2])[0]
    if min(little, big) > 0x0020:  # no data set of ours begins so late
        raise UnreadableObject("not a DICOM file")
    if not head[4:6].isalpha():
        return IMPLICIT_LE
    return EXPLICIT_BE if big < little else "1.2.840.10008.1.2.1"
