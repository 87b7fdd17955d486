"""What generated cells are drawn with: uneven outlines, soft edges, grain, and light that is absorbed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_node.train.phantoms.slides.scene import CLEAR, Sprite

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Paper:
    """A square to draw on: `x` and `y` (rows, columns) in micrometres from its middle."""

    x: Array
    y: Array
    um_per_px: float


def paper(radius_um: float, um_per_px: float) -> Paper:
    """Large enough for anything within `radius_um` of the middle."""
    half = int(np.ceil(radius_um / um_per_px)) + 2
    axis = (np.arange(2 * half, dtype=np.float32) - half + 0.5) * um_per_px
    x, y = np.meshgrid(axis, axis)
    return Paper(np.asarray(x, np.float32), np.asarray(y, np.float32), um_per_px)


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed line around (x, y): an ellipse, bent by waves."""

    x: float
    y: float
    radius_um: float
    stretch: float = 1.0
    """Long axis over short axis; the area stays."""
    angle: float = 0.0
    waves: tuple[tuple[int, float, float], ...] = ()
    """Number around, share of the radius, phase."""

    def inside_um(self, on: Paper) -> Array:
        """(rows, columns): distance to the line in um along the ray from the middle, positive inside."""
        x, y = on.x - self.x, on.y - self.y
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        along, aside = (x * cos + y * sin) / self.stretch**0.5, (y * cos - x * sin) * self.stretch**0.5
        theta = np.arctan2(aside, along)
        edge = np.ones_like(theta)
        for number, share, phase in self.waves:
            edge += share * np.cos(number * theta + phase)
        return np.asarray(self.radius_um * edge - np.hypot(along, aside), np.float32)

    def mask(self, on: Paper, soft_um: float = 0.35) -> Array:
        """(rows, columns): 1 inside, 0 outside, `soft_um` between."""
        return smooth_step(self.inside_um(on) / soft_um)


def smooth_step(value: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(4 * value, -30, 30))), np.float32)


def waves(rng: np.random.Generator, share: float, numbers: range) -> tuple[tuple[int, float, float], ...]:
    """Random waves whose shares fall with their number."""
    return tuple(
        (n, float(rng.normal(0, share * numbers.start / n)), float(rng.uniform(0, 2 * np.pi)))
        for n in numbers
    )


def grain(rng: np.random.Generator, on: Paper, size_um: float) -> Array:
    """(rows, columns) of mean 0 and standard deviation 1: blobs of about that size."""
    noise = rng.standard_normal(on.x.shape).astype(np.float32)
    sigma = max(size_um / on.um_per_px / 2, 0.3)
    blobs = ndimage.gaussian_filter(noise, sigma) - ndimage.gaussian_filter(noise, 2.5 * sigma)
    return np.asarray(blobs / max(float(blobs.std()), 1e-6), np.float32)


_RESOLVED_UM = 0.2
"""Standard deviation of what the objective leaves sharp, in um."""


def sprite(density: npt.NDArray[np.float32], um_per_px: float) -> Sprite:
    """Absorbance (rows, columns, 3), base e, as transmission; trimmed to what absorbs anything."""
    density = ndimage.gaussian_filter(density, (_RESOLVED_UM / um_per_px, _RESOLVED_UM / um_per_px, 0))
    seen = density.max(axis=2) > 0.02
    if not seen.any():
        return np.full((4, 4, 3), CLEAR, np.uint8)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    cut = density[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(np.clip(np.rint(np.exp(-cut) * CLEAR), 0, 255), np.uint8)


def dye(red: float, green: float, blue: float) -> Array:
    """Absorbance of a thing that looks like this, sRGB, on white."""
    return np.asarray(-np.log(np.array([red, green, blue], np.float32) / 255), np.float32)
