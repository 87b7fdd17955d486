"""Paint an anatomy on the points of a slice stack: maps of PD, T1, T2, ADC and truth masks.

Shapes are evaluated at each point, not looked up in a voxel grid, so edges are as sharp as
the stack's own pixels; the slice profile is the mean over `sub_slices` per slice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from dicom_node.train.phantoms import tissues as t
from dicom_node.train.phantoms.anatomy import Anatomy, Part
from dicom_node.train.phantoms.fields import enlarge
from dicom_node.train.phantoms.shapes import Corners
from dicom_node.train.phantoms.tissues import Tissue
from dicom_node.train.phantoms.tumours import Tumour

Array = npt.NDArray[np.float32]
Points = tuple[Array, Array, Array]
Window = tuple[slice, slice, slice]
Bend = Callable[[Points], Points]
PD, T1, T2, ADC, WATER = range(5)
_AIR = (0.0, 1 / 1000, 1 / 40, 1.5, 1.0)
_UTERINE = {"uterus", "cervix", "junctional zone", "endometrium"}
SHELL = {"skin", "fat", "wall", "inside", "rectus"}
_MASS_EFFECT = 0.8  # share of a tumour's volume that pushes; the rest replaces


@dataclass(frozen=True)
class Grid:
    """A slice stack: `affine` maps (slice, row, column, 1) to LPS mm."""

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    thickness_mm: float

    @property
    def pixel_mm(self) -> float:
        return float(np.linalg.norm(self.affine[:3, 2]))


@dataclass(frozen=True)
class Painted:
    """Maps (5: PD, T1, T2, ADC, water share; slices, rows, columns) and masks of the mean slice."""

    maps: Array
    tumour: npt.NDArray[np.uint8]
    uterus: npt.NDArray[np.uint8]
    sub_slices: int

    def averaged(self, signal: Array) -> Array:
        """Mean over the slice profile of anything computed from `maps`."""
        out: Array = signal.reshape(-1, self.sub_slices, *signal.shape[1:]).mean(axis=1, dtype=np.float32)
        return out


class _Canvas:
    """The arrays being painted. State: `maps`, `tumour`, `uterus` and the soft coordinates.

    While painting, `maps` holds rates (1/T1, 1/T2): a pixel shared by fat and muscle then
    does not get a T2 that neither has, which would show as bright edges in DWI.
    """

    def __init__(
        self, anatomy: Anatomy, grid: Grid, sub_slices: int, field_t: float, bend: Bend | None
    ) -> None:
        self.anatomy, self.grid, self.field_t = anatomy, grid, field_t
        self.give_mm = 9 + 0.45 * max((tumour.radius_mm for tumour in anatomy.tumours), default=0.0)
        slices, rows, columns = grid.shape
        normal = grid.affine[:3, 0] / np.linalg.norm(grid.affine[:3, 0])
        offsets = ((np.arange(sub_slices) + 0.5) / sub_slices - 0.5) * grid.thickness_mm
        self._first = grid.affine[:3, 3]
        self._shift = (np.arange(slices)[:, None] * np.linalg.norm(grid.affine[:3, 0]) + offsets).ravel()
        self._normal = normal
        self.shape = (slices * sub_slices, rows, columns)
        self.sub_slices = sub_slices
        lattice = self._lattice(6.0)
        if bend is not None:
            lattice = bend(lattice)
        self.x, self.y, self.z = (enlarge(axis, rows, columns) for axis in lattice)
        wx, wy, wz = (
            enlarge(f.at(*lattice) * np.float32(anatomy.warp_mm), rows, columns) for f in anatomy.warp
        )
        self.fixed = (
            self.x + wx * np.float32(0.5),
            self.y + wy * np.float32(0.5),
            self.z + wz * np.float32(0.5),
        )
        self.soft = (self.x + wx, self.y + wy, self.z + wz)
        self.fine = enlarge(anatomy.fine.at(*self._bent_lattice(2.2, bend)), rows, columns)
        self.coarse = enlarge(anatomy.coarse.at(*lattice), rows, columns)
        self.maps = np.empty((5, *self.shape), np.float32)
        self.maps[:] = np.array(_AIR, np.float32)[:, None, None, None]
        self.tumour = np.zeros((2, *self.shape), np.float32)
        self.uterus = np.zeros(self.shape, np.float32)
        self.cavity = np.clip(anatomy.cavity.distance(*self.fixed) / np.float32(2) + np.float32(0.5), 0, 1)

    def _bent_lattice(self, step_mm: float, bend: Bend | None) -> tuple[Array, Array, Array]:
        lattice = self._lattice(step_mm)
        return lattice if bend is None else bend(lattice)

    def _lattice(self, step_mm: float) -> tuple[Array, Array, Array]:
        """Points in LPS mm on a coarser in-plane lattice with the stack's corners."""
        _, rows, columns = self.shape
        down, right = self.grid.affine[:3, 1], self.grid.affine[:3, 2]
        r = np.linspace(0, rows - 1, max(2, min(rows, int(rows * np.linalg.norm(down) / step_mm) + 1)))
        c = np.linspace(
            0, columns - 1, max(2, min(columns, int(columns * np.linalg.norm(right) / step_mm) + 1))
        )
        axes = [
            (
                self._first[i]
                + self._shift[:, None, None] * self._normal[i]
                + r[None, :, None] * down[i]
                + c[None, None, :] * right[i]
            ).astype(np.float32)
            for i in range(3)
        ]
        return axes[0], axes[1], axes[2]

    def window(self, bounds: Corners, margin_mm: float) -> Window | None:
        """The part of the arrays that a box in LPS mm can touch."""
        low, high = bounds
        low = np.maximum(low - margin_mm, -2e3)
        high = np.minimum(high + margin_mm, 2e3)
        corners = np.array([[(low, high)[i >> k & 1][k] for k in range(3)] for i in range(8)]) - self._first
        steps = (
            corners @ self._normal,
            corners @ self.grid.affine[:3, 1] / np.linalg.norm(self.grid.affine[:3, 1]) ** 2,
            corners @ self.grid.affine[:3, 2] / np.linalg.norm(self.grid.affine[:3, 2]) ** 2,
        )
        first = int(np.searchsorted(self._shift, steps[0].min()))
        last = int(np.searchsorted(self._shift, steps[0].max(), side="right"))
        edges = [(first, last)]
        for k in (1, 2):
            size = self.shape[k]
            edges.append((max(0, int(np.floor(steps[k].min()))), min(size, int(np.ceil(steps[k].max())) + 1)))
        if any(a >= b for a, b in edges):
            return None
        return slice(*edges[0]), slice(*edges[1]), slice(*edges[2])

    def blend(self, at: Window, alpha: Array, values: list[Array | float]) -> None:
        for channel, value in enumerate(values):
            target = self.maps[channel][at]
            target += alpha * (value - target)

    def tissue_values(self, tissue: Tissue, at: Window) -> list[Array | float]:
        pd, t1, t2, adc = tissue.values(self.field_t)
        fine, coarse = np.float32(tissue.fine), np.float32(tissue.coarse)
        texture: Array = np.exp(fine * self.fine[at] + coarse * self.coarse[at])
        half: Array = np.sqrt(texture)
        water = 0.0 if tissue.fat else 1.0
        f = np.float32
        return [f(pd) * half, f(1 / t1) / half, f(1 / t2) / texture, f(adc) * half, water]

    def part(self, part: Part) -> None:
        at = self.window(part.shape.bounds(), 6.0 if part.frame == "fixed" else self.give_mm)
        if at is None:
            return
        x, y, z = (axis[at] for axis in (self.fixed if part.frame == "fixed" else self.soft))
        distance = part.shape.distance(x, y, z)
        alpha = np.clip(distance / np.float32(max(part.blend_mm, self.grid.pixel_mm)) + np.float32(0.5), 0, 1)
        if part.confined:
            alpha *= self.cavity[at]
        if not alpha.any():
            return
        self.blend(at, alpha, self.tissue_values(part.tissue, at))
        if part.name in _UTERINE:
            self.uterus[at] = np.maximum(self.uterus[at], alpha)
        elif part.frame == "fixed" or part.name in ("bladder", "rectum", "bowel"):
            self.uterus[at] *= 1 - alpha
            self.tumour[(slice(None), *at)] *= 1 - alpha

    def make_room(self, tumour: Tumour) -> None:
        """Push the soft anatomy outwards as an incompressible body would be.

        A point at distance d outside a ball of radius r shows what lay at (d^3 - k r^3)^(1/3).
        """
        r = tumour.radius_mm
        centre = tumour.shape.centre
        at = self.window((centre - 2.6 * r, centre + 2.6 * r), 4.0)
        if at is None:
            return
        deltas = [axis[at] - np.float32(c) for axis, c in zip(self.soft, centre, strict=True)]
        d2 = deltas[0] ** 2 + deltas[1] ** 2 + deltas[2] ** 2
        relative = np.maximum(np.sqrt(d2) / np.float32(r), np.float32(0.95))
        pulled = np.cbrt(1 - np.float32(_MASS_EFFECT) / relative**3)
        fade = np.clip((np.float32(2.6) - relative) / np.float32(0.9), 0, 1)
        scale = 1 + (pulled - 1) * fade
        for axis, delta, c in zip(self.soft, deltas, centre, strict=True):
            axis[at] = delta * scale + np.float32(c)

    def mass(self, tumour: Tumour) -> None:
        """One tumour: a mantle of myometrium, its border, matrix, liquid and blood."""
        look, radius = tumour.look, tumour.radius_mm
        reach = radius * look.lobes * 3 + look.blur_mm + 12
        at = self.window(tumour.shape.bounds(), reach)
        if at is None:
            return
        x, y, z = (axis[at] for axis in self.fixed)
        distance = tumour.shape.distance(x, y, z)
        distance += np.float32(radius * look.lobes) * tumour.border.at(x, y, z)
        cavity = self.cavity[at]
        pixel = np.float32(self.grid.pixel_mm)
        mantle = np.clip((distance + 2.5) / pixel + np.float32(0.5), 0, 1) * cavity
        self.blend(at, mantle, self.tissue_values(t.MYOMETRIUM, at))
        self.uterus[at] = np.maximum(self.uterus[at], mantle)
        alpha = np.clip(distance / max(pixel, np.float32(look.blur_mm)) + np.float32(0.5), 0, 1) * cavity
        inside = np.nonzero(alpha > 0.004)
        values = self._matrix(tumour, (x[inside], y[inside], z[inside]), distance[inside])
        a = alpha[inside]
        for channel, value in enumerate((*values, np.float32(1.0))):
            target = self.maps[channel][at]
            target[inside] += a * (value - target[inside])
        masks = self.tumour[(slice(None), *at)]
        masks *= 1 - alpha
        masks[int(tumour.malignant) - 1] = np.maximum(masks[int(tumour.malignant) - 1], alpha)

    def _matrix(self, tumour: Tumour, points: Points, distance: Array) -> list[Array]:
        """PD, 1/T1, 1/T2, ADC at the tumour's own points (flat arrays)."""
        x, y, z = points
        look, strong = tumour.look, self.field_t > 2
        mottle, patches = tumour.mottle.at(x, y, z), tumour.patches.at(x, y, z)
        wave = np.sin((distance + 2.0 * patches) * np.float32(2 * np.pi / tumour.period_mm))
        texture = np.exp(look.mottle * mottle + look.patchy * patches + look.whorl * wave)
        t2 = look.t2 * (0.84 if strong else 1.0) * texture
        t1 = look.t1 * (1.15 if strong else 1.0) * np.exp(0.04 * mottle)
        adc = look.adc * np.exp(0.05 * mottle + 0.35 * look.patchy * patches)
        pd = np.full_like(t2, 0.85)
        rim = look.capsule * np.exp(-(((distance - 0.5) / 1.0) ** 2))
        t2 = t2 * (1 - 0.45 * rim)
        liquid = _share(tumour.liquid.at(x, y, z) + 0.25 * mottle, look.liquid) * np.clip(distance / 2, 0, 1)
        clots = 0.8 * tumour.patches.at(y, z, x) - 0.6 * tumour.border.at(z, x, y)
        blood = _share(clots, look.blood) * np.clip(distance, 0, 1)
        t2 = t2 + liquid * (280 * np.exp(0.25 * patches) - t2)
        t1 = t1 + liquid * (2300 - t1)
        adc = adc + liquid * (2.2 - adc)
        pd = pd + liquid * (0.97 - pd)
        t1 = t1 + blood * (430 - t1)
        t2 = t2 + blood * (85 * np.exp(0.45 * mottle) - t2)
        adc = adc + blood * (0.9 - adc)
        return [v.astype(np.float32) for v in (pd, 1 / t1, 1 / t2, adc)]


def _share(field: Array, share: float) -> Array:
    """0 to 1: where a unit-variance field is in its upper `share`, with a soft edge."""
    if share < 0.005:
        return np.zeros_like(field)
    level = np.float32(ndtri(1 - share))
    out: Array = np.clip((field - level) / np.float32(0.35) + np.float32(0.5), 0, 1)
    return out


def paint(
    anatomy: Anatomy, grid: Grid, *, field_strength_t: float, sub_slices: int = 2, bend: Bend | None = None
) -> Painted:
    """The anatomy on a stack. `bend` displaces the sampled points (EPI distortion)."""
    canvas = _Canvas(anatomy, grid, sub_slices, field_strength_t, bend)
    shell = [p for p in anatomy.parts if p.frame == "fixed" and p.name in SHELL]
    soft = [p for p in anatomy.parts if p.frame == "soft"]
    ring = [p for p in anatomy.parts if p.frame == "fixed" and p.name not in SHELL]
    for part in shell:
        canvas.part(part)
    for tumour in anatomy.tumours:
        canvas.make_room(tumour)
    for part in soft:
        canvas.part(part)
    for tumour in sorted(anatomy.tumours, key=lambda tumour: tumour.radius_mm):
        canvas.mass(tumour)
    for part in ring:
        canvas.part(part)
    return _finished(canvas)


def _finished(canvas: _Canvas) -> Painted:
    def mean(mask: Array) -> Array:
        out: Array = mask.reshape(-1, canvas.sub_slices, *mask.shape[1:]).mean(axis=1)
        return out

    leiomyoma, sarcoma = mean(canvas.tumour[0]), mean(canvas.tumour[1])
    tumour = np.where(sarcoma > 0.5, 2, np.where(leiomyoma > 0.5, 1, 0)).astype(np.uint8)
    uterus = ((mean(canvas.uterus) > 0.5) | (tumour > 0)).astype(np.uint8)
    np.reciprocal(canvas.maps[[T1, T2]], out=canvas.maps[T1 : T2 + 1])
    return Painted(canvas.maps, tumour, uterus, canvas.sub_slices)
