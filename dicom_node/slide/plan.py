"""What of a slide has to be looked at, and at which of its resolutions, decided before a frame is decoded.

A *view* is a level, its frames decoded at a half, a quarter or an eighth where that is enough. A *mask*
is where there may be something: from a look at a coarse view, and from the lengths of the compressed
frames, which cost nothing; it errs on the side of looking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.domain.slide import OpenSlide, Slide
from dicom_node.errors import InvalidValue

Grid = npt.NDArray[np.bool_]
Places = npt.NDArray[np.float64]

SCALES = (8, 4, 2, 1)
COARSE_UM = 4.0
"""um/px of the look that the mask is made from: a lymphocyte is 2 px wide; of a huge slide it is coarser."""
_COARSE_PIXELS = 1 << 22
PALEST = 0.012
"""Optical density, in any channel, below which a coarse pixel is ground: a cell at 3 % absorption is seen."""
_TOLERANCE = 0.05
_NOISE = 5.0
_LONGER = 1.15
_SOME = 0.005
_GROUND_LEVELS = 12


@dataclass(frozen=True, slots=True)
class View:
    """A level as its frames are decoded: every length below is in pixels of the view."""

    level: int
    scale: int
    """1, 2, 4 or 8: how much smaller than the level."""
    um_per_px: tuple[float, float]
    """Between rows, between columns."""
    base_px: tuple[float, float]
    """(row, column) pixels of the finest level in one of the view."""
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    grid: tuple[int, int]
    """(rows, columns) of tiles."""

    def onto_base(self, places: npt.ArrayLike) -> Places:
        """(n, 2) places (column, row) of the view, in pixels of the finest level."""
        return np.asarray(places, np.float64) * self.base_px[::-1]

    def from_base(self, places: npt.ArrayLike) -> Places:
        return np.asarray(places, np.float64) / self.base_px[::-1]


def view_of(slide: Slide, level: int, scale: int = 1) -> View:
    """Raises InvalidValue where the scale does not divide the level's tiles."""
    at, base = slide.levels[level], slide.base
    if at.tile_rows % scale or at.tile_columns % scale:
        raise InvalidValue(f"tiles of {at.tile_rows} x {at.tile_columns} px are not decoded at 1/{scale}")
    um = at.um_per_px[0] * scale, at.um_per_px[1] * scale
    return View(
        level, scale, um, (um[0] / base.um_per_px[0], um[1] / base.um_per_px[1]),
        -(-at.rows // scale), -(-at.columns // scale), at.tile_rows // scale, at.tile_columns // scale,
        at.tile_grid,
    )  # fmt: skip


def choose(slide: Slide, um_per_px: float, tolerance: float = _TOLERANCE) -> View:
    """The view with fewest bytes to decode that is no coarser than asked, but for the tolerance.

    The coarsest level that will do, and of it the smallest decode; the finest level where none will.
    """
    limit = um_per_px * (1 + tolerance)
    fits = [
        (at.rows * at.columns, -scale, number)
        for number, at in enumerate(slide.levels)
        for scale in SCALES
        if max(at.um_per_px) * scale <= limit and not (at.tile_rows % scale or at.tile_columns % scale)
    ]
    if not fits:
        return view_of(slide, 0)
    _, scale, number = min(fits)
    return view_of(slide, number, -scale)


@dataclass(frozen=True, slots=True)
class Mask:
    """Where there may be something: one value per square of `pitch_px` (row, column) finest pixels."""

    kept: Grid
    pitch_px: tuple[float, float]

    @property
    def share(self) -> float:
        """Of the slide's area."""
        return float(self.kept.mean()) if self.kept.size else 0.0

    def touches(self, left: Places, top: Places, width: float, height: float) -> Grid:
        """Whether rectangles of finest pixels hold anything; `left` and `top` of any one shape."""
        rows, columns = self.kept.shape
        summed = np.zeros((rows + 1, columns + 1), np.int32)
        summed[1:, 1:] = self.kept
        np.cumsum(summed, axis=0, out=summed)
        np.cumsum(summed, axis=1, out=summed)
        y0, y1 = (np.clip(np.floor(at / self.pitch_px[0]), 0, rows).astype(int) for at in (top, top + height))
        x0, x1 = (
            np.clip(np.floor(at / self.pitch_px[1]), 0, columns).astype(int) for at in (left, left + width)
        )
        y1, x1 = np.minimum(y1 + 1, rows), np.minimum(x1 + 1, columns)
        inside: Grid = summed[y1, x1] - summed[y0, x1] - summed[y1, x0] + summed[y0, x0] > 0
        return inside

    def tiles(self, view: View) -> Grid:
        """(tile rows, tile columns) of a view's level that hold anything."""
        high, wide = view.tile_rows * view.base_px[0], view.tile_columns * view.base_px[1]
        top, left = np.meshgrid(
            np.arange(view.grid[0]) * high, np.arange(view.grid[1]) * wide, indexing="ij"
        )  # fmt: skip
        return self.touches(left, top, wide * (1 - 1e-9), high * (1 - 1e-9))


def everything(slide: Slide) -> Mask:
    """The mask that leaves nothing out."""
    return Mask(np.ones((1, 1), np.bool_), (float(slide.base.rows), float(slide.base.columns)))


def find(reader: OpenSlide, *, plane: int | None = None, margin_um: float = 4.0) -> Mask:
    """Where the slide is stained, with a margin; where its frames are longer than those of bare glass, too.

    `plane` is the focal plane of the coarse look, the middle one if left out; the lengths are those of
    all planes of the finest level.
    """
    slide = reader.slide
    high, wide = slide.size_mm
    um = max(COARSE_UM, 1000 * math.sqrt(high * wide / _COARSE_PIXELS))
    view = choose(slide, um, tolerance=0.4)
    planes = len(slide.levels[view.level].planes_um)
    seen = coarse(reader, view, planes // 2 if plane is None else min(plane, planes - 1))
    kept = grown(stained(seen), margin_um / min(view.um_per_px))
    mask = Mask(kept, view.base_px)
    finest = view_of(slide, 0)
    lengths = np.max([reader.lengths(0, k) for k in range(len(slide.base.planes_um))], axis=0)
    busy = longer(lengths, mask.tiles(finest))
    if busy.any():
        rows = np.minimum(
            (np.arange(view.rows) + 0.5) // (finest.tile_rows / view.base_px[0]), finest.grid[0] - 1
        )
        columns = np.minimum(
            (np.arange(view.columns) + 0.5) // (finest.tile_columns / view.base_px[1]), finest.grid[1] - 1
        )  # fmt: skip
        kept = kept | busy[np.ix_(rows.astype(int), columns.astype(int))]
    return Mask(kept, view.base_px)


def coarse(reader: OpenSlide, view: View, plane: int) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3) of a whole view, a row of tiles at a time."""
    out = np.full((view.rows, view.columns, 3), 255, np.uint8)
    lengths = reader.lengths(view.level, plane)
    for row in range(view.grid[0]):
        columns = np.flatnonzero(lengths[row])
        for some in np.array_split(columns, max(1, -(-len(columns) // 64))):
            tiles = reader.tiles(view.level, np.full(len(some), row), some, plane, scale=view.scale)
            for column, tile in zip(some.tolist(), tiles, strict=True):
                top, left = row * view.tile_rows, column * view.tile_columns
                place = out[top : top + view.tile_rows, left : left + view.tile_columns]
                place[:] = tile[: place.shape[0], : place.shape[1]]
    return out


def stained(seen: npt.NDArray[np.uint8]) -> Grid:
    """(rows, columns): darker than the ground, in any channel, by more than the ground's own unrest."""
    density = np.zeros(seen.shape[:2], np.uint8)  # thousandths
    for channel in range(3):
        ground = _ground(seen[..., channel])
        thousandths = 1000 * np.log10((ground + 1) / (np.arange(256) + 1))
        np.maximum(density, np.clip(thousandths, 0, 255).astype(np.uint8)[seen[..., channel]], out=density)
    counts = np.bincount(density.ravel(), minlength=256)
    glass = counts[: round(2 * PALEST * 1000)].cumsum()
    unrest = 1.4826 * float(np.searchsorted(glass, glass[-1] / 2)) / 1000
    dark: Grid = density > 1000 * max(PALEST, min(_NOISE * unrest, 2 * PALEST))
    return dark


def longer(lengths: npt.NDArray[np.uint32], marked: Grid) -> Grid:
    """Unmarked frames that are longer than unmarked frames usually are: something the coarse look missed."""
    bare = lengths[~marked & (lengths > 0)].astype(np.float64)
    if bare.size < 8:
        return np.zeros(lengths.shape, np.bool_)
    usual = float(np.median(bare))
    spread = 1.4826 * float(np.median(np.abs(bare - usual)))
    odd: Grid = ~marked & (lengths > max(_LONGER * usual, usual + 6 * spread))
    return odd


def grown(mask: Grid, by: float) -> Grid:
    """Dilated by a square of `by` pixels to each side."""
    out = mask.copy()
    for axis in (0, 1):
        reach = out.copy()
        for step in range(1, min(math.ceil(by), out.shape[axis] - 1) + 1):
            ahead, behind = [slice(None)] * 2, [slice(None)] * 2
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            reach[tuple(ahead)] |= out[tuple(behind)]
            reach[tuple(behind)] |= out[tuple(ahead)]
        out = reach
    return out


def sharpest(reader: OpenSlide, level: int = 0, path: int = 0) -> npt.NDArray[np.uint16]:
    """(tile rows, tile columns): the focal plane whose frame is longest, hence has most detail.

    The middle plane where no plane stands out by a hundredth. Nothing is decoded.
    """
    planes = len(reader.slide.levels[level].planes_um)
    lengths = np.stack([reader.lengths(level, plane, path) for plane in range(planes)]).astype(np.float64)
    best = lengths.argmax(axis=0)
    middle = lengths[planes // 2]
    return np.where(lengths.max(axis=0) > 1.01 * middle, best, planes // 2).astype(np.uint16)


def planes_at(reader: OpenSlide, level: int, centres_px: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """(n,): the sharpest focal plane of the frame under each place, (n, 2) (column, row) of the level."""
    view, best = view_of(reader.slide, level), sharpest(reader, level)
    tile = np.reshape(centres_px, (-1, 2)) / np.array((view.tile_columns, view.tile_rows), np.float64)
    column, row = np.floor(tile).T
    inside = np.clip(row, 0, view.grid[0] - 1).astype(int), np.clip(column, 0, view.grid[1] - 1).astype(int)
    found: npt.NDArray[np.int64] = best[inside].astype(np.int64)
    return found


def focus(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(..., rows, columns, 3) -> (...): variance of the Laplacian of the green channel; sharp is high."""
    green = images[..., 1].astype(np.float32)
    inner = green[..., 1:-1, 1:-1]
    around = green[..., :-2, 1:-1] + green[..., 2:, 1:-1] + green[..., 1:-1, :-2] + green[..., 1:-1, 2:]
    sharp: npt.NDArray[np.float32] = (around - 4 * inner).var(axis=(-2, -1))
    return sharp


def _ground(channel: npt.NDArray[np.uint8]) -> float:
    """The commonest value near the brightest there is some of: bare glass, or the lightest tissue."""
    counts = np.bincount(channel.ravel(), minlength=256).astype(np.float64)
    counts[255] = 0  # what was not scanned
    if not counts.sum():
        return 255.0
    smooth = np.convolve(counts, np.ones(5), mode="same")
    brightest = int(np.flatnonzero(smooth >= _SOME * counts.sum())[-1])
    first = max(0, brightest - _GROUND_LEVELS)
    return float(first + smooth[first : brightest + 1].argmax())
