"""Data sets as bytes, built by hand (PS3.5 7): any nesting, any VR encoding, honest or not."""

from __future__ import annotations

import struct
from dataclasses import dataclass

UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])


@dataclass(frozen=True)
class Element:
    """`value` is bytes, or the items of a sequence. `defined` is about its own length."""

    tag: int
    vr: str
    value: bytes | tuple[Item, ...]
    defined: bool = True


@dataclass(frozen=True)
class Item:
    elements: tuple[Element, ...]
    defined: bool = True


@dataclass(frozen=True)
class Encoding:
    implicit: bool = False
    big: bool = False

    def data_set(self, elements: tuple[Element, ...]) -> bytes:
        return b"".join(map(self.element, elements))

    def element(self, element: Element) -> bytes:
        if isinstance(element.value, bytes):
            return self.head(element.tag, element.vr, len(element.value)) + element.value
        content = b"".join(map(self.item, element.value))
        if element.defined:
            return self.head(element.tag, element.vr, len(content)) + content
        return self.head(element.tag, element.vr, UNDEFINED) + content + self.delimiter(0xE0DD)

    def item(self, item: Item) -> bytes:
        content = self.data_set(item.elements)
        if item.defined:
            return self.delimiter(0xE000, len(content)) + content
        return self.delimiter(0xE000, UNDEFINED) + content + self.delimiter(0xE00D)

    def tower(self, depth: int, tag: int = 0x00081115, vr: str = "SQ") -> bytes:
        """As `chain` of undefined lengths, for any depth."""
        opening = self.head(tag, vr, UNDEFINED) + self.delimiter(0xE000, UNDEFINED)
        closing = self.delimiter(0xE00D) + self.delimiter(0xE0DD)
        return opening * depth + self.element(Element(0x00080018, "UI", b"1.2\0")) + closing * depth

    def head(self, tag: int, vr: str, length: int) -> bytes:
        order = ">" if self.big else "<"
        if self.implicit:
            return struct.pack(f"{order}HHL", tag >> 16, tag & 0xFFFF, length)
        if vr in LONG_VRS:
            return struct.pack(f"{order}HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length)
        return struct.pack(f"{order}HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length)

    def delimiter(self, element: int, length: int = 0) -> bytes:
        return struct.pack(">HHL" if self.big else "<HHL", 0xFFFE, element, length)


ENCODINGS = {
    "1.2.840.10008.1.2": Encoding(implicit=True),
    "1.2.840.10008.1.2.1": Encoding(),
    "1.2.840.10008.1.2.2": Encoding(big=True),
}
"""By transfer syntax."""


def chain(depth: int, *, tag: int = 0x00081115, vr: str = "SQ", defined: bool = False) -> tuple[Element, ...]:
    """Sequences within each other, `depth` of them; the innermost item says something."""
    elements: tuple[Element, ...] = (Element(0x00080018, "UI", b"1.2\0"),)
    for _ in range(depth):
        elements = (Element(tag, vr, (Item(elements, defined),), defined),)
    return elements


def depth_of(elements: tuple[Element, ...]) -> int:
    return max(
        (
            1 + max((depth_of(item.elements) for item in element.value), default=0)
            for element in elements
            if not isinstance(element.value, bytes)
        ),
        default=0,
    )
