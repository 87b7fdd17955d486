"""What cervical_cells is judged by: cells, the search for one among thousands, slides, focal planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError
from dicom_node.train.calibrate import platt
from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.focus import Fitted, judge_planes, plane_lines
from dicom_node.train.cells.judge import (
    Line,
    as_share,
    auroc_line,
    best_temperature,
    by_class,
    confusion,
    mean_line,
    ranked,
    share_line,
    softmax,
)
from dicom_node.train.cells.learn import Report
from dicom_node.train.cells.setup import Setup
from dicom_node.train.cells.tasks import BETHESDA, CERVICAL_CELLS
from dicom_node.train.statistics import by_groups, ranking
from pipelines.cervical_cytology.slide import suspicion

if TYPE_CHECKING:
    from pathlib import Path

    import torch

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
JUDGED, SHIPPED = (0, 3), 3
"""Folds that are judged, the only two that hold SCC; and the one whose network is shipped."""
NORMALS, SHOWN = 5000, 30
CALLED_WRONGLY = 0.005
"""Share of normal cells that may be called abnormal: 25 of 5,000."""
TOLERATED = 0.05
"""Share of either kind of slides that may lie beyond the indeterminate band on its wrong side."""
SLIDES = 400
"""Slides of either kind that the slide's numbers are fitted on, made of cells' scores."""
MANY = (1, 50)
"""Abnormal cells of such a slide, drawn on a logarithmic scale."""


@dataclass(frozen=True)
class Out:
    """Scores of all pictures, each by a network that did not see it; nan where all saw it."""

    logits: Floats
    crops: Crops
    allowed: Bools
    fold: Ints
    part: Ints

    def rows(self, part: int, *names: str) -> Bools:
        """Scored rows of a part with one of these labels."""
        return np.asarray((self.part == part) & self.crops.of(*names) & ~np.isnan(self.logits[:, 0]))


def judge_screening(
    out: Out, shipped: torch.nn.Module, bundle: Path, setup: Setup, report: Report
) -> tuple[dict[str, Any], dict[str, Any]]:  # Any: JSON-able
    """(the evaluation, further configs of the bundle by name)."""
    sure = out.rows(0, "NILM", "LSIL", "HSIL", "SCC")
    temperature = best_temperature(out.logits[sure], out.allowed[sure].argmax(axis=1))
    probability = softmax(out.logits, temperature)
    results: dict[str, Any] = {"temperature": temperature}
    lines: list[Line] = []
    _cells(out, probability, results, lines)
    call_from = _calling(out, probability, results, lines)
    for part, kind in ((0, "as photographed"), (1, "on glass")):
        found = gallery_rate(out, probability, part)
        results[f"gallery_{part}"] = found
        lines.append(share_line(f"1 HSIL or SCC among {NORMALS} NILM is in the first {SHOWN}, {kind}", found))
    drawn = _drawn_rate(out, probability)
    results["gallery_drawn"] = drawn
    lines.append(share_line(f"The same of drawn cells, {drawn['normals']} normal ones to draw from", drawn))
    rule = _slides(out, probability, results, lines)
    planes = judge_planes(shipped, bundle, temperature, report)
    results["planes"] = planes.results
    lines += plane_lines(planes)
    document = _document(out, results, lines)
    return document, {
        "planes": {"focus": planes.focus, "abnormality": planes.abnormality, "temperature": temperature},
        "slide": rule | {"call_from": call_from, "worst_grade": False, "cells_needed": 5000},
    }


def _cells(out: Out, probability: Floats, results: dict[str, Any], lines: list[Line]) -> None:
    """Four classes, and what is worse against normal, on real cells as photographed."""
    rows = out.rows(0, *BETHESDA)
    truth, called = out.allowed[rows].argmax(axis=1), probability[rows].argmax(axis=1)
    group = out.crops.group[rows]
    right = truth == called
    results["accuracy"] = by_groups(lambda at: float(right[at].mean()), group)
    results["by_class"] = by_class(truth, called, BETHESDA)
    results["confusion"] = confusion(truth, called, len(BETHESDA)).tolist()
    blocks = len(np.unique(group))
    lines.append(
        mean_line("Accuracy, 4 classes", results["accuracy"], f"{len(truth)} cells of {blocks} blocks")
    )
    lines += [
        share_line(f"Sensitivity, {name}", results["by_class"][name]["sensitivity"]) for name in BETHESDA
    ]
    lines += [
        share_line(f"Specificity, {name}", results["by_class"][name]["specificity"]) for name in BETHESDA
    ]
    severe_called = (called >= 2)[truth >= 2]
    results["high_as_one"] = as_share(int(severe_called.sum()), len(severe_called)).to_json()
    lines.append(share_line("Sensitivity, HSIL and SCC as one", results["high_as_one"]))
    normal, high = out.rows(0, "NILM"), out.rows(0, "HSIL", "SCC")
    severe, abnormal = probability[:, 2] + probability[:, 3], 1 - probability[:, 0]
    beside = normal & np.isin(out.crops.group, out.crops.group[high])
    for name, what, score, positive, negative in (
        ("abnormal", "AUROC, LSIL and worse against NILM", abnormal,
         out.rows(0, "LSIL", "HSIL", "SCC"), normal),
        ("high", "AUROC, HSIL and SCC against NILM", severe, high, normal),
        ("high_same_block", "The same, NILM of blocks with HSIL or SCC only", severe, high, beside),
        ("high_with_asc", "The same with ASC-H as HSIL, ASC-US as NILM", severe,
         out.rows(0, "HSIL", "SCC", "ASC-H"), out.rows(0, "NILM", "ASC-US")),
    ):  # fmt: skip
        results[f"auroc_{name}"] = ranked(score, positive, negative, out.crops.group)
        lines.append(auroc_line(what, results[f"auroc_{name}"], "blocks"))


def _calling(out: Out, probability: Floats, results: dict[str, Any], lines: list[Line]) -> float:
    """The probability from which a cell is called abnormal, so that few normal ones of any judged fold are;
    each fold is judged with the probability that the other gives."""
    abnormal = 1 - probability[:, 0]
    folds = _folds(out)
    by_fold = {
        fold: round(
            float(np.quantile(abnormal[out.rows(1, "NILM") & (out.fold == fold)], 1 - CALLED_WRONGLY)), 4
        )
        for fold in folds
    }
    other = {fold: max([by_fold[one] for one in folds if one != fold] or [by_fold[fold]]) for fold in folds}
    results["call_from_by_fold"] = {str(fold): value for fold, value in by_fold.items()}
    for name, names in (("NILM", ("NILM",)), ("HSIL and SCC", ("HSIL", "SCC")), ("LSIL", ("LSIL",)),
                        ("ASC-US", ("ASC-US",))):  # fmt: skip
        rows = [out.rows(1, *names) & (out.fold == fold) for fold in folds]
        hits = sum(int((abnormal[at] >= other[fold]).sum()) for at, fold in zip(rows, folds, strict=True))
        row = as_share(hits, sum(int(at.sum()) for at in rows)).to_json()
        results[f"called_{name}"] = row
        lines.append(share_line(f"{name} called abnormal, by the other fold's probability", row))
    return max(by_fold.values())


def _folds(out: Out) -> list[int]:
    """Judged folds with normal and abnormal cells. Raises ModelError where there is none."""
    kinds = (("NILM",), ("LSIL", "HSIL", "SCC"))
    found = [
        int(fold) for fold in np.unique(out.fold[out.fold >= 0])
        if all((out.rows(1, *names) & (out.fold == fold)).any() for names in kinds)
    ]  # fmt: skip
    if not found:
        raise ModelError("no fold has normal and abnormal cells to make slides of")
    return found


def gallery_rate(out: Out, probability: Floats, part: int, *, draws: int = 20) -> dict[str, Any]:  # Any: JSON
    """How often an HSIL or SCC cell is among the first 30 of 5,001: every such cell with `draws` draws of
    normal cells of its fold, which repeat since there are fewer; a hit where most draws are."""
    rng, score = np.random.default_rng(0), suspicion(probability.astype(np.float32))
    hits = n = 0
    for fold in np.unique(out.fold[out.rows(part, "HSIL", "SCC")]):
        normals = score[out.rows(part, "NILM") & (out.fold == fold)]
        drawn = np.sort(rng.choice(normals, (draws, NORMALS)), axis=1)[:, -SHOWN]
        for value in score[out.rows(part, "HSIL", "SCC") & (out.fold == fold)]:
            hits, n = hits + int((value > drawn).mean() > 0.5), n + 1
    return as_share(hits, n).to_json()


def _drawn_rate(out: Out, probability: Floats) -> dict[str, Any]:  # Any: JSON-able
    """The same of drawn cells of a seed that no network saw."""
    rng, score = np.random.default_rng(0), suspicion(probability.astype(np.float32))
    normals, high = score[out.rows(2, "NILM")], score[out.rows(2, "HSIL", "SCC")]
    drawn = np.sort(rng.choice(normals, (20, NORMALS)), axis=1)[:, -SHOWN]
    hits = sum(int((value > drawn).mean() > 0.5) for value in high)
    return as_share(hits, len(high)).to_json() | {"normals": len(normals)}


def _slides(out: Out, probability: Floats, results: dict[str, Any], lines: list[Line]) -> dict[str, Any]:
    """The slide's rule, fitted on slides of all judged folds; each fold is judged by one fitted on "
    "the other."""
    rng, folds = np.random.default_rng(0), _folds(out)
    made = {fold: _made_slides(out, probability, fold, rng) for fold in folds}
    top = max(
        (1, 3, 5, 10),
        key=lambda n: sum(ranking(_top(m.positive, n), _top(m.negative, n)) for m in made.values()),
    )
    hits = dict.fromkeys(("sensitivity", "specificity"), 0)
    many: list[tuple[int, bool]] = []
    for fold in folds:
        rule = _rule([made[one] for one in folds if one != fold] or [made[fold]], top)
        positive, negative = (
            _chance(rule, _top(slides, top)) for slides in (made[fold].positive, made[fold].negative)
        )
        hits["sensitivity"] += int((positive >= rule.threshold).sum())
        hits["specificity"] += int((negative < rule.threshold).sum())
        many += zip(made[fold].many.tolist(), (positive >= rule.threshold).tolist(), strict=True)
    rows = {name: as_share(n, SLIDES * len(folds)).to_json() for name, n in hits.items()}
    within = [ranking(_top(m.positive, top), _top(m.negative, top)) for m in made.values()]
    results["slides"] = rows | {"top": top, "auroc_within_fold": [round(value, 4) for value in within]}
    for name, row in rows.items():
        lines.append(share_line(f"Slides made of scores, {name}, fitted on the other fold", row))
    for least, most in ((1, 1), (2, 5), (6, 20), (21, 50)):
        said = [right for count, right in many if least <= count <= most]
        row = as_share(sum(said), len(said)).to_json()
        results["slides"][f"sensitivity_{least}_{most}"] = row
        lines.append(share_line(f"Their sensitivity with {least} to {most} abnormal cells", row))
    shipped = _rule([*made.values()], top)
    chosen = (
        f"{SLIDES * len(folds)} abnormal and as many normal slides made of scores of {NORMALS} real "
        "cells each "
        f"(CRIC, {len(folds)} folds, scored by networks that never saw them), {MANY[0]} to {MANY[1]} "
        "abnormal "
        f"cells on a slide; at most {TOLERATED:.0%} of either kind lie beyond the indeterminate band on its "
        "wrong side. Sensitivity and specificity are of rules fitted on the other fold. No slide of a "
        "patient was among them."
    )
    return {
        "top": top, "slope": round(shipped.slope, 4), "intercept": round(shipped.intercept, 4),
        "operating_point": {
            "threshold": shipped.threshold, "low": shipped.threshold, "high": shipped.high,
            "chosen_on": chosen,
            **{name: [row[key] for key in ("estimate", "lower", "upper")] for name, row in rows.items()},
        },
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rule:
    slope: float
    intercept: float
    threshold: float
    high: float


def _rule(made: list[_Made], top: int) -> _Rule:
    """Platt's scale on some slides, and the band: below it few abnormal ones, above it few normal ones."""
    parts = [(_top(m.positive, top), _top(m.negative, top)) for m in made]
    score = np.concatenate([part for pair in parts for part in pair])
    truth = np.concatenate([np.repeat([True, False], [len(p), len(n)]) for p, n in parts])
    slope, intercept = platt(score, truth)
    chance = _chance(_Rule(slope, intercept, 0.0, 1.0), score)
    threshold = round(min(max(float(np.quantile(chance[truth], TOLERATED)), 0.01), 0.99), 4)
    high = round(max(float(np.quantile(chance[~truth], 1 - TOLERATED)), threshold), 4)
    return _Rule(slope, intercept, threshold, high)


def _chance(rule: _Rule, score: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(rule.slope * score + rule.intercept, -30, 30))))


@dataclass(frozen=True)
class _Made:
    positive: list[Floats]
    negative: list[Floats]
    """Suspicion of the most suspicious cells of each slide."""
    many: Ints
    """Abnormal cells of each positive slide."""


def _made_slides(out: Out, probability: Floats, fold: int, rng: np.random.Generator) -> _Made:
    """Slides as lists of scores: NORMALS normal cells of one fold, and abnormal ones of the same."""
    score = suspicion(probability.astype(np.float32)).astype(np.float64)
    normals = score[out.rows(1, "NILM") & (out.fold == fold)]
    abnormal = score[out.rows(1, "LSIL", "HSIL", "SCC") & (out.fold == fold)]
    positive, negative, many = [], [], []
    for _ in range(SLIDES):
        count = round(float(np.exp(rng.uniform(np.log(MANY[0]), np.log(MANY[1] + 0.49)))))
        negative.append(np.sort(rng.choice(normals, NORMALS))[::-1][:SHOWN])
        both = np.concatenate([rng.choice(normals, NORMALS), rng.choice(abnormal, count)])
        positive.append(np.sort(both)[::-1][:SHOWN])
        many.append(count)
    return _Made(positive, negative, np.array(many))


def _top(slides: list[Floats], top: int) -> Floats:
    return np.array([scores[:top].mean() for scores in slides])


def _document(out: Out, results: dict[str, Any], lines: list[Line]) -> dict[str, Any]:  # Any: JSON-able
    real = out.part == 0
    counts = {name: int((real & out.crops.of(name)).sum()) for name in out.crops.names}
    held = real & (out.fold == SHIPPED)
    held_counts = {name: int((held & out.crops.of(name)).sum()) for name in out.crops.names}
    learnt = real & (out.fold != SHIPPED) & out.allowed.any(axis=1)
    return {
        "data": (
            "Real cervical cells of conventional smears (CRIC Cervix), in folds by block of neighbouring "
            "cells, and drawn cells. Not evidence of clinical performance."
        ),
        "source": "CRIC Cervix (Rezende et al., Sci Data 2021), and drawn by `dicom-node phantom slide`",
        "trained_on": (
            f"{int(learnt.sum())} real cervical cells (CRIC Cervix) and drawn ones; HSIL of 3 blocks, "
            "SCC of 1. Start: ImageNet."
        ),
        "limits": (
            "Research use only. First weights, of conventional smears of one collection; HSIL and SCC come "
            "from 4 blocks of cells. Not evidence of clinical performance. Not a medical device."
        ),
        "warning": "HSIL and SCC come from four blocks of cells of one collection.",
        "reported_by": "reported elsewhere",
        "facts": [
            "Real cells: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + ".",
            f"Four folds by block, of which {JUDGED[0]} and {JUDGED[1]}, the only ones with SCC, are "
            "judged, each "
            f"by a network that learned from the other three. The shipped weights are those of fold "
            f"{SHIPPED}, whose cells "
            f"({', '.join(f'{n} {name}' for name, n in held_counts.items())}) they never saw.",
            "ASC-H is learned as HSIL, ASC-US from neither side; figures are without both unless they "
            "say so.",
            "Every real cell was learned from as photographed and as it lies on a made slide (`on glass`).",
            "Calibration (temperature) is of scores of networks that had not seen the cells.",
        ],
        "how": (
            "Proportions: Clopper and Pearson; accuracy and AUROC: bootstrap over blocks. One among 5,000: "
            "normal cells of the same fold drawn with replacement, since there are fewer than 5,000; each "
            "abnormal cell is one try, a hit where most of 20 draws are. Slides made of scores are lists of "
            "such cells' scores, no pictures. Planes: bootstrap over cells."
        ),
        "limits_list": [
            "Blocks are a proxy for the field of view; patients are not known. HSIL lies in 4 blocks "
            "and SCC in "
            "2, with a stain of their own: part of what is called HSIL may be the block. The line "
            "with NILM of "
            "the same blocks shows how much, on few cells.",
            "Conventional smears at 0.228 um per pixel, one microscope; no liquid-based slide of a patient.",
            "No glandular cells, no infections, no atrophy as classes; inflammatory cells count as normal.",
            "Focal planes were generated by blurring; the drawn cells of that table differ only in "
            "fine detail.",
            "Probabilities are calibrated to this mix of cells and slides, not to a screened population.",
            "The verdict on a whole slide does not work with these weights (the lines of slides made of "
            "scores): it is the gallery that finds the cell.",
            "The rule for slides, the weights of the planes and the probability of calling a cell were "
            "chosen again after a first look at the two folds they are judged on here; fresh cells must "
            "judge them.",
        ],
        "licence": CERVICAL_CELLS.licence,
        "held_out_blocks": sorted({int(block) for block in out.crops.group[held]}),
        "results": results,
        "lines": lines,
    }


__all__ = ["JUDGED", "SHIPPED", "Fitted", "Out", "gallery_rate", "judge_screening"]
