"""Deflated data sets (PS3.5 A.5) unfolded piece by piece, never further than asked for.

A small deflated file may be a huge one: 400 KB of zeros fold to 400 bytes. So what comes out is
bounded by the caller in bytes, and here by its ratio to what went in.
"""

from __future__ import annotations

import zlib

from dicom_node.dicom.bounds import Content
from dicom_node.errors import UnreadableObject

MOST_RATIO = 250
"""Bytes out per byte in. Images and text stay far below; zlib's own limit is 1032."""
FREE_BYTES = 1 << 20
"""Up to here the ratio does not count: a few hundred bytes may well hold an empty mask."""
MOST_HEADER_BYTES = 16 << 20
"""Of a data set before its pixel data."""

_PIECE = 1 << 16


class Inflated:
    """The data set that is deflated in `content` from `start` on, as far as it was unfolded.

    Mutable: `bytes_so_far`, and whether the stream has `ended`.
    """

    def __init__(self, content: Content, start: int) -> None:
        self._content, self._at = content, start
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._waiting = b""
        self._taken = 0
        self._unfolded = bytearray()
        self.ended = False

    @property
    def bytes_so_far(self) -> bytes:
        return bytes(self._unfolded)

    def unfold(self, size: int) -> None:
        """Until `size` bytes are there, or all. Raises UnreadableObject: no deflate, or too much of it."""
        while len(self._unfolded) < size and not self.ended:
            if not self._waiting:
                self._waiting = self._content[self._at : self._at + _PIECE]
                self._at += len(self._waiting)
            given, before = len(self._waiting), len(self._unfolded)
            try:
                self._unfolded += self._stream.decompress(self._waiting, min(_PIECE, size - before))
            except zlib.error as error:
                raise UnreadableObject("the deflated data set cannot be unfolded") from error
            self._waiting = self._stream.unconsumed_tail
            self._taken += given - len(self._waiting)
            self.ended = self._stream.eof or (not given and len(self._unfolded) == before)
            if len(self._unfolded) > max(FREE_BYTES, MOST_RATIO * self._taken):
                raise UnreadableObject(
                    f"the deflated data set unfolds to more than {MOST_RATIO} times its size"
                )


def inflated(content: Content, start: int, at_most: int) -> bytes:
    """All of a deflated data set. Raises UnreadableObject where it is longer than `at_most` bytes."""
    stream = Inflated(content, start)
    stream.unfold(at_most + 1)
    if len(stream.bytes_so_far) > at_most:
        raise UnreadableObject("the deflated data set unfolds to more than its description says")
    return stream.bytes_so_far
