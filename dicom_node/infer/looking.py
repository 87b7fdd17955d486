"""Looking at cells on a slide: find them band by band, cut them out on any planes; and small arithmetic
that pipelines for cells share. Frames are read in the order of the work, see `slide/work.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from dicom_node.domain.slide import OpenSlide
from dicom_node.infer.cells import Finder, Nuclei, Picture, find_nuclei, join_nuclei, white_of
from dicom_node.slide import plan, work

Floats = npt.NDArray[np.float32]
OVERLAP_UM = 64.0
"""By which bands overlap: a nucleus is found whole on one of two."""
CROPS_AT_A_TIME = work.BATCH
SHARPEST = "sharpest"
"""Of each tile the focal plane with most detail."""


def find_on_slide(
    reader: OpenSlide, finder: Finder, plane: int | str | None = None,
    progress: Callable[[float], None] = lambda part: None,
) -> Nuclei:  # fmt: skip
    """All nuclei of a slide, in pixels of its finest level, strongest first.

    `plane` is a focal plane, SHARPEST, or the middle one. Empty glass is not decoded.
    """
    white = white_of(reader.thumbnail(1024))
    view = plan.choose(reader.slide, finder.um_per_px)
    um, overlap = max(view.um_per_px), round(OVERLAP_UM / max(view.um_per_px))
    parts, mask = [], plan.find(reader)
    for band in work.bands(reader, finder.um_per_px, overlap_px=overlap, plane=plane, mask=mask):
        progress(band.number / work.bands_of(view))
        for left, right in band.runs:
            found = find_nuclei(band.image[:, left:right], um, finder, white)
            row = found.centre_px[:, 1]
            own = found.where((row >= band.own[0]) & (row < band.own[1]))
            own.centre_px[:, 0] += left
            places = band.onto_base(own.centre_px).astype(np.float32)
            size = (own.size_px * np.array(view.base_px[::-1], np.float32)).astype(np.float32)
            parts.append(Nuclei(places, size, own.contrast))
    return join_nuclei(parts)


def slide_crops(
    reader: OpenSlide,
    level: int,
    centres_px: Floats,
    planes: Sequence[int],
    size_px: int,
    out_px: int,
    first: int = 0,
) -> Iterator[tuple[npt.NDArray[np.int64], Picture]]:
    """(which rows, (k, planes, out, out, 3)) around places (n, 2) in pixels of a level; as `work.crops`.

    CROPS_AT_A_TIME in a batch, of which there are none before the `first`.
    """
    return work.crops(reader, level, centres_px, planes, size_px, out_px, first=first, batch=CROPS_AT_A_TIME)


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
