"""Where cells lie: at random, in depth, and without overlap.

The slide is divided into sites, each a little larger than the largest cell. Cells fall on sites drawn
at random, at a random place inside; sites in the empty part of the slide get none.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_node.errors import InvalidValue
from dicom_node.train.phantoms.slides.scene import Placed

GAP = 4
"""Pixels between cells, at least."""


def room_for(count: int, cell_px: int, background: float) -> int:
    """Side in pixels of a square slide on which `count` cells lie with some space between them."""
    site = cell_px + GAP
    return math.ceil(math.sqrt(1.8 * count / (1 - background))) * site + 2 * site


def place(
    rng: np.random.Generator,
    islands: Islands,
    sizes: npt.NDArray[np.int32],
    sprites: npt.NDArray[np.int32],
    z_um: npt.NDArray[np.float32],
    *,
    width: int,
    height: int,
    background: float,
    overlap: float = 0.0,
) -> Placed:
    """Lay `sprites` (n,) on a slide of width x height pixels, of which `background` stays empty.

    `sizes` is (sprites, 2), rows and columns; `overlap` is the share of a cell's side by which it may
    lie on its neighbours. Raises InvalidValue where they do not fit.
    """
    n = len(sprites)
    turn = rng.integers(0, 8, n).astype(np.uint8)
    own = sizes[sprites]
    tall = np.where(turn & 1, own[:, 1], own[:, 0]).astype(np.int32)
    wide = np.where(turn & 1, own[:, 0], own[:, 1]).astype(np.int32)
    cell = round(int(own.max(initial=1)) * (1 - overlap)) + GAP
    site, free = _sites(islands, n, cell, width=width, height=height, background=background)
    if n > len(free):
        raise InvalidValue(
            f"{n} cells of {cell - GAP} pixels do not fit on {width} x {height} pixels with {background:.0%} "
            f"background: there is room for about {len(free)}"
        )
    chosen = rng.choice(free, n, replace=False)
    columns = max(width // site, 1)
    left = (chosen % columns) * site + _jitter(rng, site - GAP - wide)
    top = (chosen // columns) * site + _jitter(rng, site - GAP - tall)
    left, top = np.clip(left + GAP // 2, 0, width - wide), np.clip(top + GAP // 2, 0, height - tall)
    return Placed(sprites, left, top, wide, tall, turn, z_um)


def _jitter(rng: np.random.Generator, room: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Anywhere in the room there is; as far out where there is less than none."""
    return np.asarray(rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1), np.int64)


class Islands:
    """Where a slide has cells at all: smooth islands that cover 1 - `background` of it."""

    def __init__(self, rng: np.random.Generator, background: float) -> None:
        """Raises InvalidValue for a background that is no share."""
        if not 0 <= background < 1:
            raise InvalidValue(f"background is a share from 0 to below 1, not {background}")
        self._background = background
        rough = rng.standard_normal((_COARSE, _COARSE)).astype(np.float32)
        self._hills = ndimage.gaussian_filter(rough, _COARSE / 14, mode="reflect")

    def mask(self, rows: int, columns: int) -> npt.NDArray[np.bool_]:
        """(rows, columns) of a grid over the slide: which of its squares may hold a cell."""
        down, across = (np.linspace(0, _COARSE - 1, n) for n in (rows, columns))
        places = np.meshgrid(down, across, indexing="ij")
        hills = ndimage.map_coordinates(self._hills, places, order=1)
        keep = round(rows * columns * (1 - self._background))
        mask = np.zeros(rows * columns, bool)
        mask[np.argsort(hills, axis=None, kind="stable")[::-1][:keep]] = True
        return mask.reshape(rows, columns)


_COARSE = 128


def _sites(
    islands: Islands, n: int, cell: int, *, width: int, height: int, background: float
) -> tuple[int, npt.NDArray[np.int64]]:
    """Side of a site, and which sites may hold a cell: as large as there is room, four cells at most."""
    site = min(4 * cell, max(cell, int(math.sqrt((1 - background) * width * height / max(n, 1)))))
    while True:
        free = np.flatnonzero(islands.mask(height // site, width // site))
        if n <= len(free) or site == cell:
            return site, free
        site = max(cell, int(site * 0.95))


def around(
    rng: np.random.Generator,
    islands: Islands,
    placed: Placed,
    sizes: npt.NDArray[np.int32],
    *,
    width: int,
    height: int,
    crowding: float,
) -> Placed:
    """Fill the islands with small cells of `sizes` (n, 2), none of them on a cell of `placed`.

    `crowding` is the share of places that are taken.
    """
    site = int(np.median(sizes))
    mask = islands.mask(height // site, width // site) & (
        rng.random((height // site, width // site)) < crowding
    )
    row, column = np.nonzero(mask)
    sprite = rng.integers(0, len(sizes), len(row)).astype(np.int32)
    turn = rng.integers(0, 8, len(row)).astype(np.uint8)
    tall = np.where(turn & 1, sizes[sprite, 1], sizes[sprite, 0]).astype(np.int32)
    wide = np.where(turn & 1, sizes[sprite, 0], sizes[sprite, 1]).astype(np.int32)
    left = np.clip(column * site + rng.integers(-site // 5, site // 5 + 1, len(row)), 0, width - wide)
    top = np.clip(row * site + rng.integers(-site // 5, site // 5 + 1, len(row)), 0, height - tall)
    taken = _taken(placed, width, height)
    middle = taken[(top + tall // 2) // _CELL, (left + wide // 2) // _CELL]
    free = np.flatnonzero(~middle)
    z_um = rng.normal(0, 0.3, len(free)).astype(np.float32)
    return Placed(sprite[free], left[free], top[free], wide[free], tall[free], turn[free], z_um)


_CELL = 8


def _taken(placed: Placed, width: int, height: int) -> npt.NDArray[np.bool_]:
    """In squares of 8 pixels: where another cell's middle would lie on a cell."""
    taken = np.zeros((height // _CELL + 1, width // _CELL + 1), bool)
    for cell in range(len(placed)):
        top, left = int(placed.top[cell]) - 10, int(placed.left[cell]) - 10
        bottom, right = top + int(placed.height[cell]) + 20, left + int(placed.width[cell]) + 20
        taken[max(top // _CELL, 0) : bottom // _CELL + 1, max(left // _CELL, 0) : right // _CELL + 1] = True
    return taken
