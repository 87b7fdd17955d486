"""Fit what stands between scores and verdicts: thresholds, scales, weights, the operating point.

Everything here is fitted on calibration cases, which no network that scored them has learned
from, and which are not the cases the result is then judged on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dicom_node.train.dataset import NEEDS, Slices
from dicom_node.train.statistics import auroc
from pipelines.uterine_mri.fusion import Fusion, Weight

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
CaseScores = dict[str, float | None]

TOP_FRACTION = 0.5
AT_LEAST = 3
TOLERATED = 0.05
"""Share of either kind that may lie beyond the indeterminate band on its wrong side."""
HALF_BAND = math.log(2.0)
"""The band reaches at least this far from the threshold, in log-odds: a factor of two in odds."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the networks said of rows of `Slices`; NaN where a network was not asked."""

    filter_logits: Floats
    evaluator_logits: Floats


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that a verdict needs beside the networks."""

    keep_from: float
    """Probability of tumour from which the filter keeps a slice."""
    fusion: Fusion
    threshold: float
    low: float
    high: float


def fit(scored: Scored, slices: Slices, cases: Sequence[int]) -> Calibration:
    """Fit on these cases alone."""
    rows = np.isin(slices.case, cases)
    tumour = tumour_probabilities(scored.filter_logits[rows])
    keep_from = best_cut(tumour, slices.tumour[rows], within=(0.05, 0.95))
    by_case = {case: case_scores(scored, slices, case, keep_from) for case in cases}
    truth = np.array([slices.case_is_sarcoma[case] for case in cases])
    fusion = fit_fusion([by_case[case] for case in cases], truth)
    said = [fusion.case_probability(by_case[case]) for case in cases]
    there = np.array([value is not None for value in said])
    probabilities = np.array([value for value in said if value is not None], np.float64)
    return _with_band(keep_from, fusion, probabilities, truth[there])


def case_scores(scored: Scored, slices: Slices, case: int, keep_from: float) -> CaseScores:
    """Mean log-odds of the top slices by sequence, as the pipeline computes it."""
    mine = slices.case == case
    kept = mine & (tumour_probabilities(scored.filter_logits) >= keep_from)
    blank = Fusion(TOP_FRACTION, AT_LEAST, {}, 1.0, 0.0)
    scores: CaseScores = {}
    for at, need in enumerate(NEEDS):
        logits = scored.evaluator_logits[kept & (slices.need == at)]
        scores[need] = blank.sequence_score([float(logit) for logit in np.round(logits, 4)])
    return scores


def fit_fusion(scores: Sequence[Mapping[str, float | None]], truth: Bools) -> Fusion:
    """Platt's scale per sequence; weights by how well each ranks the cases; Platt's scale on the average.

    A sequence that ranks no better than a coin has (almost) no weight: weight = max(2 AUROC - 1, 0.02).
    """
    weights: dict[str, Weight] = {}
    for need in NEEDS:
        found = [score[need] for score in scores]
        there = np.array([value is not None for value in found])
        x, y = np.array([value for value in found if value is not None], np.float64), truth[there]
        slope, intercept = platt(x, y)
        ranking = auroc([*x[y]], [*x[~y]])
        weight = max(2 * ranking - 1, 0.02) if ranking == ranking else 0.02
        weights[need] = Weight(round(slope, 4), round(intercept, 4), round(float(weight), 4))
    fusion = Fusion(TOP_FRACTION, AT_LEAST, weights, 1.0, 0.0)
    fused = [_fused_logit(fusion, score) for score in scores]
    usable = np.array([value is not None for value in fused])
    slope, intercept = platt(np.array([v for v in fused if v is not None], np.float64), truth[usable])
    return replace(fusion, slope=round(slope, 4), intercept=round(intercept, 4))


def platt(x: Floats, y: Bools, ridge: float = 0.5) -> tuple[float, float]:
    """(slope, intercept) of a logistic regression, drawn towards (1, 0) by a small ridge.

    Targets are Platt's, (n+1)/(n+2) and 1/(n+2), so that separated classes keep finite odds
    (Platt, in: Advances in Large Margin Classifiers, 1999).
    """
    positives, negatives = int(y.sum()), int((~y).sum())
    target = np.where(y, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    start = np.array([1.0, 0.0])

    def cost(beta: Floats) -> float:
        logit = design @ beta
        miss = (np.logaddexp(0, logit) - target * logit).sum()
        return float(miss + ridge / 2 * ((beta - start) ** 2).sum())

    beta = start
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (p - target) + ridge * (beta - start)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + ridge * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while cost(beta - step) > cost(beta) and np.abs(step).max() > 1e-9:
            step = step / 2  # a full Newton step may overshoot where the curve is flat
        beta = beta - step
        if np.abs(step).max() < 1e-9:
            break
    return max(float(beta[0]), 0.0), float(beta[1])


def best_cut(p: Floats, y: Bools, *, within: tuple[float, float]) -> float:
    """The cut with the highest accuracy.

    Of equally good cuts the middle of the widest gap between neighbouring values, as the one that is
    least likely to be chance.
    """
    values = np.unique(np.concatenate([p, within]))
    values = values[(values >= within[0]) & (values <= within[1])]
    cuts = (values[:-1] + values[1:]) / 2
    positive, negative = np.sort(p[y]), np.sort(p[~y])
    right = len(positive) - np.searchsorted(positive, cuts) + np.searchsorted(negative, cuts)
    best = np.flatnonzero(right == right.max())
    widest = best[np.argmax((values[1:] - values[:-1])[best])]
    return round(float(cuts[widest]), 4)


def _with_band(keep_from: float, fusion: Fusion, p: Floats, y: Bools) -> Calibration:
    """The threshold is the share of sarcomas: of calibrated probabilities, the point at which the mean of
    sensitivity and specificity is highest. A cut searched on a few dozen cases would follow their noise.
    """
    threshold = round(min(max(float(y.mean()), 0.02), 0.98), 4) if len(y) else 0.5
    sarcoma, leiomyoma = np.sort(p[y]), np.sort(p[~y])[::-1]
    low = float(sarcoma[math.floor(TOLERATED * len(sarcoma))]) if len(sarcoma) else threshold
    high = float(leiomyoma[math.floor(TOLERATED * len(leiomyoma))]) + 1e-4 if len(leiomyoma) else threshold
    centre = math.log(threshold / (1 - threshold))
    low = min(low, 1 / (1 + math.exp(-(centre - HALF_BAND))))
    high = max(high, 1 / (1 + math.exp(-(centre + HALF_BAND))))
    return Calibration(keep_from, fusion, threshold, round(max(low, 0.0), 4), round(min(high, 1.0), 4))


def _fused_logit(fusion: Fusion, scores: Mapping[str, float | None]) -> float | None:
    p = fusion.case_probability(scores)
    if p is None:
        return None
    bounded = min(max(p, 1e-4), 1 - 1e-4)
    return math.log(bounded / (1 - bounded))


def tumour_probabilities(logits: Floats) -> Floats:
    """Of tumour; NaN stays NaN and is never kept."""
    result: Floats = np.round(1 / (1 + np.exp(-np.clip(logits, -30, 30))), 4)
    return result
