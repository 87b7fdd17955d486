"""Smooth random fields in patient space, cheap to sample on any slice stack.

A field is unit-variance Gaussian noise with one correlation length, periodic, kept on a
coarse grid and read by linear interpolation; sampling a stack goes through a coarser
in-plane lattice that is then enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]
_CELLS = 40


@dataclass(frozen=True, slots=True)
class Field:
    """Noise whose features are about `length_mm` wide; mean 0, variance 1."""

    values: Array
    """(_CELLS, _CELLS, _CELLS), periodic."""
    step_mm: float
    origin_mm: npt.NDArray[np.float64]

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """The field at points in LPS mm; the three arrays broadcast to one shape."""
        points = [
            np.asarray((axis - origin) / self.step_mm, dtype=np.float32)
            for axis, origin in zip((x, y, z), self.origin_mm, strict=True)
        ]
        out: Array = ndimage.map_coordinates(
            self.values, np.broadcast_arrays(*points), order=1, mode="grid-wrap", output=np.float32
        )
        return out


def smooth_field(rng: np.random.Generator, length_mm: float) -> Field:
    """A field with features of about `length_mm`; it repeats after 13 of them."""
    noise = rng.standard_normal((_CELLS, _CELLS, _CELLS), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, 1.1, mode="wrap")
    smooth /= smooth.std()
    step = length_mm / 3
    return Field(smooth, step, rng.uniform(0, _CELLS * step, 3))


def enlarge(coarse: Array, rows: int, columns: int) -> Array:
    """Linear interpolation of (slices, r, c) to (slices, rows, columns), corners aligned.

    By gathering, not by matrix products: those differ in the last bit between machines.
    """
    left, share = _between(rows, coarse.shape[1])
    tall = coarse[:, left]
    tall += (coarse[:, left + 1] - tall) * share[:, None]
    left, share = _between(columns, coarse.shape[2])
    wide = tall[:, :, left]
    wide += (tall[:, :, left + 1] - wide) * share
    return wide


def _between(fine: int, coarse: int) -> tuple[npt.NDArray[np.intp], Array]:
    at = np.linspace(0, coarse - 1, fine)
    left = np.minimum(at.astype(np.intp), coarse - 2)
    return left, (at - left).astype(np.float32)
