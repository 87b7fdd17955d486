"""Where the frames of a TILED_SPARSE slide lie: from the bytes of its functional groups (PS3.3 C.8.12.6.1).

A slide of 180,000 frames describes each in a tree of sequences, which a parser takes half a minute
for. All that matters are four elements per frame, so their headers are looked for in the bytes,
whichever way lengths are written. Where one is not found exactly once per frame, nothing is guessed:
the slide is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.errors import UnreadableObject
from dicom_node.slide.file import LONGEST_SEQUENCE_BYTES, PER_FRAME, SHARED, UNDEFINED, SlideFile

_PIECE_BYTES = 8 << 20
_TEXT = 16
"""Bytes of a DS or SH, PS3.5 6.2."""
_COLUMN, _ROW, _Z, _PATH = 0x0048021E, 0x0048021F, 0x0040074A, 0x00480106

Texts = npt.NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class Places:
    """Of each frame, in stored order."""

    column: npt.NDArray[np.int64]
    """Of its first pixel in the total pixel matrix, from 0."""
    row: npt.NDArray[np.int64]
    z: npt.NDArray[np.float64] | None
    """Z Offset in Slide Coordinate System (0040,074A) as stored; None where no frame has one."""
    path: Texts | None
    """Optical Path Identifier (0048,0106); None where no frame has one."""


def read_places(file: SlideFile, frames: int) -> Places | None:
    """The places of all frames; None where the file does not describe its frames.

    Raises UnreadableObject where some frames are described and some are not.
    """
    element = file.elements.get(PER_FRAME) or (file.elements.get(SHARED) if frames == 1 else None)
    if element is None:
        return None
    if element.length == UNDEFINED or element.length > LONGEST_SEQUENCE_BYTES:
        most = LONGEST_SEQUENCE_BYTES >> 20
        raise UnreadableObject(f"the description of its frames is longer than {most} MiB")
    if frames * 8 > element.length:
        raise UnreadableObject(f"{frames} frames are announced but fewer described")
    found = _Found(file, element.at, element.length)
    columns, rows = found.integers(_COLUMN), found.integers(_ROW)
    if columns is None and rows is None and frames == 1:
        return None
    if columns is None or rows is None or {len(columns), len(rows)} != {frames}:
        described = 0 if columns is None else len(columns)
        raise UnreadableObject(f"{frames} frames are announced but {described} have a place")
    z, path = found.texts(_Z), found.texts(_PATH)
    if (z is not None and len(z) != frames) or (path is not None and len(path) != frames):
        raise UnreadableObject("only some frames name their focal plane or optical path")
    return Places(columns - 1, rows - 1, None if z is None else _floats(z), path)


class _Found:
    """Elements of some tags, found by their headers among `length` bytes of a file."""

    def __init__(self, file: SlideFile, at: int, length: int) -> None:
        self._file, self._at, self._end = file, at, at + length
        tags = (_COLUMN, _ROW, _Z, _PATH)
        pieces: dict[int, list[npt.NDArray[np.uint8]]] = {tag: [] for tag in tags}
        for piece, own in self._pieces():
            for tag in tags:
                pieces[tag].append(_values(piece, own, tag, implicit=file.implicit))
        self._values = {tag: np.concatenate(found) for tag, found in pieces.items() if found}

    def _pieces(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        """Bytes, and in how many of them an element may begin; they overlap by the longest element."""
        overlap = 8 + _TEXT
        for at in range(self._at, self._end, _PIECE_BYTES):
            own = min(_PIECE_BYTES, self._end - at)
            read = self._file.read(at, min(own + overlap, self._end - at))
            piece = np.zeros(own + own % 2 + 2 * overlap, np.uint8)
            piece[: len(read)] = np.frombuffer(read, np.uint8)
            yield piece, own

    def integers(self, tag: int) -> npt.NDArray[np.int64] | None:
        found = self._values.get(tag)
        if found is None or not len(found):
            return None
        return np.ascontiguousarray(found[:, :4]).view("<i4")[:, 0].astype(np.int64)

    def texts(self, tag: int) -> Texts | None:
        found = self._values.get(tag)
        return None if found is None or not len(found) else found.view(f"S{_TEXT}")[:, 0]


def _values(piece: npt.NDArray[np.uint8], own: int, tag: int, *, implicit: bool) -> npt.NDArray[np.uint8]:
    """(n, 16) the values of all elements of `tag` that begin in the first `own` bytes, cut or filled with 0.

    Elements begin at even places, as all lengths are even (PS3.5 7.1.1).
    """
    words = piece.view("<u2")
    at = 2 * (np.flatnonzero(words[1 : 1 + (own + 1) // 2] == tag & 0xFFFF))
    at = at[words[at >> 1] == tag >> 16]
    fixed = tag in (_COLUMN, _ROW)
    first, second = words[(at >> 1) + 2], words[(at >> 1) + 3]
    if implicit:
        length, stands = first, second == 0
    else:
        vr = {_COLUMN: b"SL", _ROW: b"SL", _Z: b"DS", _PATH: b"SH"}[tag]
        length, stands = second, first == int.from_bytes(vr, "little")
    stands &= length == 4 if fixed else length <= _TEXT
    at, length = at[stands], length[stands]
    values: npt.NDArray[np.uint8] = piece[at[:, None] + np.arange(8, 8 + _TEXT)]
    values[np.arange(_TEXT) >= length[:, None]] = 0
    values[values == ord(" ")] = 0
    return values


def _floats(texts: Texts) -> npt.NDArray[np.float64]:
    """Decimal strings as numbers; few different ones, so each is read once."""
    halves = np.ascontiguousarray(texts).view("<u8").reshape(-1, 2)
    mixed = halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ halves[:, 1]
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    try:
        numbers = texts[first].astype(np.float64)
    except ValueError as error:
        raise UnreadableObject("a frame's height is no number") from error
    if not np.isfinite(numbers).all() or (texts[first][which] != texts).any():
        raise UnreadableObject("a frame's height is no number")
    return numbers[which]
