"""Slides and photographs on disk and readings of them, made by code or of real files.

`smear(folder)` writes a small slide of two levels, off the origin and with cells at uneven places;
`real_smear(paths)` takes the finest level of a real one; `read(slide)` says a full reading of a
picture, and `judged(study)` findings about all pictures of a study.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from PIL import ImageCms
from pydicom.dataset import Dataset, FileMetaDataset

from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Algorithm, Certainty, Findings, OperatingPoint, Verdict
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.series import Patient, StoredInstance, Study
from dicom_node.domain.slide import (
    Adequacy,
    CellClass,
    Cells,
    GalleryCell,
    Photograph,
    Reading,
    Share,
    Slide,
    SlideLevel,
    SlidePart,
    TileMap,
)

CANARY = "CANARY^NEVER^LOGGED"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
MICROSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.2"
USUAL = ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
TURNED = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0))
"""The two orientations that slides mostly have: row and column cosines."""
UM = 0.5
STEP = 64
PITCH_UM = 1.5
NILM = CellClass(
    Code("373887005", "SCT", "Negative for intraepithelial lesion or malignancy"), "NILM", 0, (90, 190, 120)
)
LSIL = CellClass(
    Code("62051000119105", "SCT", "LSIL on cervical Papanicolaou smear"), "LSIL", 1, (255, 200, 40)
)
HSIL = CellClass(
    Code("62061000119107", "SCT", "HSIL on cervical Papanicolaou smear"), "HSIL", 2, (255, 106, 61)
)
CERVICAL = (NILM, LSIL, HSIL)
BLOOD = (
    CellClass(
        Code("80153006", "SCT", "Segmented neutrophil"), "segmented", 0, (120, 180, 255),
        Code("769-0", "LN", "Neutrophils.segmented/100 leukocytes in Blood"),
    ),
    CellClass(
        Code("702697008", "SCT", "Band neutrophil"), "band", 0, (80, 220, 220),
        Code("764-1", "LN", "Neutrophils.band form/100 leukocytes in Blood"),
    ),
    CellClass(
        Code("312256009", "SCT", "Blast cell"), "blast", 3, (255, 80, 80),
        Code("709-6", "LN", "Blasts/100 leukocytes in Blood"),
    ),
)  # fmt: skip
MODEL = Algorithm(
    "Cell Classifier", "1.0.0", Digest("3" * 64), "Sorts cells into classes, with the regions it looked at.",
    "phantoms made by code, 40 slides", "No real patient was seen in training.",
)  # fmt: skip


def smear(
    folder: Path, *, cosines: Sequence[Sequence[float]] = USUAL, planes: int = 1, number: int = 1,
    rows: int = 900, columns: int = 1300, **attributes: object,
) -> Study:  # fmt: skip
    """One slide, levels of 0.5 and 2 um per pixel; `attributes` are set on both (`None` deletes)."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = painted(rows, columns)
    levels, stored = [], []
    for level, factor in enumerate((1, 4)):
        pixels = picture[::factor, ::factor]
        data_set = _level(pixels, level, factor, cosines, planes, number)
        for keyword, value in attributes.items():
            if value is None:
                data_set.pop(keyword, None)
            else:
                setattr(data_set, keyword, value)
        path = folder / f"{number}_{level}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        levels.append(_told(data_set, path, planes))
        stored.append(_stored(data_set, path))
    slide = _slide(data_set, levels, cosines, number)
    return Study(
        uid=slide.study_uid, revision=1, patient=Patient("F", 45.0), modalities=frozenset({"SM"}),
        body_parts=frozenset(), stacks=(), refusals=(), instances=tuple(stored), slides=(slide,),
    )  # fmt: skip


def photographs(folder: Path, count: int = 2) -> Study:
    """A study of photographs through a microscope, each an object of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    taken, stored = [], []
    for place in range(count):
        pixels = painted(360, 480)
        data_set = _common(derived_uid("photograph", place), MICROSCOPIC, 1)
        data_set.SeriesInstanceUID = derived_uid("photographs")
        data_set.InstanceNumber, data_set.Modality = place + 1, "GM"
        data_set.ImageType, data_set.PatientOrientation = ["ORIGINAL", "PRIMARY"], None
        data_set.Laterality = None
        _set_pixels(data_set, pixels[None])
        path = folder / f"photograph_{place}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        stored.append(_stored(data_set, path))
        taken.append(
            Photograph(
                UID(data_set.StudyInstanceUID), UID(data_set.SeriesInstanceUID), UID(MICROSCOPIC),
                UID(data_set.SOPInstanceUID), 1, path, _digest(path), 360, 480, 1, place + 1,
            )
        )  # fmt: skip
    return Study(
        uid=taken[0].study_uid, revision=1, patient=Patient("F", 45.0), modalities=frozenset({"GM"}),
        body_parts=frozenset(), stacks=(), refusals=(), instances=tuple(stored), photographs=tuple(taken),
    )  # fmt: skip


def real_smear(paths: Sequence[Path]) -> Study:
    """Real files of one pyramid, every level with one plane and TILED_FULL."""
    levels, stored = [], []
    for path in sorted(paths):
        data_set = pydicom.dcmread(path, stop_before_pixels=True)
        levels.append(_told(data_set, path, 1))
        stored.append(_stored(data_set, path))
    levels.sort(key=lambda level: -level.columns)
    orientation = [float(value) for value in data_set.ImageOrientationSlide]
    slide = _slide(data_set, levels, (orientation[:3], orientation[3:]), 1)
    return Study(
        uid=slide.study_uid, revision=1, patient=Patient(None, None), modalities=frozenset({"SM"}),
        body_parts=frozenset(), stacks=(), refusals=(), instances=tuple(stored), slides=(slide,),
    )  # fmt: skip


def painted(rows: int, columns: int) -> np.ndarray:
    """(rows, columns, 3): pale ground, and nuclei at uneven places that no flip brings back."""
    picture = np.full((rows, columns, 3), (238, 233, 240), np.uint8)
    down, across = np.mgrid[:rows, :columns]
    for column, row in centres(rows, columns, 60):
        far = (across - column) ** 2 + (down - row) ** 2
        picture[far < 14**2] = (196, 178, 214)
        picture[far < 6**2] = (92, 60, 130)
    return picture


def centres(rows: int, columns: int, count: int) -> np.ndarray:
    """(count, 2) columns and rows, denser towards the upper right."""
    rng = np.random.default_rng(5)
    across, down = 1 - rng.random(count) ** 2, rng.random(count) ** 2
    places = np.stack([20 + across * (columns - 40), 20 + down * (rows - 40)], axis=1)
    return places.astype(np.float32)


def read(
    picture: Slide | Photograph,
    *,
    classes: tuple[CellClass, ...] = CERVICAL,
    count: int = 60,
    shown: int = 12,
) -> Reading:
    """Cells where `painted` has them, a map, a gallery with heat, a differential, a thumbnail."""
    slide = picture if isinstance(picture, Slide) else None
    rows, columns = (slide.base.rows, slide.base.columns) if slide else (picture.rows, picture.columns)
    planes = len(slide.base.planes_um) if slide else 1
    rng = np.random.default_rng(3)
    k = len(classes)
    probability = rng.dirichlet(np.full(k, 0.4), count).astype(np.float32)
    cells = Cells(
        classes, centres(rows, columns, count), rng.uniform(20, 44, (count, 2)).astype(np.float32),
        probability.argmax(axis=1).astype(np.uint8), probability,
        rng.integers(0, planes, count).astype(np.uint16), rng.random(count).astype(np.float32),
    )  # fmt: skip
    order = np.argsort(-probability[:, -1])[:shown]
    total = int(sum(cells.counts()))
    return Reading(
        picture, cells, maps=(chart(slide, classes),) if slide else (),
        gallery=tuple(_shown(int(cell), place) for place, cell in enumerate(order)),
        differential=tuple(Share(c, n, total, max(0.0, n / total - 0.1), min(1.0, n / total + 0.1))
                           for c, n in zip(classes, cells.counts(), strict=True)) if classes is BLOOD else (),
        adequacy=Adequacy(count, 5000, Code("125154007", "SCT", "Specimen unsatisfactory for evaluation"),
                          f"{count} cells were found; 5000 are needed."),
        triage="review", thumbnail=painted(rows, columns)[::2, ::2], planes_read=planes,
    )  # fmt: skip


def chart(slide: Slide, classes: tuple[CellClass, ...]) -> TileMap:
    """A hot square near the upper right and a slope to the lower left, for the worst two classes."""
    rows, columns = -(-slide.base.rows // STEP), -(-slide.base.columns // STEP)
    values = np.zeros((2, rows, columns), np.float32)
    values[0] = np.linspace(0, 0.45, rows)[:, None] * np.linspace(1, 0, columns)[None, :]
    values[1, 2:4, columns - 5 : columns - 2] = 0.9
    values[1, 3, columns - 3] = 1.0
    two = classes[-2:]
    return TileMap(
        values, tuple(c.label for c in two), tuple(c.code for c in two), code("probability"), STEP,
        colours=tuple(c.colour for c in two),
    )  # fmt: skip


def judged(study: Study, *, probability: float = 0.93, **reading: object) -> Findings:
    """Findings with a reading of every picture of the study."""
    point = OperatingPoint(0.5, 0.4, 0.6, "Chosen so that none of 40 abnormal phantoms is missed",
                           (1.0, 0.928, 1.0), (0.91, 0.85, 0.95))  # fmt: skip
    certainty = point.certainty(probability)
    verdict = Verdict(
        finding=HSIL.code, site=Code("71252005", "SCT", "Cervix"),
        diagnosis=HSIL.code if certainty is Certainty.POSITIVE else NILM.code, certainty=certainty,
        probability=probability, positive_class=HSIL.code, negative_class=NILM.code, operating_point=point,
        statement=f"{certainty.value.capitalize()}: HSIL is the worst class on this slide.",
        warnings=("The slide holds fewer cells than the model was made for.",),
    )  # fmt: skip
    pictures = (*study.slides, *study.photographs)
    return Findings((MODEL,), verdict, readings=tuple(read(one, **reading) for one in pictures))  # type: ignore[arg-type]


def _shown(cell: int, place: int) -> GalleryCell:
    down, across = np.mgrid[-32:32, -32:32]
    image = np.full((64, 64, 3), (238, 233, 240), np.uint8)
    far = down**2 + across**2
    image[far < (22 + place % 5) ** 2] = (196, 178, 214)
    image[far < (9 + place % 7) ** 2] = (92, 60, 130)
    heat = np.exp(-(((down + 4) ** 2) + (across - 6) ** 2) / 160).astype(np.float32)
    return GalleryCell(cell, image, None if place % 4 == 3 else heat)


def _level(
    pixels: np.ndarray, level: int, factor: int, cosines: Sequence[Sequence[float]], planes: int, number: int
) -> Dataset:  # fmt: skip
    tile, (rows, columns) = 256, pixels.shape[:2]
    data_set = _common(derived_uid("slide", number, level), WSI, number)
    data_set.SeriesInstanceUID = derived_uid("slides", number)
    data_set.InstanceNumber, data_set.Modality = level + 1, "SM"
    data_set.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"]
    data_set.FrameOfReferenceUID = derived_uid("glass", number)
    data_set.PositionReferenceIndicator = "SLIDE_CORNER"
    data_set.VolumetricProperties, data_set.FocusMethod = "VOLUME", "AUTO"
    data_set.ExtendedDepthOfField, data_set.SpecimenLabelInImage = "NO", "NO"
    data_set.ImagedVolumeWidth, data_set.ImagedVolumeHeight = (
        columns * factor * UM / 1000,
        rows * factor * UM / 1000,
    )
    data_set.ImagedVolumeDepth = planes * PITCH_UM
    data_set.TotalPixelMatrixRows, data_set.TotalPixelMatrixColumns = rows, columns
    data_set.TotalPixelMatrixFocalPlanes = planes
    origin = Dataset()
    spacing = factor * UM / 1000
    middle = (spacing - UM / 1000) / 2 * (np.array(cosines[0]) + np.array(cosines[1]))
    origin.XOffsetInSlideCoordinateSystem = f"{18.25 + middle[0]:.6f}"
    origin.YOffsetInSlideCoordinateSystem = f"{41.5 + middle[1]:.6f}"
    origin.ZOffsetInSlideCoordinateSystem = "0.002"
    data_set.TotalPixelMatrixOriginSequence = [origin]
    data_set.ImageOrientationSlide = [*cosines[0], *cosines[1]]
    organization = Dataset()
    organization.DimensionOrganizationUID = derived_uid("dimensions", number, level)
    data_set.DimensionOrganizationSequence = [organization]
    data_set.DimensionOrganizationType = "TILED_FULL"
    data_set.DimensionIndexSequence = [_index(organization, tag) for tag in (0x0048021F, 0x0048021E)]
    path = _optical_path()
    data_set.OpticalPathSequence, data_set.NumberOfOpticalPaths = [path], 1
    measures, kind, same, groups = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing, spacing], PITCH_UM / 1000
    if planes > 1:
        measures.SpacingBetweenSlices = PITCH_UM / 1000
    kind.FrameType, same.OpticalPathIdentifier = data_set.ImageType, "0"
    groups.PixelMeasuresSequence = [measures]
    groups.WholeSlideMicroscopyImageFrameTypeSequence = [kind]
    groups.OpticalPathIdentificationSequence = [same]
    data_set.SharedFunctionalGroupsSequence = [groups]
    down, across = -(-rows // tile), -(-columns // tile)
    padded = np.full((down * tile, across * tile, 3), 255, np.uint8)
    padded[:rows, :columns] = pixels
    tiles = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    _set_pixels(data_set, np.concatenate([tiles] * planes))
    return data_set


def _optical_path() -> Dataset:
    path = Dataset()
    path.OpticalPathIdentifier = "0"
    path.IlluminationTypeCodeSequence = [_coded("111744", "DCM", "Brightfield illumination")]
    path.IlluminationColorCodeSequence = [_coded("414298005", "SCT", "Full Spectrum")]
    path.ICCProfile = _profile()
    path.ColorSpace = "SRGB"
    return path


def _profile() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes([7, 208, 0, 1, 0, 1] + [0] * 6)  # the date it was made: the year 2000, always
    return bytes(profile)


def _index(organization: Dataset, tag: int) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = organization.DimensionOrganizationUID
    item.DimensionIndexPointer, item.FunctionalGroupPointer = tag, 0x0048021A
    return item


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _common(instance: str, sop_class: str, number: int) -> Dataset:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID = sop_class
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID = instance
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.StudyInstanceUID = derived_uid("study of slides")
    data_set.PatientName, data_set.PatientID = CANARY, "CANARY-ID"
    data_set.PatientBirthDate, data_set.PatientSex = "19760203", "F"
    data_set.StudyDate, data_set.StudyTime = "20210304", "101112"
    data_set.ContentDate, data_set.ContentTime = "20210304", "101500"
    data_set.AcquisitionDateTime = "20210304101400"
    data_set.AccessionNumber, data_set.StudyID, data_set.ReferringPhysicianName = "ACC1", "1", ""
    data_set.SeriesNumber = number
    data_set.Manufacturer, data_set.ManufacturerModelName = "dicom-node tests", "phantom scanner"
    data_set.DeviceSerialNumber, data_set.SoftwareVersions = "1", "1"
    data_set.BurnedInAnnotation, data_set.LossyImageCompression = "NO", "00"
    data_set.AcquisitionContextSequence = []
    data_set.ContainerIdentifier = f"GLASS-{number}"
    data_set.IssuerOfTheContainerIdentifierSequence = []
    data_set.ContainerTypeCodeSequence = [_coded("433466003", "SCT", "Microscope slide")]
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = f"SMEAR-{number}", derived_uid("smear", number)
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    specimen.SpecimenPreparationSequence = []
    data_set.SpecimenDescriptionSequence = [specimen]
    return data_set


def _set_pixels(data_set: Dataset, frames: np.ndarray) -> None:
    data_set.Rows, data_set.Columns = frames.shape[1:3]
    if len(frames) > 1 or "TotalPixelMatrixRows" in data_set:
        data_set.NumberOfFrames = len(frames)
    data_set.SamplesPerPixel, data_set.PlanarConfiguration = 3, 0
    data_set.PhotometricInterpretation, data_set.PixelRepresentation = "RGB", 0
    data_set.BitsAllocated, data_set.BitsStored, data_set.HighBit = 8, 8, 7
    data_set.PixelData = frames.tobytes()
    data_set["PixelData"].VR = "OB"


def _told(data_set: Dataset, path: Path, planes: int) -> SlideLevel:
    spacing = data_set.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    origin = data_set.get("TotalPixelMatrixOriginSequence", [Dataset()])[0]
    place = [float(origin.get(f"{axis}OffsetInSlideCoordinateSystem", 0.0)) for axis in "XYZ"]
    part = SlidePart(
        UID(data_set.SOPClassUID), UID(data_set.SOPInstanceUID), UID(data_set.SeriesInstanceUID),
        UID(data_set.file_meta.TransferSyntaxUID), path, _digest(path), path.stat().st_size,
        int(data_set.NumberOfFrames), True, planes=planes,
    )  # fmt: skip
    return SlideLevel(
        rows=int(data_set.TotalPixelMatrixRows), columns=int(data_set.TotalPixelMatrixColumns),
        tile_rows=int(data_set.Rows), tile_columns=int(data_set.Columns),
        um_per_px=(float(spacing[0]) * 1000, float(spacing[1]) * 1000),
        origin_mm=(place[0], place[1], place[2]),
        planes_um=tuple(PITCH_UM * plane for plane in range(planes)), optical_paths=("0",),
        photometric=str(data_set.PhotometricInterpretation), samples_per_pixel=3, bits_allocated=8,
        parts=(part,),
    )  # fmt: skip


def _slide(
    data_set: Dataset, levels: Sequence[SlideLevel], cosines: Sequence[Sequence[float]], number: int
) -> Slide:  # fmt: skip
    (a, b, c), (d, e, f) = cosines
    return Slide(
        study_uid=UID(data_set.StudyInstanceUID), series_uid=UID(data_set.SeriesInstanceUID),
        frame_of_reference_uid=UID(data_set.FrameOfReferenceUID), series_number=number, container="c" * 64,
        row_cosine=(a, b, c), column_cosine=(d, e, f), levels=tuple(levels),
    )  # fmt: skip


def _stored(data_set: Dataset, path: Path) -> StoredInstance:
    return StoredInstance(
        sop_instance_uid=UID(data_set.SOPInstanceUID), sop_class_uid=UID(data_set.SOPClassUID),
        transfer_syntax_uid=UID(data_set.file_meta.TransferSyntaxUID),
        study_uid=UID(data_set.StudyInstanceUID), series_uid=UID(data_set.SeriesInstanceUID),
        digest=_digest(path), size_bytes=path.stat().st_size, path=path, header={},
    )  # fmt: skip


def _digest(path: Path) -> Digest:
    return Digest(hashlib.sha256(path.read_bytes()).hexdigest())
