"""Pipelines that find the marks of `dicom-node check --selftest` by a threshold; no model, only geometry."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dicom_node.domain.codebook import code
from dicom_node.domain.findings import (
    Certainty,
    Findings,
    HeatMap,
    OperatingPoint,
    Region,
    SequenceScore,
    SliceScore,
    Verdict,
)
from dicom_node.domain.job import Level
from dicom_node.domain.pipeline import AnyNeed, Case, IntendedUse, Need, SlideNeed
from dicom_node.domain.series import Contrast
from dicom_node.domain.slide import CellClass, Cells, Reading
from dicom_node.errors import PipelineError

HALF = 550.0
"""Between the values of marked voxels and of others."""


class MarkedVoxels:
    """Every bright voxel of a T2-weighted stack, as region and as map."""

    name: ClassVar[str] = "marked_voxels"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Self-test: marked voxels"
    level: ClassVar[Level] = Level.STUDY
    needs: ClassVar[tuple[AnyNeed, ...]] = (Need("marked", Contrast.T2, required=True, min_slices=2),)
    intended_use: ClassVar[IntendedUse] = IntendedUse(modalities=frozenset({"MR"}))
    models: ClassVar[tuple[str, ...]] = ()

    def run(self, case: Case) -> Findings:
        volume = case.volumes["marked"]
        marked = volume.array > HALF
        kept = np.asarray(marked.any(axis=(1, 2)))
        frames = volume.stack.frames
        slices = tuple(
            SliceScore(frame, float(hit), bool(hit), 1.0 if hit else None)
            for frame, hit in zip(frames, kept, strict=True)
        )
        shown = code("class-activation")
        return Findings(
            algorithms=(),
            verdict=_verdict("Marks were found by a threshold."),
            sequences=(SequenceScore("marked", volume.stack, slices, 1.0),),
            regions=(Region(volume.stack, marked, code("spatial-concept"), shown, "marks", code("uterus")),),
            maps=(HeatMap(volume.stack, marked.astype(np.float32), kept, shown, "marks"),),
            lead=volume.stack,
        )


class MarkedCorners:
    """The coloured marks of a slide, as cells of one class for each colour."""

    name: ClassVar[str] = "marked_corners"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "Self-test: marked corners"
    level: ClassVar[Level] = Level.SLIDE
    needs: ClassVar[tuple[AnyNeed, ...]] = (SlideNeed("marked", um_per_px=1.0, required=True),)
    intended_use: ClassVar[IntendedUse] = IntendedUse(modalities=frozenset({"SM"}))
    models: ClassVar[tuple[str, ...]] = ()

    def run(self, case: Case) -> Findings:
        opened = case.slides["marked"]
        base = opened.slide.base
        plane = len(base.planes_um) // 2
        image = opened.region(0, 0, 0, base.columns, base.rows, plane=plane).astype(np.int32)
        found = [_mark(image, kind.colour) for kind in COLOURS]
        centres, sizes = (np.array(part, np.float32) for part in zip(*found, strict=True))
        n = len(COLOURS)
        cells = Cells(
            classes=COLOURS, centre_px=centres, size_px=sizes, label=np.arange(n, dtype=np.uint8),
            probability=np.eye(n, dtype=np.float32), plane=np.full(n, plane, np.uint16),
        )  # fmt: skip
        return Findings(
            algorithms=(), verdict=_verdict("Marks were found by their colour."),
            readings=(Reading(opened.slide, cells),),
        )  # fmt: skip


COLOURS = (
    CellClass(code("nilm"), "red", 0, (215, 40, 40)),
    CellClass(code("lsil"), "green", 1, (40, 150, 60)),
    CellClass(code("hsil"), "blue", 2, (40, 60, 200)),
    CellClass(code("squamous-cell-carcinoma"), "black", 3, (25, 25, 25)),
)
_ALIKE = 60
"""Sum of the differences of red, green and blue up to which a pixel has a colour."""


def _mark(
    image: npt.NDArray[np.int32], colour: tuple[int, int, int]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Centre and size, column and row, of what has that colour. Raises PipelineError where nothing has."""
    rows, columns = np.nonzero(np.abs(image - np.array(colour)).sum(axis=2) < _ALIKE)
    if not len(rows):
        raise PipelineError(f"no pixel of the slide has the colour {colour}")
    centre = float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
    return centre, (float(np.ptp(columns)) + 1, float(np.ptp(rows)) + 1)


def _verdict(statement: str) -> Verdict:
    return Verdict(
        finding=code("neoplasm"), site=code("uterus"), diagnosis=code("neoplasm"),
        certainty=Certainty.POSITIVE, probability=1.0, positive_class=code("neoplasm"),
        negative_class=code("neoplasm"), statement=statement,
        operating_point=OperatingPoint(0.5, 0.5, 0.5, chosen_on="nothing: marks, not patients"),
    )  # fmt: skip
