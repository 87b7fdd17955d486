"""What is drawn on single slices: region report, presentation state, key objects; read by pydicom alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import Stack, Study
from dicom_node.encode.contour import MOST_POINTS, outlines
from dicom_node.encode.results import encode
from support.findings import enhanced, folder_study, found, pelvis, refused
from support.validators import grey_by_state


def encoded(findings: Findings, study: Study) -> tuple[ResultObject, ...]:
    return encode(
        findings, study, input_key="k", pipeline="uterine_mri", pipeline_version="1.0.0", title="Uterine MRI"
    )


def of(kind: ResultKind, objects: tuple[ResultObject, ...]) -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(item.content)) for item in objects if item.kind is kind]


def items(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", ()):
        yield item
        yield from items(item)


def groups(report: Dataset) -> list[Dataset]:
    return [item for item in items(report) if name(item) == "125007"]


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def inside(points: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) bool: which pixels' centres lie within a closed line, by crossings of a ray."""
    y, x = np.mgrid[:rows, :columns] + 0.5
    within = np.zeros((rows, columns), bool)
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            within ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return within


@pytest.fixture(params=["classic", "enhanced"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Study:
    return pelvis(tmp_path) if request.param == "classic" else enhanced(tmp_path)


def masks(findings: Findings) -> dict[tuple[str, int], np.ndarray]:
    """(SOP Instance UID, frame) -> the region there; every slice with one."""
    return {
        (frame.sop_instance_uid, frame.frame): mask
        for region in findings.regions
        for frame, mask in zip(region.stack.frames, region.mask, strict=True)
        if mask.any()
    }


def test_an_outline_in_the_report_holds_exactly_the_regions_pixels(study: Study) -> None:
    """SCOORD, PS3.3 C.18.6: on the right slice, half a pixel from the pixels beside it."""
    findings = found(study)
    (report,) = of(ResultKind.ROI, encoded(findings, study))
    drawn = {}

    for group in groups(report):
        (region,) = (item for item in group.ContentSequence if item.ValueType == "SCOORD")
        reference = region.ContentSequence[0].ReferencedSOPSequence[0]
        points = np.array(region.GraphicData).reshape(-1, 2)
        assert "POLYLINE" == region.GraphicType
        assert [*points[0]] == [*points[-1]]
        drawn[reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber", 1)] = points

    expected = masks(findings)
    assert set(expected) == set(drawn)
    for key, mask in expected.items():
        assert np.array_equal(mask, inside(drawn[key], *mask.shape))


def test_the_region_report_holds_nothing_that_empties_a_viewers_page(study: Study) -> None:
    """Titled (126000, DCM) and planar groups only; each with a Tracking Identifier and a UID of its own."""
    (report,) = of(ResultKind.ROI, encoded(found(study), study))

    assert "126000" == name(report)
    for group in groups(report):
        assert 1 == sum(item.ValueType == "SCOORD" for item in group.ContentSequence)
        assert {"112039", "112040", "121071"} <= {name(item) for item in group.ContentSequence}
    uids = [item.UID for item in items(report) if name(item) == "112040"]
    assert len(uids) == len(set(uids))
    assert {"SEPARATE"} == {i.ContinuityOfContent for i in items(report) if i.ValueType == "CONTAINER"}


def test_an_outline_says_the_probability_of_its_slice(study: Study) -> None:
    """To what a DS can say; a region on a slice that the network did not score says none."""
    findings = found(study)
    (report,) = of(ResultKind.ROI, encoded(findings, study))
    scores = {
        (score.frame.sop_instance_uid, score.frame.frame): score.positive_probability
        for part in findings.sequences for score in part.slices
    }  # fmt: skip

    for group in groups(report):
        (reference,) = (
            region.ContentSequence[0].ReferencedSOPSequence[0]
            for region in group.ContentSequence if region.ValueType == "SCOORD"
        )  # fmt: skip
        key = reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber", 1)
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        values = [float(number.MeasuredValueSequence[0].NumericValue) / 100 for number in numbers]
        expected = scores[key]
        assert ([] if expected is None else [pytest.approx(expected, abs=1e-8)]) == values


def test_the_finding_is_tracked_through_every_object(study: Study) -> None:
    """The Tracking Identifier and UID of the report are in each Segmentation, and on one outline each of
    region report and presentation states: the slice that shows most of it."""
    objects = encoded(found(study), study)
    (report,) = of(ResultKind.SR, objects)
    tracked = [item.UID for item in items(report) if name(item) == "112040"]
    named = [item.TextValue for item in items(report) if name(item) == "112039"]

    (regions,) = of(ResultKind.ROI, objects)
    drawn = [
        (shape.TrackingUID, shape.TrackingID)
        for state in of(ResultKind.GSPS, objects)
        for annotation in state.GraphicAnnotationSequence
        for shape in annotation.GraphicObjectSequence
    ]

    assert 1 == len(tracked)
    for segmentation in of(ResultKind.SEG, objects):
        (segment,) = segmentation.SegmentSequence
        assert (tracked[0], named[0]) == (segment.TrackingUID, segment.TrackingID)
    assert 1 == sum(item.UID == tracked[0] for item in items(regions) if name(item) == "112040")
    assert 1 == drawn.count((tracked[0], named[0]))
    sizes = {key: int(mask.sum()) for key, mask in masks(found(study)).items()}
    for group in groups(regions):
        if any(item.get("UID") == tracked[0] for item in group.ContentSequence):
            (region,) = (item for item in group.ContentSequence if item.ValueType == "SCOORD")
            reference = region.ContentSequence[0].ReferencedSOPSequence[0]
            key = reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber", 1)
            assert max(sizes.values()) == sizes[key]


def test_a_presentation_state_draws_the_same_outlines_with_the_sources_window(study: Study) -> None:
    """PS3.3 C.10.5 and C.11.8: PIXEL units, over the marked frames; the caption in the lower left corner."""
    findings = found(study)
    objects = encoded(findings, study)
    states = of(ResultKind.GSPS, objects)
    drawn = {}

    for state in states:
        window = state.SoftcopyVOILUTSequence[0]
        assert (600, 1200) == (window.WindowCenter, window.WindowWidth)
        for annotation in state.GraphicAnnotationSequence:
            (reference,) = annotation.ReferencedImageSequence
            (shape,) = annotation.GraphicObjectSequence
            (caption,) = annotation.TextObjectSequence
            key = reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber", 1)
            drawn[key] = np.array(shape.GraphicData).reshape(-1, 2)
            assert ("PIXEL", "DISPLAY") == (shape.GraphicAnnotationUnits, caption.BoundingBoxAnnotationUnits)
            assert caption.UnformattedTextValue.startswith("AI: Sarcoma of uterus\r\n")
            assert caption.UnformattedTextValue.endswith("Not for diagnostic use")
            left, top = caption.BoundingBoxTopLeftHandCorner
            assert left < 0.05 and top > 0.85

    expected = masks(findings)
    assert set(expected) == set(drawn)
    for key, mask in expected.items():
        assert np.array_equal(mask, inside(drawn[key], *mask.shape))


def test_a_state_of_sources_without_a_window_is_not_black(tmp_path: Path) -> None:
    """A state without a window shows 16 bits of stored values, MR nearly black: one is made of the pixels."""
    study = pelvis(tmp_path, WindowCenter=None, WindowWidth=None, SmallestImagePixelValue=0)
    for instance in study.instances:
        data_set = pydicom.dcmread(instance.path)
        ramp = np.linspace(100, 300, data_set.Rows * data_set.Columns).astype("<u2")
        data_set.PixelData = ramp.tobytes()
        data_set.save_as(instance.path)
    study = _as_it_is_now(study)

    for state in of(ResultKind.GSPS, encoded(found(study), study)):
        window = state.SoftcopyVOILUTSequence[0]
        assert 180 < window.WindowCenter < 220
        assert 150 < window.WindowWidth < 220


@pytest.mark.real
def test_a_real_image_is_bright_under_its_state(real_data: Path, tmp_path: Path) -> None:
    """DCMTK shows a slice of ProstateX-0000 under the state with grey values over its whole range."""
    patient = real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0000"
    paths = [path for path in patient.rglob("*.dcm") if path.parent.name.startswith("4.")]
    if not paths:
        pytest.skip("no mr_prostatex")
    study = folder_study(paths)
    (state,) = (item for item in encoded(found(study), study) if item.kind is ResultKind.GSPS)
    path = tmp_path / "state.dcm"
    path.write_bytes(state.content)
    annotation = pydicom.dcmread(path).GraphicAnnotationSequence[0]
    wanted = annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID
    image = next(item.path for item in study.instances if item.sop_instance_uid == wanted)

    grey = grey_by_state(path, image, tmp_path)

    assert 30 < grey.mean() < 200
    assert np.percentile(grey, 99) > 150


def test_slices_that_differ_in_rescale_get_no_state(tmp_path: Path) -> None:
    """A presentation state has one Modality LUT for all its images (PS3.3 A.33.1.3.1)."""
    study = pelvis(tmp_path, RescaleIntercept=0)
    for place, instance in enumerate(study.instances):
        data_set = pydicom.dcmread(instance.path)
        data_set.RescaleSlope = 1 + place % 2
        data_set.save_as(instance.path)

    assert [] == of(ResultKind.GSPS, encoded(found(study), study))


def test_key_objects_are_the_slices_the_verdict_rests_on(study: Study) -> None:
    """TID 2010, titled (113000, DCM, "Of Interest")."""
    findings = found(study)
    (selection,) = of(ResultKind.KOS, encoded(findings, study))

    selected = {
        (reference.ReferencedSOPInstanceUID, frame)
        for item in selection.ContentSequence if item.ValueType == "IMAGE"
        for reference in item.ReferencedSOPSequence
        for frame in np.atleast_1d(reference.get("ReferencedFrameNumber", 1)).tolist()
    }  # fmt: skip

    kept = {
        (score.frame.sop_instance_uid, score.frame.frame)
        for part in findings.sequences for score in part.slices if score.kept
    }  # fmt: skip
    assert kept == selected
    assert "113000" == name(selection)
    evidence = selection.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {stack.series_uid for stack in study.stacks} == {series.SeriesInstanceUID for series in evidence}


def test_without_a_verdict_nothing_is_drawn_or_selected(study: Study) -> None:
    kinds = {result.kind for result in encoded(refused(), study)}

    assert {ResultKind.SR, ResultKind.SC} == kinds


def test_without_a_region_nothing_is_drawn(study: Study) -> None:
    kinds = {result.kind for result in encoded(replace(found(study), regions=()), study)}

    assert not {ResultKind.ROI, ResultKind.GSPS} & kinds
    assert ResultKind.KOS in kinds


def test_every_part_of_any_mask_has_one_outline_around_its_pixels() -> None:
    """Parts join by edges; the largest comes first. Holes are not told of, so they are within."""
    generator = np.random.default_rng(7)
    for _ in range(20):
        mask = generator.random((12, 17)) > 0.5
        lines = outlines(mask)
        areas = [_area(line) for line in lines]
        covered = np.any([inside(line, *mask.shape) for line in lines], axis=0)

        assert np.array_equal(mask, covered & mask)
        assert sorted(areas, reverse=True) == pytest.approx(areas, abs=6.0)
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert 1 == len(outlines(ring))


def test_an_outline_fits_into_one_element() -> None:
    """FL in explicit VR: at most 65534 bytes (PS3.5 7.1.2)."""
    teeth = np.zeros((400, 400), bool)
    teeth[:, ::2] = True
    teeth[0] = True

    (line,) = outlines(teeth)

    assert len(line) <= MOST_POINTS + 1


def _area(line: np.ndarray) -> float:
    x, y = line[:-1].T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _as_it_is_now(study: Study) -> Study:
    """The study with the digests its files have by now."""
    from support.findings import _digest

    def renewed(stack: Stack) -> Stack:
        frames = tuple(replace(frame, digest=_digest(frame.path)) for frame in stack.frames)
        return replace(stack, frames=frames)

    return replace(study, stacks=tuple(renewed(stack) for stack in study.stacks))
