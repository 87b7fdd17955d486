"""Looking at cells on a slide: find them strip by strip, cut them out on any planes; and small arithmetic
that pipelines for cells share. Memory does not grow with the slide but by its width and its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dicom_node.domain.slide import OpenSlide
from dicom_node.infer.cells import Finder, Nuclei, Picture, cut, find_nuclei, join_nuclei, white_of

Floats = npt.NDArray[np.float32]
STRIP_UM = 256.0
"""Height of the strips in which a slide is searched."""
MARGIN_UM = 24.0
"""By which strips overlap, so that no nucleus is cut."""
TOGETHER = 16
"""Cells that are cut out at a time."""


def level_for(reader: OpenSlide, um_per_px: float) -> int:
    """The coarsest level that is still at least as fine as that."""
    fine = [at for at, level in enumerate(reader.slide.levels) if max(level.um_per_px) <= 1.05 * um_per_px]
    return max(fine, default=0)


def find_on_slide(
    reader: OpenSlide, finder: Finder, plane: int, progress: Callable[[float], None] = lambda part: None
) -> Nuclei:  # fmt: skip
    """All nuclei of a slide on one plane, in pixels of its finest level, strongest first."""
    there, base = reader.slide.levels[level_for(reader, finder.um_per_px)], reader.slide.base
    scale = np.array([base.columns / there.columns, base.rows / there.rows], np.float32)
    level, um = reader.slide.levels.index(there), max(there.um_per_px)
    white = white_of(reader.thumbnail(1024))
    strip, margin = max(64, round(STRIP_UM / um)), round(MARGIN_UM / um)
    parts = []
    for top in range(0, there.rows, strip):
        progress(top / there.rows)
        first, last = max(0, top - margin), min(there.rows, top + strip + margin)
        picture = reader.region(level, 0, first, there.columns, last - first, plane)
        found = find_nuclei(picture, um, finder, white)
        found.centre_px[:, 1] += first
        row = found.centre_px[:, 1]
        own = found.where((row >= top) & (row < top + strip))
        parts.append(Nuclei(own.centre_px * scale, own.size_px * scale, own.contrast))
    return join_nuclei(parts)


def slide_crops(
    reader: OpenSlide, level: int, centres_px: Floats, planes: Sequence[int], size_px: int, out_px: int
) -> Iterator[tuple[npt.NDArray[np.int64], Picture]]:
    """(which rows, (k, planes, out, out, 3)) around places (n, 2) in pixels of a level."""
    reach = size_px // 2 + 2
    white = np.full(3, 255, np.float32)
    for start in range(0, len(centres_px), TOGETHER):
        which = np.arange(start, min(start + TOGETHER, len(centres_px)))
        pictures = np.empty((len(which), len(planes), out_px, out_px, 3), np.uint8)
        for row, at in enumerate(which):
            x, y = (float(value) for value in centres_px[at])
            left, top = int(np.floor(x)) - reach, int(np.floor(y)) - reach
            middle = np.array([[x - left, y - top]], np.float32)
            for column, plane in enumerate(planes):
                near = reader.region(level, left, top, 2 * reach, 2 * reach, plane)
                pictures[row, column] = cut(near, middle, size_px, out_px, white)[0]
        yield which, pictures


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> Floats:
    """(..., classes) probabilities."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def exact_interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval of a share; 0 to 1 of nothing."""
    from scipy.special import betaincinv

    lower = float(betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    upper = float(betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return lower, upper
