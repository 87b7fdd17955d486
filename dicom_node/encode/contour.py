"""The outline of a mask as points, for forms that know no voxels: SCOORD, presentation states.

Points are (column, row) where 0, 0 is the upper left corner of the upper left pixel and a
pixel's centre lies at a half (PS3.3 C.18.6.1.2, C.10.5.1.2). Every point is the middle of an
edge between a pixel inside and one outside, so it is half a pixel from both, and exactly the
centres of the mask's pixels lie within.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""(points, 2) columns and rows; closed: the first point comes last again."""

MOST_POINTS = 4000
"""An FL value in explicit VR has a 16-bit length (PS3.5 7.1.2): 8191 points is all it can hold."""

_Corner = tuple[int, int]
_SIDES = (
    ((-1, 0), (0, 0), (1, 0)),
    ((0, 1), (1, 0), (1, 1)),
    ((1, 0), (1, 1), (0, 1)),
    ((0, -1), (0, 1), (0, 0)),
)
"""A pixel's sides: (rows, columns) to the neighbour beyond, and the corners from and to, clockwise."""


def outlines(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """The outer outlines of a (rows, columns) mask's parts, which join by edges; the largest part first.

    Holes are left out: neither form can say them.
    """
    rings = [ring for ring in _rings(_edges(mask)) if _area(ring) > 0]
    rings.sort(key=_area, reverse=True)
    return [_points(ring) for ring in rings]


def _edges(mask: npt.NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """From each corner to the next ones, with the inside on the right hand."""
    padded = np.pad(mask, 1)
    edges: dict[_Corner, list[_Corner]] = {}
    for (down, right), start, end in _SIDES:
        rows, columns = mask.shape
        beyond = padded[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        for row, column in np.argwhere(mask & ~beyond).tolist():
            corner = column + start[0], row + start[1]
            edges.setdefault(corner, []).append((column + end[0], row + end[1]))
    return edges


def _rings(edges: dict[_Corner, list[_Corner]]) -> list[list[_Corner]]:
    rings = []
    for first in sorted(edges):
        while edges[first]:
            ring = [first]
            here = edges[first].pop()
            while here != first:
                before = ring[-1]
                ring.append(here)
                here = _next(edges[here], before, here)
            rings.append(ring)
    return rings


def _next(ways: list[_Corner], before: _Corner, here: _Corner) -> _Corner:
    """Where two parts touch by a corner, the way to the right stays with the part one came along."""
    across, down = here[0] - before[0], here[1] - before[1]
    right = here[0] - down, here[1] + across
    return ways.pop(ways.index(right)) if right in ways else ways.pop()


def _area(ring: list[_Corner]) -> float:
    """Pixels within; negative for a hole."""
    x, y = np.array(ring, dtype=np.int64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _points(ring: list[_Corner]) -> Points:
    corners = np.array(ring, dtype=np.float64)
    middles = (corners + np.roll(corners, -1, axis=0)) / 2
    along, onward = middles - np.roll(middles, 1, axis=0), np.roll(middles, -1, axis=0) - middles
    kept = middles[along[:, 0] * onward[:, 1] != along[:, 1] * onward[:, 0]]
    kept = kept[:: -(-len(kept) // MOST_POINTS)]
    return np.vstack([kept, kept[:1]])
