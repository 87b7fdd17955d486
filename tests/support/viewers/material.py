"""Studies for viewers, made so that a flip or a shift shows, and their results by the node's own encoder.

The mark is an L that grows from slice to slice, off the centre in every direction and bright in
the images themselves: what a viewer colours must be what is bright.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_node.domain.findings import Findings, HeatMap, Region, SequenceScore, SliceScore
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import Stack, Study
from dicom_node.encode.results import encode
from support import mr
from support.findings import ATTENTION, GRAD_CAM, POINT, UTERUS, folder_study, found

Mask = npt.NDArray[np.bool_]
SLICES, ROWS, COLUMNS = 12, 96, 80
MARKED = range(2, 6)
"""The slices with the mark: the lower half only, so that an order turned round misses them."""
_PELVIS = {"StudyDescription": "MR pelvis", "PatientName": "PHANTOM^MADE BY CODE", "PatientID": "PHANTOM"}


@dataclass(frozen=True)
class Shown:
    """A study and its results on disk, with what was found."""

    study: Study
    findings: Findings
    results: tuple[ResultObject, ...]
    files: tuple[Path, ...]
    """Sources and results, to be stored."""
    name: str = ""

    def of(self, kind: ResultKind) -> list[ResultObject]:
        return [result for result in self.results if result.kind is kind]

    @property
    def uid(self) -> str:
        return str(self.study.uid)


def ell(slices: int, rows: int, columns: int) -> Mask:
    """(slices, rows, columns): an L above the middle and left of it; its foot grows from slice to slice."""
    mask = np.zeros((slices, rows, columns), bool)
    scale = min(rows, columns) / COLUMNS
    top, left, wide = round(16 * scale), round(14 * scale), max(3, round(9 * scale))
    for step, place in enumerate(MARKED):
        mask[place, top : top + 4 * wide, left : left + wide] = True
        mask[place, top + 3 * wide : top + 4 * wide, left : left + wide * 2 + round(5 * step * scale)] = True
    return mask


def classic(folder: Path, name: str, orientation: tuple[float, ...]) -> Study:
    """A classic series along `orientation`, one file for each slice."""
    series = mr.mr_series(
        mr.T2, SLICES, orientation=orientation, rows=ROWS, columns=COLUMNS, study=name, SeriesNumber=3,
        pixel_mm=(2.0, 2.0), WindowCenter=500, WindowWidth=1000, **_PELVIS,
    )  # fmt: skip
    for data_set, picture in zip(series, _pictures(), strict=True):
        data_set.PixelData = picture.tobytes()
    return folder_study(mr.write(series, folder))


def enhanced(folder: Path, name: str) -> Study:
    """One Enhanced MR object with a frame for each slice."""
    data_set = mr.enhanced_mr(
        mr.T2, SLICES, rows=ROWS, columns=COLUMNS, study=name, SeriesNumber=3, pixel_mm=(2.0, 2.0), **_PELVIS
    )
    data_set.PixelData = b"".join(picture.tobytes() for picture in _pictures())
    _window(data_set)
    return folder_study(mr.write([data_set], folder))


def _pictures() -> Iterable[npt.NDArray[np.uint16]]:
    """Dim body in the dark, the mark bright."""
    row, column = np.mgrid[0:ROWS, 0:COLUMNS]
    body = ((row - ROWS / 2) / 44) ** 2 + ((column - COLUMNS / 2) / 36) ** 2 < 1
    for mask in ell(SLICES, ROWS, COLUMNS):
        yield np.where(mask, 1000, np.where(body, 250 + row, 20)).astype("<u2")


def _window(data_set: Dataset) -> None:
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 500, 1000
    data_set.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [window]


def results(
    study: Study, folder: Path, *, mark: Mask | None = None, key: str = "viewers", lead: int = 0
) -> Shown:
    """Everything the node makes of one marked stack; `mark` in place of the L, to be wrong on purpose."""
    stack = study.stacks[lead]
    shape = (len(stack.frames), stack.rows, stack.columns)
    mark = ell(*shape) if mark is None else mark
    findings = _found(study, stack, mark)
    made = encode(
        findings, study, input_key=key, pipeline="uterine_mri", pipeline_version="1.0.0", title="Uterine MRI"
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:02d}_{result.kind}.dcm" for number, result in enumerate(made)]
    for path, result in zip(files, made, strict=True):
        path.write_bytes(result.content)
    sources = sorted({frame.path for of in study.stacks for frame in of.frames})
    return Shown(study, findings, made, (*sources, *files))


def _found(study: Study, stack: Stack, mark: Mask) -> Findings:
    """A positive verdict on `stack`, each marked slice with a probability of its own."""
    marked = mark.any(axis=(1, 2))
    scores = tuple(
        SliceScore(frame, 0.95 if marked[n] else 0.05, bool(marked[n]), 0.8 + 0.01 * n if marked[n] else None)
        for n, frame in enumerate(stack.frames)
    )
    values = np.where(mark, 0.9, 0.0).astype(np.float32)
    grey = np.where(mark, 200, 70).astype(np.uint8)
    return replace(
        found(study),
        sequences=(SequenceScore("T2 axial", stack, scores, POINT.high + 0.27),),
        regions=(Region(stack, mark, ATTENTION, GRAD_CAM, "Attention of the model", UTERUS, 0.8),),
        maps=(HeatMap(stack, values, marked, GRAD_CAM, "Grad-CAM, sarcoma"),),
        previews=((stack, grey),),
        lead=stack,
    )  # fmt: skip
