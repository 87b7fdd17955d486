"""The top level of a stored slide: where its elements and its pixel data lie (PS3.5 7, PS3.10 7.1).

Reads by position, so that any number of threads may read at once and memory does not grow with the
file. Every length is checked against the file, sequences are stepped over without recursion, and
no more steps are taken than `MOST_STEPS`: whatever the bytes are, it ends with an answer or with
UnreadableObject.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from dicom_node.errors import UnreadableObject

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
NATIVE = frozenset({IMPLICIT_LE, EXPLICIT_LE, DEFLATED})

PIXEL_DATA, OFFSETS, LENGTHS = 0x7FE00010, 0x7FE00001, 0x7FE00002
SHARED, PER_FRAME = 0x52009229, 0x52009230
MOST_STEPS = 2_000_000
"""Elements and items looked at one by one."""
MOST_UNFOLDED_BYTES = 8 << 30
"""Of a deflated slide, which is unfolded into a file without a name."""
LONGEST_SEQUENCE_BYTES = 1 << 30
"""Of Per-Frame Functional Groups Sequence: 180,000 frames have about 50 MB."""
UNDEFINED = 0xFFFFFFFF

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_END_BEFORE_PIXELS = b"\xfe\xff\xdd\xe0\0\0\0\0\xe0\x7f"
_WINDOW_BYTES = 1 << 16
_PIECE_BYTES = 1 << 20
_MOST_LEVELS = 64
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_HEAD, _TAG_AND_LENGTH, _LENGTH = Struct("<HH2sH"), Struct("<HHL"), Struct("<L")


@dataclass(frozen=True, slots=True)
class Element:
    """Where the value of a top level element lies; `length` is UNDEFINED or within the file."""

    at: int
    length: int
    vr: bytes
    """Empty where it is not written."""


class SlideFile:
    """An open PS3.10 file: its top level elements, and bytes at any position. Closed by `close`."""

    def __init__(self, path: Path) -> None:
        """Raises UnreadableObject where it is no file that ends in pixel data."""
        self._window, self._window_at, self._steps, self._fd = b"", 0, 0, -1
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise UnreadableObject(f"the file cannot be opened ({type(error).__name__})") from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._fd = -1  # whoever still reads gets an error, not another file that was given the number
        self._file.close()

    def read(self, at: int, length: int) -> bytes:
        """Exactly `length` bytes from `at`. Raises UnreadableObject where the file ends before."""
        if at < 0 or length < 0 or at + length > self.size:
            raise UnreadableObject("the file ends before its contents")
        try:
            found = os.pread(self._fd, length, at)
        except (OSError, ValueError) as error:  # ValueError: closed
            raise UnreadableObject(f"the file cannot be read ({type(error).__name__})") from error
        if len(found) != length:
            raise UnreadableObject("the file ends before its contents")
        return found

    def word_at(self, at: int) -> int:
        """The eight bytes from `at` on, within the file, as one little endian number."""
        return int.from_bytes(os.pread(self._fd, 8, at), "little")

    def value(self, tag: int, at_most: int = 1024) -> bytes:
        """The first bytes of a value; b"" where it is absent."""
        element = self.elements.get(tag)
        if element is None or element.length == UNDEFINED:
            return b""
        return self.read(element.at, min(element.length, at_most))

    def text(self, tag: int) -> str:
        return self.value(tag).decode("ascii", "replace").strip("\0 ").upper()

    def number(self, tag: int, default: int = 0) -> int:
        """An IS, US or UL."""
        element, value = self.elements.get(tag), self.value(tag)
        if element is None or not value:
            return default
        if element.vr == b"IS" or tag == 0x00280008:
            digits = value.split(b"\\")[0].strip(b"\0 +")
            return int(digits) if digits.isdigit() and len(digits) <= 12 else -1
        return int.from_bytes(value[: 2 if len(value) < 4 else 4], "little")

    # ---- the walk -------------------------------------------------------------------------------

    def _open(self) -> None:
        self._fd = self._file.fileno()
        self.size = os.fstat(self._fd).st_size
        start, self.syntax = self._file_meta()
        if self.syntax == DEFLATED:
            self._unfold(start)
            start = 0
        elif self.syntax == EXPLICIT_BE:
            raise UnreadableObject("big endian slides are not read")
        self.implicit = self.syntax == IMPLICIT_LE
        self.elements: dict[int, Element] = {}
        self._walk(start)
        self._window = b""
        if PIXEL_DATA not in self.elements:
            raise UnreadableObject("the file has no pixel data")

    def _file_meta(self) -> tuple[int, str]:
        """(where the data set begins, its transfer syntax)."""
        if self.size < 140 or self._bytes(128, 4) != b"DICM":
            raise UnreadableObject("not a DICOM file")
        at, syntax = 132, ""
        while self._bytes(at, 2) == b"\x02\0":
            tag, _, length, value_at = self._head(at, implicit=False)
            if tag == 0x00020010:
                syntax = self.read(value_at, min(length, 64)).decode("ascii", "replace").strip("\0 ")
            at = self._past(value_at, length)
            self._step()
        if not syntax:
            raise UnreadableObject("the file does not name its transfer syntax")
        return at, syntax

    def _unfold(self, start: int) -> None:
        """Goes on with the plain data set in a temporary file."""
        plain = tempfile.TemporaryFile()  # noqa: SIM115  closed as this one is
        inflate, at, unfolded = zlib.decompressobj(-zlib.MAX_WBITS), start, 0
        try:
            while at < self.size and not inflate.eof:
                pending = self.read(at, min(_PIECE_BYTES, self.size - at))
                at += len(pending)
                while pending and not inflate.eof:
                    piece = inflate.decompress(pending, _PIECE_BYTES)
                    pending, unfolded = inflate.unconsumed_tail, unfolded + len(piece)
                    if unfolded > MOST_UNFOLDED_BYTES:
                        raise UnreadableObject(f"it unfolds to more than {MOST_UNFOLDED_BYTES >> 30} GiB")
                    plain.write(piece)
            plain.flush()
        except (OSError, zlib.error) as error:
            plain.close()
            raise UnreadableObject(f"the file cannot be unfolded ({type(error).__name__})") from error
        except BaseException:
            plain.close()
            raise
        self._file.close()
        self._file, self._fd, self.size = plain, plain.fileno(), unfolded
        self._window = b""

    def _walk(self, at: int) -> None:
        while at + 8 <= self.size:
            tag, vr, length, value_at = self._head(at, implicit=self.implicit)
            self._step()
            if length != UNDEFINED and tag != PIXEL_DATA:
                self._past(value_at, length)
            self.elements[tag] = Element(value_at, length, vr)
            if tag == PIXEL_DATA:
                return
            if length != UNDEFINED:
                at = value_at + length
            else:
                end = self._pixels_after(value_at) if tag == PER_FRAME else 0
                at = end or self._past_sequence(value_at, implicit=self.implicit or vr == b"UN")
                self.elements[tag] = Element(value_at, at - 8 - value_at, vr)

    def _pixels_after(self, at: int) -> int:
        """Where the pixel data's elements begin that follow a sequence of undefined length; 0: not found."""
        pattern = _END_BEFORE_PIXELS
        for begin in range(at, self.size, _PIECE_BYTES):
            piece = self.read(begin, min(_PIECE_BYTES + len(pattern) - 1, self.size - begin))
            if (found := piece.find(pattern)) >= 0:
                return begin + found + 8
            if begin - at > LONGEST_SEQUENCE_BYTES:
                break
        return 0

    def _past_sequence(self, at: int, *, implicit: bool) -> int:
        """Behind the delimiter of a sequence of undefined length whose first item is at `at`."""
        open_ones: list[tuple[bool, bool]] = [(True, implicit)]  # (a sequence, else an item; implicit VR)
        while open_ones:
            is_sequence, hidden = open_ones[-1]
            self._step()
            if is_sequence:
                tag, length = self._item(at)
                at += 8
                if tag == _SEQUENCE_END:
                    open_ones.pop()
                elif tag != _ITEM:
                    raise UnreadableObject("a sequence holds something else than items")
                elif length == UNDEFINED:
                    open_ones.append((False, hidden))
                else:
                    at = self._past(at, length)
                continue
            tag, vr, length, value_at = self._head(at, implicit=hidden)
            if tag == _ITEM_END:
                open_ones.pop()
                at += 8
            elif length == UNDEFINED:
                open_ones.append((True, hidden or vr == b"UN"))
                at = value_at
            else:
                at = self._past(value_at, length)
            if len(open_ones) > 2 * _MOST_LEVELS:
                raise UnreadableObject(f"sequences are nested more than {_MOST_LEVELS} deep")
        return at

    def _item(self, at: int) -> tuple[int, int]:
        group, element, length = _TAG_AND_LENGTH.unpack(self._bytes(at, 8))
        return group << 16 | element, length

    def _head(self, at: int, *, implicit: bool) -> tuple[int, bytes, int, int]:
        """(tag, VR or b"", length, where the value begins)."""
        head = self._bytes(at, 8)
        if not implicit:
            group, element, vr, length = _SHORT_HEAD.unpack(head)
            if vr in _LONG:
                return group << 16 | element, vr, _LENGTH.unpack(self._bytes(at + 8, 4))[0], at + 12
            if group != 0xFFFE:
                return group << 16 | element, vr, length, at + 8
        group, element, length = _TAG_AND_LENGTH.unpack(head)
        return group << 16 | element, b"", length, at + 8

    def _bytes(self, at: int, length: int) -> bytes:
        begin = at - self._window_at
        if begin < 0 or begin + length > len(self._window):
            self._window = self.read(at, max(length, min(_WINDOW_BYTES, self.size - at)))
            self._window_at, begin = at, 0
        return self._window[begin : begin + length]

    def _past(self, at: int, length: int) -> int:
        if length == UNDEFINED or at + length > self.size:
            raise UnreadableObject("an element is longer than the file")
        return at + length

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise UnreadableObject(f"the header has more than {MOST_STEPS} elements")
