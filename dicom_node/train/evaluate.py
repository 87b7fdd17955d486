"""The AutoDiag-AI table from the scores of training: every figure with n and a 95 % interval.

Nothing is chosen on what it is judged on: a fold's thresholds come from its calibration part,
the shipped ones from all calibration parts together, and the untouched cases choose nothing.
A case in which the filter keeps no slice has no verdict and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.train.calibrate import Calibration, Scored, case_scores, fit, tumour_probabilities
from dicom_node.train.dataset import NEEDS, Slices
from dicom_node.train.statistics import Proportion, auroc, balanced, finite, proportion
from dicom_node.train.train import Scores

REPORTED = {
    "source": "AutoDiag-AI (The University of Tokyo): real patients of three hospitals, mean over models",
    "filter_accuracy": 0.9268,
    "cross_validated_accuracy": 0.8932,
    "untouched_accuracy": 0.9244,
    "radiologist_accuracy": 0.8438,
}
"""What was reported for the system that this one is modelled on. On real patients: not comparable."""
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Probabilities = list[float | None]


def evaluate(scores: Scores, facts: dict[str, Any]) -> tuple[dict[str, Any], Calibration]:  # Any: JSON-able
    """(the evaluation as JSON, the shipped calibration). `facts` say how it was trained."""
    folds = len(scores.folds_on_development)
    numbers = np.array(scores.fold)
    calibrations = [
        fit(scored, scores.development, _in(numbers, (f + 1) % folds))
        for f, scored in enumerate(scores.folds_on_development)
    ]
    shipped = fit(_pooled(scores, numbers, folds), scores.development, list(range(len(numbers))))
    rows = {
        "filter": _filter_rows(scores, calibrations, shipped, numbers),
        "cross_validated": _cross_validated(scores, calibrations, numbers),
        "untouched": _untouched(scores, calibrations, shipped),
    }
    document = {
        "data": "Generated pelvic MR phantoms only. No patient's data. Not evidence of clinical performance.",
        "trained": facts,
        "cohorts": {"development": _counts(scores.development), "untouched": _counts(scores.untouched)},
        "split": (
            f"{folds} folds by patient, stratified: {folds - 2} of them to learn from, one to calibrate on, "
            "one to be judged on; the untouched cases are other seeds and another mix of scanners"
        ),
        "reported": REPORTED,
        "results": rows,
        "shipped_calibration": _calibration_json(shipped),
    }
    return document, shipped


def _in(numbers: Ints, fold: int) -> list[int]:
    return [int(case) for case in np.flatnonzero(numbers == fold)]


def _pooled(scores: Scores, numbers: Ints, folds: int) -> Scored:
    """Every development case as scored by the networks that used it for calibration only."""
    slices = scores.development
    judge = (numbers[slices.case] - 1) % folds
    pick = np.arange(len(slices.case))
    stacked = [np.stack([getattr(s, which) for s in scores.folds_on_development])
               for which in ("filter_logits", "evaluator_logits")]  # fmt: skip
    return Scored(stacked[0][judge, pick], stacked[1][judge, pick])


def _counts(slices: Slices) -> dict[str, int]:
    sarcomas = int(slices.case_is_sarcoma.sum())
    return {
        "cases": len(slices.specs), "sarcoma": sarcomas, "leiomyoma": len(slices.specs) - sarcomas,
        "slices": len(slices.case), "slices_with_tumour": int(slices.tumour.sum()),
    }  # fmt: skip


def _filter_rows(
    scores: Scores, calibrations: Sequence[Calibration], shipped: Calibration, numbers: Ints
) -> dict[str, Any]:  # Any: JSON-able
    development, untouched = scores.development, scores.untouched
    kept = np.zeros(len(development.case), bool)
    for f, calibration in enumerate(calibrations):
        tumour = tumour_probabilities(scores.folds_on_development[f].filter_logits)
        kept |= (numbers[development.case] == f) & (tumour >= calibration.keep_from)
    later = tumour_probabilities(scores.shipped_on_untouched.filter_logits) >= shipped.keep_from
    return {
        "cross_validated": _slice_accuracy(kept, development),
        "untouched_shipped": _slice_accuracy(later, untouched),
    }


def _slice_accuracy(kept: Bools, slices: Slices) -> dict[str, Any]:  # Any: JSON-able
    """Accuracy over slices; its interval by bootstrap over patients, whose slices are alike."""
    right = kept == slices.tumour
    cases = len(slices.specs)
    hits, totals = np.bincount(slices.case, right, cases), np.bincount(slices.case, minlength=cases)
    rng = np.random.default_rng(0)
    drawn = rng.integers(cases, size=(2000, cases))
    means = hits[drawn].sum(axis=1) / totals[drawn].sum(axis=1)
    by_need = {need: round(float(right[slices.need == at].mean()), 4) for at, need in enumerate(NEEDS)}
    return {
        "accuracy": round(float(right.mean()), 4),
        "lower": round(float(np.quantile(means, 0.025)), 4),
        "upper": round(float(np.quantile(means, 0.975)), 4),
        "slices": len(right), "cases": cases,
        "sensitivity": round(float(kept[slices.tumour].mean()), 4),
        "specificity": round(float((~kept[~slices.tumour]).mean()), 4),
        "accuracy_by_sequence": by_need,
    }  # fmt: skip


def _cross_validated(
    scores: Scores, calibrations: Sequence[Calibration], numbers: Ints
) -> dict[str, Any]:  # Any: JSON-able
    """Each case judged once, by the fold whose networks and thresholds never saw it."""
    slices = scores.development
    said: Probabilities = [
        _probability(scores.folds_on_development[f], slices, case, calibrations[f])
        for case, f in enumerate(numbers)
    ]
    called = [p is not None and p >= calibrations[f].threshold for p, f in zip(said, numbers, strict=True)]
    band = [p is not None and calibrations[f].low <= p < calibrations[f].high
            for p, f in zip(said, numbers, strict=True)]  # fmt: skip
    line = row(called, said, slices.case_is_sarcoma)
    line["indeterminate"] = proportion(sum(band), len(band)).to_json()
    line["outside_the_band"] = _outside(called, said, band, slices.case_is_sarcoma)
    line["auroc_by_sequence"] = {
        need: _auroc_of(need, scores, calibrations, numbers) for need in NEEDS
    }  # fmt: skip
    return line


def _auroc_of(need: str, scores: Scores, calibrations: Sequence[Calibration], numbers: Ints) -> float | None:
    """Of one sequence alone."""
    truth = scores.development.case_is_sarcoma
    said: Probabilities = []
    for case, f in enumerate(numbers):
        c = calibrations[f]
        found = case_scores(scores.folds_on_development[f], scores.development, case, c.keep_from)
        said.append(c.fusion.sequence_probability(need, found[need]))
    return finite(_auroc(said, truth))


def _untouched(
    scores: Scores, calibrations: Sequence[Calibration], shipped: Calibration
) -> dict[str, Any]:  # Any: JSON-able
    slices, truth = scores.untouched, scores.untouched.case_is_sarcoma
    by_model = [
        [_probability(scored, slices, case, calibration) for case in range(len(slices.specs))]
        for scored, calibration in zip(scores.folds_on_untouched, calibrations, strict=True)
    ]
    rows = [
        row([p is not None and p >= calibration.threshold for p in said], said, truth)
        for said, calibration in zip(by_model, calibrations, strict=True)
    ]
    mean_hits = sum(row["accuracy"]["hits"] for row in rows) / len(rows)
    margins = [
        [p - one.threshold for p, one in zip(case, calibrations, strict=True) if p is not None]
        for case in zip(*by_model, strict=True)
    ]
    ensemble: Probabilities = [float(np.mean(m)) if m else None for m in margins]
    cases = range(len(slices.specs))
    final = [_probability(scores.shipped_on_untouched, slices, case, shipped) for case in cases]
    return {
        "mean_over_models": {
            "accuracy": proportion(mean_hits, len(truth)).to_json(),
            "accuracy_by_model": [row["accuracy"]["estimate"] for row in rows],
        },
        "ensemble": row([m is not None and m >= 0 for m in ensemble], ensemble, truth),
        "shipped": row([p is not None and p >= shipped.threshold for p in final], final, truth),
    }


def _probability(scored: Scored, slices: Slices, case: int, calibration: Calibration) -> float | None:
    return calibration.fusion.case_probability(case_scores(scored, slices, case, calibration.keep_from))


def row(called: Sequence[bool], said: Probabilities, truth: Bools) -> dict[str, Any]:  # Any: JSON-able
    """Accuracy, sensitivity, specificity, their mean. No verdict (None) is wrong for either kind."""
    judged = np.array([p is not None for p in said])
    positive = np.array(called)
    sensitivity = proportion(int((positive & truth).sum()), int(truth.sum()))
    specificity = proportion(int((~positive & judged & ~truth).sum()), int((~truth).sum()))
    middle, lower, upper = balanced(sensitivity, specificity)
    return {
        "accuracy": _correct(positive, judged, truth).to_json(),
        "sensitivity": sensitivity.to_json(),
        "specificity": specificity.to_json(),
        "mean": {"estimate": finite(middle), "lower": finite(lower), "upper": finite(upper)},
        "auroc": finite(_auroc(said, truth)),
        "without_verdict": int((~judged).sum()),
    }


def _correct(positive: Bools, judged: Bools, truth: Bools) -> Proportion:
    return proportion(int(((positive == truth) & judged).sum()), len(truth))


def _outside(
    called: Sequence[bool], said: Probabilities, band: Sequence[bool], truth: Bools
) -> dict[str, Any]:  # Any: JSON-able
    """How often a definite verdict is right."""
    definite = np.array([p is not None for p in said]) & ~np.array(band)
    return proportion(int((np.array(called) == truth)[definite].sum()), int(definite.sum())).to_json()


def _auroc(said: Probabilities, truth: Bools) -> float:
    pairs = [(p, bool(y)) for p, y in zip(said, truth, strict=True) if p is not None]
    return auroc([p for p, y in pairs if y], [p for p, y in pairs if not y])


def _calibration_json(calibration: Calibration) -> dict[str, Any]:  # Any: JSON-able
    return asdict(calibration)
