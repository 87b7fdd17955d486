"""MR data sets for tests, made by code that a reader can follow.

`mr_series(...)` makes a classic single-frame series, `enhanced_mr(...)` one Enhanced object,
`uterine_study()` a small pelvic study. Any attribute is overridden by its DICOM keyword:
`mr_series(T2, 5, PatientSex="M", EchoTime=90)`. Pixels are a ramp that is different in every
slice and asymmetric in both directions, so a flip or a swap shows. The patient's name is a
canary: it must appear in no log and no file name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, derived_uid

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
CANARY = "CANARY^Patient"
PATIENT_ID = "CANARY-ID-7"

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Protocol:
    """One kind of acquisition, by DICOM keyword."""

    attributes: dict[str, Any] = field(default_factory=dict)  # Any: whatever pydicom takes

    def but(self, **attributes: Any) -> Protocol:
        return replace(self, attributes={**self.attributes, **attributes})


def _protocol(kind: list[str], te: float, tr: float, flip: float, **more: Any) -> Protocol:
    image_type = more.pop("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND"])
    return Protocol(
        {
            "ScanningSequence": kind, "EchoTime": te, "RepetitionTime": tr, "FlipAngle": flip,
            "ImageType": image_type, "MRAcquisitionType": "2D", "SequenceVariant": ["SK", "SP"],
            "ScanOptions": "", **more,
        }
    )  # fmt: skip


T2 = _protocol(["SE"], 100, 5000, 160, SeriesDescription="t2_tse", EchoTrainLength=16)
T1 = _protocol(["SE"], 11, 600, 150, SeriesDescription="t1_tse", EchoTrainLength=3)
T1_VIBE = _protocol(
    ["GR"], 1.6, 4.2, 10, SeriesDescription="t1_vibe_fs", ScanOptions="FS", MRAcquisitionType="3D"
)
PD = _protocol(["SE"], 28, 3000, 150, SeriesDescription="pd_tse")
FLAIR = _protocol(["SE", "IR"], 100, 9000, 150, SeriesDescription="flair", InversionTime=2500)
DWI = _protocol(
    ["EP", "SE"], 70, 5000, 90, SeriesDescription="ep2d_diff", ScanOptions="FS",
    ImageType=["ORIGINAL", "PRIMARY", "DIFFUSION", "TRACEW"], DiffusionBValue=800.0,
)  # fmt: skip
ADC = _protocol(
    ["EP", "SE"], 70, 5000, 90, SeriesDescription="ep2d_diff_ADC", ScanOptions="FS",
    ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"],
)  # fmt: skip
BOLD = _protocol(["EP", "GR"], 30, 2000, 80, SeriesDescription="ep2d_bold")


def mr_instance(protocol: Protocol = T2, index: int = 0, **attributes: Any) -> Dataset:
    """One classic MR image: slice `index` of an axial series, unless attributes say otherwise."""
    return mr_series(protocol, 1, first=index, **attributes)[0]


def mr_series(
    protocol: Protocol = T2, slices: int = 10, *, orientation: Sequence[float] = AXIAL,
    spacing_mm: float = 4.0, rows: int = 32, columns: int = 24, pixel_mm: tuple[float, float] = (2.0, 1.5),
    study: str = "study", series: str = "", first: int = 0, origin: Sequence[float] = (-20.0, -30.0, -40.0),
    missing: Iterable[int] = (), start_number: int = 1, **attributes: Any,
) -> list[Dataset]:  # fmt: skip
    """A classic series: slices along the normal, numbered from `start_number`; `missing` leaves some out.

    `study` and `series` are names: the same names give the same UIDs.
    """
    number = int(attributes.get("SeriesNumber", 1))
    series = series or f"series-{number}"
    skipped = set(missing)
    normal = np.cross(orientation[:3], orientation[3:])
    made = []
    for k in range(first, first + slices):
        if k in skipped:
            continue
        ds = _common(protocol, study, series, rows, columns)
        ds.SOPClassUID = MR_IMAGE
        ds.SOPInstanceUID = derived_uid(study, series, "instance", start_number + k)
        ds.InstanceNumber = start_number + k
        ds.ImagePositionPatient = [round(float(v), 6) for v in np.asarray(origin) + normal * spacing_mm * k]
        ds.ImageOrientationPatient = list(orientation)
        ds.PixelSpacing = list(pixel_mm)
        ds.SliceThickness = spacing_mm
        ds.SpacingBetweenSlices = spacing_mm
        ds.AcquisitionTime = f"12{k // 60 % 60:02d}{k % 60:02d}"
        ds.PixelData = ramp(rows, columns, k).tobytes()
        _override(ds, attributes)
        made.append(ds)
    return made


def enhanced_mr(
    protocol: Protocol = T2, slices: int = 10, *, orientation: Sequence[float] = AXIAL,
    spacing_mm: float = 4.0, rows: int = 32, columns: int = 24, pixel_mm: tuple[float, float] = (2.0, 1.5),
    study: str = "study", series: str = "", instance: str = "1", b_values: Sequence[float | None] = (None,),
    missing: Iterable[int] = (), temporal_positions: int = 1,
    origin: Sequence[float] = (-20.0, -30.0, -40.0), **attributes: Any,
) -> Dataset:  # fmt: skip
    """One Enhanced MR object; frames run over temporal positions, then b values, then slices."""
    series = series or f"series-{int(attributes.get('SeriesNumber', 1))}"
    ds = _common(Protocol({"ImageType": protocol.attributes["ImageType"]}), study, series, rows, columns)
    ds.SOPClassUID = ENHANCED_MR_IMAGE
    ds.SOPInstanceUID = derived_uid(study, series, "enhanced", instance)
    ds.InstanceNumber = int(instance) if instance.isdecimal() else 1
    ds.SeriesDescription = protocol.attributes.get("SeriesDescription", "")
    _enhanced_sequence(ds, protocol)
    skipped = set(missing)
    normal = np.cross(orientation[:3], orientation[3:])
    wanted = [
        (time, b, k)
        for time in range(1, temporal_positions + 1)
        for b in b_values
        for k in range(slices) if k not in skipped
    ]  # fmt: skip
    ds.SharedFunctionalGroupsSequence = [_shared_group(protocol, orientation, pixel_mm, spacing_mm)]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame_group(time, b, k, np.asarray(origin) + normal * spacing_mm * k) for time, b, k in wanted
    ]
    ds.NumberOfFrames = len(wanted)
    ds.PixelData = b"".join(ramp(rows, columns, k).tobytes() for _, _, k in wanted)
    _override(ds, attributes)
    return ds


def report(text: str, study: str = "study", **attributes: Any) -> Dataset:
    """A Basic Text SR whose content tree says `text`."""
    ds = _common(Protocol(), study, "report", 0, 0)
    del ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    ds.SOPInstanceUID = derived_uid(study, "report", text)
    ds.Modality = "SR"
    ds.SeriesNumber = 100
    finding = Dataset()
    finding.ValueType = "TEXT"
    finding.RelationshipType = "CONTAINS"
    finding.ConceptNameCodeSequence = [code("121071", "DCM", "Finding")]
    finding.TextValue = text
    ds.ValueType = "CONTAINER"
    ds.ContentSequence = [finding]
    _override(ds, attributes)
    return ds


def uterine_study(study: str = "study", **attributes: Any) -> list[Dataset]:
    """A small pelvic study: localiser, T2 in two planes, T1, DWI with two b values, ADC, all complete."""
    localiser = T2.but(SeriesDescription="localizer")
    dwi = [
        ds
        for n, b in enumerate((50.0, 800.0))
        for ds in mr_series(DWI, 8, study=study, SeriesNumber=5, DiffusionBValue=b, start_number=1 + 8 * n)
    ]
    planes = ((AXIAL, 1), (SAGITTAL, 4), (CORONAL, 7))
    made = [
        *(
            ds
            for plane, start in planes
            for ds in mr_series(
                localiser, 3, study=study, orientation=plane, SeriesNumber=1, start_number=start
            )
        ),
        *mr_series(T2, 10, study=study, orientation=SAGITTAL, SeriesNumber=2),
        *mr_series(T2, 12, study=study, SeriesNumber=3),
        *mr_series(T1, 12, study=study, SeriesNumber=4),
        *dwi,
        *mr_series(ADC, 8, study=study, SeriesNumber=6),
    ]
    for ds in made:
        _override(ds, attributes)
    return made


def ramp(rows: int, columns: int, k: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """(rows, columns) uint16: 1000 k + 10 row + column."""
    row, column = np.mgrid[0:rows, 0:columns]
    return np.asarray(1000 * k + 10 * row + column, dtype=np.uint16)


def code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def file_bytes(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as a PS3.10 file."""
    buffer = BytesIO()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    ds.file_meta = meta
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def write(instances: Iterable[Dataset], folder: Path) -> list[Path]:
    """Each data set as a file `00001.dcm`, `00002.dcm` ... in a folder made for it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, ds in enumerate(instances, start=1):
        path = folder / f"{n:05d}.dcm"
        path.write_bytes(file_bytes(ds))
        paths.append(path)
    return paths


def _common(protocol: Protocol, study: str, series: str, rows: int, columns: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.Modality = "MR"
    ds.Manufacturer = "TEST"
    ds.StudyDate, ds.StudyTime = "20260102", "120000"
    ds.AcquisitionDate = "20260102"
    ds.AccessionNumber = "CANARY-ACC"
    ds.PatientName, ds.PatientID = CANARY, PATIENT_ID
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19760101", "F", "050Y"
    ds.BodyPartExamined = "PELVIS"
    ds.StudyInstanceUID = derived_uid(study)
    ds.SeriesInstanceUID = derived_uid(study, series)
    ds.FrameOfReferenceUID = derived_uid(study, "frame of reference")
    ds.StudyID, ds.SeriesNumber, ds.PatientPosition = "1", 1, "HFS"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    _override(ds, protocol.attributes)
    return ds


def _override(ds: Dataset, attributes: dict[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def _enhanced_sequence(ds: Dataset, protocol: Protocol) -> None:
    kind = protocol.attributes["ScanningSequence"]
    ds.EchoPulseSequence = "GRADIENT" if "GR" in kind else "SPIN"
    ds.EchoPlanarPulseSequence = "YES" if "EP" in kind else "NO"
    ds.SpectrallySelectedSuppression = "FAT" if protocol.attributes["ScanOptions"] == "FS" else "NONE"
    ds.MRAcquisitionType = protocol.attributes["MRAcquisitionType"]


def _shared_group(
    protocol: Protocol, orientation: Sequence[float], pixel_mm: tuple[float, float], spacing_mm: float
) -> Dataset:
    facts = protocol.attributes
    timing, echo, plane, measures, modifier, kind = (Dataset() for _ in range(6))
    timing.RepetitionTime, timing.FlipAngle = facts["RepetitionTime"], facts["FlipAngle"]
    echo.EffectiveEchoTime = float(facts["EchoTime"])
    plane.ImageOrientationPatient = list(orientation)
    measures.PixelSpacing, measures.SliceThickness = list(pixel_mm), spacing_mm
    measures.SpacingBetweenSlices = spacing_mm
    modifier.InversionRecovery = "YES" if "IR" in facts["ScanningSequence"] else "NO"
    if "InversionTime" in facts:
        modifier.InversionTimes = [float(facts["InversionTime"])]
    kind.FrameType = facts["ImageType"]
    kind.AcquisitionContrast = "UNKNOWN"
    group = Dataset()
    group.MRTimingAndRelatedParametersSequence, group.MREchoSequence = [timing], [echo]
    group.PlaneOrientationSequence, group.PixelMeasuresSequence = [plane], [measures]
    group.MRModifierSequence, group.MRImageFrameTypeSequence = [modifier], [kind]
    return group


def _frame_group(time: int, b: float | None, k: int, position: Any) -> Dataset:  # Any: three numbers
    place, content, group = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [round(float(v), 6) for v in position]
    content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", k + 1, time
    content.FrameAcquisitionDateTime = f"2026010212{time:02d}{k % 60:02d}"
    group.PlanePositionSequence, group.FrameContentSequence = [place], [content]
    if b is not None:
        diffusion = Dataset()
        diffusion.DiffusionBValue = float(b)
        diffusion.DiffusionDirectionality = "ISOTROPIC" if b else "NONE"
        group.MRDiffusionSequence = [diffusion]
    return group
