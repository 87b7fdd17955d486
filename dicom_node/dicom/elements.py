"""Raw data elements out of untrusted bytes: the one place where pydicom's parser is let loose.

Promises: a `Dataset` of undecoded elements, whatever the bytes were, or UnreadableObject;
never RecursionError, MemoryError or a library's own exception. Values are not converted
here, so that nothing quotes them in a warning. Each data set is walked first (`bounds`), and
a deflated one is unfolded only as far as its header goes (`inflate`).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from dicom_node.dicom.bounds import Content, Stop, Walk
from dicom_node.dicom.inflate import MOST_HEADER_BYTES, Inflated, inflated
from dicom_node.errors import UnreadableObject

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"

_PREAMBLE = 128
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})


def at_pixel_data(tag: int, vr: str | None, length: int) -> bool:
    return tag in _PIXEL_DATA


def parse(buffer: bytes, syntax: str, *, stop: Stop = at_pixel_data, wanted: Collection[int] = ()) -> Dataset:
    """The elements of a data set that begins with `buffer`, without file meta; it may be cut anywhere."""
    return _parse(buffer, 0, syntax, stop, wanted, whole=False)


def parse_file(
    path: Path, *, stop: Stop = at_pixel_data, wanted: Collection[int] = ()
) -> tuple[Dataset, str]:
    """The elements of a file, PS3.10 or a bare data set, and its transfer syntax; pixels stay on disk.

    Raises UnreadableObject also where an element is longer than the file, and names it.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _parse_part10(content, stop, wanted, whole=True)
    except (OSError, ValueError) as error:  # ValueError: mmap of an empty file
        raise UnreadableObject(f"the file cannot be read: {type(error).__name__}") from error


def parse_part10(
    file: BinaryIO, *, stop: Stop = at_pixel_data, wanted: Collection[int] = ()
) -> tuple[Dataset, str]:
    """As `parse_file`, from the beginning of a file, which may be cut anywhere."""
    return _parse_part10(file.read(), stop, wanted, whole=False)


def unfolded_file(path: Path, at_most: int) -> BytesIO | None:
    """A deflated file as a plain one, in memory; None where it is not deflated.

    Raises UnreadableObject where the data set unfolds to more than `at_most` bytes.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start, syntax = _part10_start(content)
            if syntax != DEFLATED:
                return None
            uid = EXPLICIT_LE.encode() + b"\0"
            meta = struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(uid)) + uid
            return BytesIO(bytes(_PREAMBLE) + b"DICM" + meta + inflated(content, start, at_most))
    except (OSError, ValueError) as error:
        raise UnreadableObject(f"the file cannot be read: {type(error).__name__}") from error


def text(data_set: Dataset, tag: int) -> str:
    """The element's value as ASCII text, stripped; "" where it is absent."""
    if tag not in data_set:
        return ""
    value = data_set.get_item(tag, keep_deferred=True).value  # else an empty one of unknown VR raises
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").strip("\0 ")
    return str(value or "").strip()


def _parse_part10(
    content: Content, stop: Stop, wanted: Collection[int], *, whole: bool
) -> tuple[Dataset, str]:
    start, syntax = _part10_start(content)
    return _parse(content, start, syntax, stop, wanted, whole=whole), syntax


def _part10_start(content: Content) -> tuple[int, str]:
    """(where the data set begins, its transfer syntax)."""
    start = _PREAMBLE + 4 if content[_PREAMBLE : _PREAMBLE + 4] == b"DICM" else 0
    start, syntax = _file_meta(content, start)
    return start, syntax or _guessed_syntax(content[start : start + 8])


def _parse(
    content: Content, start: int, syntax: str, stop: Stop, wanted: Collection[int], *, whole: bool
) -> Dataset:
    if syntax == DEFLATED_FRAMES:
        raise UnreadableObject("deflated frames are not read")
    if syntax == DEFLATED:
        content, start, whole = _deflated_header(content, start, stop, wanted), 0, False
    Walk(content, implicit=syntax == IMPLICIT_LE, big=syntax == EXPLICIT_BE, whole=whole, wanted=wanted).to(
        stop, start
    )
    return _elements(content, start, syntax, stop, wanted)


def _elements(content: Content, start: int, syntax: str, stop: Stop, wanted: Collection[int]) -> Dataset:
    file = cast(BinaryIO, content if isinstance(content, mmap.mmap) else BytesIO(content))
    file.seek(start)
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


def _deflated_header(content: Content, start: int, stop: Stop, wanted: Collection[int]) -> bytes:
    """So much of a deflated data set as `stop` lets be read."""
    stream, size = Inflated(content, start), 1 << 16
    while size <= MOST_HEADER_BYTES:
        stream.unfold(size)
        found = Walk(stream.bytes_so_far, implicit=False, whole=False, wanted=wanted).to(stop)
        if found is not None or stream.ended:
            return stream.bytes_so_far
        size *= 4
    raise UnreadableObject(f"the deflated header is longer than {MOST_HEADER_BYTES >> 20} MiB")


def _file_meta(content: Content, start: int) -> tuple[int, str]:
    """Where group 0002 (always explicit VR little endian, PS3.10 7.1) ends, and the syntax it names."""
    if content[start : start + 2] != b"\x02\0":
        return start, ""
    end = Walk(content, implicit=False, whole=False).to(_past_file_meta, start)
    end = len(content) if end is None else end
    return end, text(_elements(content[start:end], 0, "", _past_file_meta, ()), 0x00020010)


def _past_file_meta(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != 2


def _guessed_syntax(head: bytes) -> str:
    """The transfer syntax of a bare data set, from its first element."""
    if len(head) < 8:
        raise UnreadableObject("the file is empty or ends within its first element")
    little, big = struct.unpack("<H", head[:2])[0], struct.unpack(">H", head[:2])[0]
    if min(little, big) > 0x0020:  # no data set of ours begins so late
        raise UnreadableObject("not a DICOM file")
    if not head[4:6].isalpha():
        return IMPLICIT_LE
    return EXPLICIT_BE if big < little else EXPLICIT_LE
