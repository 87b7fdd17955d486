"""From the scores of slices to one probability per case: over slices, then over sequences.

Log-odds of the evaluator are averaged over the highest-scoring part of a sequence's kept
slices, brought to a common scale per sequence (Platt), averaged over the sequences that are
there with fitted weights, and calibrated once more. A missing sequence simply has no part.
All numbers are fitted on calibration data by `dicom-node train` and stored in the evaluator's
bundle, `configs/fusion.json`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.pipeline import ModelError, OperatingPoint

DECIMALS = 4
"""Probabilities are rounded, so that the last bits of a float never decide about bytes or verdicts."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One sequence's scale: log-odds = slope x mean + intercept, with `weight` in the average."""

    slope: float
    intercept: float
    weight: float


@dataclass(frozen=True, slots=True)
class Fusion:
    """The fitted numbers."""

    top_fraction: float
    """Share of the kept slices, highest log-odds first, that a sequence's score is the mean of."""
    at_least: int
    """... but no fewer slices than this, where there are so many."""
    sequences: Mapping[str, Weight]
    slope: float
    intercept: float

    def sequence_score(self, logits: Sequence[float]) -> float | None:
        """Mean log-odds of the top slices; None without slices."""
        if not logits:
            return None
        count = min(len(logits), max(self.at_least, math.ceil(self.top_fraction * len(logits))))
        return math.fsum(sorted(logits, reverse=True)[:count]) / count

    def sequence_probability(self, need: str, score: float | None) -> float | None:
        """Calibrated probability of sarcoma from one sequence alone."""
        return None if score is None else sigmoid(self._scaled(need, score))

    def case_probability(self, scores: Mapping[str, float | None]) -> float | None:
        """Calibrated probability of sarcoma; None where no sequence has a score."""
        known = {need: score for need, score in scores.items() if need in self.sequences}
        there = {need: score for need, score in known.items() if score is not None}
        total = math.fsum(self.sequences[need].weight for need in there)
        if not there or total <= 0:
            return None
        parts = (self.sequences[need].weight * self._scaled(need, score) for need, score in there.items())
        return sigmoid(self.slope * math.fsum(parts) / total + self.intercept)

    def _scaled(self, need: str, score: float) -> float:
        weight = self.sequences[need]
        return weight.slope * score + weight.intercept


def sigmoid(logit: float) -> float:
    """Rounded to DECIMALS."""
    bounded = max(-30.0, min(30.0, logit))
    return round(1.0 / (1.0 + math.exp(-bounded)), DECIMALS)


def read_fusion(config: Mapping[str, Any]) -> Fusion:  # Any: parsed JSON
    """Raises ModelError when a number is missing."""
    try:
        return Fusion(
            top_fraction=float(config["top_fraction"]),
            at_least=int(config["at_least"]),
            sequences={
                need: Weight(float(value["slope"]), float(value["intercept"]), float(value["weight"]))
                for need, value in config["sequences"].items()
            },
            slope=float(config["slope"]),
            intercept=float(config["intercept"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"fusion.json of the evaluator lacks or spoils {error}") from error


def read_operating_point(config: Mapping[str, Any]) -> OperatingPoint:  # Any: parsed JSON
    """Raises ModelError when a number is missing, InvalidValue when they are out of order."""
    try:
        point = config["operating_point"]
        return OperatingPoint(
            threshold=float(point["threshold"]), low=float(point["low"]), high=float(point["high"]),
            chosen_on=str(point["chosen_on"]),
            sensitivity=_interval(point.get("sensitivity")), specificity=_interval(point.get("specificity")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"the operating point in fusion.json lacks or spoils {error}") from error


def _interval(value: Sequence[float] | None) -> tuple[float, float, float] | None:
    if value is None:
        return None
    estimate, lower, upper = value
    return float(estimate), float(lower), float(upper)
