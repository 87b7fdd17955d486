"""What the microscope sees: any tile of any level and focal plane, rendered from cells that lie in depth.

Light passes through one cell after another, so a tile is the background times the transmission of
every cell over it. A cell away from the focal plane is blurred, the more the farther: by half the
circle of confusion of the objective, as in a bright field with wide-open condenser. Memory does not
grow with the slide; tiles can be asked for in any order and are the same each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from dicom_node.train.phantoms.slides.glass import Glass
from dicom_node.train.phantoms.slides.spec import SlideSpec

CLEAR = 200
"""Sprite value of transmission 1; up to 1.275, since a photographed cell may outshine its background."""
APERTURE = 0.75
"""Numerical aperture of the objective."""
_STEP_UM = 0.25
"""Distances from the focal plane are rounded to this."""
_BUCKET = 1024
"""Pixels of the finest level; side of the squares that cells are looked up by."""

Sprite = npt.NDArray[np.uint8]
"""(rows, columns, 3): transmission x CLEAR of one cell in focus; CLEAR along its border."""


class Sprites(Protocol):
    """Where cells come from."""

    @property
    def name(self) -> str:
        """The same only for the same sprites."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def background(self) -> tuple[float, float, float]: ...
    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(n, 2) rows and columns of each sprite."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """(n,) index into `classes`."""

    def sprite(self, number: int) -> Sprite: ...


@dataclass(frozen=True, slots=True)
class Placed:
    """n cells on the slide, as arrays of n rows."""

    sprite: npt.NDArray[np.int32]
    left: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]
    """First column and row of the turned sprite, pixels of the finest level."""
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]
    turn: npt.NDArray[np.uint8]
    """Quarter turns counter-clockwise, plus 4 where mirrored left to right before."""
    z_um: npt.NDArray[np.float32]
    """Height over the middle of the stack."""

    def __len__(self) -> int:
        return len(self.sprite)

    def digest(self, name: str) -> str:
        """Of these places and of the sprites called `name`."""
        hashed = hashlib.sha256(name.encode())
        for array in (self.sprite, self.left, self.top, self.turn, self.z_um):
            hashed.update(array.tobytes())
        return hashed.hexdigest()[:32]


def joined(first: Placed, second: Placed, sprites_before: int) -> Placed:
    """Both, the sprites of the second numbered after those of the first."""
    moved = replace(second, sprite=second.sprite + np.int32(sprites_before))
    pairs = zip(astuple(first), astuple(moved), strict=True)
    return Placed(*(np.concatenate([one, other]) for one, other in pairs))


class Together:
    """`Sprites` of two kinds, on the glass of the first."""

    def __init__(self, first: Sprites, second: Sprites) -> None:
        self._first, self._second, self._before = first, second, len(first.labels)
        self.name = f"{first.name} with {second.name}"
        self.classes = (*first.classes, *second.classes)
        self.background = first.background
        self.sizes = np.concatenate([first.sizes, second.sizes])
        self.labels = np.concatenate([first.labels, second.labels + np.int32(len(first.classes))])

    def sprite(self, number: int) -> Sprite:
        if number < self._before:
            return self._first.sprite(number)
        return self._second.sprite(number - self._before)


class Scene:
    """Cells on glass, under a microscope with the levels and planes of `spec`."""

    def __init__(self, spec: SlideSpec, sprites: Sprites, placed: Placed, counted: int | None = None) -> None:
        """The first `counted` of `placed` are what the slide is about; the rest surrounds them."""
        self.spec, self.sprites, self.placed = spec, sprites, placed
        self.counted = len(placed) if counted is None else counted
        self.glass = Glass(sprites.background, spec.seed)
        self._heights = spec.heights_um()
        self._reach = int(np.ceil(2.5 * self._sigma_px(self._farthest(), 0))) + 1
        self._index = _Index(placed, spec, self._reach)
        self._turned = lru_cache(maxsize=128)(self._make_turned)
        self._seen = lru_cache(maxsize=512)(self._make_seen)

    def tile(self, level: int, row: int, column: int, plane: int) -> npt.NDArray[np.uint8]:
        """(tile, tile, 3) sRGB; beyond the edges of the matrix the glass goes on."""
        side = self.spec.tile
        return self.region(level, row * side, column * side, side, side, plane)

    def region(
        self, level: int, top: int, left: int, rows: int, columns: int, plane: int
    ) -> npt.NDArray[np.uint8]:
        """(rows, columns, 3) sRGB from any place of a level."""
        light = np.ones((rows, columns, 3), np.float32)
        for cell in self._index.over(top << level, left << level, rows << level, columns << level):
            self._shade(light, int(cell), level, top, left, plane)
        return self.glass.seen_through(light, level, top, left, plane)

    def empty(self, level: int, row: int, column: int) -> bool:
        """Whether no cell reaches into a tile on any plane."""
        side = self.spec.tile << level
        return not self._index.any(row * side, column * side, side, side)

    def tiles_with_cells(self, level: int) -> npt.NDArray[np.bool_]:
        """(tile rows, tile columns): whether a cell reaches into a tile on any plane."""
        return self._index.grid(self.spec.tile << level, self.spec.grid(level))

    def _shade(
        self, light: npt.NDArray[np.float32], cell: int, level: int, top: int, left: int, plane: int
    ) -> None:
        placed = self.placed
        x, y = int(placed.left[cell]), int(placed.top[cell])
        away = abs(self._heights[plane] - float(placed.z_um[cell]))
        patch, margin = self._seen(
            int(placed.sprite[cell]), int(placed.turn[cell]), round(away / _STEP_UM), level,
            y & ((1 << level) - 1), x & ((1 << level) - 1),
        )  # fmt: skip
        row, column = (y >> level) - margin - top, (x >> level) - margin - left
        first_row, last_row = max(row, 0), min(row + patch.shape[0], light.shape[0])
        first, last = max(column, 0), min(column + patch.shape[1], light.shape[1])
        if first_row < last_row and first < last:
            part = patch[first_row - row : last_row - row, first - column : last - column]
            light[first_row:last_row, first:last] *= part * np.float32(1 / CLEAR)

    def _make_turned(self, sprite: int, turn: int) -> Sprite:
        return turned(self.sprites.sprite(sprite), turn)

    def _make_seen(
        self, sprite: int, turn: int, steps: int, level: int, row: int, column: int
    ) -> tuple[Sprite, int]:
        """A sprite at a level and distance from focus, and how many pixels were added on each side.

        `row` and `column` are where its first pixel lies inside a pixel of that level.
        """
        image, size = self._turned(sprite, turn), 1 << level
        sigma = self._sigma_px(steps * _STEP_UM, level)
        margin = int(np.ceil(2.5 * sigma)) if sigma > _SHARP else 0
        below, right = -(image.shape[0] + row) % size, -(image.shape[1] + column) % size
        rim = margin * size
        around = ((row + rim, below + rim), (column + rim, right + rim), (0, 0))
        padded = Image.fromarray(np.pad(image, around, constant_values=CLEAR))
        smaller = padded.reduce(size) if level else padded
        if margin:
            smaller = _blurred(smaller, sigma)
        return np.asarray(smaller), margin

    def _farthest(self) -> float:
        if not len(self.placed):
            return 0.0
        low, high = float(self.placed.z_um.min()), float(self.placed.z_um.max())
        return max(self._heights[-1] - low, high - self._heights[0], 0.0)

    def _sigma_px(self, away_um: float, level: int) -> float:
        return defocus_um(away_um) / (self.spec.um_per_px * (1 << level))


_SHARP = 0.3
"""Pixels; a blur below is left out, so that a cell on its best plane keeps its pixels."""


def defocus_um(away_um: float) -> float:
    """Standard deviation of the blur of a thing that far from the focal plane."""
    return 0.5 * APERTURE * away_um


def turned(image: npt.NDArray[np.uint8], turn: int) -> npt.NDArray[np.uint8]:
    """A sprite as it lies on the slide; see `Placed.turn`."""
    flipped = image[:, ::-1] if turn & 4 else image
    return np.ascontiguousarray(np.rot90(flipped, turn & 3))


def _blurred(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur; a strong one is made at half the resolution, where it looks the same."""
    if sigma < 3 or min(image.size) < 16:
        return image.filter(ImageFilter.GaussianBlur(sigma))
    half = image.reduce(2).filter(ImageFilter.GaussianBlur(sigma / 2))
    return half.resize(image.size, Image.Resampling.BILINEAR)


class _Index:
    """Which cells reach into a rectangle, without looking at all of them."""

    def __init__(self, placed: Placed, spec: SlideSpec, reach: int) -> None:
        self._top, self._left = placed.top - reach, placed.left - reach
        self._bottom, self._right = placed.top + placed.height + reach, placed.left + placed.width + reach
        tall = int((self._bottom - self._top).max(initial=1))
        wide = int((self._right - self._left).max(initial=1))
        self._slack = -(-max(tall, wide) // _BUCKET)
        """Buckets before a rectangle's first one in which a cell that meets it may begin."""
        self._rows = -(-spec.height // _BUCKET) + self._slack
        self._columns = -(-spec.width // _BUCKET) + self._slack
        key = (self._top // _BUCKET + self._slack) * self._columns + self._left // _BUCKET + self._slack
        self._order = np.argsort(key, kind="stable")
        self._keys = key[self._order]

    def over(self, top: int, left: int, rows: int, columns: int) -> npt.NDArray[np.int64]:
        """Cells whose reach meets the rectangle, ascending."""
        found = [part for part in self._near(top, left, rows, columns) if len(part)]
        if not found:
            return np.empty(0, np.int64)
        near = np.concatenate(found)
        meets = (
            (self._top[near] < top + rows)
            & (self._bottom[near] > top)
            & (self._left[near] < left + columns)
            & (self._right[near] > left)
        )
        return np.sort(near[meets])

    def grid(self, side: int, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Which squares of `side` pixels a cell reaches into, of a grid of (rows, columns) squares."""
        held = np.zeros(shape, bool)
        first_row, last_row = np.maximum(self._top // side, 0), (self._bottom - 1) // side
        first, last = np.maximum(self._left // side, 0), (self._right - 1) // side
        for cell in range(len(first)):
            held[first_row[cell] : last_row[cell] + 1, first[cell] : last[cell] + 1] = True
        return held

    def any(self, top: int, left: int, rows: int, columns: int) -> bool:
        return bool(len(self.over(top, left, rows, columns)))

    def _near(self, top: int, left: int, rows: int, columns: int) -> Iterator[npt.NDArray[np.int64]]:
        """Cells that begin in a bucket from which they may meet the rectangle, row by row of buckets."""
        first, last = left // _BUCKET, min((left + columns - 1) // _BUCKET + self._slack, self._columns - 1)
        lowest = min((top + rows - 1) // _BUCKET + self._slack, self._rows - 1)
        for row in range(max(top // _BUCKET, 0), lowest + 1):
            keys = [row * self._columns + max(first, 0), row * self._columns + last + 1]
            start, stop = np.searchsorted(self._keys, keys)
            yield self._order[start:stop]
