"""Shapes of the anatomy as signed distances in mm: positive inside, zero on the surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Corners = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """`axes` holds three orthonormal rows: the directions of the three half axes."""

    centre: npt.NDArray[np.float64]
    half_mm: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """First-order distance; exact near the surface."""
        dx, dy, dz = (np.asarray(v - np.float32(c)) for v, c in zip((x, y, z), self.centre, strict=True))
        inverse = np.float32(1) / self.half_mm.astype(np.float32)
        square: Array = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape), np.float32)
        slope = np.zeros_like(square)
        for (a, b, c), scale in zip(self.axes.astype(np.float32), inverse, strict=True):
            along = (dx * a + dy * b + dz * c) * scale
            along *= along
            square += along
            slope += along * (scale * scale)
        radius = np.sqrt(square)
        out = (1 - radius) * radius / np.sqrt(np.maximum(slope, np.float32(1e-9)))
        return out.astype(np.float32, copy=False)

    def bounds(self) -> Corners:
        reach = np.sqrt(((self.axes * self.half_mm[:, None]) ** 2).sum(axis=0))
        return self.centre - reach, self.centre + reach

    def grown(self, by_mm: float) -> Ellipsoid:
        return replace(self, half_mm=np.maximum(self.half_mm + by_mm, 0.5))


@dataclass(frozen=True)
class Tube:
    """A path of points (n, 3) with a radius at each."""

    path: npt.NDArray[np.float64]
    radius_mm: npt.NDArray[np.float64]

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        best = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), -1e3, np.float32)
        for i in range(len(self.path) - 1):
            start, step = self.path[i], self.path[i + 1] - self.path[i]
            px, py, pz = (np.asarray(v - np.float32(c)) for v, c in zip((x, y, z), start, strict=True))
            t = (px * np.float32(step[0]) + py * np.float32(step[1]) + pz * np.float32(step[2])) / np.float32(
                max(float(step @ step), 1e-6)
            )
            t = np.clip(t, 0, 1)
            for v, s in zip((px, py, pz), step, strict=True):
                v -= t * np.float32(s)
            radius = np.float32(self.radius_mm[i]) + t * np.float32(self.radius_mm[i + 1] - self.radius_mm[i])
            best = np.maximum(best, radius - np.sqrt(px * px + py * py + pz * pz))
        return best

    def bounds(self) -> Corners:
        r = float(self.radius_mm.max())
        return self.path.min(axis=0) - r, self.path.max(axis=0) + r

    def grown(self, by_mm: float) -> Tube:
        return replace(self, radius_mm=np.maximum(self.radius_mm + by_mm, 0.3))


@dataclass(frozen=True)
class Trunk:
    """The body's outline or a layer of it: a superellipse that widens towards the hips."""

    half_x_mm: float
    half_front_mm: float
    half_back_mm: float
    power: float = 2.5
    hip: float = 0.08

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        widen = 1 + np.float32(self.hip) * np.exp(-(((z + 40) / 70) ** 2))
        ax = np.abs(x) / (np.float32(self.half_x_mm) * widen)
        ay = np.where(y < 0, -y / np.float32(self.half_front_mm), y / np.float32(self.half_back_mm))
        radius = (ax ** np.float32(self.power) + ay ** np.float32(self.power)) ** np.float32(1 / self.power)
        along = np.sqrt(x * x + y * y) / np.maximum(radius, np.float32(1e-3))
        out: Array = (1 - radius) * along
        return out

    def bounds(self) -> Corners:
        wide = self.half_x_mm * (1 + self.hip)
        return np.array([-wide, -self.half_front_mm, -1e3]), np.array([wide, self.half_back_mm, 1e3])

    def grown(self, by_mm: float) -> Trunk:
        return replace(
            self,
            half_x_mm=self.half_x_mm + by_mm,
            half_front_mm=self.half_front_mm + by_mm,
            half_back_mm=self.half_back_mm + by_mm,
        )


Shape = Ellipsoid | Tube | Trunk
UPRIGHT = np.eye(3)


def ellipsoid(centre: Point, half_mm: Point, axes: npt.NDArray[np.float64] = UPRIGHT) -> Ellipsoid:
    return Ellipsoid(np.array(centre, float), np.array(half_mm, float), axes)


def tube(path: Sequence[Point], radius_mm: float | Sequence[float]) -> Tube:
    radii = np.broadcast_to(np.asarray(radius_mm, float), (len(path),)).copy()
    return Tube(np.array(path, float), radii)


def turned(z_deg: float = 0.0, x_deg: float = 0.0, y_deg: float = 0.0) -> npt.NDArray[np.float64]:
    """Axes of a shape turned about z (axial plane), then x, then y; rows are directions."""
    cz, sz = np.cos(np.radians(z_deg)), np.sin(np.radians(z_deg))
    cx, sx = np.cos(np.radians(x_deg)), np.sin(np.radians(x_deg))
    cy, sy = np.cos(np.radians(y_deg)), np.sin(np.radians(y_deg))
    about_z = np.array([[cz, sz, 0], [-sz, cz, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cx, sx], [0, -sx, cx]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    axes: npt.NDArray[np.float64] = about_z @ about_x @ about_y
    return axes
