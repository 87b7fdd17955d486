"""Where nuclei lie, how sharp a picture is, and which part of a crop is the cell. No learning.

Haematoxylin and methylene blue hold back red light; eosin, orange G and haemoglobin let it pass. So
nuclei stand out in the optical density of red, in Papanicolaou and Giemsa stains alike. A nucleus is a
blob of that density: a maximum of the difference of two Gaussians (Lindeberg 1998) whose scale is that
of a nucleus, so that the lobes of one nucleus are one, and pigment and platelets are none.

Pictures are (rows, columns, 3) uint8; places are (column, row), the first pixel's centre at (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Finder:
    """What is taken for a nucleus. Lengths in micrometres."""

    um_per_px: float = 1.0
    """Resolution that is looked at; finer pictures are averaged down to it."""
    nucleus_um: float = 9.0
    """Diameter of a nucleus in the middle of the range."""
    apart_um: float = 7.0
    """Of two nearer ones the darker one counts."""
    contrast: float = 0.06
    """Optical density (of red, decadic) by which a nucleus must exceed its surroundings."""
    density: float = 0.15
    """Optical density that its middle must have."""
    less_blue: float = 0.0
    """Share of the density of blue that is taken off: haemoglobin and eosin hold back blue."""


CERVICAL = Finder()
"""Squamous cells in a Papanicolaou stain."""
WHITE_CELLS = Finder(
    um_per_px=0.5, nucleus_um=12.0, apart_um=9.0, contrast=0.026, density=0.05, less_blue=0.5
)
"""White cells in a Giemsa stain, each as one, whatever the number of its lobes."""


@dataclass(frozen=True, slots=True)
class Nuclei:
    """n places, strongest first."""

    centre_px: Floats
    """(n, 2)"""
    size_px: Floats
    """(n, 2) width and height of what is dark around it."""
    contrast: Floats
    """(n,)"""

    def __len__(self) -> int:
        return len(self.contrast)

    def where(self, keep: npt.NDArray[np.bool_]) -> Nuclei:
        return Nuclei(self.centre_px[keep], self.size_px[keep], self.contrast[keep])


def join_nuclei(parts: Sequence[Nuclei]) -> Nuclei:
    """All of them, strongest first; of equals the upper left one."""
    if not parts:
        return Nuclei(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    centre, size, contrast = (
        np.concatenate([getattr(part, name) for part in parts]).astype(np.float32)
        for name in ("centre_px", "size_px", "contrast")
    )
    order = np.lexsort((centre[:, 0], centre[:, 1], -contrast))
    return Nuclei(centre[order], size[order], contrast[order])


def white_of(picture: Picture) -> Floats:
    """(3,) colour of the empty glass: the mode of the bright half of each channel."""
    white = np.empty(3, np.float32)
    for channel in range(3):
        values = picture[..., channel].ravel()
        counts = np.bincount(values, minlength=256).astype(np.float64)
        counts[: int(np.median(values))] = 0
        counts[255] = min(counts[255], counts[254] + 1)  # clipped highlights are no colour
        white[channel] = float(np.argmax(np.convolve(counts, np.ones(9), mode="same")))
    return np.maximum(white, 64)


def density(picture: Picture, white: Floats) -> Floats:
    """(rows, columns, 3) decadic optical density, at least 0."""
    table = np.arange(256, dtype=np.float32)[None, :] + 1
    logs = np.maximum(np.log10((white[:, None] + 1) / table), 0).astype(np.float32)
    return np.stack([logs[channel][picture[..., channel]] for channel in range(3)], axis=-1)


def find_nuclei(picture: Picture, um_per_px: float, finder: Finder, white: Floats | None = None) -> Nuclei:
    """All nuclei on a picture; `white` is the colour of the empty glass where it is known better."""
    from scipy import ndimage

    step = max(1, round(finder.um_per_px / um_per_px))
    small = shrunk(picture, step)
    dense = density(small, white_of(small) if white is None else white)
    red = dense[..., 0] - np.float32(finder.less_blue) * dense[..., 2]
    scale = um_per_px * step
    sigma = finder.nucleus_um / 2 / np.sqrt(2) / scale
    blob = ndimage.gaussian_filter(red, 0.8 * sigma) - ndimage.gaussian_filter(red, 1.9 * sigma)
    reach = max(1, round(finder.apart_um / scale))
    highest = ndimage.maximum_filter(blob, footprint=_disc(reach)) == blob
    middle = ndimage.gaussian_filter(red, max(0.5, 0.35 * sigma))
    wanted = highest & (blob >= finder.contrast) & (middle >= finder.density)
    rows, columns = _one_each(wanted)
    order = np.lexsort((columns, rows, -blob[rows, columns]))
    rows, columns = rows[order], columns[order]
    strength = blob[rows, columns].astype(np.float32)
    sizes = _sizes(red, rows, columns, finder, scale)
    centre = (np.stack([columns, rows], axis=1).astype(np.float32) + 0.5) * step
    return Nuclei(centre, sizes * step, strength)


def _one_each(peaks: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, columns): one place for each group of touching peaks, which are equally high."""
    from scipy import ndimage

    labels, count = ndimage.label(peaks, np.ones((3, 3)))
    rows, columns = np.nonzero(labels)
    own = labels[rows, columns] - 1
    number = np.bincount(own, minlength=count)
    return (
        np.rint(np.bincount(own, rows, count) / number).astype(np.int64),
        np.rint(np.bincount(own, columns, count) / number).astype(np.int64),
    )


def shrunk(picture: Picture, step: int) -> Picture:
    """Means of step x step pixels; what is left over at the right and the bottom is dropped."""
    if step == 1:
        return picture
    rows, columns = picture.shape[0] // step, picture.shape[1] // step
    parts = picture[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    return np.asarray(parts.mean(axis=(1, 3), dtype=np.float32) + 0.5).astype(np.uint8)


def _disc(reach: int) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x * x + y * y <= reach * reach)


def _sizes(
    red: Floats, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], finder: Finder, scale: float
) -> Floats:  # fmt: skip
    """(n, 2) width and height of the part around each place that is at least half as dense as its middle."""
    reach = max(2, round(1.2 * finder.nucleus_um / scale))
    padded = np.pad(red, reach)
    sizes = np.empty((len(rows), 2), np.float32)
    for at, (row, column) in enumerate(zip(rows, columns, strict=True)):
        around = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
        middle = float(np.median(around[reach - 1 : reach + 2, reach - 1 : reach + 2]))
        dark = around >= max(0.5 * middle, 0.5 * finder.density)
        sizes[at] = _run(dark[reach, :], reach), _run(dark[:, reach], reach)
    return np.clip(sizes, 0.4 * finder.nucleus_um / scale, 2.4 * finder.nucleus_um / scale)


def _run(line: npt.NDArray[np.bool_], middle: int) -> int:
    """Length of the run of True through the middle."""
    before = np.argmin(line[middle::-1]) if not line[: middle + 1].all() else middle + 1
    after = np.argmin(line[middle:]) if not line[middle:].all() else len(line) - middle
    return max(1, int(before) + int(after) - 1)


def sharpness(crops: Picture) -> Floats:
    """(...,) how sharp pictures (..., rows, columns, 3) are: mean square of the Laplacian of red.

    Larger on the focal plane on which a cell is in focus. Comparable between planes of one cell only.
    """
    red = crops[..., 0].astype(np.float32)
    inner = red[..., 1:-1, 1:-1]
    laplacian = (
        red[..., :-2, 1:-1] + red[..., 2:, 1:-1] + red[..., 1:-1, :-2] + red[..., 1:-1, 2:] - 4 * inner
    )
    return np.asarray((laplacian**2).mean(axis=(-2, -1)), np.float32)


def cell_mask(crop: Picture, um_per_px: float, white: Floats | None = None) -> npt.NDArray[np.bool_]:
    """(rows, columns) of the cell in the middle of a crop: its nucleus and 3 um of what is around it and
    is no glass. A disc of 5 um where nothing dark lies in the middle."""
    from scipy import ndimage

    dense = density(crop, white_of(crop) if white is None else white)
    rows, columns = crop.shape[:2]
    y, x = np.ogrid[:rows, :columns]
    away_um = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2) * um_per_px
    red = ndimage.gaussian_filter(dense[..., 0], 0.3 / um_per_px)
    middle = red[away_um <= 4.0]
    threshold = max(0.15, 0.45 * float(np.quantile(middle, 0.9)) if len(middle) else 0.15)
    labels, _ = ndimage.label(red >= threshold)
    own = np.unique(labels[(away_um <= 5.0) & (labels > 0)])
    nucleus = np.isin(labels, own) & (away_um <= 11.0)
    if not nucleus.any():
        return np.asarray(away_um <= 5.0)
    near = ndimage.distance_transform_edt(~nucleus) * um_per_px <= 3.0
    return np.asarray(nucleus | (near & (dense[..., 1] >= 0.03)))


def attention_in_cell(heat: Floats, mask: npt.NDArray[np.bool_]) -> float:
    """Share of a map (rows, columns, at least 0) that lies inside the mask; nan for a map that is 0."""
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total > 0 else float("nan")


RED_CELL_UM = 7.3
"""Mean diameter of a red cell on a dry smear."""


def red_cell_scale(picture: Picture) -> float | None:
    """um per pixel of a blood smear, from the size of its red cells; None where fewer than three lie alone.

    For photographs that do not say their scale. Counted are parts that are round and touch no other.
    """
    from scipy import ndimage

    step = max(1, round(max(picture.shape[:2]) / 640))
    small = shrunk(picture, step)
    green = ndimage.gaussian_filter(density(small, white_of(small))[..., 1], 1.0)
    cells = ndimage.binary_fill_holes(green >= 0.6 * _otsu(np.minimum(green, 0.25)))
    labels, _ = ndimage.label(ndimage.binary_opening(cells, _disc(3)))
    across = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = (side.stop - side.start for side in box)
        inside = all(side.start > 0 and side.stop < end for side, end in zip(box, labels.shape, strict=True))
        full = float((labels[box] == number).sum()) / (tall * wide)
        if inside and 20 < max(tall, wide) < 1.25 * min(tall, wide) and 0.7 < full < 0.88:
            across.append((tall + wide) / 2)
    return RED_CELL_UM / float(np.median(across)) / step if len(across) >= 3 else None


def _otsu(values: Floats) -> float:
    """The threshold that parts two classes best (Otsu 1979)."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = np.cumsum((counts * centres)[::-1])[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[int(np.argmax(between))])


def cut(picture: Picture, centre_px: Floats, side_px: float, out_px: int, fill: Floats) -> Picture:
    """(n, out, out, 3): squares of `side_px` pixels around places of a picture, smoothed where they
    shrink; `fill` is the colour (3,) of what lies outside."""
    from PIL import Image

    reach = int(np.ceil(side_px / 2)) + 1
    wide = np.empty((picture.shape[0] + 2 * reach, picture.shape[1] + 2 * reach, 3), np.uint8)
    wide[:] = np.clip(fill, 0, 255).astype(np.uint8)
    wide[reach:-reach, reach:-reach] = picture
    image = Image.fromarray(wide)
    crops = np.empty((len(centre_px), out_px, out_px, 3), np.uint8)
    for at, (x, y) in enumerate(np.clip(centre_px, 0, np.array(picture.shape[1::-1]))):
        left, top = float(x) + reach - side_px / 2, float(y) + reach - side_px / 2
        box = (left, top, left + side_px, top + side_px)
        crops[at] = np.asarray(image.resize((out_px, out_px), Image.Resampling.BILINEAR, box))
    return crops


def fitted(picture: Picture, size_px: int) -> Picture:
    """(size, size, 3): the whole picture, each side brought to `size_px` by itself."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BILINEAR))


def spread(heat: Floats, size_px: int, first_px: float, step_px: float) -> Floats:
    """(n, size, size): maps (n, r, c) of a network on its input's pixels, linear between the places of
    their values (`first_px + i * step_px`), 1 where each is largest; 0 for a map that is 0 everywhere."""
    from scipy import ndimage

    n, rows, columns = heat.shape
    at = (np.arange(size_px, dtype=np.float32) - first_px) / step_px
    grid = np.meshgrid(np.clip(at, 0, rows - 1), np.clip(at, 0, columns - 1), indexing="ij")
    result = np.empty((n, size_px, size_px), np.float32)
    for k in range(n):
        largest = max(float(heat[k].max()), 1e-12)
        ndimage.map_coordinates(heat[k] / largest, grid, result[k], order=1, mode="nearest")
    return np.clip(result, 0, 1)
