"""Coarse maps of a slide: Parametric Maps with a pyramid, Segmentations, whole or fractional.

One pixel is one square of the map, on the slide's frame of reference: kilobytes for a slide of
gigabytes, and viewers lay them over the slide in place. A coarser level of a pyramid shows the
highest value below it, so a single hot square is seen from afar. PS3.3 A.51, A.75, C.7.6.17.
"""

from __future__ import annotations

from collections.abc import Iterator

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.domain.codebook import code
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.slide import Reading, Slide, TileMap
from dicom_node.encode.document import SERIES_NUMBERS, Run, clipped, finish, nobody
from dicom_node.encode.images import concept, identification, identity
from dicom_node.encode.slide import ground
from dicom_node.encode.source import picture_key

_TILE = 256
_FULL = 65535
"""Stored for 1. Archives hand out frames of integer pixels one by one, as viewers of slides ask for them;
of Float Pixel Data many do not (Orthanc, for one), and then nothing is shown."""
_FACTOR = 4
"""From one level of a pyramid to the next."""
_NO_UNITS = concept(code("no-units"))
_ABNORMAL = concept(code("abnormal-structure"))
_COLOURS = ((255, 200, 40), (255, 106, 61), (220, 40, 80), (190, 110, 255))
Values = npt.NDArray[np.float32]


def maps(run: Run, reading: Reading, place: int) -> Iterator[ResultObject]:
    """A series for each channel that shows anything; for the first one of each map also where it does not."""
    slide = reading.picture
    if not isinstance(slide, Slide):
        return
    number = SERIES_NUMBERS[ResultKind.PM] + 10 * place
    for which, heat in enumerate(reading.maps):
        shown = [k for k in range(len(heat.labels)) if heat.values[k].any()] or [0]
        for k in shown:
            yield from _parametric_map(run, slide, heat, k, (picture_key(slide), which, k), number)
            number += 1


def _parametric_map(
    run: Run, slide: Slide, heat: TileMap, k: int, role: tuple[object, ...], number: int
) -> Iterator[ResultObject]:
    values, step = np.clip(heat.values[k], 0.0, 1.0).astype(np.float32), heat.step_px
    pyramid = run.uid(ResultKind.PM, *role, "pyramid")
    for level in range(1, 99):
        data_set = _map_level(run, slide, heat, k, values, step, pyramid)
        _refer(run, slide, data_set)
        yield finish(
            data_set, run, ResultKind.PM, role, series_number=number, number=level,
            what=f"heatmap {heat.labels[k]}, series {slide.series_number}",
        )  # fmt: skip
        if max(values.shape) <= _TILE // _FACTOR:
            return
        values, step = _coarser(values), step * _FACTOR


def _map_level(
    run: Run, slide: Slide, heat: TileMap, k: int, values: Values, step: float, pyramid: UID
) -> Dataset:  # fmt: skip
    label = clipped(f"{heat.quantity.meaning}, {heat.labels[k]}")
    mapping = hd.pm.RealWorldValueMapping(
        lut_label=clipped(heat.labels[k], 16), lut_explanation=label, unit=_NO_UNITS, value_range=(0, _FULL),
        slope=1.0 / _FULL, intercept=0.0, quantity_definition=concept(heat.quantity),
    )  # fmt: skip
    data_set: Dataset = hd.pm.ParametricMap(
        source_images=[_source(run, slide, heat, values, step)],
        pixel_array=np.round(values * np.float32(_FULL)).astype(np.uint16),
        tile_pixel_array=True,
        tile_size=(_TILE, _TILE),
        dimension_organization_type="TILED_FULL",
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[
            hd.VOILUTTransformation(window_center=_FULL // 2 + 1, window_width=_FULL + 1)
        ],
        contains_recognizable_visual_features=False,
        content_label="AI_MAP",
        content_description=clipped(f"{label}, research use only"),
        content_qualification="RESEARCH",
        pyramid_uid=pyramid,
        **identity(),
    )
    return data_set


def _coarser(values: Values) -> Values:
    """The highest of every `_FACTOR` x `_FACTOR` squares."""
    rows, columns = (-(-size // _FACTOR) for size in values.shape)
    padded = np.zeros((rows * _FACTOR, columns * _FACTOR), np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    highest: Values = padded.reshape(rows, _FACTOR, columns, _FACTOR).max(axis=(1, 3))
    return highest


def regions(run: Run, reading: Reading, place: int) -> tuple[ResultObject, ...]:
    """The squares at and above the verdict's threshold, a segment for each channel that has any."""
    slide, verdict = reading.picture, run.findings.verdict
    if not isinstance(slide, Slide) or verdict is None:
        return ()
    made = []
    for which, heat in enumerate(reading.maps):
        marked = heat.values >= max(verdict.operating_point.threshold, 1e-6)
        channels = [k for k in _abnormal(reading, heat) if marked[k].any()]
        if channels:
            array = np.stack([marked[k] for k in channels], axis=-1).astype(np.uint8)
            threshold = f"Squares at or above {verdict.operating_point.threshold:.3f}. Research use only."
            made.append(_segmentation(run, slide, heat, (which, channels, threshold), array, place))
    return tuple(made)


def fractions(run: Run, reading: Reading, place: int) -> tuple[ResultObject, ...]:
    """Each map as it is, in 255 steps: what viewers show that know no Parametric Map."""
    slide = reading.picture
    if not isinstance(slide, Slide):
        return ()
    made = []
    for which, heat in enumerate(reading.maps):
        channels = [k for k in range(len(heat.labels)) if heat.values[k].any()]
        if channels:
            array = np.stack([np.clip(heat.values[k], 0.0, 1.0) for k in channels], axis=-1)
            says = f"{clipped(heat.quantity.meaning)} from 0 to 1. Research use only."
            made.append(_segmentation(run, slide, heat, (which, channels, says), array, place))
    return tuple(made)


def _abnormal(reading: Reading, heat: TileMap) -> list[int]:
    """Channels that do not show a normal class."""
    normal = {kind.code for kind in reading.cells.classes if not kind.grade}
    return [k for k, of in enumerate(heat.codes) if of not in normal]


def _segmentation(
    run: Run, slide: Slide, heat: TileMap, what: tuple[int, list[int], str],
    array: npt.NDArray[np.uint8] | Values, place: int,
) -> ResultObject:  # fmt: skip
    which, channels, says = what
    marked = array.dtype == np.uint8
    kind = ResultKind.SEG if marked else ResultKind.FSEG
    segments = [
        _segment(run, slide, heat, k, number, says) for number, k in enumerate(channels, start=1)
    ]  # fmt: skip
    data_set = hd.seg.Segmentation(
        source_images=[_source(run, slide, heat, array[..., 0], heat.step_px)],
        pixel_array=np.ascontiguousarray(array[None]),
        segmentation_type="BINARY" if marked else "FRACTIONAL",
        segment_descriptions=segments,
        tile_pixel_array=True,
        tile_size=(_TILE, _TILE),
        dimension_organization_type="TILED_FULL",
        omit_empty_frames=False,
        content_label="AI_REGIONS" if marked else "AI_MAP",
        content_description=clipped(f"{run.title}, research use only"),
        **identity(),
    )
    _refer(run, slide, data_set)
    return finish(
        data_set, run, kind, (picture_key(slide), which),
        series_number=SERIES_NUMBERS[kind] + 10 * place + which,
        what=f"{'regions' if marked else 'heatmap'}, series {slide.series_number}",
    )  # fmt: skip


def _segment(
    run: Run, slide: Slide, heat: TileMap, k: int, number: int, says: str
) -> hd.seg.SegmentDescription:  # fmt: skip
    colours = heat.colours or _COLOURS
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=clipped(heat.labels[k]),
        segmented_property_category=_ABNORMAL,
        segmented_property_type=concept(heat.codes[k]),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification(run),
        tracking_uid=run.uid("tracking", "map", picture_key(slide), k),
        tracking_id=clipped(f"AI {heat.labels[k]}, {run.title}"),
        display_color=hd.color.CIELabColor.from_rgb(*colours[k % len(colours)]),
    )
    segment.SegmentDescription = says
    return segment


def _source(
    run: Run, slide: Slide, heat: TileMap, values: npt.NDArray[np.generic], step: float
) -> Dataset:  # fmt: skip
    """What stands in for the slide has the map's own grid, so highdicom takes it over."""
    rows, columns = values.shape
    grid = ground.grid_of(slide, (rows, columns), (step, step), heat.origin_px)
    source = ground.stand_in(run, slide, grid, _TILE)
    nobody(source)
    return source


def _refer(run: Run, slide: Slide, data_set: Dataset) -> None:
    """The real instances in place of the stand-in, and the specimen."""
    data_set.ContentCreatorName = None
    data_set.SourceImageSequence = ground.references(slide)
    data_set.ReferencedSeriesSequence = ground.referenced_series(slide)
    groups = data_set.SharedFunctionalGroupsSequence[0]
    groups.pop(Tag("DerivationImageSequence"), None)
    ground.lossy(run, slide, data_set)
    data_set.update(ground.specimen(run, slide))
