"""Write a phantom study as classic single-frame MR images, one folder per series.

Each vendor writes as that vendor does: its own series descriptions (some misleading), b values
in the standard attribute, in private elements, or both; b0 and b1000 in one series or two.
Truth masks go beside the images as `truth/<sequence>.npz`. UIDs are derived from the case, dates
are fixed, so the same study gives the same bytes. PS3.3 A.4 (MR Image IOD), C.8.3 (MR modules).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, derived_uid
from dicom_node.train.phantoms.cases import CaseSpec
from dicom_node.train.phantoms.generate import PhantomSequence, PhantomStudy
from dicom_node.train.phantoms.vendors import HABITS, Habit, diffusion_elements, series_names

STUDY_DATE = "20200102"


@dataclass(frozen=True)
class _Image:
    """One image before it is a data set."""

    sequence: PhantomSequence
    slice: int
    series: str
    series_number: int
    number: int


def write_study(study: PhantomStudy, out: Path) -> list[Path]:
    """All images of the study under `out`, then the truth; returns the images' paths.

    `out` is made; files of the same name are replaced.
    """
    paths: list[Path] = []
    for image in _images(study):
        folder = out / f"{image.series_number:03d}-{image.series}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{image.number:04d}.dcm"
        data_set(study, image).save_as(path, enforce_file_format=True)
        paths.append(path)
    _write_truth(study, out / "truth")
    return paths


def data_sets(study: PhantomStudy) -> Iterator[Dataset]:
    """The same images without files."""
    for image in _images(study):
        yield data_set(study, image)


def study_uid(spec: CaseSpec) -> str:
    return str(_uid(spec, "study"))


def _images(study: PhantomStudy) -> Iterator[_Image]:
    """Series in the order of acquisition; the one with both b values interleaves neither."""
    habit = HABITS[study.spec.vendor]
    for number, (series, names) in enumerate(habit.series, start=1):
        present = [study.sequences[name] for name in names if name in study.sequences]
        count = 0
        for sequence in present:
            for k in range(len(sequence.array)):
                count += 1
                yield _Image(sequence, k, series, number * habit.number_step, count)


def data_set(study: PhantomStudy, image: _Image) -> Dataset:
    """One MR image (PS3.3 A.4)."""
    spec, sequence = study.spec, image.sequence
    habit = HABITS[spec.vendor]
    ds = Dataset()
    _patient_and_study(ds, spec)
    _series_and_equipment(ds, spec, image, habit)
    _geometry(ds, spec, sequence, image)
    _physics(ds, spec, sequence, habit)
    _pixels(ds, sequence, image.slice, habit, spec)
    b = sequence.parameters.get("b")
    if b is not None:
        diffusion_elements(ds, spec.vendor, int(b))
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = _uid(spec, image.series, image.number)
    ds.file_meta = _file_meta(ds)
    return ds


def _uid(spec: CaseSpec, *parts: object) -> str:
    case = (spec.cohort, spec.index, spec.seed, spec.label, spec.vendor, spec.age, spec.field_strength_t)
    return str(derived_uid("phantom", *case, spec.difficulty, *parts))


def _file_meta(ds: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


def _patient_and_study(ds: Dataset, spec: CaseSpec) -> None:
    chance = np.random.default_rng([spec.seed, 9])
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = f"PHANTOM^{spec.cohort.upper()} {spec.index:04d}"
    ds.PatientID = f"PHANTOM-{spec.cohort[:3].upper()}-{spec.index:04d}-{spec.seed % 10000:04d}"
    ds.PatientBirthDate = f"{2020 - spec.age - 1}0601"
    ds.PatientSex = "F"
    ds.PatientAge = f"{spec.age:03d}Y"
    ds.PatientWeight = str(int(chance.normal(66, 11)))
    ds.PatientComments = "Generated phantom, not a person"
    ds.StudyInstanceUID = study_uid(spec)
    ds.StudyID = f"P{spec.index:04d}"
    ds.StudyDate, ds.StudyTime = STUDY_DATE, f"{8 + spec.index % 10:02d}{spec.index % 60:02d}00"
    ds.AccessionNumber = f"PH{spec.cohort[:1].upper()}{spec.index:06d}"
    ds.ReferringPhysicianName = "PHANTOM^REFERRER"
    ds.StudyDescription = HABITS[spec.vendor].study_description
    reason = referral(spec)
    if reason:
        ds.ReasonForTheRequestedProcedure = reason


def referral(spec: CaseSpec) -> str:
    """Why the study was asked for. Sarcomas are mostly unsuspected: two in three say leiomyoma."""
    chance = np.random.default_rng([spec.seed, 8]).random()
    known = 0.65 if spec.label == "sarcoma" else 0.7
    if chance < known:
        return "Uterine leiomyoma, planning of treatment"
    if chance < known + 0.15:
        return "Pelvic mass"
    return "" if chance < known + 0.25 else "Abnormal uterine bleeding"


def _series_and_equipment(ds: Dataset, spec: CaseSpec, image: _Image, habit: Habit) -> None:
    description, protocol = series_names(spec, image.series)
    ds.Modality = "MR"
    ds.SeriesInstanceUID = _uid(spec, "series", image.series)
    ds.SeriesNumber = image.series_number
    ds.SeriesDescription, ds.ProtocolName = description, protocol
    ds.SeriesDate, ds.SeriesTime = STUDY_DATE, f"{10 + image.series_number % 10:02d}1500"
    ds.AcquisitionDate, ds.AcquisitionTime = STUDY_DATE, ds.SeriesTime
    ds.ContentDate, ds.ContentTime = STUDY_DATE, ds.SeriesTime
    ds.BodyPartExamined = "PELVIS"
    ds.PatientPosition = "HFS"
    ds.Manufacturer = habit.manufacturer
    ds.ManufacturerModelName = habit.models[int(spec.field_strength_t > 2)]
    ds.InstitutionName = "PHANTOM"
    ds.SoftwareVersions = habit.software
    ds.DeviceSerialNumber = "0"
    ds.FrameOfReferenceUID = _uid(spec, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.InstanceNumber = image.number
    ds.AcquisitionNumber = 1


def _geometry(ds: Dataset, spec: CaseSpec, sequence: PhantomSequence, image: _Image) -> None:
    affine = sequence.affines[image.slice]
    pixel = float(np.linalg.norm(affine[:3, 2]))
    row, column = affine[:3, 2] / pixel, affine[:3, 1] / pixel
    step = float(np.linalg.norm(affine[:3, 0]))
    ds.ImageOrientationPatient = [_decimal(v, 6) for v in (*row, *column)]
    ds.ImagePositionPatient = [_decimal(v, 4) for v in affine[:3, 3]]
    ds.PixelSpacing = [_decimal(pixel, 5)] * 2
    ds.SliceThickness = _decimal(sequence.parameters["thickness_mm"], 3)
    ds.SpacingBetweenSlices = _decimal(step, 4)
    ds.SliceLocation = _decimal(float(affine[:3, 3] @ np.cross(row, column)), 4)


def _decimal(value: float, digits: int) -> str:
    """A Decimal String: at most 16 characters, no negative zero (PS3.5 6.2)."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def _physics(ds: Dataset, spec: CaseSpec, sequence: PhantomSequence, habit: Habit) -> None:
    p = sequence.parameters
    epi = sequence.name in ("dwi_b0", "dwi_b1000", "adc")
    turbo = sequence.name.startswith("t2")
    ds.ScanningSequence = ["EP", "SE"] if epi else "GR" if sequence.name == "localiser" else "SE"
    ds.SequenceVariant = "SK" if epi or turbo else "SP" if sequence.name == "localiser" else "NONE"
    ds.ScanOptions = habit.fat_suppressed if epi else ""
    ds.MRAcquisitionType = "2D"
    ds.SequenceName = habit.sequence_names.get(sequence.name, "")
    ds.RepetitionTime, ds.EchoTime = _decimal(p["tr_ms"], 1), _decimal(p["te_ms"], 2)
    ds.EchoTrainLength = 1 if not turbo else 18
    if epi:
        ds.EchoTrainLength = 64
    ds.NumberOfAverages = "4" if sequence.name == "dwi_b1000" else "1"
    ds.MagneticFieldStrength = _decimal(spec.field_strength_t, 1)
    ds.ImagingFrequency = _decimal(spec.field_strength_t * 42.577, 4)
    ds.ImagedNucleus = "1H"
    ds.FlipAngle = "90"
    ds.PixelBandwidth = "1500" if epi else "200"
    ds.InPlanePhaseEncodingDirection = "COL"
    ds.PercentSampling, ds.PercentPhaseFieldOfView = "100", "100"
    ds.AcquisitionMatrix = [0, sequence.array.shape[2], sequence.array.shape[1], 0]


def _pixels(ds: Dataset, sequence: PhantomSequence, k: int, habit: Habit, spec: CaseSpec) -> None:
    pixels, slope = _stored(sequence, k, habit)
    derived = sequence.name == "adc"
    ds.ImageType = habit.image_type_adc if derived else habit.image_types.get(sequence.name, habit.image_type)
    if derived:
        ds.DerivationDescription = "ADC from b=0 and b=1000"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, habit.bits, habit.bits - 1, 0
    ds.SmallestImagePixelValue, ds.LargestImagePixelValue = int(pixels.min()), int(pixels.max())
    high = float(np.percentile(sequence.array[k], 99)) or 1.0
    ds.WindowCenter, ds.WindowWidth = _decimal(high / 2, 1), _decimal(max(high, 1.0), 1)
    if slope is not None:
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", slope, "US"
    ds.PixelData = pixels.astype("<u2").tobytes()


def _stored(sequence: PhantomSequence, k: int, habit: Habit) -> tuple[npt.NDArray[np.uint16], str | None]:
    """Stored values of one slice and the series' rescale slope, if this vendor writes one (Philips)."""
    top = 2**habit.bits - 1
    values = sequence.array[k]
    if not habit.rescaled:
        return np.clip(values, 0, top).astype(np.uint16), None
    slope = f"{max(float(sequence.array.max()), 1.0) / top:.6g}"
    return np.clip(np.rint(values / float(slope)), 0, top).astype(np.uint16), slope


def _write_truth(study: PhantomStudy, folder: Path) -> None:
    """One file per sequence: `tumour`, `uterus` (slices, rows, columns) uint8 and `affines`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sequence in study.sequences.items():
        _write_npz(
            folder / f"{name}.npz",
            {
                "tumour": sequence.tumour_mask,
                "uterus": sequence.uterus_mask,
                "affines": np.stack(sequence.affines),
            },
        )


def _write_npz(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """As numpy.savez_compressed, without the time of day in it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED)
