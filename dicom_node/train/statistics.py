"""Proportions with the intervals that small samples deserve, and how good a ranking is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

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
