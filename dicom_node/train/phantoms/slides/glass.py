"""The empty slide: mounting medium and light, and the camera's noise.

One texture, repeated every `PERIOD` pixels: so a tile without cells is one of few, whatever the size
of the slide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import ndimage

PERIOD = 1024
"""Pixels, of any level."""
_BLOTCHES = 1.2
"""Standard deviation of unevenness that is part of the slide, in grey values of 255."""
_NOISE = 1.3
"""Standard deviation of the camera's noise, in grey values of 255."""

Texture = npt.NDArray[np.float32]


class Glass:
    """Background of a slide with the colour `background`, sRGB 0 to 255."""

    def __init__(self, background: tuple[float, float, float], seed: int) -> None:
        rng = np.random.default_rng([seed, 31])
        self._colour = np.asarray(background, np.float32)
        blotches = _blotches(rng) * _BLOTCHES
        self._blotches = [blotches]
        while blotches.shape[0] > 32:
            blotches = (
                blotches[::2, ::2] + blotches[1::2, ::2] + blotches[::2, 1::2] + blotches[1::2, 1::2]
            ) / 4
            self._blotches.append(blotches)
        self._noise = rng.normal(0, _NOISE, (PERIOD, PERIOD, 3)).astype(np.float32)

    def seen_through(
        self, light: npt.NDArray[np.float32], level: int, top: int, left: int, plane: int
    ) -> npt.NDArray[np.uint8]:
        """(rows, columns, 3) sRGB of what is left of the light, with its first pixel at that place."""
        rows, columns = light.shape[:2]
        level = min(level, len(self._blotches) - 1)
        blotches = _wrapped(self._blotches[level], top, left, rows, columns)
        shift = plane * 389 + level * 137
        noise = _wrapped(self._noise, top + shift, left + 2 * shift, rows, columns)
        noise *= _quieter(level)
        blotches = blotches[..., None] + self._colour
        blotches *= light
        noise += blotches
        np.clip(np.rint(noise, out=noise), 0, 255, out=noise)
        return noise.astype(np.uint8)

    def phase(self, top: int, left: int) -> tuple[int, int]:
        """Two empty regions of one level and plane are the same where this is."""
        return top % PERIOD, left % PERIOD


def _quieter(level: int) -> np.float32:
    return np.float32(max(0.35, 0.5**level))


def _wrapped(texture: Texture, top: int, left: int, rows: int, columns: int) -> Texture:
    """A copy of that part of an endless wall papered with `texture`."""
    period = texture.shape[0]
    out = np.empty((rows, columns, *texture.shape[2:]), np.float32)
    for down, row, tall in _pieces(top, rows, period):
        for across, column, wide in _pieces(left, columns, period):
            out[down : down + tall, across : across + wide] = texture[
                row : row + tall, column : column + wide
            ]
    return out


def _pieces(start: int, length: int, period: int) -> Iterator[tuple[int, int, int]]:
    """Where a piece begins, where in the texture that is, and how long it goes on."""
    done = 0
    while done < length:
        at = (start + done) % period
        take = min(period - at, length - done)
        yield done, at, take
        done += take


def _blotches(rng: np.random.Generator) -> Texture:
    """(PERIOD, PERIOD) with standard deviation 1 and without a seam."""
    fine, coarse = (
        ndimage.gaussian_filter(rng.standard_normal((PERIOD, PERIOD)).astype(np.float32), sigma, mode="wrap")
        for sigma in (6, 60)
    )
    both = fine / fine.std() + coarse / coarse.std()
    return np.asarray(both / both.std(), np.float32)
