"""A walk over an encoded data set (PS3.5 7) before any parser gets it: is it within bounds?

Decided from tags, VRs and lengths alone, without recursion, in one pass over the headers of
elements: sequences at most 64 deep (parsers that recurse die of more), no element longer than
the file that holds it, no value too long to hold in memory, not too many elements to look at.
Private sequences, sequences written as UN (PS3.5 6.2.2) and items in another VR encoding than
the data set's are walked as pydicom reads them. A sequence or item too short to hold what
would be too deep is stepped over.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection
from struct import Struct

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dicom_node.errors import UnreadableObject

MOST_LEVELS = 64
MOST_ELEMENTS = 2_000_000
"""Walked through; an Enhanced object of 100,000 frames has fewer."""
LONGEST_VALUE_BYTES = 256 << 20
"""Of a value that is read into memory; pixel data are not."""

Content = bytes | mmap.mmap
Stop = Callable[[int, str | None, int], bool]

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORTEST_LEVEL = 16
"""Bytes: the header of an item and that of a sequence in it, implicit VR."""
_LONG_VRS = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)


class Walk:
    """One walk over `content` from `start`. Mutable: how deep it is, how many elements it saw.

    `whole` says that `content` is all there is: an element that is longer is a lie then, else
    it is merely cut off. `wanted` are the tags whose values will be read; () means all.
    """

    def __init__(
        self, content: Content, *, implicit: bool, big: bool = False, whole: bool = True,
        wanted: Collection[int] = (), most_levels: int = MOST_LEVELS,
    ) -> None:  # fmt: skip
        order = ">" if big else "<"
        self._tag_and_length, self._explicit = Struct(f"{order}HHL"), Struct(f"{order}HH2sH")
        self._length = Struct(f"{order}L")
        self._item = Struct(f"{order}HH").pack(0xFFFE, 0xE000)
        self._sequence_end = Struct(f"{order}HH").pack(0xFFFE, 0xE0DD)
        self._content, self._size = content, len(content)
        self._implicit, self._whole = implicit, whole
        self._wanted, self._most_levels = wanted, most_levels
        self._levels = 0
        self._elements = 0
        # What is open: (is a sequence, where it ends, implicit VR, has a defined length)
        self._open: list[tuple[bool, int, bool, bool]] = []

    def to(self, stop: Stop, start: int = 0) -> int | None:
        """Walk until `stop(tag, VR, length)` of a top level element; where that is, or None at the end.

        Raises UnreadableObject where a bound is passed.
        """
        implicit = self._found_implicit(start, self._implicit) if start + 6 <= self._size else self._implicit
        self._open = [(False, self._size, implicit, True)]
        at = start
        while self._open:
            is_sequence, end, _, _ = self._open[-1]
            if end - at < 8:
                at = end
                self._close()
            elif is_sequence:
                at = self._next_item(at)
            elif (after := self._next_element(at, stop)) is None:
                return at
            else:
                at = after
        return None

    def _next_item(self, at: int) -> int:
        """Enters the item at `at`, steps over it, or leaves the sequence; where to go on."""
        _, end, implicit, defined = self._open[-1]
        group, element, length = self._tag_and_length.unpack_from(self._content, at)
        self._count()
        at += 8
        if group << 16 | element == _SEQUENCE_END:
            self._close()
            return end if defined else at
        # Whatever else stands here is read as an item, as pydicom does.
        if length != _UNDEFINED:
            item_end = self._clipped(at + length, end, _ITEM)
            if not self._may_be_too_deep(length):
                return item_end
            end = item_end
        self._open.append((False, end, implicit or self._found_implicit(at, False), length != _UNDEFINED))
        return at

    def _next_element(self, at: int, stop: Stop) -> int | None:
        """Where to go on after the element at `at`, which may be inside it; None where `stop` says so."""
        _, end, implicit, _ = self._open[-1]
        tag, vr, length, value_at = self._header(at, implicit)
        self._count()
        if tag == _ITEM_END:
            self._close()
            return at + 8 if self._open else self._size
        if len(self._open) == 1 and stop(tag, vr, length):
            return None
        if length == _UNDEFINED:
            if self._is_sequence_by_name(tag, vr, value_at):
                return self._enter(value_at, end, defined=False)
            return self._past_fragments(tag, value_at, end)
        value_end = self._clipped(value_at + length, end, tag)
        if self._is_sequence_by_look(vr, value_at, value_end) and self._may_be_too_deep(length):
            return self._enter(value_at, value_end, defined=True)
        self._check_length(tag, length)
        return value_end

    def _header(self, at: int, implicit: bool) -> tuple[int, str | None, int, int]:
        """(tag, VR, length, where the value begins) of the element at `at`."""
        if not implicit:
            group, element, vr, length = self._explicit.unpack_from(self._content, at)
            if vr in _LONG_VRS:
                if at + 12 > self._size:
                    return group << 16 | element, None, 0, self._size
                length = self._length.unpack_from(self._content, at + 8)[0]
                return group << 16 | element, vr.decode("ascii"), length, at + 12
            if b"AA" <= vr <= b"ZZ":
                return group << 16 | element, vr.decode("latin-1"), length, at + 8
        group, element, length = self._tag_and_length.unpack_from(self._content, at)
        return group << 16 | element, None, length, at + 8

    def _enter(self, at: int, end: int, *, defined: bool) -> int:
        self._levels += 1
        if self._levels > self._most_levels:
            raise UnreadableObject(f"sequences are nested more than {self._most_levels} deep")
        self._open.append((True, end, self._open[-1][2], defined))
        return at

    def _close(self) -> None:
        is_sequence = self._open.pop()[0]
        self._levels -= is_sequence

    def _count(self) -> None:
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise UnreadableObject(f"the data set has more than {MOST_ELEMENTS} elements")

    def _may_be_too_deep(self, length: int) -> bool:
        return self._levels + 1 + length // _SHORTEST_LEVEL > self._most_levels

    def _clipped(self, value_end: int, end: int, tag: int) -> int:
        """The end of a value; that of the file at most, which is a lie where all the file is here."""
        if value_end > end == self._size and self._whole:
            raise UnreadableObject(f"element {_name(tag)} is longer than the file")
        return min(value_end, end)

    def _check_length(self, tag: int, length: int) -> None:
        if length > LONGEST_VALUE_BYTES and (not self._wanted or tag in self._wanted):
            raise UnreadableObject(f"element {_name(tag)} is longer than {LONGEST_VALUE_BYTES >> 20} MiB")

    def _is_sequence_by_name(self, tag: int, vr: str | None, value_at: int) -> bool:
        """Of undefined length: a sequence, or else fragments or a vendor's invention."""
        if vr is None:
            try:
                return dictionary_VR(tag) == "SQ"
            except KeyError:
                return self._content[value_at : value_at + 4] == self._item
        return vr in ("SQ", "UN")

    def _is_sequence_by_look(self, vr: str | None, value_at: int, value_end: int) -> bool:
        if vr in ("UN", None):  # private, or through the hands of somebody who did not know it
            return value_end - value_at >= 8 and self._content[value_at : value_at + 4] == self._item
        return vr == "SQ"

    def _past_fragments(self, tag: int, at: int, end: int) -> int:
        """Behind an encapsulated value (PS3.5 A.4), or else behind the next delimiter."""
        start = at
        while at + 8 <= end:
            group, element, length = self._tag_and_length.unpack_from(self._content, at)
            at += 8
            if group << 16 | element == _SEQUENCE_END:
                break
            if group << 16 | element != _ITEM:
                at = end
                break
            at += length
        if at >= end:
            found = self._content.find(self._sequence_end, start, end)
            if found < 0 and self._whole:
                raise UnreadableObject(f"element {_name(tag)} has no end")
            at = found + 8 if found >= 0 else end
        if at - start > LONGEST_VALUE_BYTES:  # read into memory, wanted or not
            raise UnreadableObject(f"element {_name(tag)} is longer than {LONGEST_VALUE_BYTES >> 20} MiB")
        return min(at, end)

    def _found_implicit(self, at: int, assumed: bool) -> bool:
        """Whether the data set at `at` looks like implicit VR, whatever was said."""
        vr = self._content[at + 4 : at + 6]
        if len(vr) < 2:
            return assumed
        return not (0x40 < vr[0] < 0x5B and 0x40 < vr[1] < 0x5B)


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
