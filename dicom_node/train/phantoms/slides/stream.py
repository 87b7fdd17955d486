"""Write one encapsulated multi-frame instance frame by frame, in memory that does not depend on its size.

Per-frame functional groups are packed from arrays, since a data set per frame would take gigabytes; offset
tables and the compression ratio are filled in when the last frame is written (PS3.5 A.4, PS3.3 C.7.6.3.1.8).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from dicom_node.errors import InvalidValue
from dicom_node.train.phantoms.slides.elements import NO_RATIO
from dicom_node.train.phantoms.slides.spec import OffsetTable

_CHUNK = 4096
BASIC_REACHES = 2**32
"""Bytes; offsets of a basic table have 32 bits (PS3.5 A.4)."""


def write_frames(
    path: Path, ds: Dataset, frames: Iterable[bytes], *, table: OffsetTable, places: Places | None = None
) -> int:
    """Header, per-frame groups where frames say their place, and `frames` (JPEG streams). Returns bytes.

    Raises InvalidValue for more or fewer frames than the header says, or a basic table that cannot
    reach the last frame (4 GiB).
    """
    count, header = int(ds.NumberOfFrames), io.BytesIO()
    dcmwrite(header, ds, enforce_file_format=True)
    with path.open("wb") as file:
        file.write(header.getbuffer())
        if places is not None:
            for chunk in places.packed():
                file.write(chunk)
        lengths = _Pixels(file, count, table).write(frames)
        size = file.tell()
        _patch_ratio(file, header.getvalue(), ds, int(lengths.sum()))
    return size


class Places:
    """Where each frame of a TILED_SPARSE instance lies (PS3.3 C.8.12.6.1): n rows in each array."""

    def __init__(
        self,
        column: npt.NDArray[np.int32],
        row: npt.NDArray[np.int32],
        plane: npt.NDArray[np.int32],
        offsets: npt.NDArray[np.float64],
        tile: tuple[int, int],
    ) -> None:
        """`column`, `row`, `plane` from 0; `offsets` is (n, 3): x, y of its first pixel in mm, z in um."""
        self._column, self._row, self._plane, self._offsets = column, row, plane, offsets
        self._tile = tile

    def packed(self) -> Iterator[bytes]:
        """Per-Frame Functional Groups Sequence (5200,9230), explicit VR little endian."""
        total = len(self._column) * _FRAME.itemsize
        yield struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, total)
        for start in range(0, len(self._column), _CHUNK):
            yield self._items(slice(start, start + _CHUNK)).tobytes()

    def _items(self, some: slice) -> npt.NDArray[np.void]:
        column, row, plane = self._column[some], self._row[some], self._plane[some]
        items = np.zeros(len(column), _FRAME)
        for name, constant in _CONSTANT.items():
            items[name] = np.frombuffer(constant, f"V{len(constant)}")[0]
        items["index"] = np.stack([column + 1, row + 1, plane + 1], axis=1)
        for axis, name in enumerate(("x", "y", "z")):
            items[name] = [f"{value:.9f}"[:16].ljust(16) for value in self._offsets[some, axis]]
        items["column"] = column * self._tile[1] + 1
        items["row"] = row * self._tile[0] + 1
        return items


def _element(tag: int, vr: bytes, length: int) -> bytes:
    group, element = tag >> 16, tag & 0xFFFF
    if vr == b"SQ":
        return struct.pack("<HH2sHI", group, element, vr, 0, length)
    return struct.pack("<HH2sH", group, element, vr, length)


def _item_of(length: int) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, length)


_CONTENT = 8 + 12
_POSITION = 3 * (8 + 16) + 2 * (8 + 4)
_CONSTANT = {
    "head": _item_of(12 + 8 + _CONTENT + 12 + 8 + _POSITION)
    + _element(0x00209111, b"SQ", 8 + _CONTENT)
    + _item_of(_CONTENT)
    + _element(0x00209157, b"UL", 12),
    "place": _element(0x0048021A, b"SQ", 8 + _POSITION)
    + _item_of(_POSITION)
    + _element(0x0040072A, b"DS", 16),
    "to_y": _element(0x0040073A, b"DS", 16),
    "to_z": _element(0x0040074A, b"DS", 16),
    "to_column": _element(0x0048021E, b"SL", 4),
    "to_row": _element(0x0048021F, b"SL", 4),
}
"""What is the same in every frame's item: tags, representations and lengths."""
_FRAME = np.dtype(
    [
        ("head", f"V{len(_CONSTANT['head'])}"),
        ("index", "<u4", (3,)),
        ("place", f"V{len(_CONSTANT['place'])}"),
        ("x", "S16"),
        ("to_y", "V8"),
        ("y", "S16"),
        ("to_z", "V8"),
        ("z", "S16"),
        ("to_column", "V8"),
        ("column", "<i4"),
        ("to_row", "V8"),
        ("row", "<i4"),
    ]
)
"""Dimension Index Values, X, Y and Z offset, column and row position, with their tags between."""


class _Pixels:
    """Pixel Data (7FE0,0010) at the end of `file`, with its offset tables."""

    def __init__(self, file: BinaryIO, count: int, table: OffsetTable) -> None:
        self._file, self._count, self._table = file, count, table

    def write(self, frames: Iterable[bytes]) -> npt.NDArray[np.uint64]:
        """Length of each frame, as an extended offset table has it. Raises InvalidValue as `write_frames`."""
        file, count = self._file, self._count
        tables_at = self._reserve()
        first = file.tell()
        offsets, lengths = np.zeros(count, "<u8"), np.zeros(count, "<u8")
        written = 0
        for frame in frames:
            if written == count:
                raise InvalidValue(f"more than the {count} frames that the header says")
            if self._table is OffsetTable.BASIC and file.tell() - first >= BASIC_REACHES:
                raise InvalidValue("a basic offset table reaches 4 GiB only; take an extended one")
            even = frame + b"\0" * (len(frame) % 2)  # PS3.5 A.4: fragments have even lengths
            offsets[written], lengths[written] = file.tell() - first, len(even)
            file.write(_item_of(len(even)))
            file.write(even)
            written += 1
        if written != count:
            raise InvalidValue(f"{written} frames, where the header says {count}")
        file.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
        self._fill(tables_at, offsets, lengths)
        return lengths

    def _reserve(self) -> tuple[int, ...]:
        """Everything before the first frame, tables empty; where the tables are."""
        file, at = self._file, []
        if self._table is OffsetTable.EXTENDED:
            for tag in (0x7FE00001, 0x7FE00002):
                file.write(struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"OV", 0, 8 * self._count))
                at.append(file.tell())
                file.write(bytes(8 * self._count))
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
        basic = 4 * self._count if self._table is OffsetTable.BASIC else 0
        file.write(_item_of(basic))
        if basic:
            at.append(file.tell())
            file.write(bytes(basic))
        return tuple(at)

    def _fill(
        self, at: tuple[int, ...], offsets: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint64]
    ) -> None:
        end = self._file.tell()
        tables = (offsets, lengths) if len(at) == 2 else (offsets.astype("<u4"),)
        for place, table in zip(at, tables, strict=False):
            self._file.seek(place)
            self._file.write(table.tobytes())
        self._file.seek(end)


def _patch_ratio(file: BinaryIO, header: bytes, ds: Dataset, compressed: int) -> None:
    """The compression ratio that came out, in the place kept for it."""
    element = struct.pack("<HH2sH", 0x0028, 0x2112, b"DS", len(NO_RATIO)) + NO_RATIO.encode()
    at = header.index(element) + 8
    raw = int(ds.Rows) * int(ds.Columns) * 3 * int(ds.NumberOfFrames)
    file.seek(at)
    file.write(f"{raw / max(compressed, 1):010.4f}"[:10].encode())
