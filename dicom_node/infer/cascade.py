"""Cells on a stack of focal planes for little more than one plane costs.

Every cell is seen on one plane, that which is sharpest where it lies; those that are suspicious there, and
as many again as the budget allows in the order of their suspicion, on all planes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.domain.pipeline import Progress, silent
from dicom_node.domain.slide import OpenSlide
from dicom_node.infer.engine import Engine
from dicom_node.slide.plan import planes_at
from dicom_node.slide.work import crops, crops_at

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Budget:
    """Which cells are seen on all planes."""

    always: float
    """Of this suspicion or more."""
    least: float
    """Never below this one."""
    share: float = 0.02
    """Of all cells, those in between, most suspicious first: with 11 planes 0.02 adds a quarter to the work,
    and what decoding the other planes of their frames takes."""


@dataclass(frozen=True, slots=True)
class Seen:
    """n cells on one plane each, m of them on all p planes."""

    plane: Ints
    """(n,): the plane of the first look."""
    first: Floats
    """(n, classes) logits of the first look."""
    again: Ints
    """(m,): which cells were seen on all planes, ascending."""
    logits: Floats
    """(m, p, classes)"""


def cascade(
    reader: OpenSlide, engine: Engine, centres_px: npt.ArrayLike, planes: Sequence[int], size_px: int,
    suspicion: Callable[[Floats], Floats], budget: Budget, *, level: int = 0, progress: Progress = silent,
) -> Seen:  # fmt: skip
    """`centres_px` is (n, 2) (column, row) of the level; `suspicion` takes logits (n, classes) to (n,).

    `progress` is called after each batch and may raise.
    """
    centres, out = np.asarray(centres_px, np.float64).reshape(-1, 2), engine.image.size_px
    plane_of, done = planes_at(reader, level, centres), 0
    first = np.zeros((len(centres), len(engine.classes)), np.float32)
    for at, (logits, *_) in engine.stream(crops_at(reader, level, centres, plane_of, size_px, out)):
        first[at] = logits
        done += len(at)
        progress(0.7 * done / len(centres), "look")
    again = chosen(suspicion(first), budget)
    if len(planes) == 1:
        return Seen(plane_of, first, again, first[again][:, None])
    every = np.zeros((len(again), len(planes), len(engine.classes)), np.float32)
    squares = crops(reader, level, centres[again], planes, size_px, out, batch=16)
    flat = ((at, images.reshape(-1, *images.shape[2:])) for at, images in squares)
    done = 0
    for at, (logits, *_) in engine.stream(flat):
        every[at] = logits.reshape(len(at), len(planes), -1)
        done += len(at)
        progress(0.7 + 0.3 * done / len(again), "look again")
    return Seen(plane_of, first, again, every)


def chosen(suspicion: Floats, budget: Budget) -> Ints:
    """Indices, ascending, of the cells that are seen on all planes; of equals the first."""
    order = np.argsort(-suspicion, kind="stable")
    count = int((suspicion >= budget.always).sum()) + int(np.ceil(budget.share * len(suspicion)))
    some = order[:count]
    return np.sort(some[suspicion[some] >= min(budget.least, budget.always)]).astype(np.int64)
