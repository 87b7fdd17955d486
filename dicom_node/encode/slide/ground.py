"""Where things on a slide are, and what results take over from the slide's own header.

Places are worked out once, here: pixels of the finest level to millimetres of the slide coordinate
system, and the grid of a coarse map to a total pixel matrix of its own (PS3.3 C.8.12.2.1.1,
C.8.12.4.1.1, C.7.6.17.2). Names of containers and specimens travel as they came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.dicom import elements
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.geometry import Vector
from dicom_node.domain.identity import UID
from dicom_node.domain.slide import Picture, Slide
from dicom_node.encode.document import Run
from dicom_node.encode.images import decimal
from dicom_node.encode.source import copied, picture_key

_SPECIMEN = (
    "ContainerIdentifier", "IssuerOfTheContainerIdentifierSequence", "AlternateContainerIdentifierSequence",
    "ContainerTypeCodeSequence", "ContainerDescription", "ContainerComponentSequence",
    "SpecimenDescriptionSequence",
)  # fmt: skip
"""Specimen module, PS3.3 C.7.6.22."""
_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1", "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1", "1.2.840.10008.1.2.4.91": "ISO_15444_1",
}  # fmt: skip
"""Lossy Image Compression Method (0028,2114) of transfer syntaxes that lose something, or may."""
_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


@dataclass(frozen=True, slots=True)
class Grid:
    """A total pixel matrix on the frame of reference of a slide."""

    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    """Between rows, between columns."""
    origin_mm: Vector
    """Centre of the first pixel."""


def frame_of_reference(slide: Slide) -> UID:
    """The slide's own; where the scanner gave none, its series is one."""
    return slide.frame_of_reference_uid or derived_uid("frame of reference", slide.series_uid)


def places_mm(
    slide: Slide, places_px: npt.NDArray[np.floating], planes: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.float64]:
    """(n, 2) columns and rows of the finest level, edges between pixels -> (n, 3) mm, on the focal planes."""
    base = slide.base
    (between_rows, between_columns), half = base.um_per_px, 0.5
    along_row = np.array(slide.row_cosine) * between_columns / 1000
    along_column = np.array(slide.column_cosine) * between_rows / 1000
    columns, rows = (np.asarray(places_px, np.float64) - half).T[..., None]
    places: npt.NDArray[np.float64] = np.array(base.origin_mm) + columns * along_row + rows * along_column
    if planes is not None:
        places[:, 2] += np.asarray(base.planes_um)[planes] / 1000
    return places


def grid_of(
    slide: Slide, shape: tuple[int, int], step_px: tuple[float, float],
    corner_px: tuple[float, float] = (0.0, 0.0),
) -> Grid:  # fmt: skip
    """The grid of (rows, columns) squares, `step_px` apart between rows and between columns, whose upper left
    corner is at `corner_px` (column, row)."""
    first = np.array([[corner_px[0] + step_px[1] / 2, corner_px[1] + step_px[0] / 2]])
    x, y, z = places_mm(slide, first)[0].tolist()
    rows_um, columns_um = slide.base.um_per_px
    spacing = step_px[0] * rows_um / 1000, step_px[1] * columns_um / 1000
    return Grid(shape[0], shape[1], spacing, (x, y, z))


def header_of(run: Run, picture: Picture) -> Dataset:
    return run.source.pictures[picture_key(picture)]


def specimen(run: Run, picture: Picture) -> Dataset:
    """The Specimen module of a picture; empty where it has no container identifier, or no specimen in it."""
    header, module = header_of(run, picture), Dataset()
    if not (header.get("ContainerIdentifier") and header.get("SpecimenDescriptionSequence")):
        return module
    for keyword in _SPECIMEN:
        tag = Tag(keyword)
        if tag in header:
            element = header[tag]
            value = [copied(item) for item in element.value] if element.VR == "SQ" else element.value
            setattr(module, keyword, value)
    for keyword in ("IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence"):  # Type 2
        if keyword not in module:
            setattr(module, keyword, [])
    for item in module.SpecimenDescriptionSequence:
        for keyword in ("IssuerOfTheSpecimenIdentifierSequence", "SpecimenPreparationSequence"):
            if keyword not in item:
                setattr(item, keyword, [])
    return module


def references(slide: Slide) -> list[Dataset]:
    """Image SOP Instance References (PS3.3 10.3) to every part of the finest level."""
    items = []
    for part in slide.base.parts:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = part.sop_class_uid, part.sop_instance_uid
        items.append(item)
    return items


def referenced_series(slide: Slide) -> list[Dataset]:
    """Referenced Series Sequence of Common Instance Reference (PS3.3 C.12.2)."""
    by_series: dict[UID, Dataset] = {}
    for part, reference in zip(slide.base.parts, references(slide), strict=True):
        series = by_series.setdefault(part.series_uid, Dataset())
        series.SeriesInstanceUID = part.series_uid
        series.ReferencedInstanceSequence = [*series.get("ReferencedInstanceSequence", []), reference]
    return list(by_series.values())


def stand_in(run: Run, slide: Slide, grid: Grid, tile: int) -> Dataset:
    """A slide of one plane with the grid's geometry, for highdicom to build on; it names no patient."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = _WSI, "1.1"
    image.StudyInstanceUID, image.SeriesInstanceUID = slide.study_uid, slide.series_uid
    image.Modality = "SM"
    image.FrameOfReferenceUID = frame_of_reference(slide)
    image.PositionReferenceIndicator = elements.text(header_of(run, slide), 0x00201040) or None
    image.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    image.Rows = image.Columns = tile
    image.TotalPixelMatrixRows, image.TotalPixelMatrixColumns = grid.rows, grid.columns
    image.TotalPixelMatrixFocalPlanes = 1
    image.NumberOfFrames = -(-grid.rows // tile) * -(-grid.columns // tile)
    image.DimensionOrganizationType = "TILED_FULL"
    image.ImageOrientationSlide = orientation(slide)
    image.TotalPixelMatrixOriginSequence = [origin(grid)]
    image.ImagedVolumeWidth = grid.columns * grid.spacing_mm[1]
    image.ImagedVolumeHeight = grid.rows * grid.spacing_mm[0]
    image.ImagedVolumeDepth = 1.0
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures(grid)]
    image.SharedFunctionalGroupsSequence = [groups]
    image.NumberOfOpticalPaths = 1
    image.OpticalPathSequence = [Dataset()]
    return image


def orientation(slide: Slide) -> list[str]:
    return [decimal(value) for value in (*slide.row_cosine, *slide.column_cosine)]


def origin(grid: Grid) -> Dataset:
    """Item of Total Pixel Matrix Origin Sequence (0048,0008)."""
    item = Dataset()
    item.XOffsetInSlideCoordinateSystem = decimal(grid.origin_mm[0])
    item.YOffsetInSlideCoordinateSystem = decimal(grid.origin_mm[1])
    item.ZOffsetInSlideCoordinateSystem = decimal(grid.origin_mm[2])
    return item


def measures(grid: Grid) -> Dataset:
    """Item of Pixel Measures Sequence (0028,9110)."""
    item = Dataset()
    item.PixelSpacing = [decimal(value) for value in grid.spacing_mm]
    item.SliceThickness = "0.001"
    return item


def lossy(run: Run, slide: Slide, made: Dataset) -> None:
    """What was lost before stays lost (PS3.3 C.7.6.1.1.5); how much, by the file if it does not say."""
    header = header_of(run, slide)
    parts = slide.base.parts
    method = _METHODS.get(parts[0].transfer_syntax_uid, "")
    if elements.text(header, 0x00282110) != "01" and not method:
        made.LossyImageCompression = "00"
        return
    plain = slide.base.rows * slide.base.columns * slide.base.samples_per_pixel
    ratio = max(1.0, plain * len(slide.base.planes_um) / sum(part.size_bytes for part in parts))
    made.LossyImageCompression = "01"
    made.LossyImageCompressionRatio = header.get("LossyImageCompressionRatio") or decimal(round(ratio, 1))
    made.LossyImageCompressionMethod = header.get("LossyImageCompressionMethod") or method or "ISO_10918_1"
