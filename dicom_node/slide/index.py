"""Where each frame of a stored slide lies: offsets and lengths, from whichever table there is, or none.

Extended offset table (7FE0,0001), basic offset table, or the items themselves, walked one header
after the other (PS3.5 A.4). A table that cannot be true (out of order, past the end, over 4 GiB in
32 bits) is not used. Frames in several fragments are found too.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from struct import Struct

import numpy as np
import numpy.typing as npt

from dicom_node.errors import UnreadableObject
from dicom_node.slide.file import LENGTHS, NATIVE, OFFSETS, PIXEL_DATA, UNDEFINED, SlideFile

Offsets = npt.NDArray[np.uint64]
Spans = npt.NDArray[np.uint32]

MOST_FRAMES = 1 << 24
MOST_FRAGMENTS = 1 << 24
_BLOCK_BYTES = 1 << 18
_FAR = 6000
"""Bytes between items from which on a read for each is cheaper than reading all there is between them."""
_LOOKED_AT = 16
"""Entries of a table that are compared with the items they point to."""
_ITEM = 0xE000FFFE  # as one little endian word
_HEAD = Struct("<LL")
_BEGINNINGS = (b"\xff\xd8", b"\xff\x4f", b"\xff\x0a", b"\0\0\0\x0c")
"""Of a JPEG, JPEG-LS, JPEG 2000 or JPEG XL stream: what tells a frame's first fragment from its next."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Frame k is `spans[k]` bytes from `offsets[k]`: items with their headers where encapsulated."""

    offsets: Offsets
    spans: Spans
    encapsulated: bool

    def lengths(self) -> Spans:
        """Bytes of each frame without the header of its first item; 0 where it is empty."""
        return np.asarray(self.spans - np.uint32(8), np.uint32) if self.encapsulated else self.spans


def find_frames(file: SlideFile, frames: int, native_bytes: int) -> Frames:
    """Where `frames` frames lie, of `native_bytes` each where the pixel data are not encapsulated.

    Raises UnreadableObject where they are not all there.
    """
    if not 0 < frames <= MOST_FRAMES:
        raise UnreadableObject(f"{frames} frames are not a number from 1 to {MOST_FRAMES}")
    pixels = file.elements[PIXEL_DATA]
    if file.syntax in NATIVE:
        return _native(frames, native_bytes, pixels.at, pixels.length, file.size)
    if pixels.length != UNDEFINED:
        raise UnreadableObject("its pixel data are not encapsulated as its transfer syntax says")
    if frames > (file.size - pixels.at) // 8:
        raise UnreadableObject(f"{frames} frames are announced, more than the file has room for")
    tag, length = _HEAD.unpack(file.read(pixels.at, 8))
    first = pixels.at + 8 + length
    if tag != _ITEM or first > file.size:
        raise UnreadableObject("its pixel data do not begin with an offset table")
    found = _extended(file, frames, first) or _basic(file, frames, pixels.at + 8, length)
    return Frames(*(found or _walked(file, frames, first)), True)


def _native(frames: int, each: int, at: int, length: int, size: int) -> Frames:
    if each <= 0 or length == UNDEFINED or each * frames > min(length, size - at) or each > 0xFFFFFFFF:
        raise UnreadableObject(f"{frames} frames are announced, more than there are pixels for")
    offsets = at + each * np.arange(frames, dtype=np.uint64)
    return Frames(offsets, np.full(frames, each, np.uint32), False)


def _extended(file: SlideFile, frames: int, first: int) -> tuple[Offsets, Spans] | None:
    """By Extended Offset Table (PS3.3 C.7.6.3.1.8), one item per frame."""
    tables = [file.elements.get(tag) for tag in (OFFSETS, LENGTHS)]
    read = [file.read(t.at, t.length) for t in tables if t is not None and t.length == 8 * frames]
    if len(read) != 2:
        return None
    offsets, lengths = (np.frombuffer(table, "<u8") for table in read)
    if int(lengths.max()) > 0xFFFFFFF0 or int(offsets.max()) > file.size:
        return None
    lengths = lengths + lengths % 2
    spans = (lengths + 8).astype(np.uint32)
    offsets = np.asarray(offsets + np.uint64(first), np.uint64)
    if not _in_order(offsets, spans, file.size) or not _point_to_items(file, offsets, lengths):
        return None
    return offsets, spans


def _basic(file: SlideFile, frames: int, at: int, length: int) -> tuple[Offsets, Spans] | None:
    """By basic offset table; the last frame ends where its items do."""
    if length != 4 * frames:
        return None
    relative = np.frombuffer(file.read(at, length), "<u4").astype(np.uint64)
    if relative[0] != 0 or (np.diff(relative.astype(np.int64)) < 8).any():
        return None
    offsets = np.asarray(relative + np.uint64(at + length), np.uint64)
    last = int(offsets[-1])
    if last + 8 > file.size:
        return None
    _, end = _items(file, last, _FAR)
    spans = np.diff(np.append(offsets, np.uint64(end)))
    if end <= last or int(spans.max()) > 0xFFFFFFFF or not _point_to_items(file, offsets):
        return None
    return offsets, spans.astype(np.uint32)


def _walked(file: SlideFile, frames: int, first: int) -> tuple[Offsets, Spans]:
    starts, end = _items(file, first, (file.size - first) // frames)
    offsets = np.frombuffer(starts, np.uint64) if starts else np.zeros(0, np.uint64)
    if len(offsets) > frames:
        offsets = _first_fragments(file, offsets, frames)
    if len(offsets) != frames:
        raise UnreadableObject(f"{len(offsets)} of {frames} frames are there")
    spans = np.diff(np.append(offsets, np.uint64(end)))
    if int(spans.max()) > 0xFFFFFFFF:
        raise UnreadableObject("a frame is longer than 4 GiB")
    return offsets, spans.astype(np.uint32)


def _items(file: SlideFile, first: int, apart: int) -> tuple[array[int], int]:
    """(where each item from `first` on begins, where the last one ends).

    Items that are some `apart` bytes apart are read one by one where that is far, else in blocks.
    """
    starts, at = array("Q"), first
    walk = _one_by_one if apart >= _FAR else _in_blocks
    try:
        at = walk(file, at, starts)
    except OSError as error:
        raise UnreadableObject(f"the file cannot be read ({type(error).__name__})") from error
    if len(starts) > MOST_FRAGMENTS:
        raise UnreadableObject(f"its pixel data are in more than {MOST_FRAGMENTS} fragments")
    if at > file.size:
        raise UnreadableObject("the file ends within a frame")
    return starts, at


def _one_by_one(file: SlideFile, at: int, starts: array[int]) -> int:
    size, head, append, item = file.size, file.word_at, starts.append, _ITEM
    while at + 8 <= size and len(starts) <= MOST_FRAGMENTS:
        word = head(at)
        if word & 0xFFFFFFFF != item:
            break
        append(at)
        at += 8 + (word >> 32)
    return at


def _in_blocks(file: SlideFile, at: int, starts: array[int]) -> int:
    size, append, item, unpack = file.size, starts.append, _ITEM, _HEAD.unpack_from
    while at + 8 <= size and len(starts) <= MOST_FRAGMENTS:
        block = file.read(at, min(_BLOCK_BYTES, size - at))
        begin, local, last = at, 0, len(block) - 8
        while local <= last:
            tag, length = unpack(block, local)
            if tag != item:
                return begin + local
            append(begin + local)
            local += 8 + length
        at = begin + local
    return at


def _first_fragments(file: SlideFile, items: Offsets, frames: int) -> Offsets:
    """Those items that begin a frame: by the first bytes of a compressed image."""
    if frames == 1:
        return items[:1]
    heads = (file.read(at + 8, min(4, file.size - at - 8)) for at in items.tolist())
    first = items[np.array([head.startswith(_BEGINNINGS) for head in heads])]
    if len(first) != frames or first[0] != items[0]:
        untold = "and no table says which are whose"
        raise UnreadableObject(f"{frames} frames are in {len(items)} fragments, {untold}")
    return np.asarray(first, np.uint64)


def _in_order(offsets: Offsets, spans: Spans, size: int) -> bool:
    ends = offsets + spans
    return bool((offsets[1:] >= ends[:-1]).all()) and int(ends[-1]) <= size


def _point_to_items(file: SlideFile, offsets: Offsets, lengths: npt.NDArray[np.uint64] | None = None) -> bool:
    for k in np.unique(np.linspace(0, len(offsets) - 1, _LOOKED_AT).astype(int)):
        tag, length = _HEAD.unpack(file.read(int(offsets[k]), 8))
        if tag != _ITEM or (lengths is not None and length != lengths[k]):
            return False
    return True
