"""Proportions with the intervals that small samples deserve, and how good a ranking is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054
"""Two-sided 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """`hits` of `n` with a two-sided 95 % interval; `hits` may be a mean over models."""

    hits: float
    n: int
    estimate: float
    lower: float
    upper: float
    bound: float | None = None
    """Where nothing was missed: the one-sided 95 % lower bound, 0.05^(1/n)."""

    def to_json(self) -> dict[str, float | int | None]:
        """Rounded to four decimals; what an empty sample cannot say is None."""
        facts = asdict(self)
        return {key: finite(value) if isinstance(value, float) else value for key, value in facts.items()}


def proportion(hits: float, n: int) -> Proportion:
    """Wilson's score interval (Wilson, J Am Stat Assoc 1927;22:209); an empty sample is 0 to 1."""
    if n == 0:
        return Proportion(hits, 0, float("nan"), 0.0, 1.0)
    p = hits / n
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    return Proportion(
        hits, n, p, max(0.0, middle - half), min(1.0, middle + half), 0.05 ** (1 / n) if hits == n else None
    )


def finite(value: float) -> float | None:
    """Four decimals for JSON, which has no NaN."""
    return None if math.isnan(value) else round(value, 4)


def balanced(sensitivity: Proportion, specificity: Proportion) -> tuple[float, float, float]:
    """(mean of the two, 95 % lower, upper); the half-widths are combined as independent ones (MOVER)."""
    estimate = (sensitivity.estimate + specificity.estimate) / 2
    down = math.hypot(sensitivity.estimate - sensitivity.lower, specificity.estimate - specificity.lower) / 2
    up = math.hypot(sensitivity.upper - sensitivity.estimate, specificity.upper - specificity.estimate) / 2
    return estimate, max(0.0, estimate - down), min(1.0, estimate + up)


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Share of pairs in which the positive scores higher, ties counting half; nan without pairs."""
    if not positive or not negative:
        return float("nan")
    pairs = sum((p > q) + 0.5 * (p == q) for p in positive for q in negative)
    return pairs / (len(positive) * len(negative))


def exact(hits: int, n: int) -> Proportion:
    """Clopper and Pearson's interval (Biometrika 1934;26:404), which never covers less than it says."""
    if n == 0:
        return proportion(hits, n)
    from scipy.special import betaincinv

    lower = float(betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    upper = float(betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return Proportion(hits, n, hits / n, lower, upper, 0.05 ** (1 / n) if hits == n else None)


def by_groups(
    statistic: Callable[[npt.NDArray[np.int64]], float], group: npt.NDArray[np.int64], draws: int = 400
) -> tuple[float, float, float]:  # fmt: skip
    """(estimate, 95 % lower, upper) of a statistic of rows, by drawing whole groups with replacement.

    Draws on which the statistic is nan do not count; nan where none is left.
    """
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(group == one) for one in np.unique(group)]
    found = np.array([
        statistic(np.concatenate([rows[at] for at in rng.integers(len(rows), size=len(rows))]))
        for _ in range(draws)
    ])  # fmt: skip
    found = found[~np.isnan(found)]
    lower, upper = np.quantile(found, (0.025, 0.975)) if len(found) else (float("nan"), float("nan"))
    return statistic(np.arange(len(group))), float(lower), float(upper)


def ranking(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """`auroc` for many values: by ranks."""
    from scipy.stats import rankdata

    high, low = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not len(high) or not len(low):
        return float("nan")
    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))
