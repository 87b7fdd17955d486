"""Where slices lie, and whether they make one regular grid (PS3.3 C.7.6.2.1.1). Pure.

Promises a grid whose slices are equally spaced along the normal to within 1 %, or the
sentence that says what is wrong: a gap, a duplicate, a tilt. Never pads, never guesses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.domain.geometry import Vector
from dicom_node.domain.series import Plane

Positions = npt.NDArray[np.float64]

UNEQUAL = 0.01
"""Relative difference of two gaps from which slices count as unequally spaced."""
_ROUNDING_MM = 0.02  # vendors write positions with as little as two decimals
_SAME_MM = 0.01
_OBLIQUE_DEGREES = 35.0
_SAME_ORIENTATION = 2e-3  # of each cosine, about 0.1 degree


@dataclass(frozen=True, slots=True)
class Grid:
    """Slices in order along the normal: `order` indexes what was given."""

    order: tuple[int, ...]
    spacing_mm: float | None
    """Centre to centre; None for a single slice."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """What keeps slices from being a grid. `missing` counts slices that are not there."""

    why: str
    missing: int = 0


def is_orthonormal(orientation: Sequence[float]) -> bool:
    """Whether six direction cosines are two perpendicular unit vectors."""
    row, column = orientation[:3], orientation[3:]
    lengths = all(abs(math.hypot(*side) - 1) < 5e-3 for side in (row, column))
    return lengths and abs(sum(a * b for a, b in zip(row, column, strict=True))) < 5e-3


def depth_mm(position: Sequence[float], orientation: Sequence[float]) -> float:
    """Where a slice lies along its normal (row cosine x column cosine)."""
    ax, ay, az, bx, by, bz = orientation
    across = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    return sum(a * b for a, b in zip(position, across, strict=True)) / math.hypot(*across)


def normal(orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    """Unit vector across the slices: row cosine x column cosine."""
    across = np.cross(np.asarray(orientation[:3], float), np.asarray(orientation[3:], float))
    return np.asarray(across / np.linalg.norm(across))


def same_orientation(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= _SAME_ORIENTATION for a, b in zip(one, other, strict=True))


def degrees_between(one: Sequence[float], other: Sequence[float]) -> float:
    """Angle between two slice planes, 0 to 90."""
    cosine = abs(float(normal(one) @ normal(other)))
    return float(np.degrees(np.arccos(min(1.0, cosine))))


def plane_of(orientation: Sequence[float]) -> tuple[Plane, str]:
    """The nearest anatomical plane, and the reason in words."""
    across = np.abs(normal(orientation))
    axis = int(np.argmax(across))
    tilt = float(np.degrees(np.arccos(min(1.0, float(across[axis])))))
    plane, direction = (
        (Plane.SAGITTAL, "left-right"), (Plane.CORONAL, "front-back"), (Plane.AXIAL, "head-foot"),
    )[axis]  # fmt: skip
    if tilt > _OBLIQUE_DEGREES:
        return Plane.OBLIQUE, f"slice normal {tilt:.0f} degrees from {direction}: oblique"
    return plane, f"slice normal {tilt:.0f} degrees from {direction}: {plane.value}"


def vector(values: Sequence[float]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def depths(positions: Positions, orientation: Sequence[float]) -> npt.NDArray[np.float64]:
    """(n,) mm along the normal."""
    return np.asarray(positions @ normal(orientation))


def find_grid(positions: Positions, orientation: Sequence[float], names: Sequence[str]) -> Grid | Flaw:
    """The regular grid of slices at `positions`, (n, 3) mm LPS; `names` are for the sentence."""
    depth = depths(positions, orientation)
    order = tuple(int(index) for index in np.argsort(depth, kind="stable"))
    if len(order) == 1:
        return Grid(order, None)
    gaps = np.diff(depth[list(order)])
    if (closest := int(np.argmin(gaps))) >= 0 and gaps[closest] < _SAME_MM:
        pair = f"{names[order[closest]]} and {names[order[closest + 1]]}"
        return Flaw(f"two images lie at the same position {depth[order[closest]]:.1f} mm ({pair})")
    flaw = _gap(depth, gaps, order, names) or _tilt(positions, depth, gaps, order, orientation)
    return flaw or Grid(order, float(gaps.mean()))


def _gap(
    depth: npt.NDArray[np.float64], gaps: npt.NDArray[np.float64], order: Sequence[int], names: Sequence[str]
) -> Flaw | None:
    step = _step(gaps)
    tolerance = max(UNEQUAL * step, _ROUNDING_MM)
    wide = [k for k, gap in enumerate(gaps) if abs(gap - step) > tolerance]
    if not wide:
        return None
    lost = [round(float(gaps[k]) / step) - 1 for k in wide]
    off = (abs(gaps[k] - (n + 1) * step) / (n + 1) for k, n in zip(wide, lost, strict=True))
    whole = min(lost) >= 1 and max(off) <= tolerance
    k, n = wide[0], lost[0]
    here, there = (f"{names[order[i]]} at {depth[order[i]]:.1f} mm" for i in (k, k + 1))
    between = f"between {here} and {there} along the slice normal"
    if not whole:
        return Flaw(f"the slices are unequally spaced: {gaps[k]:.2f} mm {between}, elsewhere {step:.2f} mm")
    more = f", and {sum(lost[1:])} more elsewhere" if len(lost) > 1 else ""
    what = "1 slice is missing" if n == 1 else f"{n} slices are missing"
    apart = f"{gaps[k]:.1f} mm where the slices are {step:.1f} mm apart"
    return Flaw(f"{what} {between} ({apart}){more}", sum(lost))


def _step(gaps: npt.NDArray[np.float64]) -> float:
    """The spacing the grid would have: the smallest gap if the others are its multiples, else the median."""
    smallest = gaps.min()
    near = gaps[gaps <= smallest * (1 + 2 * UNEQUAL)]
    step = float(np.median(near))
    multiples = np.abs(gaps / step - np.round(gaps / step)) <= 2 * UNEQUAL * np.round(gaps / step)
    return step if bool(multiples.all()) else float(np.median(gaps))


def _tilt(
    positions: Positions, depth: npt.NDArray[np.float64], gaps: npt.NDArray[np.float64], order: Sequence[int],
    orientation: Sequence[float],
) -> Flaw | None:  # fmt: skip
    ordered, along = positions[list(order)], depth[list(order)]
    sideways = ordered - ordered[0] - np.outer(along - along[0], normal(orientation))
    steps = np.linalg.norm(np.diff(sideways, axis=0), axis=1)
    if float(steps.max()) <= max(UNEQUAL * float(gaps.mean()), _ROUNDING_MM):
        return None
    return Flaw(f"the slices are shifted within their plane by up to {steps.max():.2f} mm (a tilted stack)")
