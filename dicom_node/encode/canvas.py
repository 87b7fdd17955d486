"""Drawing on the page: colours, one typeface, text that wraps, images with a heatmap over them.

Pillow's own bundled typeface and its basic layout only: the page is the same on every machine,
whatever fonts and text shapers it has.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from dicom_node.errors import DicomNodeError

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
"""(left, top, right, bottom), pixels."""

BACKGROUND: Colour = (13, 16, 22)
PANEL: Colour = (24, 29, 38)
LINE: Colour = (52, 60, 74)
TEXT: Colour = (236, 240, 246)
MUTED: Colour = (156, 167, 184)
POSITIVE: Colour = (255, 107, 74)
NEGATIVE: Colour = (72, 190, 160)
INDETERMINATE: Colour = (245, 190, 70)
CAUTION: Colour = (255, 200, 87)
OUTLINE: Colour = (110, 235, 255)

_HEAT = np.array(
    [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
     (252, 255, 164)], dtype=np.float32,
)  # fmt: skip
"""Evenly spaced colours of a map that grows in lightness, so it reads in grey as well."""


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's bundled typeface at `size` pixels."""
    bundled = ImageFont.load_default(size=size)
    if not isinstance(bundled, ImageFont.FreeTypeFont):
        raise DicomNodeError("Pillow was built without FreeType, so no page can be drawn")
    return bundled.font_variant(layout_engine=ImageFont.Layout.BASIC)


def heat_colours(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """0 to 1 -> (..., 3) float32 RGB."""
    place = np.clip(values, 0.0, 1.0) * (len(_HEAT) - 1)
    below = np.minimum(place.astype(np.intp), len(_HEAT) - 2)
    part = (place - below)[..., None].astype(np.float32)
    blended: npt.NDArray[np.float32] = _HEAT[below] * (1 - part) + _HEAT[below + 1] * part
    return blended


def overlaid(grey: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32] | None) -> npt.NDArray[np.uint8]:
    """(rows, columns) grey with a map over it, as RGB; anatomy stays visible under the strongest heat."""
    rgb = np.repeat(grey[..., None].astype(np.float32), 3, axis=-1)
    if heat is not None:
        cover = (np.clip(heat, 0.0, 1.0) ** 0.8 * 0.5)[..., None]
        rgb = rgb * (1 - cover) + heat_colours(heat) * cover
    out: npt.NDArray[np.uint8] = np.round(rgb).astype(np.uint8)
    return out


def edge(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The outermost pixels within a mask, (rows, columns)."""
    inner = np.pad(mask, 1)
    inner = inner[1:-1, :-2] & inner[1:-1, 2:] & inner[:-2, 1:-1] & inner[2:, 1:-1]
    return mask & ~inner


class Canvas:
    """A page being drawn. Coordinates are pixels from the top left."""

    def __init__(self, columns: int, rows: int) -> None:
        self.image = Image.new("RGB", (columns, rows), BACKGROUND)
        self.pen = ImageDraw.Draw(self.image)

    @property
    def columns(self) -> int:
        return self.image.width

    @property
    def rows(self) -> int:
        return self.image.height

    def panel(self, box: Box, fill: Colour = PANEL, radius: int = 10) -> None:
        self.pen.rounded_rectangle(box, radius=radius, fill=fill)

    def text(
        self, x: int, y: int, text: str, size: int, colour: Colour = TEXT, *, anchor: str = "la",
        bold: bool = False,
    ) -> None:  # fmt: skip
        """One line. The typeface has one weight; bold is a stroke around it."""
        self.pen.text((x, y), text, font=font(size), fill=colour, anchor=anchor, stroke_width=int(bold))

    def letter(self, x: int, y: int, letter: str, size: int, anchor: str) -> None:
        """A letter that is read on bright and on dark images."""
        self.pen.text(
            (x, y), letter, font=font(size), fill=CAUTION, anchor=anchor,
            stroke_width=2, stroke_fill=BACKGROUND,
        )  # fmt: skip

    def paragraph(
        self, x: int, y: int, text: str, size: int, columns: int, colour: Colour = TEXT, *, lines: int = 99
    ) -> int:
        """Text wrapped to `columns` pixels and cut after `lines`; answers the y below it."""
        for line in wrapped(text, size, columns, lines):
            self.text(x, y, line, size, colour)
            y += round(size * 1.32)
        return y

    def picture(self, box: Box, rgb: npt.NDArray[np.uint8], aspect: float) -> Box:
        """An image fitted into `box`, where it then is; `aspect`: a pixel's height over its width."""
        left, top, right, bottom = box
        rows, columns = rgb.shape[0] * aspect, float(rgb.shape[1])
        scale = min((right - left) / columns, (bottom - top) / rows)
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
        x, y = left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2
        self.image.paste(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC), (x, y))
        return x, y, x + size[0], y + size[1]

    def outline(self, box: Box, mask: npt.NDArray[np.bool_], colour: Colour = OUTLINE) -> None:
        """The edge of a (rows, columns) mask over the picture in `box`, as thin as the page allows."""
        left, top, right, bottom = box
        size = (right - left, bottom - top)
        soft = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        line = Image.fromarray(edge(np.asarray(soft) > 127).astype(np.uint8) * 255)
        self.image.paste(colour, (left, top), line)

    def pixels(self) -> npt.NDArray[np.uint8]:
        return np.asarray(self.image, dtype=np.uint8).copy()


def width(text: str, size: int) -> int:
    return round(font(size).getlength(text))


def wrapped(text: str, size: int, columns: int, lines: int = 99) -> list[str]:
    """`text` in lines of at most `columns` pixels; a last line that was cut ends in dots."""
    done: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and width(longer, size) > columns:
            done.append(line)
            line = word
        else:
            line = longer
    done.append(line)
    if len(done) > lines:
        done = [*done[: lines - 1], shortened(f"{done[lines - 1]} ...", size, columns)]
    return [shortened(part, size, columns) for part in done]


def shortened(text: str, size: int, columns: int) -> str:
    """One line of at most `columns` pixels."""
    if width(text, size) <= columns:
        return text
    text = text.removesuffix(" ...")
    while text and width(f"{text}...", size) > columns:
        text = text[:-1]
    return f"{text.rstrip()}..."
