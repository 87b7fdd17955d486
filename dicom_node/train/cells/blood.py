"""Train and judge `blood_cells`: white cells by type and stage, and whether attention lies in the cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.infer.cells import attention_in_cell, cell_mask, spread
from dicom_node.train.cells.augment import centre
from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.finding import finder_line, judge_finder
from dicom_node.train.cells.folds import by_group
from dicom_node.train.cells.judge import (
    Line,
    as_share,
    best_temperature,
    by_class,
    calibration_error,
    confusion,
    share_line,
    softmax,
)
from dicom_node.train.cells.learn import Report, explained, learn, pool, read_input, read_recipe
from dicom_node.train.cells.setup import Setup
from dicom_node.train.cells.tasks import BLOOD, BLOOD_CELLS, GROUPS
from dicom_node.train.cells.weights import write_bundle
from dicom_node.train.statistics import by_groups, ranking

PARTS = 10
"""Of the pictures: 0 and 1 to be judged on, 2 to calibrate on, the others to learn from."""
OTHERS_ACCURACY = "about 95 %, on other cells"
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Said:
    """What the network said of some pictures."""

    logits: Floats
    attention: Floats
    """(n,) share of the Grad-CAM of the called class inside the cell."""
    label: Ints
    """Of the source."""

    def where(self, rows: npt.NDArray[np.bool_]) -> Said:
        return Said(self.logits[rows], self.attention[rows], self.label[rows])


def train_blood(setup: Setup, report: Report) -> dict[str, Any]:  # Any: JSON-able
    """Learn, calibrate, judge, write the bundle; the evaluation."""
    bundle = setup.models / BLOOD
    recipe = read_recipe(bundle, setup.steps)
    crops = setup.thinned(BLOOD_CELLS.read(setup.data))
    report(f"{len(crops)} pictures, {len(crops) - len(np.unique(crops.group))} copies")
    allowed = BLOOD_CELLS.allowed(crops)
    part = by_group(crops.label, crops.group, PARTS, recipe.seed)
    learning = part > 2
    made = pool(
        bundle, crops.images, allowed & learning[:, None], crops.group, recipe, setup.pretrained, report
    )
    network = learn(made, allowed, learning, recipe, report)
    calibrating, judging = (
        ask_with_attention(network, bundle, crops, np.flatnonzero(rows)) for rows in (part == 2, part < 2)
    )
    document, config = judge(calibrating, judging, crops, learning)
    document["trained"] = setup.facts("blood_smear", recipe)
    fields = setup.data / "wbc_bccd"
    if fields.is_dir():
        found = judge_finder(fields)
        document["results"]["finder"] = found
        document["lines"] += finder_line(found)
    write_bundle(bundle, network, {"smear": config}, document, setup.version)
    return document


def ask_with_attention(network: Any, bundle: Path, crops: Crops, rows: Ints) -> Said:  # Any: nn.Module
    """Logits, and where the network looked, of these pictures as they are."""
    seen, step = read_input(bundle), 16.0
    pictures = (centre(crops.images[rows], seen.size_px) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    logits, maps = explained(network, bundle, pictures)
    called = maps[np.arange(len(rows)), logits.argmax(axis=1)]
    heat = spread(called.astype(np.float32), seen.size_px, 0.0, step)
    inside = [
        attention_in_cell(one, cell_mask(picture, seen.um_per_px))
        for one, picture in zip(heat, pictures, strict=True)
    ]
    return Said(logits, np.array(inside), crops.label[rows])


def judge(
    calibrating: Said, judging: Said, crops: Crops, learning: npt.NDArray[np.bool_]
) -> tuple[dict[str, Any], dict[str, Any]]:  # Any: JSON-able
    """(the evaluation, `configs/smear.json`)."""
    names = BLOOD_CELLS.classes
    known, tuning = (
        judging.where(judging.label < len(names)),
        calibrating.where(calibrating.label < len(names)),
    )
    temperature = best_temperature(tuning.logits, tuning.label)
    called, right = known.logits.argmax(axis=1), known.logits.argmax(axis=1) == known.label
    right_there = tuning.logits.argmax(axis=1) == tuning.label
    attention_from = round(float(np.nanquantile(tuning.attention[right_there], 0.05)), 3)
    eight, eight_called = _eight(judging.label), _eight(judging.logits.argmax(axis=1))
    drift = _drift(known, right)
    rows = by_class(known.label, called, names)
    results = {
        "accuracy": as_share(int(right.sum()), len(right)).to_json(),
        "accuracy_of_eight": as_share(int((eight == eight_called).sum()), len(eight)).to_json(),
        "by_class": rows,
        "confusion": confusion(known.label, called, len(names)).tolist(),
        "calibration_error": {
            "before": round(calibration_error(softmax(known.logits), known.label), 4),
            "after": round(calibration_error(softmax(known.logits, temperature), known.label), 4),
        },
        "attention": drift,
        "attention_by_true_and_called": _by_pair(known, called, len(names)),
    }
    lines: list[Line] = [
        share_line(f"Accuracy, {len(names)} types and stages", results["accuracy"], OTHERS_ACCURACY),
        share_line("Accuracy, the 8 classes of the source", results["accuracy_of_eight"]),
        *(share_line(f"Sensitivity, {name}", rows[name]["sensitivity"]) for name in names),
        ("Calibration error, before and after scaling",
         f"{results['calibration_error']['before']:.3f}, {results['calibration_error']['after']:.3f}",
         f"{len(right)} cells", ""),
        ("Attention in the cell, right and wrong calls",
         f"{drift['right']:.2f}, {drift['wrong']:.2f}",
         f"{drift['n_right']} and {drift['n_wrong']} cells", ""),
        ("AUROC of low attention for a wrong call", f"{drift['auroc']:.3f}",
         f"{drift['lower']:.3f} to {drift['upper']:.3f}", ""),
    ]  # fmt: skip
    return _document(crops, learning, calibrating, judging, results, lines), {
        "temperature": temperature,
        "attention_from": attention_from,
        "um_per_px_unstated": 0.1,
    }


def _eight(label: Ints) -> Ints:
    """The source's eight classes of labels and of the network's classes."""
    merged = {one: at for at, group in enumerate(GROUPS.values(), 100) for one in group}
    table = [merged.get(name, at) for at, name in enumerate(BLOOD_CELLS.classes)]
    return np.array([*table, 100, 101])[label]


def _drift(known: Said, right: npt.NDArray[np.bool_]) -> dict[str, Any]:  # Any: JSON-able
    """Whether attention leaves the cell where the call is wrong."""
    there = ~np.isnan(known.attention)
    inside, wrong = known.attention[there], ~right[there]
    middle, low, high = by_groups(
        lambda rows: ranking(-inside[rows][wrong[rows]], -inside[rows][~wrong[rows]]), np.arange(len(inside))
    )
    return {
        "right": round(float(inside[~wrong].mean()), 4) if (~wrong).any() else float("nan"),
        "wrong": round(float(inside[wrong].mean()), 4) if wrong.any() else 0.0,
        "n_right": int((~wrong).sum()), "n_wrong": int(wrong.sum()), "without_map": int((~there).sum()),
        "auroc": round(middle, 4), "lower": round(low, 4), "upper": round(high, 4),
    }  # fmt: skip


def _by_pair(known: Said, called: Ints, classes: int) -> list[list[float | None]]:
    """Mean attention in the cell, rows by the true class, columns by the called one."""
    table: list[list[float | None]] = []
    for true in range(classes):
        line: list[float | None] = []
        for said in range(classes):
            inside = known.attention[(known.label == true) & (called == said)]
            inside = inside[~np.isnan(inside)]
            line.append(round(float(inside.mean()), 3) if len(inside) else None)
        table.append(line)
    return table


def _document(
    crops: Crops, learning: npt.NDArray[np.bool_], calibrating: Said, judging: Said,
    results: dict[str, Any], lines: list[Line],
) -> dict[str, Any]:  # fmt: skip  # Any: JSON-able
    copies = len(crops) - len(np.unique(crops.group))
    return {
        "data": (
            "Photographs of single cells of normal blood (PBC, Hospital Clinic of Barcelona, one analyser), "
            "parted at random: there are no patient ids, so cells of one person lie on both sides and the "
            "figures are optimistic."
        ),
        "source": "PBC: Acevedo et al., Mendeley Data snkd93bnjr v1, resized to 184 x 184 pixels",
        "trained_on": (
            f"{int(learning.sum())} photographs of white cells, erythroblasts and platelets of normal blood "
            f"(PBC), of one analyser. Start: ImageNet."
        ),
        "limits": (
            "Research use only. First weights, of one hospital's normal blood; the split is random, not by "
            "patient. Not evidence of clinical performance. Not a medical device."
        ),
        "warning": "They saw one analyser and normal blood only.",
        "reported_by": "Tottori University, reported",
        "facts": [
            f"Learned from {int(learning.sum())} pictures, calibrated on {len(calibrating.label)}, judged on "
            f"{len(judging.label)}; split at random within each class, seed fixed.",
            f"Copies across the split: {copies} exact or near ones among {len(crops)} pictures, kept on one "
            "side. Cells of one person cannot be kept on one side.",
            "Immature granulocytes and neutrophils of unstated stage "
            f"({int(crops.of('IG', 'NEUTROPHIL').sum())}) may be any of theirs; they count in the accuracy "
            "of eight classes only.",
        ],
        "how": (
            "Proportions: Clopper and Pearson. AUROC: bootstrap over cells. Attention in the cell: share of "
            "the Grad-CAM of the called class on the nucleus and 3 um around it."
        ),
        "limits_list": _limits(results["attention"]),
        "licence": BLOOD_CELLS.licence,
        "results": results,
        "lines": lines,
    }


LIMITS = (
    "Normal blood of one hospital and one analyser; no blasts, no reactive lymphocytes, no smudge cells, no "
    "artefacts: each of these is called one of the classes.",
    "All pictures of unstated immature granulocytes and neutrophils have another background than the rest, "
    "which a network can learn instead of the cell; they are few and count for groups only.",
    "Cells were photographed in the middle of the picture; the pipeline's finder puts them there.",
)


def _limits(drift: dict[str, Any]) -> list[str]:  # Any: JSON-able
    """With what was found of attention as a sign of errors."""
    if drift["auroc"] >= 0.6:
        return [*LIMITS]
    found = (
        "Low attention in the cell is no sign of a wrong call with these weights: the index "
        "seems to follow the size of the cell, and mistakes are among neighbouring stages of large ones."
    )
    return [*LIMITS, found]
