"""From cells to the slide: one probability, a grade, whether there was enough to look at, what to do.

A slide of ten thousand cells is abnormal when a few are. Its score is the mean log-odds of the `top` most
suspicious cells; Platt's scale makes a probability of it. Numbers come from `configs/slide.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import Adequacy, Certainty, ModelError, OperatingPoint, code

DECIMALS = 4
"""Probabilities are rounded, so that the last bits of a float never decide about bytes or verdicts."""
SATISFACTORY = code("specimen-satisfactory")
UNSATISFACTORY = code("specimen-unsatisfactory")
Floats = npt.NDArray[np.float32]

NO_REVIEW, REVIEW, PRIORITY = "no further review", "review", "priority review"


@dataclass(frozen=True, slots=True)
class SlideRule:
    """The fitted numbers, and what a site may choose."""

    top: int
    slope: float
    intercept: float
    call_from: float
    """Probability of abnormal from which a cell is called so; below it is called normal."""
    worst_grade: bool
    """Name the slide after the worst cell that is called, however alone it is."""
    cells_needed: int
    operating_point: OperatingPoint

    def probability(self, suspicion: Floats) -> float:
        """Of an abnormal slide, from the log-odds (n,) of its cells; 0 for a slide without cells."""
        if not len(suspicion):
            return 0.0
        top = np.sort(suspicion.astype(np.float64))[::-1][: self.top]
        logit = self.slope * float(top.mean()) + self.intercept
        return round(float(1 / (1 + np.exp(-np.clip(logit, -30, 30)))), DECIMALS)

    def labels(self, probability: Floats) -> npt.NDArray[np.uint8]:
        """(n,) class of each cell: normal, or of the abnormal ones the likeliest."""
        abnormal = 1 - probability[:, 0] >= self.call_from
        return np.where(abnormal, 1 + probability[:, 1:].argmax(axis=1), 0).astype(np.uint8)

    def adequacy(self, cells: int) -> Adequacy:
        """Liquid-based: at least 5,000 squamous cells (The Bethesda System 2014)."""
        enough = cells >= self.cells_needed
        said = (
            f"{cells} cells were found, of {self.cells_needed} that a satisfactory specimen has"
            if not enough else f"{cells} cells were found; {self.cells_needed} are needed"
        )  # fmt: skip
        return Adequacy(cells, self.cells_needed, SATISFACTORY if enough else UNSATISFACTORY, said)


def suspicion(probability: Floats) -> Floats:
    """(n,) by which cells are ranked: log-odds of abnormal, where LSIL counts less than what is worse."""
    heavy = np.array([0.0, 0.3, *([1.0] * (probability.shape[1] - 2))], np.float32)
    share = np.clip(probability @ heavy, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(share / (1 - share)), np.float32)


def triage(certainty: Certainty, adequacy: Adequacy) -> str:
    if certainty is Certainty.POSITIVE:
        return PRIORITY
    if certainty is Certainty.INDETERMINATE or adequacy.code == UNSATISFACTORY:
        return REVIEW
    return NO_REVIEW


def read_rule(config: Mapping[str, Any]) -> SlideRule:  # Any: parsed JSON
    """Raises ModelError where the bundle's file lacks something."""
    try:
        point = config["operating_point"]
        return SlideRule(
            top=int(config["top"]), slope=float(config["slope"]), intercept=float(config["intercept"]),
            call_from=float(config["call_from"]), worst_grade=bool(config["worst_grade"]),
            cells_needed=int(config["cells_needed"]),
            operating_point=OperatingPoint(
                float(point["threshold"]), float(point["low"]), float(point["high"]), str(point["chosen_on"]),
                _three(point.get("sensitivity")), _three(point.get("specificity")),
            ),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"slide.json is not usable: {error!r}") from error


def _three(values: Any) -> tuple[float, float, float] | None:  # Any: parsed JSON
    if values is None:
        return None
    middle, low, high = (float(value) for value in values)
    return middle, low, high
