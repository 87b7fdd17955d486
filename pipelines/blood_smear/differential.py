"""Shares of white cells with intervals, and whether precursors are more than a few."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import CellClass, Share, exact_interval

PRECURSORS_FROM = 0.02
"""Share of white cells above which precursors are more than a few."""
DECIMALS = 4


def differential(
    classes: Sequence[CellClass], counts: Sequence[int], white: Sequence[bool]
) -> tuple[Share, ...]:
    """A line for each white class, with Clopper and Pearson's interval (CLSI H20 counts are binomial, too).

    `white` says which classes count: erythroblasts and platelets do not.
    """
    total = sum(n for n, own in zip(counts, white, strict=True) if own)
    return tuple(
        Share(one, n, total, *exact_interval(n, total))
        for one, n, own in zip(classes, counts, white, strict=True) if own
    )  # fmt: skip


def chance_of_precursors(
    probability: npt.NDArray[np.float32], precursor: Sequence[bool], white: Sequence[bool]
) -> float:
    """That more than PRECURSORS_FROM of white cells are precursors, erythroblasts among them.

    Each cell is one with its own probability, (n, classes); the number of them is about normal.
    """
    chance = probability[:, np.array(precursor)].sum(axis=1).astype(np.float64)
    whites = float(probability[:, np.array(white)].sum())
    if whites <= 0:
        return 0.0
    spread = math.sqrt(max(float((chance * (1 - chance)).sum()), 1e-6))
    beyond = (float(chance.sum()) - PRECURSORS_FROM * whites - 0.5) / spread
    return round(0.5 * (1 + math.erf(beyond / math.sqrt(2))), DECIMALS)
