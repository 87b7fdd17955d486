"""Train and judge `cervical_cells`: NILM, LSIL, HSIL or SCC, on real and on drawn cells.

    four folds by block of cells: the cells of two are judged, by networks that never saw their blocks
    shipped: the network of one fold (SHIPPED), so that real cells are left that it never saw; slides
             of `dicom-node evaluate cervical_cytology --slides` are made of these
    drawn cells: some seeds are learned from by all networks, one is never seen

Every network learns from the same changed pictures, but for those of its own fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.drawn import (
    CALIBRATION_SEED,
    HELD_OUT_SEED,
    LEARNT_SEEDS,
    alone,
    drawn_crops,
)
from dicom_node.train.cells.folds import by_group
from dicom_node.train.cells.learn import Report, ask, learn, pool, read_recipe
from dicom_node.train.cells.screening import JUDGED, SHIPPED, Out, judge_screening
from dicom_node.train.cells.setup import Setup
from dicom_node.train.cells.tasks import CERVICAL, CERVICAL_CELLS
from dicom_node.train.cells.weights import write_bundle

FOLDS = 4
ALWAYS, NEVER = -1, -2
"""Folds of drawn cells: in every network's pictures, in none's."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """All pictures in one array, part by part, and the fold of each row."""

    crops: Crops
    fold: Ints
    part: Ints
    """0 real as photographed, 1 real on glass, 2 drawn, 3 drawn and subtle."""


def train_cervical(setup: Setup, report: Report) -> dict[str, Any]:  # Any: JSON-able
    """Learn, calibrate, judge, write the bundle; the evaluation."""
    bundle = setup.models / CERVICAL
    recipe = read_recipe(bundle, setup.steps)
    material = gather(setup, recipe.seed, report)
    crops, allowed = material.crops, CERVICAL_CELLS.allowed(material.crops)
    usable = (allowed.T & (material.fold != NEVER)).T
    made = pool(bundle, crops.images, usable, crops.group, recipe, setup.pretrained, report)
    logits = np.full((len(crops), len(CERVICAL_CELLS.classes)), np.nan)
    shipped = None
    for fold in JUDGED:
        report(f"fold {fold}")
        network = learn(made, usable, (material.fold != fold) & (material.fold != NEVER), recipe, report)
        mine = material.fold == fold
        logits[mine] = ask(network, bundle, crops.images[mine])
        if fold == SHIPPED:
            shipped, rest = network, material.fold == NEVER
            logits[rest] = ask(network, bundle, crops.images[rest])
    if shipped is None:
        return {}
    out = Out(logits, crops, allowed, material.fold, material.part)
    document, configs = judge_screening(out, shipped, bundle, setup, report)
    document["trained"] = setup.facts("cervical_cytology", recipe)
    write_bundle(bundle, shipped, configs, document, setup.version)
    return document


def gather(setup: Setup, seed: int, report: Report) -> Material:
    """Real cells as photographed and as they lie on glass, and drawn ones."""
    real = setup.thinned(CERVICAL_CELLS.read(setup.data))
    fold = by_group(real.label, real.group, FOLDS, seed)
    each = 40 if setup.limit is None else min(40, setup.limit)
    parts, folds, kinds = [real, alone(real)], [fold, fold], [0, 1]
    for subtle in (False, True):
        for one in (*LEARNT_SEEDS, CALIBRATION_SEED, HELD_OUT_SEED):
            if subtle and one == LEARNT_SEEDS[1]:
                continue
            cells = drawn_crops(
                one, CERVICAL_CELLS.kept_px, CERVICAL_CELLS.um_per_px, real.names, setup.work, report,
                subtle=subtle, each=each,
            )  # fmt: skip
            parts.append(cells)
            folds.append(np.full(len(cells), ALWAYS if one in LEARNT_SEEDS else NEVER, np.int64))
            kinds.append(2 + subtle)
    return Material(
        Crops(
            np.concatenate([part.images for part in parts]), np.concatenate([part.label for part in parts]),
            real.names, _groups(parts), real.um_per_px,
        ),
        np.concatenate(folds),
        np.repeat(kinds, [len(part) for part in parts]),
    )  # fmt: skip


def _groups(parts: list[Crops]) -> Ints:
    """Both views of a real cell share its block; each drawn cell is one of its own."""
    first = parts[0].group
    offset, numbers = int(first.max()) + 1, [first, first]
    for part in parts[2:]:
        numbers.append(part.group + offset)
        offset += len(part)
    return np.concatenate(numbers)
