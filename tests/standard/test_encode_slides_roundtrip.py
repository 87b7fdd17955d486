"""What others read back from results on slides is what was found, at the place where it was found."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from test_encode_slides import encoded, one
from wsidicom import WsiDicom
from wsidicom.graphical_annotations import AnnotationInstance

from dicom_node.domain.job import ResultKind
from dicom_node.domain.series import Study
from support.readings import PITCH_UM, STEP, TURNED, UM, USUAL, judged, smear

CORNERS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])


@pytest.fixture(params=["usual", "turned"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Study:
    """Both orientations that slides mostly have, off the origin, wider than high."""
    return smear(tmp_path / "study", cosines=USUAL if request.param == "usual" else TURNED)


def test_cells_are_read_back_by_highdicom(study: Study) -> None:
    """Every rectangle, class by class, in pixels of the finest level, with its probability."""
    findings = judged(study)
    made = one(ResultKind.ANN, encoded(findings, study))
    (reading,) = findings.readings

    annotations = hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(made)

    cells, groups = reading.cells, annotations.get_annotation_groups()
    assert [c.label for c in cells.classes] == [group.label for group in groups]
    for k, group in enumerate(groups):
        rows = np.flatnonzero(cells.label == k)
        expected = cells.centre_px[rows, None] + CORNERS * cells.size_px[rows, None]
        np.testing.assert_allclose(group.get_graphic_data("2D"), expected, atol=1e-3)
        names, values, units = group.get_measurements()
        np.testing.assert_array_equal(values[:, 0], cells.probability[rows, k])
        assert ("122157", "1") == (names[0].value, units[0].value)
        assert cells.classes[k].code.value == group.annotated_property_type.value


def test_cells_are_read_back_by_wsidicom(study: Study, tmp_path: Path) -> None:
    """A second reader: points, labels, measurements."""
    findings = judged(study)
    path = tmp_path / "cells.dcm"
    one(ResultKind.ANN, encoded(findings, study)).save_as(path)
    (reading,) = findings.readings

    (instance,) = AnnotationInstance.open([path])
    groups = instance.groups

    cells = reading.cells
    for k, group in enumerate(groups):
        rows = np.flatnonzero(cells.label == k)
        read = np.array([annotation.geometry.to_coords() for annotation in group.annotations])
        expected = cells.centre_px[rows, None] + CORNERS * cells.size_px[rows, None]
        np.testing.assert_allclose(read[:, :4], expected, atol=1e-3)
        measured = [annotation.measurements[0].value for annotation in group.annotations]
        np.testing.assert_allclose(measured, cells.probability[rows, k], atol=1e-7)


@pytest.mark.parametrize("cosines", [USUAL, TURNED])
def test_cells_of_a_stack_lie_on_their_planes(tmp_path: Path, cosines: tuple[tuple[float, ...], ...]) -> None:
    """In millimetres of the slide: highdicom takes them back to the pixels they came from."""
    study = smear(tmp_path / "study", planes=3, cosines=cosines)
    findings = judged(study)
    annotations = hd.ann.MicroscopyBulkSimpleAnnotations.from_dataset(
        one(ResultKind.ANN, encoded(findings, study))
    )
    cells = findings.readings[0].cells
    source = pydicom.dcmread(study.slides[0].base.parts[0].path, stop_before_pixels=True)
    pixels = hd.spatial.ReferenceToImageTransformer.for_image(source, for_total_pixel_matrix=True)

    for k, group in enumerate(annotations.get_annotation_groups()):
        rows = np.flatnonzero(cells.label == k)
        places = np.array(group.get_graphic_data("3D"))
        back = pixels(places.reshape(-1, 3).astype(np.float64))[:, :2].reshape(len(rows), 4, 2)
        expected = cells.centre_px[rows, None] + CORNERS * cells.size_px[rows, None]
        np.testing.assert_allclose(back, expected, atol=0.03)
        above = (places[:, 0, 2] - 0.002) * 1000 / PITCH_UM
        np.testing.assert_allclose(above, cells.plane[rows], atol=0.01)


def test_regions_lie_where_the_cells_are(study: Study) -> None:
    """SCOORD3D polygons, closed, on the slide's own frame of reference."""
    findings = judged(study)
    (reading,) = findings.readings
    report = hd.sr.Comprehensive3DSR.from_dataset(one(ResultKind.ROI, encoded(findings, study)))
    source = pydicom.dcmread(study.slides[0].base.parts[0].path, stop_before_pixels=True)
    pixels = hd.spatial.ReferenceToImageTransformer.for_image(source, for_total_pixel_matrix=True)

    groups = report.content.get_planar_roi_measurement_groups()

    assert len(reading.gallery) == len(groups)
    for group, shown in zip(groups, reading.gallery, strict=True):
        ring = pixels(np.asarray(group.roi.value))[:, :2]
        assert (ring[0] == ring[-1]).all()
        assert source.FrameOfReferenceUID == group.roi.frame_of_reference_uid
        np.testing.assert_allclose(ring[:4].mean(axis=0), reading.cells.centre_px[shown.cell], atol=0.01)
        kind = reading.cells.classes[reading.cells.label[shown.cell]]
        assert kind.code.value == group.finding_type.value


def test_maps_are_read_back_with_their_places(study: Study) -> None:
    """Values equal, and the grid's corners at the same millimetres as the slide's pixels there."""
    findings = judged(study)
    chart = findings.readings[0].maps[0]
    maps = [r for r in encoded(findings, study) if r.kind is ResultKind.PM]

    for k, result in enumerate(maps):
        image = hd.Image.from_dataset(pydicom.dcmread(BytesIO(result.content)))
        values = image.get_total_pixel_matrix(apply_real_world_transform=True)
        np.testing.assert_allclose(values, chart.values[k], atol=0.5 / 65535 + 1e-7)
        assert 1.0 == values.max() or k == 0
        _same_places(study, image)


def test_a_pyramid_keeps_the_highest_values(tmp_path: Path) -> None:
    """A lone hot square is as hot on every level, and at the same place; all levels are one series."""
    study = smear(tmp_path / "study", rows=500, columns=500)
    findings = judged(study)
    (reading,) = findings.readings
    values = np.zeros((1, 40, 300), np.float32)
    values[0, 7, 251] = 0.875
    chart = reading.maps[0]
    wide = type(chart)(values, chart.labels[1:], chart.codes[1:], chart.quantity, 8.0)
    tall = type(reading)(reading.picture, reading.cells, maps=(wide,))
    objects = encoded(type(findings)(findings.algorithms, findings.verdict, readings=(tall,)), study)
    levels = [pydicom.dcmread(BytesIO(r.content)) for r in objects if r.kind is ResultKind.PM]

    assert 3 == len(levels)
    assert 1 == len({(level.SeriesInstanceUID, level.PyramidUID) for level in levels})
    for number, level in enumerate(levels):
        matrix = hd.Image.from_dataset(level).get_total_pixel_matrix(apply_real_world_transform=True)
        assert [[7 // 4**number, 251 // 4**number]] == np.argwhere(matrix).tolist()
        assert matrix.max() == pytest.approx(0.875, abs=1e-5)
        assert number + 1 == level.InstanceNumber
        _same_places(study, hd.Image.from_dataset(level))


def test_segments_are_read_back(study: Study) -> None:
    """What is marked is what reaches the threshold; the fractional one has the map in 255 steps."""
    findings = judged(study)
    chart = findings.readings[0].maps[0]
    objects = encoded(findings, study)

    regions = hd.seg.Segmentation.from_dataset(one(ResultKind.SEG, objects))
    fractions = hd.seg.Segmentation.from_dataset(one(ResultKind.FSEG, objects))

    assert ["HSIL"] == [segment.SegmentLabel for segment in regions.SegmentSequence]
    marked = regions.get_total_pixel_matrix(combine_segments=False)[..., 0]
    np.testing.assert_array_equal(marked, chart.values[1] >= 0.5)
    assert 6 == marked.sum()
    read = fractions.get_total_pixel_matrix(combine_segments=False, rescale_fractional=True)
    np.testing.assert_allclose(read, np.moveaxis(chart.values, 0, -1), atol=0.5 / 255 + 1e-6)
    _same_places(study, regions)
    _same_places(study, fractions)


def test_the_drawn_slide_is_read_by_wsidicom(study: Study, tmp_path: Path) -> None:
    """Hot where the map is hot, as it was where it is not; its pixels at the same millimetres."""
    findings = judged(study)
    overlay = next(r for r in encoded(findings, study) if r.kind is ResultKind.WSI)
    path = tmp_path / "overlay.dcm"
    path.write_bytes(overlay.content)
    (reading,) = findings.readings

    with WsiDicom.open(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), 0, (650, 450)).convert("RGB")).astype(int)

    columns = -(-1300 // STEP)
    hot = pixels[3 * STEP // 2 + 16, (columns - 3) * STEP // 2 + 16]
    mirrored = pixels[3 * STEP // 2 + 16, 649 - ((columns - 3) * STEP // 2 + 16)]
    assert hot[2] < 200 < mirrored[2]
    assert (pixels[440, 200] == reading.thumbnail[440, 200]).all()
    data_set = pydicom.dcmread(BytesIO(overlay.content))
    _same_places(study, hd.Image.from_dataset(data_set))
    source = pydicom.dcmread(study.slides[0].base.parts[0].path, stop_before_pixels=True)
    assert source.FrameOfReferenceUID == data_set.FrameOfReferenceUID
    assert source.SeriesInstanceUID != data_set.SeriesInstanceUID
    paths = {one.OpticalPathSequence[0].OpticalPathIdentifier for one in (source, data_set)}
    assert 2 == len(paths)  # so that no viewer mixes them


def _same_places(study: Study, image: hd.Image) -> None:
    """The matrix's upper left corner, and a pixel further, in mm: as highdicom works it out of the source."""
    source = pydicom.dcmread(study.slides[0].base.parts[0].path, stop_before_pixels=True)
    of_source = hd.spatial.ImageToReferenceTransformer.for_image(source, for_total_pixel_matrix=True)
    of_image = hd.spatial.ImageToReferenceTransformer.for_image(image, for_total_pixel_matrix=True)
    rows_mm, columns_mm = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
    step = np.array([columns_mm, rows_mm]) * 1000 / UM
    corners = np.array([(0.0, 0.0), (2.0, 1.0)])
    np.testing.assert_allclose(of_image(corners), of_source(corners * step), atol=1e-5)
