"""Instances become slides by their own numbers; what lacks is named, and what is no scan is left out."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.assemble.slides import read_slides, slide_doubts
from dicom_node.dicom.header import read_header
from dicom_node.dicom.provenance import MANUFACTURER
from support import mr, slides
from support.slides import Scan

GM = "1.2.840.10008.5.1.4.1.1.77.1.2"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def said(paths: list[Path]) -> list[str]:
    return slides.slides_of(paths)[2]


def changed_data_set(path: Path, **attributes: object) -> Dataset:
    ds = dcmread(path)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def changed(path: Path, **attributes: object) -> Path:
    """The file with other values."""
    changed_data_set(path, **attributes).save_as(path)
    return path


def test_a_pyramid_is_one_slide_finest_first(tmp_path: Path) -> None:
    """Sizes in pixels and micrometres, places in mm, whatever order the instances came in."""
    paths = slides.write(Scan(levels=3, planes=3, layout="planes", parts=2), tmp_path)
    random.Random(5).shuffle(paths)

    slide = slides.slide_of(paths)

    assert [(70, 100), (35, 50), (17, 25)] == [(level.rows, level.columns) for level in slide.levels]
    assert (0.25, 0.25) == slide.base.um_per_px
    assert (20.0, 40.0, 0.0) == slide.base.origin_mm
    assert ((0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)) == (slide.row_cosine, slide.column_cosine)
    assert "3: 70 x 100 px, 0.25 um/px, 3 levels, 3 planes" == slide.label
    assert [(0, 0), (0, 6), (1, 0), (1, 6), (2, 0), (2, 6)] == [
        (part.first_plane, part.first_frame) for part in slide.base.parts
    ]
    assert "" == slide_doubts(slides.read(paths))


def test_the_extract_of_a_slide_names_nobody(tmp_path: Path) -> None:
    """The container's identifier is kept as a digest; frames are not described one by one."""
    (path,) = slides.write(Scan(layout="sparse", planes=2), tmp_path)

    header = read_header(path)

    assert "CANARY" not in str(header)
    assert "frames" not in header
    assert [0.0, 1.0] == header["slide"]["heights"]  # type: ignore[index]


@pytest.mark.parametrize("flavour", ["LABEL", "OVERVIEW", "THUMBNAIL"])
def test_labels_and_overviews_are_no_levels(tmp_path: Path, flavour: str) -> None:
    """They may show a name, and they are no scan: neither a slide nor a photograph nor a refusal."""
    paths = slides.write(Scan(), tmp_path / "scan")
    extra = slides.write(Scan(rows=40, columns=30, flavour=flavour, seed=9), tmp_path / flavour)

    found, photographs, refusals = slides.slides_of(paths + extra)

    assert (1, 1, (), []) == (len(found), len(found[0].levels), photographs, refusals)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_missing_part_is_named(tmp_path: Path, absent: int) -> None:
    paths = slides.write(Scan(parts=3), tmp_path)
    del paths[absent]

    assert [f"series 3, slide: part {absent + 1} of 3 of level 0 is not here"] == said(paths)
    assert f"series 3, slide: part {absent + 1} of 3 of level 0 is not here" == slide_doubts(
        slides.read(paths)
    )


def test_a_missing_plane_is_named_where_its_neighbours_are_here(tmp_path: Path) -> None:
    paths = slides.write(Scan(planes=5, layout="planes"), tmp_path)
    del paths[1:3]

    assert ["series 3, slide: focal planes 2 and 3 of 5 of level 0 are not here"] == said(paths)


def test_missing_planes_at_the_end_are_counted_where_their_number_is_stated(tmp_path: Path) -> None:
    """Each instance of a plane may state how many planes the matrix has, PS3.3 C.8.12.4."""
    paths = slides.write(Scan(planes=4, layout="planes"), tmp_path)
    for path in paths:
        changed(path, TotalPixelMatrixFocalPlanes=4)

    assert [] == said(paths)
    assert ["series 3, slide: 3 of 4 focal planes of level 0 are here"] == said(paths[:3])


def test_planes_may_state_their_height_for_all_frames_or_not_at_all(tmp_path: Path) -> None:
    """It may stand in the shared groups, not the origin; which of equal ones is which is not guessed."""
    paths = slides.write(Scan(planes=3, layout="planes"), tmp_path)
    for k, path in enumerate(paths):
        ds = changed_data_set(path, TotalPixelMatrixFocalPlanes=3)
        del ds.TotalPixelMatrixOriginSequence[0].ZOffsetInSlideCoordinateSystem
        place = Dataset()
        place.ZOffsetInSlideCoordinateSystem = 2.0 * k
        ds.SharedFunctionalGroupsSequence[0].PlanePositionSlideSequence = [place]
        ds.save_as(path)
    assert (0.0, 2.0, 4.0) == slides.slide_of(paths).base.planes_um

    for path in paths:
        ds = changed_data_set(path)
        del ds.SharedFunctionalGroupsSequence[0].PlanePositionSlideSequence
        ds.save_as(path)
    assert [
        "series 3, slide: focal planes of level 0 are in instances that state one and the same height"
    ] == said(paths)


def test_a_coarse_level_that_lacks_something_is_left_out_aloud(tmp_path: Path) -> None:
    """The finest one decides: without it there is no slide, without a coarser one there is."""
    paths = slides.write(Scan(levels=2, parts=2), tmp_path)

    found, _, refusals = slides.slides_of(paths[:3])
    assert (1, 1) == (len(found), len(found[0].levels))
    assert ["series 3, slide: part 2 of 2 of level 1 is not here; that level is left out"] == refusals

    found, _, refusals = slides.slides_of(paths[1:])
    assert () == found
    assert ["series 3, slide: part 1 of 2 of level 0 is not here"] == refusals


def test_a_missing_finest_level_keeps_a_slide_from_being_complete(tmp_path: Path) -> None:
    """What was resampled was resampled from something."""
    paths = slides.write(Scan(levels=3), tmp_path)

    assert (
        "series 3, slide: the finest level is not here; what is here was resampled from it"
        == slide_doubts(slides.read(paths[1:]))
    )


def test_a_hole_in_the_pyramid_keeps_a_slide_from_being_complete(tmp_path: Path) -> None:
    paths = slides.write(Scan(rows=640, columns=640, tile=(640, 640), levels=5), tmp_path)
    del paths[2]

    assert "series 3, slide: a level between level 1 and level 2 is not here" == slide_doubts(
        slides.read(paths)
    )


def test_frames_that_are_fewer_than_the_matrix_has_are_refused(tmp_path: Path) -> None:
    (path,) = slides.write(Scan(), tmp_path)
    changed(path, NumberOfFrames=11)

    assert ["series 3, slide: level 0 has 11 frames, not 12"] == said([path])


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"BitsAllocated": 16, "BitsStored": 16}, "its pixels have 16 bits, not 8"),
        ({"TotalPixelMatrixRows": 0}, "it states no size of its total pixel matrix"),
        ({"PhotometricInterpretation": "PALETTE COLOR"},
         "its pixels are PALETTE COLOR in 3 samples, which is not read"),
        ({"DimensionOrganizationType": "TILED_SPARSE"}, ""),
        ({"NumberOfFrames": 0}, "its 0 frames are no number from 1 to 16777216"),
        ({"NumberOfFrames": 1 << 30, "TotalPixelMatrixFocalPlanes": 1 << 30},
         "its 1073741824 frames are no number from 1 to 16777216"),
        ({"NumberOfFrames": 12 * 5000, "TotalPixelMatrixFocalPlanes": 5000},
         "its 5000 focal planes are more than the 4096 this node reads"),
        ({"SharedFunctionalGroupsSequence": [Dataset()]}, "it states no pixel spacing"),
        ({"TotalPixelMatrixRows": 1 << 31, "TotalPixelMatrixColumns": 1 << 31},
         "its 4503599627370496 tiles are more than the 16777216 this node reads"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_refused_in_words(
    tmp_path: Path, attributes: dict[str, object], why: str
) -> None:
    """Frames without places that are as many as there are places stand in order, whatever they are called."""
    (path,) = slides.write(Scan(), tmp_path)
    changed(path, **attributes)

    assert ([f"series 3, slide: {why}"] if why else []) == said([path])


def test_two_scans_of_one_glass_are_two_slides(tmp_path: Path) -> None:
    """Another series and frame of reference, though the container is the same."""
    one = slides.write(Scan(levels=2), tmp_path)
    other = slides.write(
        Scan(levels=2, rows=90, series=4, frame_of_reference="2.25.78", seed=2), tmp_path
    )  # fmt: skip

    found, _, refusals = slides.slides_of(one + other)

    assert [] == refusals
    assert [3, 4] == [slide.series_number for slide in found]


def test_two_regions_in_one_series_are_told_apart_by_their_pyramids(tmp_path: Path) -> None:
    one = slides.write(Scan(levels=2, pyramid="2.25.101"), tmp_path / "one")
    other = slides.write(Scan(levels=2, rows=90, pyramid="2.25.102", seed=2), tmp_path / "other")

    found, _, _ = slides.slides_of(one + other)

    assert [(90, 2), (70, 2)] == [(slide.base.rows, len(slide.levels)) for slide in found]


def test_focal_planes_with_a_pyramid_each_are_one_slide(tmp_path: Path) -> None:
    """As scanners do that write each plane as a slide of its own on one frame of reference."""
    paths = slides.write(Scan(planes=3, layout="planes"), tmp_path)
    for k, path in enumerate(paths):
        changed(path, PyramidUID=f"2.25.10{k}")

    slide = slides.slide_of(paths)

    assert (0.0, 1.0, 2.0) == slide.base.planes_um


def test_extended_depth_of_field_is_a_slide_beside_the_stack(tmp_path: Path) -> None:
    stack = slides.write(Scan(planes=2), tmp_path / "stack")
    (fused,) = slides.write(Scan(seed=4), tmp_path / "fused")
    changed(fused, ExtendedDepthOfField="YES", NumberOfFocalPlanes=2, DistanceBetweenFocalPlanes=0.001)

    found, _, refusals = slides.slides_of([*stack, fused])

    assert [] == refusals
    assert {(2, False), (1, True)} == {
        (len(slide.base.planes_um), slide.base.extended_depth_of_field) for slide in found
    }


def test_a_level_that_is_here_twice_is_refused(tmp_path: Path) -> None:
    """Which of them is meant is not guessed."""
    (one,) = slides.write(Scan(), tmp_path / "one")
    two = tmp_path / "two.dcm"
    shutil.copy(one, two)
    ds = dcmread(two)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.404"
    ds.save_as(two)

    assert ["series 3, slide: level 0 is here twice"] == said([one, two])


def test_results_of_this_node_are_never_taken_as_slides(tmp_path: Path) -> None:
    (path,) = slides.write(Scan(), tmp_path)
    changed(path, Manufacturer=MANUFACTURER)

    assert ((), (), ()) == read_slides(slides.read([path]))


def test_slides_of_two_patients_are_refused(tmp_path: Path) -> None:
    (one,) = slides.write(Scan(), tmp_path / "one")
    (other,) = slides.write(Scan(series=4, frame_of_reference="2.25.78", seed=3), tmp_path / "other")
    changed(other, PatientID="SOMEBODY-ELSE")

    why = "slide: the study holds images of 2 different patients"
    assert [f"series {number}, {why}" for number in (3, 4)] == said([one, other])


def test_photographs_of_two_patients_are_refused_too(tmp_path: Path) -> None:
    """Also where one of them is on a slide, or on an MR image of the same study."""
    (path,) = slides.write(Scan(), tmp_path)
    other = photograph(GM, "GM", 1, StudyInstanceUID="2.25.5", PatientID="SOMEBODY-ELSE")

    found, photographs, refusals = slides.slides_of([path, *mr.write([other], tmp_path / "other")])

    assert ((), ()) == (found, photographs)
    why = "the study holds images of 2 different patients"
    assert [f"series 3, slide: {why}", f"series 7, photograph: {why}"] == refusals


def photograph(sop_class: str, modality: str, number: int = 1, **attributes: object) -> Dataset:
    ds = mr.mr_instance(mr.T2, 0)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImageType"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.SOPClassUID, ds.Modality, ds.SOPInstanceUID = sop_class, modality, f"2.25.9{number}"
    ds.InstanceNumber, ds.SeriesNumber = number, 7
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 6, 8, 3, "RGB"
    ds.PlanarConfiguration, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 0, 8, 8, 7
    ds.PixelData = bytes(range(144))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def test_photographs_are_read_frame_by_frame(tmp_path: Path) -> None:
    """Their pixel size where the object says it, in micrometres."""
    sized = photograph(GM, "GM", 2, PixelSpacing=[0.0005, 0.00025])
    several = photograph(
        "1.2.840.10008.5.1.4.1.1.7.4", "XC", 1, NumberOfFrames=2, PixelData=bytes(288)
    )  # fmt: skip

    _, found, refusals = slides.slides_of(mr.write([sized, several], tmp_path))

    assert [] == refusals
    assert [(1, 1, None), (1, 2, None), (2, 1, (0.5, 0.25))] == [
        (one.instance_number, one.frame, one.um_per_px) for one in found
    ]
    assert "7: photograph 1, 6 x 8 px" == found[0].label


def test_screens_and_pages_are_no_photographs(tmp_path: Path) -> None:
    """A secondary capture is one only where its modality says that it was taken with a camera."""
    captures = [photograph(CAPTURE, "MR", 1), photograph(CAPTURE, "GM", 2), photograph(CAPTURE, "OT", 3),
                photograph(GM, "GM", 4, ImageType=["ORIGINAL", "PRIMARY", "LABEL"])]  # fmt: skip

    _, found, refusals = slides.slides_of(mr.write(captures, tmp_path))

    assert ([2], []) == ([one.instance_number for one in found], refusals)


def test_a_photograph_that_is_not_read_is_refused_in_words(tmp_path: Path) -> None:
    deep = photograph(GM, "GM", 1, BitsAllocated=16, BitsStored=16, HighBit=15, PixelData=bytes(288))

    _, found, refusals = slides.slides_of(mr.write([deep], tmp_path))

    assert ((), ["series 7, photograph: its pixels have 16 bits, not 8"]) == (found, refusals)


def test_one_container_may_come_in_two_series(tmp_path: Path) -> None:
    """Levels of one frame of reference that a scanner spreads over series are one slide."""
    paths = slides.write(Scan(levels=2), tmp_path)
    changed(paths[1], SeriesInstanceUID="2.25.599", SeriesNumber=9)

    assert 2 == len(slides.slide_of(paths).levels)


def test_levels_with_a_frame_of_reference_each_are_one_slide(tmp_path: Path) -> None:
    """As some converters write them, without a container."""
    paths = slides.write(replace(Scan(levels=3), container=""), tmp_path)
    for k, path in enumerate(paths):
        changed(path, FrameOfReferenceUID=f"2.25.30{k}")

    assert 3 == len(slides.slide_of(paths).levels)
