"""An object with marks whose places are known, to see where they are after the whole path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Marked:
    """Files of one study, and where the marks in it are. No mirror image of the marks is like them."""

    what: str
    """`MR` or `slide`."""
    files: tuple[Path, ...]
    places: npt.NDArray[np.float64]
    """(n, 3) patient coordinates (LPS, mm) of the centre of every marked voxel; or (n, 2) column and row
    of every mark's centre in pixels of the slide's finest level, the first pixel's centre at 0.5."""
    pixel: float
    """Shortest distance between pixels, in the unit of `places`."""
    labels: tuple[str, ...] = ()
    """Of each mark of a slide: its colour."""
