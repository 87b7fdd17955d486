"""Train and judge `cervical_fields` on made photographs: many real cells on one field, its grade the worst.

A field is 1600 x 1200 pixels of 0.5 um with real cells (CRIC Cervix) laid on it, turned at random. A
normal one has NILM cells only; among those of CIN1 some are LSIL, of CIN2+ some are HSIL or SCC. This
is cytology standing in for histology: a way to have the whole path, and no evidence of anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.drawn import alone
from dicom_node.train.cells.folds import by_group
from dicom_node.train.cells.judge import (
    Line,
    as_share,
    best_temperature,
    by_class,
    confusion,
    share_line,
    softmax,
)
from dicom_node.train.cells.learn import Report, ask, learn, pool, read_recipe
from dicom_node.train.cells.setup import Setup
from dicom_node.train.cells.tasks import CERVICAL_CELLS, FIELDS
from dicom_node.train.cells.weights import write_bundle

GRADES = ("normal", "CIN1", "CIN2+")
HEIGHT, WIDTH, UM_PER_PX, SEEN_PX = 1200, 1600, 0.5, 512
CELLS = (30, 80)
ABNORMAL = (0.06, 0.4)
"""Share of abnormal cells of an abnormal field."""
FOLDS, JUDGED, CALIBRATED = 4, 3, 2
"""Cells of fold JUDGED are on no field that is learned from or calibrated on."""
HOW_MANY = {"learn": 300, "calibrate": 60, "judge": 150}
REPORTED_ACCURACY = ".901"
REPORTED = {
    "sensitivity": (".955", ".740", ".873"), "specificity": (".889", ".985", ".943"),
}  # fmt: skip
"""MobileNetV3 large of Kyorin University, on 2,619 real photographs with histology."""
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Fields:
    images: Bytes
    """(n, 512, 512, 3): both sides of the photograph brought to one length."""
    grade: Ints


def train_fields(setup: Setup, report: Report) -> dict[str, Any]:  # Any: JSON-able
    """Make fields, learn, calibrate, judge, write the bundle; the evaluation."""
    bundle = setup.models / FIELDS
    recipe = read_recipe(bundle, setup.steps)
    real = setup.thinned(CERVICAL_CELLS.read(setup.data))
    cells, fold = alone(real), by_group(real.label, real.group, FOLDS, 1)
    wanted = HOW_MANY if setup.limit is None else dict.fromkeys(HOW_MANY, 12)
    own = {"learn": fold < CALIBRATED, "calibrate": fold == CALIBRATED, "judge": fold == JUDGED}
    report(f"making {sum(wanted.values())} fields")
    made = {name: make_fields(cells, own[name], wanted[name], seed) for seed, name in enumerate(own)}
    learning = made["learn"]
    allowed = learning.grade[:, None] == np.arange(len(GRADES))
    rows = np.arange(len(allowed))
    changed = pool(bundle, learning.images, allowed, rows, recipe, setup.pretrained, report)
    network = learn(changed, allowed, np.ones(len(allowed), bool), recipe, report)
    logits = {name: ask(network, bundle, made[name].images) for name in ("calibrate", "judge")}
    temperature = best_temperature(logits["calibrate"], made["calibrate"].grade)
    document = judge(softmax(logits["judge"], temperature), made["judge"].grade, wanted)
    document["trained"] = setup.facts("cervical_fields", recipe)
    write_bundle(bundle, network, {"fields": {"temperature": temperature}}, document, setup.version)
    return document


def make_fields(cells: Crops, own: npt.NDArray[np.bool_], count: int, seed: int) -> Fields:
    """`count` fields of each of the three grades in turn, from the cells of `own`."""
    rng = np.random.default_rng([seed, 77])
    by_grade = [np.flatnonzero(own & cells.of(*names)) for names in (("NILM",), ("LSIL",), ("HSIL", "SCC"))]
    grade = np.arange(count) % len(GRADES)
    images = np.stack([_field(cells, by_grade, int(one), rng) for one in grade])
    return Fields(images, grade)


def _field(cells: Crops, by_grade: list[Ints], grade: int, rng: np.random.Generator) -> Bytes:
    from PIL import Image

    from dicom_node.infer.cells import fitted

    number = int(rng.integers(*CELLS))
    bad = max(2, round(number * float(rng.uniform(*ABNORMAL)))) if grade else 0
    chosen = np.concatenate([rng.choice(by_grade[0], number - bad), rng.choice(by_grade[grade], bad)])
    glass = cells.images[chosen[0], 0, 0].astype(np.float32)
    light = np.ones((HEIGHT, WIDTH, 3), np.float32)
    side = round(cells.images.shape[1] * cells.um_per_px / UM_PER_PX)
    for at in rng.permutation(chosen):
        picture = Image.fromarray(cells.images[at]).resize((side, side), Image.Resampling.BOX)
        seen = np.rot90(np.asarray(picture, np.float32) / glass, int(rng.integers(4)))
        seen = seen[:, ::-1] if rng.random() < 0.5 else seen
        top, left = int(rng.integers(HEIGHT - side)), int(rng.integers(WIDTH - side))
        light[top : top + side, left : left + side] *= seen
    small = fitted(np.clip(light * (glass * rng.uniform(0.92, 1.04)), 0, 255).astype(np.uint8), SEEN_PX)
    return np.clip(small + rng.normal(0, 1.0, small.shape), 0, 255).astype(np.uint8)


def judge(probability: npt.NDArray[np.float64], grade: Ints, made: dict[str, int]) -> dict[str, Any]:
    """Kyorin University's table, in its form: accuracy, sensitivity and specificity of each grade."""
    called = probability.argmax(axis=1)
    rows = by_class(grade, called, GRADES)
    accuracy = as_share(int((called == grade).sum()), len(grade)).to_json()
    lines: list[Line] = [share_line("Accuracy, 3 grades", accuracy, REPORTED_ACCURACY)]
    for what in ("sensitivity", "specificity"):
        for name, reported in zip(GRADES, REPORTED[what], strict=True):
            lines.append(share_line(f"{what.capitalize()}, {name}", rows[name][what], reported))
    return {
        "data": (
            "Made photographs: real cells (CRIC Cervix) laid on fields, graded by the worst cell on them. No "
            "photograph of a patient, no histology; no evidence of clinical performance."
        ),
        "source": "fields made of cells of CRIC Cervix (Rezende et al., Sci Data 2021)",
        "trained_on": f"{made['learn']} made fields of real cervical cells (CRIC Cervix). Start: ImageNet.",
        "limits": (
            "Research use only. First weights, of made fields, graded by cytology instead of histology. Not "
            "evidence of clinical performance. Not a medical device."
        ),
        "warning": "They saw made fields only, graded by the worst cell that was laid on them.",
        "reported_by": "Kyorin University, MobileNetV3 large, real",
        "facts": [
            f"{made['learn']} fields to learn from, {made['calibrate']} to calibrate on, {made['judge']} to "
            "be judged on, a third of each grade; their cells are of other blocks each.",
            f"A field: {WIDTH} x {HEIGHT} pixels of {UM_PER_PX:g} um, {CELLS[0]} to {CELLS[1]} cells, of "
            f"which {ABNORMAL[0]:.0%} to {ABNORMAL[1]:.0%} abnormal where it is.",
            "CIN1 stands for fields with LSIL cells, CIN2+ for fields with HSIL or SCC cells. Histology may "
            "differ.",
        ],
        "how": (
            "Proportions: Clopper and Pearson, over fields; cells repeat among fields, so intervals are too "
            "narrow. The last column is of other, real data and not comparable."
        ),
        "limits_list": [
            "Every cell lies alone on made glass; no folds, no blood, no mucus, no clusters.",
            "HSIL and SCC of the judged fields come from one block of cells.",
            "A grade of a field says nothing of where the lesion is; the heatmap says where the "
            "network looked.",
        ],
        "licence": CERVICAL_CELLS.licence,
        "results": {
            "accuracy": accuracy,
            "by_class": rows,
            "confusion": confusion(grade, called, 3).tolist(),
        },
        "lines": lines,
    }
