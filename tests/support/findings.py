"""Studies on disk and findings on them, made by code or read from real files, without any other stage.

`pelvis(folder)` writes a small classic pelvic MR study and `enhanced(folder)` one Enhanced MR
object; `folder_study(paths)` takes real files. `found(study)` says a full set of findings.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset

from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import (
    Algorithm,
    Certainty,
    Findings,
    HeatMap,
    NotPerformed,
    OperatingPoint,
    Region,
    Score,
    SequenceScore,
    SliceScore,
    Verdict,
)
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.series import Contrast, FrameRef, Patient, Plane, Stack, StoredInstance, Study

CANARY = "CANARY^NEVER^LOGGED"
SARCOMA = code("sarcoma-of-uterus")
LEIOMYOMA = code("uterine-leiomyoma")
NEOPLASM = code("neoplasm")
UTERUS = code("uterus")
INDETERMINATE = code("indeterminate")
GRAD_CAM = code("class-activation")
ATTENTION = code("spatial-concept")
MODELS = (
    Algorithm(
        "Tumor Image Filter", "1.0.0", Digest("1" * 64), "Keeps the slices that show tumour.",
        "phantoms made by code, 263 cases", "No real patient was seen in training.",
    ),
    Algorithm(
        "Sarcoma Evaluator", "1.0.0", Digest("2" * 64), "Sarcoma or leiomyoma on the slices kept.",
        "phantoms made by code, 263 cases", "No real patient was seen in training.",
    ),
)  # fmt: skip
POINT = OperatingPoint(
    0.5,
    0.4,
    0.6,
    "Chosen for balanced accuracy on 53 calibration phantoms",
    (0.9, 0.7, 0.97),
    (0.88, 0.8, 0.94),
)


@dataclass(frozen=True)
class SeriesMade:
    number: int
    contrast: Contrast
    plane: Plane
    slices: int = 8
    rows: int = 64
    columns: int = 48
    b_value: float | None = None


PELVIS = (
    SeriesMade(3, Contrast.T2, Plane.AXIAL),
    SeriesMade(4, Contrast.T2, Plane.SAGITTAL, 6, 56, 56),
    SeriesMade(5, Contrast.DWI, Plane.AXIAL, 8, 32, 32, 1000.0),
)
_COSINES = {
    Plane.AXIAL: ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    Plane.SAGITTAL: ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)),
    Plane.CORONAL: ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
}


def pelvis(
    folder: Path, series: Sequence[SeriesMade] = PELVIS, *, name: str = CANARY, **attributes: object
) -> Study:
    """A classic single-frame study; `attributes` are set on every instance (`None` deletes)."""
    folder.mkdir(parents=True, exist_ok=True)
    stacks, instances = [], []
    for made in series:
        frames = []
        for place in range(made.slices):
            data_set = _classic(made, place, name)
            for keyword, value in attributes.items():
                if value is None:
                    data_set.pop(keyword, None)
                else:
                    setattr(data_set, keyword, value)
            path = folder / f"{made.number}_{place}.dcm"
            data_set.save_as(path, enforce_file_format=True)
            frames.append(_frame(data_set, path, 1, _position(made, place), multiframe=False))
            instances.append(_stored(data_set, path))
        stacks.append(_stack(made, frames, series_uid=frames and UID(data_set.SeriesInstanceUID)))
    return _study(stacks, instances)


def enhanced(folder: Path, *, slices: int = 6, b_values: Sequence[float] = (0.0, 1000.0)) -> Study:
    """One Enhanced MR object whose frames are several stacks, interleaved slice by slice."""
    folder.mkdir(parents=True, exist_ok=True)
    made = SeriesMade(7, Contrast.DWI, Plane.AXIAL, slices, 40, 40)
    data_set = _enhanced(made, b_values)
    path = folder / "enhanced.dcm"
    data_set.save_as(path, enforce_file_format=True)
    stacks = []
    for which, b_value in enumerate(b_values):
        frames = [
            _frame(data_set, path, place * len(b_values) + which + 1, _position(made, place), multiframe=True)
            for place in range(slices)
        ]
        own = SeriesMade(7, Contrast.DWI, Plane.AXIAL, slices, 40, 40, b_value)
        stacks.append(_stack(own, frames, series_uid=UID(data_set.SeriesInstanceUID)))
    return _study(stacks, [_stored(data_set, path)])


def folder_study(paths: Iterable[Path]) -> Study:
    """Real files, classic or Enhanced: a stack per series, and per position the first frame found there."""
    by_series: dict[str, list[tuple[pydicom.Dataset, FrameRef, tuple[float, ...], tuple[float, ...]]]]
    by_series = defaultdict(list)
    instances = []
    for path in sorted(paths):
        data_set = pydicom.dcmread(path, stop_before_pixels=True)
        instances.append(_stored(data_set, path))
        for frame, position, orientation, spacing in _planes(data_set):
            reference = _frame(data_set, path, frame, position, multiframe="NumberOfFrames" in data_set)
            by_series[data_set.SeriesInstanceUID].append((data_set, reference, orientation, spacing))
    return _study([_real_stack(planes) for planes in by_series.values()], instances)


def lone(path: Path) -> Study:
    """One real file of any kind, as a study in which nothing could be read as a stack."""
    return _study([], [_stored(pydicom.dcmread(path, stop_before_pixels=True), path)])


def found(
    study: Study, *, probability: float = 0.87, warnings: tuple[str, ...] = (), kept: int = 4
) -> Findings:
    """A full set of findings on every stack of a study: verdict, slices, one region and map per stack."""
    certainty = POINT.certainty(probability)
    diagnosis = {Certainty.POSITIVE: SARCOMA, Certainty.NEGATIVE: LEIOMYOMA}.get(certainty, INDETERMINATE)
    verdict = Verdict(
        finding=NEOPLASM, site=UTERUS, diagnosis=diagnosis, certainty=certainty, probability=probability,
        positive_class=SARCOMA, negative_class=LEIOMYOMA, operating_point=POINT,
        scores=(Score(Code("111012", "DCM", "Certainty of Finding"), 81.0, Code("%", "UCUM", "Percent"),
                      "Agreement between the sequences"),),
        statement=f"{certainty.value.capitalize()}: sarcoma of the uterus was looked for on MRI.",
        warnings=warnings, probability_concept=code("probability-of-cancer"),
    )  # fmt: skip
    return Findings(
        procedure=code("mri-procedure"),
        algorithms=MODELS,
        verdict=verdict,
        sequences=tuple(_scored(stack, probability, kept) for stack in study.stacks),
        regions=tuple(_region(stack) for stack in study.stacks),
        maps=tuple(_map(stack) for stack in study.stacks),
        previews=tuple((stack, _preview(stack)) for stack in study.stacks),
        seconds={"forward": 1.0},
    )


def refused(because: str = "the patient is male and the model is for women", code: str = "sex") -> Findings:
    return Findings(algorithms=MODELS, not_performed=NotPerformed(because, code))


def blob(stack: Stack) -> np.ndarray:
    """(slices, rows, columns) float32: a smooth hill off the centre, so that mirrored results are seen."""
    s, r, c = (np.arange(n, dtype=np.float32) for n in (len(stack.frames), stack.rows, stack.columns))
    shape = (len(stack.frames), stack.rows, stack.columns)
    at, size = np.array(shape) * (0.45, 0.4, 0.6), np.array(shape) * (0.3, 0.12, 0.18)
    distance = (
        ((s[:, None, None] - at[0]) / size[0]) ** 2
        + ((r[None, :, None] - at[1]) / size[1]) ** 2
        + ((c[None, None, :] - at[2]) / size[2]) ** 2
    )
    return np.exp(-distance).astype(np.float32)


def _scored(stack: Stack, probability: float, kept: int) -> SequenceScore:
    hill = blob(stack).max(axis=(1, 2))
    best = set(np.argsort(-hill)[:kept].tolist())
    slices = tuple(
        SliceScore(frame, float(hill[n]), n in best, probability * float(hill[n]) if n in best else None)
        for n, frame in enumerate(stack.frames)
    )
    need = f"{stack.contrast.value} {stack.plane.value}"
    return SequenceScore(need, stack, slices, probability if kept else None)


def _region(stack: Stack) -> Region:
    return Region(stack, blob(stack) > 0.5, ATTENTION, GRAD_CAM, "Attention of the model", UTERUS, 0.8)


def _map(stack: Stack) -> HeatMap:
    values = blob(stack)
    present = values.max(axis=(1, 2)) > 0.3
    values[~present] = 0.0
    return HeatMap(stack, values, present, GRAD_CAM, "Grad-CAM, sarcoma")


def _preview(stack: Stack) -> np.ndarray:
    return (60 + 120 * blob(stack)).astype(np.uint8)


def _study(stacks: Sequence[Stack], instances: Sequence[StoredInstance]) -> Study:
    ordered = tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid))
    return Study(
        uid=ordered[0].study_uid, revision=1, patient=Patient("F", 45.0), modalities=frozenset({"MR"}),
        body_parts=frozenset({"PELVIS"}), stacks=tuple(stacks), refusals=(), instances=ordered,
    )  # fmt: skip


def _stack(made: SeriesMade, frames: Sequence[FrameRef], *, series_uid: UID) -> Stack:
    row, column, _ = _COSINES[made.plane]
    return Stack(
        series_uid=series_uid, study_uid=_STUDY, series_number=made.number,
        frame_of_reference_uid=derived_uid("test", "frame of reference"),
        contrast=made.contrast, plane=made.plane, frames=tuple(frames), rows=made.rows, columns=made.columns,
        row_cosine=row, column_cosine=column, spacing_mm=(5.0, 2.0, 2.0),
        reasons=("made so",), b_value=made.b_value,
    )  # fmt: skip


def _real_stack(
    planes: list[tuple[pydicom.Dataset, FrameRef, tuple[float, ...], tuple[float, ...]]],
) -> Stack:
    data_set, _, orientation, spacing = planes[0]
    row, column = orientation[:3], orientation[3:]
    normal = np.cross(row, column)
    at = {round(float(np.dot(normal, frame.position_mm)), 2): frame for _, frame, o, _ in reversed(planes)
          if np.allclose(o, orientation, atol=1e-3)}  # fmt: skip
    places = sorted(at)
    between = (places[-1] - places[0]) / (len(places) - 1) if len(places) > 1 else 1.0
    plane = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)[int(np.argmax(np.abs(normal)))]
    return Stack(
        series_uid=UID(data_set.SeriesInstanceUID), study_uid=UID(data_set.StudyInstanceUID),
        frame_of_reference_uid=UID(data_set.FrameOfReferenceUID),
        series_number=int(data_set.SeriesNumber or 0),
        contrast=Contrast.T2, plane=plane, frames=tuple(at[place] for place in places),
        rows=int(data_set.Rows), columns=int(data_set.Columns), row_cosine=row, column_cosine=column,
        spacing_mm=(between, *spacing), reasons=("read so",),
    )  # fmt: skip


def _planes(
    data_set: pydicom.Dataset,
) -> list[tuple[int, tuple[float, ...], tuple[float, ...], tuple[float, ...]]]:
    if "NumberOfFrames" not in data_set:
        return [(1, _floats(data_set.ImagePositionPatient), _floats(data_set.ImageOrientationPatient),
                 _floats(data_set.PixelSpacing))]  # fmt: skip
    shared, planes = data_set.SharedFunctionalGroupsSequence[0], []
    for number, frame in enumerate(data_set.PerFrameFunctionalGroupsSequence, start=1):
        orientation = (frame if "PlaneOrientationSequence" in frame else shared).PlaneOrientationSequence[0]
        measures = (frame if "PixelMeasuresSequence" in frame else shared).PixelMeasuresSequence[0]
        position = _floats(frame.PlanePositionSequence[0].ImagePositionPatient)
        planes.append(
            (number, position, _floats(orientation.ImageOrientationPatient), _floats(measures.PixelSpacing))
        )
    return planes


def _floats(values: Iterable[object]) -> tuple[float, ...]:
    return tuple(float(str(value)) for value in values)


def _stored(data_set: pydicom.Dataset, path: Path) -> StoredInstance:
    return StoredInstance(
        sop_instance_uid=UID(data_set.SOPInstanceUID), sop_class_uid=UID(data_set.SOPClassUID),
        transfer_syntax_uid=UID(data_set.file_meta.TransferSyntaxUID),
        study_uid=UID(data_set.StudyInstanceUID), series_uid=UID(data_set.SeriesInstanceUID),
        digest=_digest(path), size_bytes=path.stat().st_size, path=path,
        header={"instance_number": int(data_set.InstanceNumber)} if data_set.get("InstanceNumber") else {},
    )  # fmt: skip


def _digest(path: Path) -> Digest:
    status = path.stat()
    return _digest_of(path, status.st_mtime_ns, status.st_size)


@lru_cache
def _digest_of(path: Path, mtime_ns: int, size: int) -> Digest:
    return Digest(hashlib.sha256(path.read_bytes()).hexdigest())


def _frame(
    data_set: Dataset, path: Path, number: int, position: Iterable[float], *, multiframe: bool
) -> FrameRef:
    x, y, z = position
    return FrameRef(
        UID(data_set.SOPClassUID),
        UID(data_set.SOPInstanceUID),
        number,
        path,
        _digest(path),
        (x, y, z),
        multiframe,
    )


_STUDY = derived_uid("test", "study")


def _position(made: SeriesMade, place: int) -> tuple[float, float, float]:
    normal = _COSINES[made.plane][2]
    x, y, z = (start + 5.0 * place * n for start, n in zip((-50.0, -60.0, 40.0), normal, strict=True))
    return x, y, z


def _common(made: SeriesMade, name: str, sop_class: str, instance: UID) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, instance
    data_set = Dataset()
    data_set.file_meta = meta
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.SOPClassUID, data_set.SOPInstanceUID = sop_class, instance
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = (
        _STUDY,
        derived_uid("test", "series", made.number),
    )
    data_set.FrameOfReferenceUID = derived_uid("test", "frame of reference")
    data_set.PositionReferenceIndicator = ""
    data_set.PatientName, data_set.PatientID = name, "CANARY-ID"
    data_set.PatientBirthDate, data_set.PatientSex, data_set.PatientAge = "19760203", "F", "045Y"
    data_set.StudyDate, data_set.StudyTime = "20210304", "101112"
    data_set.SeriesDate, data_set.SeriesTime = "20210304", "101200"
    data_set.ContentDate, data_set.ContentTime = "20210304", f"10{made.number:02d}00"
    data_set.AcquisitionDateTime = f"2021030410{made.number:02d}00"
    data_set.AccessionNumber, data_set.StudyID, data_set.ReferringPhysicianName = "ACC1", "1", ""
    data_set.StudyDescription, data_set.SeriesDescription = "MR pelvis", "CANARY text"
    data_set.Modality, data_set.SeriesNumber, data_set.InstanceNumber = "MR", made.number, 1
    data_set.Manufacturer, data_set.ManufacturerModelName = "dicom-node tests", "phantom"
    data_set.BodyPartExamined, data_set.PatientPosition = "PELVIS", "HFS"
    data_set.Rows, data_set.Columns, data_set.SamplesPerPixel = made.rows, made.columns, 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit, data_set.PixelRepresentation = (
        16,
        12,
        11,
        0,
    )
    return data_set


def _classic(made: SeriesMade, place: int, name: str) -> Dataset:
    instance = derived_uid("test", "instance", made.number, place)
    data_set = _common(made, name, "1.2.840.10008.5.1.4.1.1.4", instance)
    data_set.InstanceNumber = place + 1
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    data_set.ScanningSequence, data_set.SequenceVariant, data_set.MRAcquisitionType = "SE", "NONE", "2D"
    data_set.EchoTime, data_set.RepetitionTime, data_set.EchoTrainLength = 100, 4000, 1
    data_set.SliceThickness, data_set.SpacingBetweenSlices, data_set.PixelSpacing = 4, 5, [2, 2]
    row, column, _ = _COSINES[made.plane]
    data_set.ImageOrientationPatient, data_set.ImagePositionPatient = (
        [*row, *column],
        [*_position(made, place)],
    )
    data_set.WindowCenter, data_set.WindowWidth = [600, 500], [1200, 900]
    data_set.PixelData = np.zeros((made.rows, made.columns), "<u2").tobytes()
    return data_set


def _enhanced(made: SeriesMade, b_values: Sequence[float]) -> Dataset:
    instance = derived_uid("test", "enhanced", made.number)
    data_set = _common(made, CANARY, "1.2.840.10008.5.1.4.1.1.4.1", instance)
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "DIFFUSION", "NONE"]
    row, column, _ = _COSINES[made.plane]
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [*row, *column]
    measures.PixelSpacing, measures.SliceThickness = [2, 2], 4
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    window = Dataset()
    window.WindowCenter, window.WindowWidth = 600, 1200
    shared.FrameVOILUTSequence = [window]
    data_set.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for place in range(made.slices):
        for b_value in b_values:
            frame, position, diffusion = Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [*_position(made, place)]
            diffusion.DiffusionBValue = b_value
            frame.PlanePositionSequence, frame.MRDiffusionSequence = [position], [diffusion]
            frames.append(frame)
    data_set.PerFrameFunctionalGroupsSequence = frames
    data_set.NumberOfFrames = len(frames)
    data_set.PixelData = np.zeros((len(frames), made.rows, made.columns), "<u2").tobytes()
    return data_set
