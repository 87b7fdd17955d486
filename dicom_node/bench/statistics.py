"""What runs come to: medians, and how a peer compares with the node run by run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Run:
    """One receiver, once."""

    round: int
    receiver: str
    seconds: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One receiver over all its rounds."""

    receiver: str
    rounds: int
    seconds: float
    """Median."""
    peak_mb: float
    """The largest of all rounds."""
    ratio: float | None
    """Median over the rounds of its time / the node's: above 1 the node was faster. None: no such round."""
    ratio_least: float | None
    ratio_most: float | None


def figures(runs: Sequence[Run], receiver: str, reference: str) -> Figures:
    """Of one receiver among `runs`, compared within each round with `reference`. It must have run."""
    mine = {run.round: run for run in runs if run.receiver == receiver}
    others = {run.round: run for run in runs if run.receiver == reference}
    ratios = [run.seconds / others[number].seconds for number, run in mine.items() if number in others]
    return Figures(
        receiver=receiver,
        rounds=len(mine),
        seconds=median(run.seconds for run in mine.values()),
        peak_mb=max(run.peak_mb for run in mine.values()),
        ratio=median(ratios) if ratios else None,
        ratio_least=min(ratios, default=None),
        ratio_most=max(ratios, default=None),
    )
