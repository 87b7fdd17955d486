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
    sizes: npt.NDArray[np.int32],
    sprites: npt.NDArray[np.int32],
    z_um: npt.NDArray[np.float32],
    *,
    width: int,
    height: int,
    background: float,
) -> Placed:
    """Lay `sprites` (n,) on a slide of width x height pixels, of which `background` stays empty.

    `sizes` is (sprites, 2), rows and columns. Raises InvalidValue where they do not fit.
    """
    if not 0 <= background < 1:
        raise InvalidValue(f"background is a share from 0 to below 1, not {background}")
    n = len(sprites)
    turn = rng.integers(0, 8, n).astype(np.uint8)
    own = sizes[sprites]
    tall = np.where(turn & 1, own[:, 1], own[:, 0]).astype(np.int32)
    wide = np.where(turn & 1, own[:, 0], own[:, 1]).astype(np.int32)
    cell = int(own.max(initial=1)) + GAP
    site, free = _sites(rng, n, cell, width=width, height=height, background=background)
    columns = width // site
    if n > len(free):
        raise InvalidValue(
            f"{n} cells of {cell - GAP} pixels do not fit on {width} x {height} pixels with {background:.0%} "
            f"background: there is room for about {len(free)}"
        )
    chosen = rng.choice(free, n, replace=False)
    left = (chosen % max(columns, 1)) * site + rng.integers(0, site - GAP - wide + 1)
    top = (chosen // max(columns, 1)) * site + rng.integers(0, site - GAP - tall + 1)
    return Placed(sprites, left + GAP // 2, top + GAP // 2, wide, tall, turn, z_um)


def _sites(
    rng: np.random.Generator, n: int, cell: int, *, width: int, height: int, background: float
) -> tuple[int, npt.NDArray[np.int64]]:
    """Side of a site, and which sites may hold a cell: as large as there is room, four cells at most."""
    site = min(4 * cell, max(cell, int(math.sqrt((1 - background) * width * height / max(n, 1)))))
    while True:
        free = np.flatnonzero(_inhabited(rng, height // site, width // site, background))
        if n <= len(free) or site == cell:
            return site, free
        site = max(cell, int(site * 0.95))


def _inhabited(rng: np.random.Generator, rows: int, columns: int, background: float) -> npt.NDArray[np.bool_]:
    """(rows, columns) of sites that may hold a cell: islands that cover 1 - background."""
    if not background or rows * columns == 0:
        return np.ones((rows, columns), bool)
    coarse = rng.standard_normal((min(rows, 512), min(columns, 512))).astype(np.float32)
    hills = ndimage.gaussian_filter(coarse, max(1.0, min(coarse.shape) / 16), mode="reflect")
    down, across = (np.arange(n) * m // n for n, m in zip((rows, columns), hills.shape, strict=True))
    hills = hills[np.ix_(down, across)]
    keep = round(rows * columns * (1 - background))
    order = np.argsort(hills, axis=None, kind="stable")[::-1]
    mask = np.zeros(rows * columns, bool)
    mask[order[:keep]] = True
    return mask.reshape(rows, columns)
