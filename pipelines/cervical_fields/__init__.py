"""Photographs of cervical cytology fields: normal, CIN1, or CIN2 and worse; the specimen takes the worst.

Each photograph is brought to 512 x 512 pixels, as Kyorin University did with 1600 x 1200, and graded whole;
Grad-CAM shows where the network looked. A specimen has two to five photographs.
"""

from __future__ import annotations

import time
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import (
    AnyNeed,
    Bundle,
    Case,
    CellClass,
    Cells,
    Certainty,
    Engine,
    Findings,
    GalleryCell,
    IntendedUse,
    Level,
    NotPerformed,
    OperatingPoint,
    Photograph,
    PhotographNeed,
    Reading,
    Score,
    TileMap,
    Verdict,
    code,
    fitted,
    shrunk,
    softmax,
    spread,
)

FIELDS = "cervical_fields"

CERVIX = code("cervix")
NORMAL = code("normal")
WORSE = code("cin2-or-worse")
INDETERMINATE = code("indeterminate")
PROBABILITY = code("probability")
PERCENT = code("percent")
GRAD_CAM = code("class-activation")

CLASSES = (
    CellClass(NORMAL, "normal", 0, (90, 170, 90)),
    CellClass(code("cin1"), "CIN1", 1, (255, 200, 0)),
    CellClass(WORSE, "CIN2+", 2, (220, 0, 60)),
)
"""In the order of the network's outputs."""
POINT = OperatingPoint(
    threshold=0.3, low=0.1, high=0.5,
    chosen_on="By hand, towards sensitivity: no field of a patient was there to choose it on.",
)  # fmt: skip
DECIMALS = 4


class CervicalFields:
    """The pipeline; see the module."""

    name: ClassVar[str] = "cervical_fields"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Cervical cytology fields, grade of CIN"
    level: ClassVar[Level] = Level.STUDY
    needs: ClassVar[tuple[AnyNeed, ...]] = (PhotographNeed("fields", min_rows=256, required=True),)
    intended_use: ClassVar[IntendedUse] = IntendedUse(
        modalities=frozenset({"GM", "XC", "OT", "SM"}),
        sex=frozenset({"F", "O"}),
        age_years=(18.0, 100.0),
        statement=(
            "Research into grading photographs of cervical cytology. Trained on made fields only. "
            "Not for clinical use."
        ),
    )
    models: ClassVar[tuple[str, ...]] = (FIELDS,)

    def __init__(self) -> None:
        self.bundle = Bundle(FIELDS)
        self.engine = Engine(self.bundle)
        self.temperature = float(self.bundle.config("fields")["temperature"])

    def run(self, case: Case) -> Findings:
        started = time.perf_counter()
        taken = case.photographs["fields"]
        if not taken:
            return Findings(algorithms=(self.engine.algorithm(),), not_performed=_NOTHING)
        readings = []
        for number, photograph in enumerate(taken):
            case.progress(number / len(taken), "classify")
            readings.append(self._read(photograph, case.read_photograph(photograph)))
        case.progress(1.0, "judge")
        return Findings(
            algorithms=(self.engine.algorithm(),),
            verdict=_verdict(readings, case.warnings),
            readings=tuple(readings),
            seconds={"forward": time.perf_counter() - started},
        )

    def _read(self, photograph: Photograph, picture: npt.NDArray[np.uint8]) -> Reading:
        """The whole photograph is one `cell`: its grade, and where the network looked."""
        size, gradcam = self.engine.image.size_px, self.bundle.gradcam
        seen = fitted(picture, size)
        logits, maps = self.engine.explain(seen[None])
        probability = np.round(softmax(logits, self.temperature), DECIMALS)
        probability /= probability.sum(axis=1, keepdims=True)
        label = probability.argmax(axis=1).astype(np.uint8)
        shown = max(1, int(label[0]))  # of a normal field: what there is of CIN1
        heat = spread(maps[:, shown], size, float(gradcam["first_px"]), float(gradcam["step_px"]))[0]
        rows, columns = picture.shape[:2]
        middle = np.array([[columns / 2, rows / 2]], np.float32)
        cells = Cells(
            CLASSES,
            middle,
            np.array([[columns, rows]], np.float32),
            label,
            probability,
            np.zeros(1, np.uint16),
        )
        return Reading(
            picture=photograph,
            cells=cells,
            maps=(_map(heat, rows, columns, CLASSES[shown]),),
            gallery=(GalleryCell(0, seen, heat),),
            thumbnail=shrunk(picture, max(1, -(-max(rows, columns) // 2048))),
        )


_NOTHING = NotPerformed("there is no photograph of a field", "missing-series")
SQUARES = 32
"""Of the map, along the longer side of a photograph."""


def _map(heat: npt.NDArray[np.float32], rows: int, columns: int, of: CellClass) -> TileMap:
    """Grad-CAM by squares of the photograph."""
    step = max(rows, columns) / SQUARES
    size = heat.shape[0]
    down = np.clip((np.arange(np.ceil(rows / step)) + 0.5) * step / rows * size, 0, size - 1).astype(int)
    across = np.clip((np.arange(np.ceil(columns / step)) + 0.5) * step / columns * size, 0, size - 1).astype(
        int
    )
    return TileMap(
        heat[np.ix_(down, across)][None], (of.label,), (of.code,), GRAD_CAM, step, colours=(of.colour,)
    )


def _verdict(readings: list[Reading], warnings: tuple[str, ...]) -> Verdict:
    """The specimen takes the worst: the probability of its most suspicious field."""
    probability = np.concatenate([reading.cells.probability for reading in readings])
    chance = round(float(probability[:, 2].max()), DECIMALS)
    grade = CLASSES[int(max(reading.cells.label[0] for reading in readings))]
    certainty = POINT.certainty(chance)
    diagnosis = {
        Certainty.POSITIVE: WORSE, Certainty.NEGATIVE: grade.code if grade.grade < 2 else INDETERMINATE,
    }.get(certainty, INDETERMINATE)  # fmt: skip
    counts = ", ".join(
        f"{sum(int(reading.cells.label[0]) == at for reading in readings)} {one.label}"
        for at, one in enumerate(CLASSES)
    )
    return Verdict(
        finding=WORSE,
        site=CERVIX,
        diagnosis=diagnosis,
        certainty=certainty,
        probability=chance,
        positive_class=WORSE,
        negative_class=NORMAL,
        operating_point=POINT,
        scores=(Score(PROBABILITY, round(100 * chance, 2), PERCENT, "Of CIN2 or worse, worst field"),),
        statement=f"Worst of {len(readings)} fields: {grade.label}; fields: {counts}.",
        warnings=warnings,
    )
