"""Regions as Segmentation and maps as Parametric Map, on the grid of their stack.

highdicom is given one *plane* per slice: a data set that stands for the frame, with its
geometry but without patient, file or pixels. So classic series, Enhanced objects, parts of
them and several b values in one series are all alike to it; afterwards the references are
replaced by those to the real instances and frames. PS3.3 A.51, A.75, C.8.20, C.8.32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Concept
from pydicom.valuerep import format_number_as_ds

from dicom_node.dicom.provenance import MANUFACTURER, code_item
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import HeatMap, Region
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import FrameRef, Stack
from dicom_node.encode.document import SERIES_NUMBERS, Run, clipped, finish, nobody, plain
from dicom_node.encode.source import StackKey, stack_key

_MR = "1.2.840.10008.5.1.4.1.1.4"
_COLOURS = ((255, 106, 61), (0, 180, 216), (255, 200, 40), (190, 110, 255), (80, 200, 120))


def concept(of: Code) -> Concept:
    return Concept(of.value, of.scheme, plain(of.meaning))


_ARTIFICIAL_INTELLIGENCE = concept(code("artificial-intelligence"))
_NO_UNITS = concept(code("no-units"))
Planes = dict[StackKey, list[Dataset]]


def images(run: Run) -> tuple[ResultObject, ...]:
    """One SEG for each stack that has a region with anything in it, and one Parametric Map for each map;
    where the findings name a leading stack, of that one only."""
    regions: dict[StackKey, list[Region]] = {}
    for region in run.findings.regions:
        if region.mask.any() and shown(run, region.stack):
            regions.setdefault(stack_key(region.stack), []).append(region)
    heats = [heat for heat in run.findings.maps if shown(run, heat.stack)]
    marked = [group[0].stack for group in regions.values()] + [heat.stack for heat in heats]
    planes = {stack_key(stack): planes_of(stack, run.source.slice_thickness_mm) for stack in marked}
    segmentations = [_segmentation(run, group, place, planes) for place, group in enumerate(regions.values())]
    maps = [_parametric_map(run, heats, place, planes) for place in range(len(heats))]
    return (*segmentations, *maps)


def shown(run: Run, stack: Stack) -> bool:
    """Whether a stack's regions and maps become objects of their own."""
    lead = run.findings.lead
    return lead is None or stack_key(lead) == stack_key(stack)


def tracking(run: Run) -> tuple[str, UID]:
    """(Tracking ID, Tracking UID) of what the verdict speaks of: the same in the SR and in every SEG."""
    return clipped(f"AI finding {run.title}"), run.uid("tracking")


def _segmentation(run: Run, regions: Sequence[Region], place: int, planes: Planes) -> ResultObject:
    stack = regions[0].stack
    masks = np.stack([region.mask for region in regions], axis=-1).astype(np.uint8)
    data_set = hd.seg.Segmentation(
        source_images=planes[stack_key(stack)],
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=[_segment(run, region, n) for n, region in enumerate(regions, start=1)],
        content_label="AI_REGIONS",
        content_description=clipped(f"{run.title}, research use only"),
        **identity(),
    )
    _refer(data_set, stack)
    return finish(
        data_set, run, ResultKind.SEG, stack_key(stack),
        series_number=SERIES_NUMBERS[ResultKind.SEG] + place, what=f"regions, {short(stack)}",
    )  # fmt: skip


def _segment(run: Run, region: Region, number: int) -> hd.seg.SegmentDescription:
    tracking_id, tracking_uid = tracking(run)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=clipped(region.label),
        segmented_property_category=concept(region.category),
        segmented_property_type=concept(region.kind),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification(run),
        tracking_uid=tracking_uid,
        tracking_id=tracking_id,
        anatomic_regions=[concept(region.site)],
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[(number - 1) % len(_COLOURS)]),
    )  # fmt: skip
    if region.score is not None:
        segment.SegmentDescription = f"Score {region.score:.3f}. Research use only."
    return segment


def identification(run: Run) -> hd.AlgorithmIdentificationSequence:
    """The last model of a run, whose results these are."""
    if not run.findings.algorithms:
        return hd.AlgorithmIdentificationSequence(run.pipeline, _ARTIFICIAL_INTELLIGENCE, "unknown")
    algorithm = run.findings.algorithms[-1]
    return hd.AlgorithmIdentificationSequence(
        name=clipped(algorithm.name),
        family=_ARTIFICIAL_INTELLIGENCE,
        version=clipped(algorithm.version),
        source=MANUFACTURER,
        parameters={"sha256": str(algorithm.digest)},
    )


def _parametric_map(run: Run, heats: Sequence[HeatMap], place: int, planes: Planes) -> ResultObject:
    heat = heats[place]
    # A stack may have several maps; which of them this is makes its identity.
    again = sum(stack_key(other.stack) == stack_key(heat.stack) for other in heats[:place])
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="AI_MAP",
        lut_explanation=clipped(heat.label),
        unit=_NO_UNITS,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=concept(heat.quantity),
    )
    data_set = hd.pm.ParametricMap(
        source_images=planes[stack_key(heat.stack)],
        pixel_array=np.ascontiguousarray(heat.values, dtype=np.float32),
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        contains_recognizable_visual_features=False,
        content_label="AI_MAP",
        content_description=clipped(f"{heat.label}, research use only"),
        content_qualification="RESEARCH",
        **identity(),
    )
    _frames_along_the_normal(data_set)
    _refer(data_set, heat.stack)
    if run.findings.verdict is not None:
        data_set.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(run)]
    return finish(
        data_set, run, ResultKind.PM, (*stack_key(heat.stack), again),
        series_number=SERIES_NUMBERS[ResultKind.PM] + place, what=f"heatmap, {short(heat.stack)}",
    )  # fmt: skip


def _frames_along_the_normal(data_set: Dataset) -> None:
    """The stack's own order, which highdicom turns round. Readers that lay a map's frames into a volume as
    they stand in the file (OHIF, dcmqi) begin at the near end of the normal; the others go by positions."""
    groups = data_set.PerFrameFunctionalGroupsSequence
    sources = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    order = np.argsort([_stand_in_number(source) for source in sources])
    pixels = np.frombuffer(data_set.FloatPixelData, "<f4").reshape(len(groups), -1)
    data_set.FloatPixelData = pixels[order].tobytes()
    data_set.PerFrameFunctionalGroupsSequence = [groups[place] for place in order]
    for number, group in enumerate(data_set.PerFrameFunctionalGroupsSequence, start=1):
        group.FrameContentSequence[0].DimensionIndexValues = number


def _anatomy(run: Run) -> Dataset:
    """Frame Anatomy (PS3.3 C.7.6.16.2.8), which some readers of maps do not do without."""
    verdict, item = run.findings.verdict, Dataset()
    item.AnatomicRegionSequence = [code_item(verdict.site)] if verdict else []
    item.FrameLaterality = run.source.laterality if run.source.laterality in ("L", "R") else "U"
    return item


def short(stack: Stack) -> str:
    """Without free text: `series 4 T2 axial`."""
    return f"series {stack.series_number} {stack.contrast.value} {stack.plane.value}"


def identity() -> dict[str, Any]:  # Any: keyword arguments
    """What highdicom must be told and `finish` replaces."""
    return {
        "series_instance_uid": "2.25.1", "series_number": 1,
        "sop_instance_uid": "2.25.1", "instance_number": 1,
        "manufacturer": MANUFACTURER, "manufacturer_model_name": "-", "software_versions": "-",
        "device_serial_number": "-",
    }  # fmt: skip


def planes_of(stack: Stack, thickness_mm: dict[UID, float]) -> list[Dataset]:
    """A stand-in for each frame, numbered from 1 in its SOP Instance UID."""
    between, rows_mm, columns_mm = stack.spacing_mm
    thickness = thickness_mm.get(stack.frames[0].sop_instance_uid) or between
    orientation = [decimal(value) for value in (*stack.row_cosine, *stack.column_cosine)]
    spacing = [decimal(rows_mm), decimal(columns_mm)]
    planes = [
        _plane(stack, number, frame, orientation, spacing, thickness, between)
        for number, frame in enumerate(stack.frames, start=1)
    ]
    nobody(planes[0])
    return planes


def _plane(
    stack: Stack, number: int, frame: FrameRef, orientation: list[str], spacing: list[str],
    thickness: float, between: float,
) -> Dataset:  # fmt: skip
    plane = Dataset()
    plane.SOPClassUID, plane.SOPInstanceUID = _MR, f"1.{number}"
    plane.StudyInstanceUID, plane.SeriesInstanceUID = stack.study_uid, stack.series_uid
    # A grid needs a frame of reference; where the scanner gave none, the series is its own.
    own = derived_uid("frame of reference", stack.series_uid)
    plane.FrameOfReferenceUID = stack.frame_of_reference_uid or own
    plane.PositionReferenceIndicator = None
    plane.Modality = "MR"
    plane.Rows, plane.Columns = stack.rows, stack.columns
    plane.PixelSpacing = spacing
    plane.SliceThickness = decimal(thickness)
    plane.SpacingBetweenSlices = decimal(between)
    plane.ImageOrientationPatient = orientation
    plane.ImagePositionPatient = [decimal(value) for value in frame.position_mm]
    return plane


def decimal(value: float) -> str:
    """DS: at most 16 characters."""
    return str(format_number_as_ds(float(value)))


def _refer(data_set: Dataset, stack: Stack) -> None:
    """Replace the stand-ins by the real instances and frames, everywhere they are referred to."""
    items = {
        id(item): item  # two segments on one slice share theirs
        for group in data_set.PerFrameFunctionalGroupsSequence
        for item in group.DerivationImageSequence[0].SourceImageSequence
    }
    for item in items.values():
        point(item, stack)
    data_set.ContentCreatorName = None  # Type 2 (PS3.3 10.9), and nobody
    data_set.SourceImageSequence = references(stack.frames)
    series = Dataset()
    series.SeriesInstanceUID = stack.series_uid
    series.ReferencedInstanceSequence = references(stack.frames, with_frames=False)
    data_set.ReferencedSeriesSequence = [series]


def point(item: Dataset, stack: Stack) -> None:
    """Replace a reference to a stand-in by that to its instance and frame."""
    frame = stack.frames[_stand_in_number(item) - 1]
    item.ReferencedSOPClassUID = frame.sop_class_uid
    item.ReferencedSOPInstanceUID = frame.sop_instance_uid
    if frame.multiframe:
        item.ReferencedFrameNumber = frame.frame


def _stand_in_number(item: Dataset) -> int:
    return int(item.ReferencedSOPInstanceUID.removeprefix("1."))


def references(frames: Sequence[FrameRef], *, with_frames: bool = True) -> list[Dataset]:
    """A reference to each instance: Image SOP Instance Reference (PS3.3 10.3), or SOP Instance Reference
    (PS3.3 10.8), which has no frame numbers."""
    items = []
    for (sop_class, instance), numbers in frames_by_instance(frames).items():
        item = Dataset()
        item.ReferencedSOPClassUID = sop_class
        item.ReferencedSOPInstanceUID = instance
        if numbers and with_frames:
            item.ReferencedFrameNumber = numbers
        items.append(item)
    return items


def frames_by_instance(frames: Sequence[FrameRef]) -> dict[tuple[UID, UID], list[int]]:
    """(SOP class, SOP instance) -> frame numbers; empty for single-frame instances."""
    instances: dict[tuple[UID, UID], list[int]] = {}
    for frame in frames:
        numbers = instances.setdefault((frame.sop_class_uid, frame.sop_instance_uid), [])
        if frame.multiframe and frame.frame not in numbers:
            numbers.append(frame.frame)
    return instances
