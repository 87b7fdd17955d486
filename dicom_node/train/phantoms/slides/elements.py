"""The header of one instance of a generated slide: everything of PS3.3 A.32.8 except frames and pixels.

Row direction of the specimen runs along -Y of the slide and column direction along -X, as with most
scanners; overview and label stand upright. Heights are over the slide's surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PIL import ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, derived_uid
from dicom_node.train.phantoms.slides.spec import Layout, SlideSpec

DATE, TIME = "20200102", "100000"
GLASS_MM = (25.0, 75.0)
"""X and Y of the corner of the glass that is farthest from the origin of the slide coordinate system."""
SURFACE_UM = 100.0
"""Height of the middle of the stack over the slide's surface."""
NO_RATIO = "00001.0000"
"""Stands for Lossy Image Compression Ratio until the frames are written."""
_STAINS = {
    "papanicolaou": (
        ("12710003", "hematoxylin stain"),
        ("54221006", "orange G stain"),
        ("89139001", "light green SF stain"),
    ),
    "may-gruenwald-giemsa": (("255803006", "may-Grunwald giemsa stain"),),
}
Flavour = Literal["VOLUME", "THUMBNAIL", "LABEL", "OVERVIEW"]


@dataclass(frozen=True, slots=True)
class Stands:
    """How a picture lies on the glass, seen from above."""

    corner_mm: tuple[float, float]
    """X and Y of the outer corner of the first pixel."""
    orientation: tuple[float, float, float, float, float, float]
    """Image Orientation (Slide) (0048,0102)."""


ON_GLASS = Stands((22.0, 50.0), (0.0, -1.0, 0.0, -1.0, 0.0, 0.0))
"""The specimen: rows run along the glass, as with most scanners."""
UPRIGHT = Stands((0.0, GLASS_MM[1]), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
"""Overview and label: the label above."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance: what it shows and which frames of it."""

    flavour: Flavour
    number: int
    level: int
    rows: int
    columns: int
    """Of the total pixel matrix."""
    tile_rows: int
    tile_columns: int
    planes: tuple[int, ...]
    """Indices of its focal planes."""
    spacing_mm: float
    frames: int
    sparse: bool = False
    stands: Stands = ON_GLASS
    part: tuple[int, int, int] = (1, 1, 0)
    """Number in the concatenation, of how many, and frames before it."""

    @property
    def derived(self) -> bool:
        return self.level > 0 or self.flavour == "THUMBNAIL"


def series_uid(spec: SlideSpec) -> str:
    return slide_uid(spec, "series")


def study_uid(spec: SlideSpec) -> str:
    return slide_uid(spec, "study")


def slide_uid(spec: SlideSpec, *parts: object) -> str:
    """A UID of this slide; another for every difference in the spec."""
    values = tuple(str(getattr(spec, field)) for field in SlideSpec.__dataclass_fields__)
    return str(derived_uid("phantom slide", *values, *parts))


def instance_uid(spec: SlideSpec, instance: Instance) -> str:
    one = (instance.flavour, instance.level, instance.planes, instance.part)
    return slide_uid(spec, *one, instance.rows, instance.columns)


def origin(
    spec: SlideSpec, spacing_mm: float, plane: int, stands: Stands = ON_GLASS
) -> tuple[float, float, float]:
    """Centre of a level's first pixel in the slide coordinate system: x and y in mm, z of a plane in um.

    The Standard counts height in micrometres there (PS3.3 C.8.12.6.1), and Spacing Between Slices in mm.
    """
    along, down = stands.orientation[:2], stands.orientation[3:5]
    half = spacing_mm / 2
    x, y = (corner + half * (a + d) for corner, a, d in zip(stands.corner_mm, along, down, strict=True))
    return x, y, SURFACE_UM + spec.heights_um()[plane]


def data_set(spec: SlideSpec, instance: Instance) -> Dataset:
    """All elements but Per-Frame Functional Groups and Pixel Data."""
    ds = Dataset()
    _patient_and_study(ds, spec)
    _series_and_equipment(ds, spec)
    _specimen(ds, spec)
    _image(ds, spec, instance)
    _tiles(ds, spec, instance)
    _optics(ds, spec)
    if instance.part[1] > 1:
        _concatenation(ds, spec, instance)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return ds


def _patient_and_study(ds: Dataset, spec: SlideSpec) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = f"PHANTOM^SLIDE {spec.seed:04d}"
    ds.PatientID = f"PHANTOM-SLIDE-{spec.seed:04d}"
    ds.PatientBirthDate, ds.PatientSex = "19800601", "F"
    ds.PatientComments = "Generated phantom, not a person"
    ds.StudyInstanceUID, ds.StudyID = study_uid(spec), f"S{spec.seed:04d}"
    ds.StudyDate, ds.StudyTime = DATE, TIME
    ds.AccessionNumber = f"PHS{spec.seed:06d}"
    ds.ReferringPhysicianName = "PHANTOM^REFERRER"
    ds.StudyDescription = "Phantom slide"


def _series_and_equipment(ds: Dataset, spec: SlideSpec) -> None:
    ds.Modality, ds.SeriesNumber = "SM", 1
    ds.SeriesInstanceUID = series_uid(spec)
    ds.SeriesDescription = spec.name
    ds.SeriesDate, ds.SeriesTime = DATE, TIME
    ds.FrameOfReferenceUID = slide_uid(spec, "frame of reference")
    ds.PositionReferenceIndicator = "SLIDE_CORNER"
    ds.Manufacturer, ds.ManufacturerModelName = "dicom-node", "phantom slide"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", IMPLEMENTATION_VERSION
    ds.AcquisitionContextSequence = []


def _specimen(ds: Dataset, spec: SlideSpec) -> None:
    ds.ContainerIdentifier = f"PHANTOM-{spec.seed:04d}"
    ds.IssuerOfTheContainerIdentifierSequence = []
    ds.ContainerTypeCodeSequence = [_code("433466003", "SCT", "Microscope slide")]
    specimen = Dataset()
    specimen.SpecimenIdentifier = f"PHANTOM-{spec.seed:04d}-1"
    specimen.SpecimenUID = slide_uid(spec, "specimen")
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    step = Dataset()
    step.SpecimenPreparationStepContentItemSequence = [
        _item("TEXT", _code("121041", "DCM", "Specimen Identifier"), specimen.SpecimenIdentifier),
        _item("CODE", _code("111701", "DCM", "Processing type"), _code("127790008", "SCT", "Staining")),
        *(
            _item("CODE", _code("424361007", "SCT", "Using substance"), _code(value, "SCT", meaning))
            for value, meaning in _STAINS[spec.stain]
        ),
    ]
    specimen.SpecimenPreparationSequence = [step]
    ds.SpecimenDescriptionSequence = [specimen]


def _item(kind: str, name: Dataset, value: Dataset | str) -> Dataset:
    item = Dataset()
    item.ValueType, item.ConceptNameCodeSequence = kind, [name]
    if isinstance(value, str):
        item.TextValue = value
    else:
        item.ConceptCodeSequence = [value]
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def image_type(instance: Instance) -> list[str]:
    origin = "DERIVED" if instance.derived else "ORIGINAL"
    return [origin, "PRIMARY", instance.flavour, "RESAMPLED" if instance.derived else "NONE"]


def _image(ds: Dataset, spec: SlideSpec, instance: Instance) -> None:
    ds.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    ds.SOPInstanceUID = instance_uid(spec, instance)
    ds.InstanceNumber = instance.number
    ds.ContentDate, ds.ContentTime, ds.AcquisitionDateTime = DATE, TIME, DATE + TIME
    ds.ImageType = image_type(instance)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "YBR_FULL_422", 0
    ds.Rows, ds.Columns, ds.NumberOfFrames = instance.tile_rows, instance.tile_columns, instance.frames
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.LossyImageCompression, ds.LossyImageCompressionMethod = "01", "ISO_10918_1"
    ds.LossyImageCompressionRatio = NO_RATIO
    ds.BurnedInAnnotation = "YES" if instance.flavour in ("LABEL", "OVERVIEW") else "NO"
    ds.SpecimenLabelInImage = ds.BurnedInAnnotation
    ds.FocusMethod, ds.ExtendedDepthOfField = "AUTO", "NO"
    ds.VolumetricProperties = "VOLUME"
    ds.LabelText = "PHANTOM" if instance.flavour == "LABEL" else ""
    ds.BarcodeValue = ""
    if instance.flavour == "VOLUME" and spec.levels > 1:
        ds.PyramidUID, ds.PyramidLabel = slide_uid(spec, "pyramid"), "phantom"


def _tiles(ds: Dataset, spec: SlideSpec, instance: Instance) -> None:
    spacing, planes = instance.spacing_mm, len(instance.planes)
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = instance.rows, instance.columns
    ds.TotalPixelMatrixFocalPlanes = planes
    ds.ImagedVolumeHeight, ds.ImagedVolumeWidth = instance.rows * spacing, instance.columns * spacing
    ds.ImagedVolumeDepth = planes * spec.pitch_um
    x, y, z = origin(spec, spacing, instance.planes[0], instance.stands)
    first = Dataset()
    first.XOffsetInSlideCoordinateSystem, first.YOffsetInSlideCoordinateSystem = decimal(x), decimal(y)
    first.ZOffsetInSlideCoordinateSystem = decimal(z)
    ds.TotalPixelMatrixOriginSequence = [first]
    ds.ImageOrientationSlide = list(instance.stands.orientation)
    measures = Dataset()
    measures.PixelSpacing = [decimal(spacing)] * 2
    measures.SliceThickness = measures.SpacingBetweenSlices = decimal(spec.pitch_um / 1000)
    frame_type, path = Dataset(), Dataset()
    frame_type.FrameType = ds.ImageType
    path.OpticalPathIdentifier = "1"
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    shared.OpticalPathIdentificationSequence = [path]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.DimensionOrganizationType = "TILED_SPARSE" if instance.sparse else "TILED_FULL"
    organization = Dataset()
    organization.DimensionOrganizationUID = slide_uid(spec, "dimensions")
    ds.DimensionOrganizationSequence = [organization]
    if instance.sparse:
        ds.DimensionIndexSequence = _dimensions(organization.DimensionOrganizationUID)


def _dimensions(uid: str) -> list[Dataset]:
    """Column, row and height, as `DimensionIndexValues` of a sparse frame count them."""
    indices = []
    for pointer in (0x0048021E, 0x0048021F, 0x0040074A):
        index = Dataset()
        index.DimensionOrganizationUID = uid
        index.DimensionIndexPointer, index.FunctionalGroupPointer = pointer, 0x0048021A
        indices.append(index)
    return indices


def _optics(ds: Dataset, spec: SlideSpec) -> None:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.ICCProfile, path.ColorSpace = icc_profile(), "SRGB"
    path.IlluminationTypeCodeSequence = [_code("111744", "DCM", "Brightfield illumination")]
    path.IlluminationColorCodeSequence = [_code("414298005", "SCT", "Full Spectrum")]
    path.ObjectiveLensPower = decimal(round(10 / spec.um_per_px))
    path.ObjectiveLensNumericalAperture = "0.75"
    ds.OpticalPathSequence, ds.NumberOfOpticalPaths = [path], 1


@cache
def icc_profile() -> bytes:
    """sRGB, with the date of the phantoms instead of that of the machine (ICC.1 7.2)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = b"".join(number.to_bytes(2, "big") for number in (2020, 1, 2, 10, 0, 0))
    return bytes(profile)


def _concatenation(ds: Dataset, spec: SlideSpec, instance: Instance) -> None:
    number, total, before = instance.part
    whole = slide_uid(spec, "whole", instance.level, instance.planes)
    ds.ConcatenationUID = slide_uid(spec, "concatenation", instance.level, instance.planes)
    ds.SOPInstanceUIDOfConcatenationSource = whole
    ds.InConcatenationNumber, ds.InConcatenationTotalNumber = number, total
    ds.ConcatenationFrameOffsetNumber = before


def decimal(value: float) -> str:
    """A Decimal String: at most 16 characters (PS3.5 6.2)."""
    return f"{value + 0.0:.9f}".rstrip("0").rstrip(".")[:16]


def planes_of(spec: SlideSpec) -> Sequence[tuple[int, ...]]:
    """Focal planes of each instance of a level."""
    every = tuple(range(spec.planes))
    return [(plane,) for plane in every] if spec.layout is Layout.INSTANCES else [every]
