"""Every cell as Microscopy Bulk Simple Annotations: one group per class, a box and a probability each.

A box is written as a polygon: not every reader knows rectangles. All is written from whole arrays,
so that a million cells take a second. On a slide of one focal plane places are pixels of the finest
level (2D); where it has several, they are millimetres of the slide coordinate system, on the plane
on which each cell decided (3D). PS3.3 A.87, C.37.1.
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_node.dicom import elements
from dicom_node.dicom.provenance import code_item
from dicom_node.domain.codebook import code
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.slide import Cells, Reading, Slide
from dicom_node.encode.document import SERIES_NUMBERS, Run, clipped, finish
from dicom_node.encode.images import identification
from dicom_node.encode.slide import ground
from dicom_node.encode.source import picture_key

ANNOTATIONS = "1.2.840.10008.5.1.4.1.1.91.1"
_NORMAL = code("anatomical-structure")
_ABNORMAL = code("abnormal-structure")
_PROBABILITY = code("probability")
_NO_UNITS = code("no-units")


def cell_annotations(run: Run, reading: Reading, place: int) -> tuple[ResultObject, ...]:
    """All cells of one slide; nothing where there is none."""
    slide = reading.picture
    if not isinstance(slide, Slide) or not len(reading.cells):
        return ()
    return (
        finish(
            annotated(run, slide, reading.cells), run, ResultKind.ANN, (picture_key(slide),),
            series_number=SERIES_NUMBERS[ResultKind.ANN] + place, what=f"cells, series {slide.series_number}",
        ),
    )  # fmt: skip


def annotated(run: Run, slide: Slide, cells: Cells) -> Dataset:
    """The object without its identity."""
    deep = len(slide.base.planes_um) > 1
    made = Dataset()
    made.SOPClassUID, made.Modality = ANNOTATIONS, "ANN"
    made.update(ground.specimen(run, slide))
    made.ContentLabel = "AI_CELLS"
    made.ContentDescription = clipped(f"{run.title}, research use only")
    made.ContentCreatorName = None
    made.AnnotationCoordinateType = "3D" if deep else "2D"
    if deep:
        made.FrameOfReferenceUID = ground.frame_of_reference(slide)
        header = ground.header_of(run, slide)
        made.PositionReferenceIndicator = elements.text(header, 0x00201040) or None
    else:
        made.PixelOriginInterpretation = "VOLUME"
    made.ReferencedImageSequence = ground.references(slide)[:1]
    made.ReferencedSeriesSequence = ground.referenced_series(slide)
    present = [(k, rows) for k in range(len(cells.classes)) if len(rows := np.flatnonzero(cells.label == k))]
    made.AnnotationGroupSequence = [
        _group(run, slide, cells, k, rows, number) for number, (k, rows) in enumerate(present, start=1)
    ]
    return made


def _group(
    run: Run, slide: Slide, cells: Cells, k: int, rows: npt.NDArray[np.intp], number: int
) -> Dataset:  # fmt: skip
    kind, group = cells.classes[k], Dataset()
    group.AnnotationGroupNumber = number
    group.AnnotationGroupUID = run.uid("cells", picture_key(slide), k)
    group.AnnotationGroupLabel = clipped(kind.label)
    group.AnnotationGroupDescription = f"{len(rows)} cells called {kind.label}. Research use only."
    group.AnnotationGroupGenerationType = "AUTOMATIC"
    group.AnnotationGroupAlgorithmIdentificationSequence = identification(run)
    group.AnnotationPropertyCategoryCodeSequence = [code_item(_ABNORMAL if kind.grade else _NORMAL)]
    group.AnnotationPropertyTypeCodeSequence = [code_item(kind.code)]
    group.NumberOfAnnotations = len(rows)
    group.GraphicType = "POLYGON"
    group.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor.from_rgb(*kind.colour).value)
    group.AnnotationAppliesToAllOpticalPaths = "YES"
    _set_places(group, slide, cells, rows)
    group.MeasurementsSequence = [_probabilities(cells.probability[rows, k])]
    return group


def _set_places(group: Dataset, slide: Slide, cells: Cells, rows: npt.NDArray[np.intp]) -> None:
    """Point Coordinates Data (0066,0016): the four corners of each cell's box, one after the other."""
    corners = _rectangles(cells.centre_px[rows], cells.size_px[rows])
    if len(slide.base.planes_um) == 1:
        _set_polygons(group, corners)
        return
    group.AnnotationAppliesToAllZPlanes = "NO"
    planes = np.repeat(cells.plane[rows], 4)
    places = ground.places_mm(slide, corners.reshape(-1, 2), planes).astype("<f4")
    if len(np.unique(planes)) == 1:  # then it must be said once (PS3.3 C.37.1.2, Type 1C)
        group.CommonZCoordinateValue = float(places[0, 2])
        places = np.ascontiguousarray(places[:, :2])
    _set_polygons(group, places.reshape(len(rows), -1))


def _set_polygons(group: Dataset, corners: npt.NDArray[np.float32]) -> None:
    """(n, values of one polygon), and where each begins, counted from 1 (PS3.3 C.37.1.2.1.2)."""
    group.PointCoordinatesData = corners.tobytes()
    group.LongPrimitivePointIndexList = np.arange(1, corners.size, corners.shape[1], dtype="<u4").tobytes()


def _rectangles(centre: npt.NDArray[np.float32], size: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(n, 8) columns and rows of the corners, clockwise, the upper left one first (PS3.3 C.37.1.2.1.1)."""
    low, high = centre - size * np.float32(0.5), centre + size * np.float32(0.5)
    corners = np.empty((len(centre), 8), "<f4")
    corners[:, 0:2], corners[:, 4:6] = low, high
    corners[:, 2], corners[:, 3] = high[:, 0], low[:, 1]
    corners[:, 6], corners[:, 7] = low[:, 0], high[:, 1]
    return corners


def _probabilities(values: npt.NDArray[np.float32]) -> Dataset:
    """Item of Measurements Sequence (0066,0121): a value for every annotation, in their order."""
    item, measured = Dataset(), Dataset()
    item.ConceptNameCodeSequence = [code_item(_PROBABILITY)]
    item.MeasurementUnitsCodeSequence = [code_item(_NO_UNITS)]
    measured.FloatingPointValues = values.astype("<f4").tobytes()
    item.MeasurementValuesSequence = [measured]
    return item
