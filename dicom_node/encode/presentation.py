"""Outlines and captions as Grayscale Softcopy Presentation State, for viewers that know no SR overlay.

One state for each marked stack, over its marked slices only. The caption stands in the lower
left corner of the displayed area. PS3.3 A.33.1, C.10.5, C.11.8, C.11.10. A state without a
window would show MR nearly black, so it carries the source's own, or one made of the pixels;
it has one rescale for all (PS3.3 A.33.1.3.1), so slices that differ in theirs get no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.dicom.volume import read_volume
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import FrameRef, Stack
from dicom_node.encode import words
from dicom_node.encode.document import SERIES_NUMBERS, Run, clipped, finish, nobody
from dicom_node.encode.images import decimal, identity, planes_of, point, references, short
from dicom_node.encode.marks import Mark, marks
from dicom_node.encode.source import StackKey, stack_key

_CORNER = (0.01, 0.90, 0.70, 0.99)
"""Left, top, right, bottom of the caption, as parts of the displayed area."""
_CYAN = (110, 235, 255)
_READ = ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"]


@dataclass(frozen=True, slots=True)
class Shade:
    """How a frame's stored values become grey: rescale, then window, in rescaled units."""

    slope: float
    intercept: float
    centre: float
    width: float


def presentation_state(run: Run) -> tuple[ResultObject, ...]:
    """A state for each marked stack; none where nothing is marked."""
    by_stack: dict[StackKey, list[Mark]] = {}
    for mark in marks(run):
        by_stack.setdefault(stack_key(mark.region.stack), []).append(mark)
    states = (_state(run, group, place) for place, group in enumerate(by_stack.values()))
    return tuple(state for state in states if state is not None)


def _state(run: Run, group: Sequence[Mark], place: int) -> ResultObject | None:
    stack = group[0].region.stack
    frames = list({mark.frame.position_mm: mark.frame for mark in group}.values())
    shade = shade_of(stack, frames)
    if shade is None:
        return None
    planes = dict(zip(stack.frames, planes_of(stack, run.source.slice_thickness_mm), strict=True))
    shown = [planes[frame] for frame in frames]
    nobody(shown[0])
    for plane in shown:
        plane.SamplesPerPixel = 1  # highdicom asks
    layer = hd.pr.GraphicLayer(
        layer_name="AI", order=1, description="AI, not for diagnostic use",
        display_color=hd.color.CIELabColor.from_rgb(*_CYAN),
    )  # fmt: skip
    data_set = hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=shown,
        content_label="AI_REGIONS",
        content_description=clipped(f"{run.title}, research use only"),
        graphic_layers=[layer],
        graphic_annotations=[_annotation(run, frame, planes[frame], group, layer) for frame in frames],
        modality_lut_transformation=hd.ModalityLUTTransformation(
            rescale_intercept=shade.intercept, rescale_slope=shade.slope, rescale_type="US"
        ),
        voi_lut_transformations=[
            hd.pr.SoftcopyVOILUTTransformation(window_center=shade.centre, window_width=shade.width)
        ],
        **identity(),
    )
    _complete(data_set, stack, frames)
    return finish(
        data_set, run, ResultKind.GSPS, stack_key(stack),
        series_number=SERIES_NUMBERS[ResultKind.GSPS] + place, what=f"outlines, {short(stack)}",
    )  # fmt: skip


def _annotation(
    run: Run, frame: FrameRef, plane: Dataset, group: Sequence[Mark], layer: hd.pr.GraphicLayer
) -> hd.pr.GraphicAnnotation:
    here = [mark for mark in group if mark.frame == frame]
    return hd.pr.GraphicAnnotation(
        referenced_images=[plane],
        graphic_layer=layer,
        graphic_objects=[
            hd.pr.GraphicObject(
                graphic_type="POLYLINE", graphic_data=mark.points, units="PIXEL", is_filled=False,
                tracking_id=mark.tracking_id, tracking_uid=mark.tracking_uid,
            )
            for mark in here
        ],
        text_objects=[
            hd.pr.TextObject(
                text_value="\r\n".join(words.caption(run.findings, here[0].probability)),
                units="DISPLAY", bounding_box=_CORNER, text_justification="LEFT",
            )
        ],
    )  # fmt: skip


def _complete(data_set: Dataset, stack: Stack, frames: Sequence[FrameRef]) -> None:
    """The real instances instead of the stand-ins, the pixels' true shape."""
    data_set.ReferencedSeriesSequence[0].ReferencedImageSequence = references(frames)
    for annotation in data_set.GraphicAnnotationSequence:
        for item in annotation.ReferencedImageSequence:
            point(item, stack)
    for area in data_set.DisplayedAreaSelectionSequence:
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = [decimal(stack.spacing_mm[1]), decimal(stack.spacing_mm[2])]


def shade_of(stack: Stack, frames: Sequence[FrameRef]) -> Shade | None:
    """The middle frame's window, and the rescale all frames share; None where they share none.

    Raises UnreadableObject where a window must be made and the pixels cannot be read.
    """
    groups = [_values(frame) for frame in frames]
    scales = {(_number(g, "RescaleSlope", 1.0), _number(g, "RescaleIntercept", 0.0)) for g in groups}
    if len(scales) != 1:
        return None
    (slope, intercept), middle = scales.pop(), groups[len(groups) // 2]
    centre, width = _number(middle, "WindowCenter", 0.0), _number(middle, "WindowWidth", 0.0)
    if width < 1.0:
        array = read_volume(stack).array[:, ::4, ::4]
        low, high = (float(value) for value in np.percentile(array, (1.0, 99.5)))
        centre, width = round((low + high) / 2, 3), round(max(high - low, 1.0), 3)
    return Shade(slope, intercept, centre, width)


def _values(frame: FrameRef) -> Dataset:
    """Rescale and window of a frame: its own, of its functional groups where it is one of many."""
    groups = ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"]
    header = dcmread(frame.path, stop_before_pixels=True, specific_tags=[*_READ, *groups])
    found = Dataset()
    found.update({element.tag: element for element in header if element.keyword in _READ})
    items = header.get(groups[0], [])[:1] + header.get(groups[1], [])[frame.frame - 1 : frame.frame]
    for item in items:
        for name in ("FrameVOILUTSequence", "PixelValueTransformationSequence"):
            for nested in item.get(name, [])[:1]:
                found.update(nested)
    return found


def _number(values: Dataset, keyword: str, otherwise: float) -> float:
    """The first of what may be several; `otherwise` where there is none that is a number."""
    value = values.get(keyword)
    several = value if isinstance(value, MultiValue) else [value]
    try:
        return float(several[0])
    except (IndexError, TypeError, ValueError):
        return otherwise
