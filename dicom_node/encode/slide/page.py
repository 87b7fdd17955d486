"""The page of a slide: verdict, where on the slide, and the cells to look at first with what was looked at.

Pure: findings in, pixels out, the same on every machine. No identity is drawn. A technologist reads
some thirty cells instead of tens of thousands: each is shown with its class, its probability, its
place, and beside it the same cell under its Grad-CAM.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicom_node.domain.findings import Findings
from dicom_node.domain.slide import CellClass, GalleryCell, Photograph, Reading, Slide
from dicom_node.encode import canvas as c
from dicom_node.encode.canvas import Box, Canvas
from dicom_node.encode.document import plain
from dicom_node.encode.page import EDGE, footer, header, model, probability_bar, verdict_panel, warned
from dicom_node.encode.slide import words as said
from dicom_node.encode.words import percent

COLUMNS, ROWS = 1920, 1432
SHOWN = 30
_TOP = 343
_SIDE = 560
"""Width of the column with slide, counts and models."""
_LEFT = EDGE + _SIDE + 40
_ACROSS, _DOWN = 5, 6
_CELL = 116
_HIGH = 164


def draw(findings: Findings, *, title: str) -> npt.NDArray[np.uint8]:
    """The page as (rows, columns, 3) uint8 RGB, 1432 x 1920."""
    page = Canvas(COLUMNS, ROWS)
    header(page, title)
    if findings.verdict is not None:
        verdict_panel(page, findings.verdict)
        probability_bar(page, findings.verdict)
    shown = said.gallery(findings.readings)[:SHOWN]
    y = _pictures(page, findings.readings, shown)
    y = _counts(page, findings.readings, y + 16)
    y = _notes(page, findings, y + 6)
    if findings.algorithms and y < ROWS - 170:
        page.text(EDGE, y, "Models", 19)
        y += 30
        for one in findings.algorithms:
            if y < ROWS - 140:
                y = model(page, one, EDGE, EDGE + _SIDE, y)
    _gallery(page, shown)
    footer(page, findings)
    return page.pixels()


# ---- the slide, or the photographs --------------------------------------------------------


def _pictures(
    page: Canvas, readings: Sequence[Reading], shown: Sequence[tuple[Reading, GalleryCell]]
) -> int:  # fmt: skip
    pictured = [reading for reading in readings if reading.thumbnail is not None]
    if not pictured:
        return _TOP - 16
    one = len(pictured) == 1 and isinstance(pictured[0].picture, Slide)
    noun = "Slide" if one else "Slides" if _slides(pictured) else "Photographs"
    page.text(EDGE, _TOP, f"{noun}, with the cells shown marked", 19)
    across = 1 if len(pictured) == 1 else 2 if len(pictured) <= 4 else 3
    high = 380 if across == 1 else 200 if across == 2 else 140
    wide = (_SIDE - 12 * (across - 1)) // across
    bottom = _TOP + 30
    for place, reading in enumerate(pictured[: across * (3 if across == 3 else 2)]):
        left, top = EDGE + place % across * (wide + 12), _TOP + 32 + place // across * (high + 12)
        where = _picture(page, reading, (left, top, left + wide, top + high))
        numbers = [n for n, (of, _) in enumerate(shown, start=1) if of is reading]
        _mark(page, reading, [(n, shown[n - 1][1]) for n in numbers], where)
        bottom = max(bottom, where[3])
    return bottom


def _slides(readings: Sequence[Reading]) -> bool:
    return any(isinstance(reading.picture, Slide) for reading in readings)


def _picture(page: Canvas, reading: Reading, box: Box) -> Box:
    picture, pixels, aspect = reading.picture, reading.thumbnail, 1.0
    if pixels is None:
        return box
    if isinstance(picture, Slide):
        height, width = picture.size_mm
        aspect = height / pixels.shape[0] / (width / pixels.shape[1])
    left, top, right, bottom = box
    rows, columns = pixels.shape[0] * aspect, float(pixels.shape[1])
    fitted = round(rows * min((right - left) / columns, (bottom - top) / rows))
    return page.picture((left, top, right, top + fitted), pixels, aspect)


def _size_px(picture: Slide | Photograph) -> tuple[int, int]:
    """(rows, columns) that places count in."""
    of = picture if isinstance(picture, Photograph) else picture.base
    return of.rows, of.columns


def _mark(page: Canvas, reading: Reading, cells: Sequence[tuple[int, GalleryCell]], where: Box) -> None:
    """A ring and the number in the gallery at each cell's place; the first ones on top."""
    left, top, right, bottom = where
    rows, columns = _size_px(reading.picture)
    for number, shown in reversed(cells):
        column, row = reading.cells.centre_px[shown.cell].tolist()
        x = round(left + (right - left) * column / columns)
        y = round(top + (bottom - top) * row / rows)
        colour = _kind(reading, shown).colour
        page.pen.ellipse((x - 9, y - 9, x + 9, y + 9), outline=c.BACKGROUND, width=5)
        page.pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline=colour, width=3)
        across, anchor = (x - 12, "rm") if x > right - 40 else (x + 12, "lm")
        page.letter(across, y, str(number), 15, anchor)


def _kind(reading: Reading, shown: GalleryCell) -> CellClass:
    return reading.cells.classes[int(reading.cells.label[shown.cell])]


# ---- counts and notes ---------------------------------------------------------------------


def _counts(page: Canvas, readings: Sequence[Reading], y: int) -> int:
    """A bar for each class, worst first; of a differential the share with its interval instead."""
    tally = said.counted(readings)
    total = sum(n for _, n in tally)
    page.text(EDGE, y, f"Cells found: {total}", 19)
    y += 30
    shares = {share.cell_class: share for reading in readings[:1] for share in reading.differential}
    line = 25 if len(tally) <= 6 else 21
    for kind, n in reversed(tally[-12:]):
        share = shares.get(kind)
        page.pen.rectangle((EDGE, y + 3, EDGE + 13, y + 16), fill=kind.colour)
        page.text(EDGE + 22, y, c.shortened(plain(kind.label), 16, 150), 16)
        text = f"{n}" if share is None else f"{percent(n / max(total, 1))}  ({said.interval(share)})"
        right = EDGE + _SIDE
        bar = (EDGE + 186, right - (70 if share is None else 250))
        page.pen.rectangle((bar[0], y + 4, bar[1], y + 15), fill=c.PANEL)
        end = bar[0] + round((bar[1] - bar[0]) * n / max(total, 1))
        if n:
            page.pen.rectangle((bar[0], y + 4, max(end, bar[0] + 2), y + 15), fill=kind.colour)
        page.text(right, y, text, 16, anchor="ra")
        y += line
    return y


def _notes(page: Canvas, findings: Findings, y: int) -> int:
    for line in said.adequacy(findings.readings):
        y = page.paragraph(EDGE, y, line, 16, _SIDE, c.MUTED, lines=2) + 2
    verdict = findings.verdict
    if verdict and verdict.warnings and y < ROWS - 230:
        y = warned(page, verdict.warnings[:2], EDGE, EDGE + _SIDE, y + 6)
    return y + 10


# ---- the gallery --------------------------------------------------------------------------


def _gallery(page: Canvas, shown: Sequence[tuple[Reading, GalleryCell]]) -> None:
    page.text(_LEFT, _TOP, "Most suspicious cells", 19)
    if not shown:
        page.paragraph(_LEFT, _TOP + 40, "No cell was found to look at.", 19, 700, c.MUTED)
        return
    if any(cell.heat is not None for _, cell in shown):
        text = "right of each cell: where the network looked (Grad-CAM)"
        page.text(COLUMNS - EDGE, _TOP + 2, text, 15, c.MUTED, anchor="ra")
    step = (COLUMNS - EDGE - _LEFT + 14) // _ACROSS
    for place, (reading, cell) in enumerate(shown):
        x = _LEFT + place % _ACROSS * step
        y = _TOP + 32 + place // _ACROSS * _HIGH
        _cell(page, reading, cell, place + 1, x, y)


def _cell(page: Canvas, reading: Reading, cell: GalleryCell, number: int, x: int, y: int) -> None:
    kind, pair = _kind(reading, cell), 2 * _CELL + 4
    page.pen.rectangle((x - 2, y - 2, x + pair + 1, y + _CELL + 1), outline=kind.colour, width=2)
    page.image.paste(_square(cell.image), (x, y))
    heated = _heated(cell)
    if heated is None:
        page.pen.rectangle((x + _CELL + 4, y, x + pair - 1, y + _CELL - 1), fill=c.PANEL)
        page.text(x + _CELL + 4 + _CELL // 2, y + _CELL // 2, "no map", 14, c.MUTED, anchor="mm")
    else:
        page.image.paste(_square(heated), (x + _CELL + 4, y))
    page.letter(x + 5, y + 4, str(number), 15, "la")
    own = percent(said.probability(reading, cell))
    label = c.shortened(plain(kind.label), 16, pair - c.width(own, 16) - 10)
    page.text(x, y + _CELL + 5, label, 16, kind.colour)
    page.text(x + pair, y + _CELL + 5, own, 16, anchor="ra")
    page.text(x, y + _CELL + 23, c.shortened(_place(reading, cell), 13, pair), 13, c.MUTED)


def _place(reading: Reading, cell: GalleryCell) -> str:
    """Millimetres across and down, and the plane; of a photograph its number and pixels."""
    column, row = reading.cells.centre_px[cell.cell].tolist()
    picture = reading.picture
    if isinstance(picture, Photograph):
        return f"photograph {picture.instance_number}: {column:.0f}, {row:.0f} px"
    down_um, across_um = picture.base.um_per_px
    deep = f", plane {int(reading.cells.plane[cell.cell]) + 1}" if len(picture.base.planes_um) > 1 else ""
    return f"{column * across_um / 1000:.3f}, {row * down_um / 1000:.3f} mm{deep}"


def _square(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize((_CELL, _CELL), Image.Resampling.BICUBIC)


def _heated(cell: GalleryCell) -> npt.NDArray[np.uint8] | None:
    """The cell in grey with its Grad-CAM over it, so that both are seen; None where it has none."""
    if cell.heat is None:
        return None
    rows, columns = cell.image.shape[:2]
    heat = Image.fromarray(cell.heat.astype(np.float32)).resize((columns, rows), Image.Resampling.BILINEAR)
    grey = np.asarray(Image.fromarray(cell.image).convert("L"))
    return c.overlaid(grey, np.asarray(heat))
