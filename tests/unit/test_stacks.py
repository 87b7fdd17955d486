"""A series becomes stacks on regular grids, or a sentence that says why not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.assemble.stacks import stacks
from dicom_node.domain.series import Contrast, Plane, Refusal, Stack
from support import mr
from support.stored import stored


def assembled(instances: Iterable[Dataset], folder: Path) -> tuple[tuple[Stack, ...], tuple[Refusal, ...]]:
    return stacks(stored(instances, folder / "files"))


def labels(found: Iterable[Stack]) -> list[str]:
    return [stack.label for stack in found]


def sentences(refused: Iterable[Refusal]) -> list[str]:
    return [refusal.why for refusal in refused]


def test_a_study_becomes_its_stacks(tmp_path: Path) -> None:
    """One stack per plane of the localiser and per b value; the order is the series' numbers."""
    found, refused = assembled(mr.uterine_study(), tmp_path)

    assert [] == sentences(refused)
    assert [
        "1: localiser axial, 3 slices", "1: localiser coronal, 3 slices", "1: localiser sagittal, 3 slices",
        "2: T2 sagittal, 10 slices", "3: T2 axial, 12 slices", "4: T1 axial, 12 slices",
        "5: DWI b50 axial, 8 slices", "5: DWI b800 axial, 8 slices", "6: ADC axial, 8 slices",
    ] == sorted(labels(found))  # fmt: skip


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [(mr.AXIAL, Plane.AXIAL), (mr.SAGITTAL, Plane.SAGITTAL), (mr.CORONAL, Plane.CORONAL),
     ((1, 0, 0, 0, 0.766044, -0.642788), Plane.OBLIQUE), ((1, 0, 0, 0, 0.866025, -0.5), Plane.AXIAL)],
)  # fmt: skip
def test_the_plane_comes_from_direction_cosines(
    tmp_path: Path, orientation: tuple[float, ...], plane: Plane
) -> None:
    """Nearest anatomical plane; oblique beyond 35 degrees."""
    found, _ = assembled(mr.mr_series(orientation=orientation), tmp_path)

    assert [plane] == [stack.plane for stack in found]


def test_slices_are_sorted_along_the_normal_whatever_their_numbers(tmp_path: Path) -> None:
    """Instance numbers against the normal, files in any order: position alone sorts."""
    series = mr.mr_series(slices=6)
    for ds in series:
        ds.InstanceNumber = 7 - ds.InstanceNumber

    (stack,), refused = assembled(reversed(series), tmp_path)

    assert ((), [-40, -36, -32, -28, -24, -20]) == (refused, [f.position_mm[2] for f in stack.frames])
    assert (4.0, 2.0, 1.5) == stack.spacing_mm
    assert ((1, 0, 0), (0, 1, 0)) == (stack.row_cosine, stack.column_cosine)


def test_a_missing_slice_is_refused_with_its_place(tmp_path: Path) -> None:
    """Series, kind, neighbours, positions and distance: a radiographer can find it."""
    found, refused = assembled(mr.mr_series(slices=10, missing=[4], SeriesNumber=8), tmp_path)

    assert () == found
    assert [
        "series 8, T2 axial: 1 slice is missing between image 4 at -28.0 mm and image 6 at -20.0 mm along "
        "the slice normal (8.0 mm where the slices are 4.0 mm apart)"
    ] == sentences(refused)


def test_several_missing_slices_are_counted(tmp_path: Path) -> None:
    _, refused = assembled(mr.mr_series(slices=12, missing=[3, 4, 8]), tmp_path)

    assert "2 slices are missing between image 3 at -32.0 mm and image 6" in refused[0].why
    assert refused[0].why.endswith("and 1 more elsewhere")


def test_every_second_slice_missing_is_seen(tmp_path: Path) -> None:
    """Positions alone are regular; instance numbers and the stated spacing are not."""
    found, refused = assembled(mr.mr_series(slices=12, missing=range(1, 12, 2)), tmp_path)

    assert () == found
    assert ["series 1, T2 axial: only every 2nd slice is there, by instance numbers and stated spacing"] == (
        sentences(refused)
    )


def test_a_gap_in_one_b_value_refuses_that_b_value_only(tmp_path: Path) -> None:
    low = mr.mr_series(mr.DWI, 8, DiffusionBValue=50.0)
    high = mr.mr_series(mr.DWI, 8, DiffusionBValue=800.0, start_number=9, missing=[3])

    found, refused = assembled([*low, *high], tmp_path)

    assert ["1: DWI b50 axial, 8 slices"] == labels(found)
    assert refused[0].why.startswith("series 1, DWI b800 axial: 1 slice is missing between image 11")


def shifted(k: int, mm: tuple[float, float, float]) -> list[Dataset]:
    series = mr.mr_series(slices=10)
    for ds in series[k:]:
        ds.ImagePositionPatient = [a + b for a, b in zip(ds.ImagePositionPatient, mm, strict=True)]
    return series


@pytest.mark.parametrize(
    ("series", "sentence"),
    [
        (shifted(5, (0, 0, 1.0)), "the slices are unequally spaced: 5.00 mm between image 5 at -24.0 mm"),
        (shifted(5, (0, 0, 0.1)), "the slices are unequally spaced: 4.10 mm between"),
        (shifted(5, (0, 0.5, 0)), "shifted within their plane by up to 0.50 mm (a tilted stack)"),
        (shifted(9, (0, 0, -4.0)), "two images lie at the same position -8.0 mm (image 9 and image 10)"),
    ],
)
def test_irregular_slices_are_refused(tmp_path: Path, series: list[Dataset], sentence: str) -> None:
    """More than 1 % of unequal spacing, a shift in plane, a duplicate."""
    found, refused = assembled(series, tmp_path)

    assert () == found
    assert sentence in refused[0].why


def test_rounding_of_positions_is_no_gap(tmp_path: Path) -> None:
    """Vendors write two decimals: 0.01 mm is rounding, not geometry."""
    found, refused = assembled(mr.mr_series(slices=20, spacing_mm=3.3333), tmp_path)

    assert (1, ()) == (len(found), refused)


def test_a_tilted_stack_is_refused(tmp_path: Path) -> None:
    """Each slice moved a little further within its plane: a sheared volume would be resampled wrongly."""
    series = mr.mr_series(slices=10)
    for k, ds in enumerate(series):
        ds.ImagePositionPatient = [-20.0, -30.0 + 0.4 * k, -40.0 + 4.0 * k]

    _, refused = assembled(series, tmp_path)

    assert [
        "series 1, T2 axial: the slices are shifted within their plane by up to 0.40 mm (a tilted stack)"
    ] == sentences(refused)


def test_mixed_orientations_are_refused(tmp_path: Path) -> None:
    """One slice 10 degrees askew belongs to another acquisition."""
    series = mr.mr_series(slices=10)
    series[9].ImageOrientationPatient = [1, 0, 0, 0, 0.984808, -0.173648]

    found, refused = assembled(series, tmp_path)

    assert () == found
    assert ["series 1, T2 axial: mixed orientations: 1 of 10 images lie up to 10 degrees askew"] == (
        sentences(refused)
    )


def test_a_stray_slice_in_another_plane_is_no_localiser(tmp_path: Path) -> None:
    """Nineteen axial slices and a sagittal one: something is wrong, and it is said."""
    series = mr.mr_series(slices=19) + mr.mr_series(slices=1, orientation=mr.SAGITTAL, start_number=20)

    _, refused = assembled(series, tmp_path)

    assert ["series 1, T2 axial: mixed orientations: 1 of 20 images lie up to 90 degrees askew"] == (
        sentences(refused)
    )


def test_mixed_frame_sizes_are_refused(tmp_path: Path) -> None:
    series = mr.mr_series(slices=5) + mr.mr_series(slices=10, first=5, rows=16)[:5]

    _, refused = assembled(series, tmp_path)

    assert ["series 1, T2 axial: mixed frame sizes: 16 x 24, 32 x 24"] == sentences(refused)


def test_two_patients_in_one_study_refuse_every_series(tmp_path: Path) -> None:
    """No result is better than one on a mixed study. Neither patient is named."""
    series = mr.mr_series(SeriesNumber=1) + mr.mr_series(SeriesNumber=2, PatientID="CANARY-ID-8")

    found, refused = assembled(series, tmp_path)

    assert () == found
    why = "the study holds images of 2 different patients"
    assert [f"series 1: {why}", f"series 2: {why}"] == sentences(refused)


def test_two_studies_at_once_are_refused(tmp_path: Path) -> None:
    series = mr.mr_series(study="a") + mr.mr_series(study="b")

    found, refused = assembled(series, tmp_path)

    assert () == found
    assert {"series 1: images of 2 different studies came together"} == set(sentences(refused))


def test_enhanced_objects_give_the_same_stacks(tmp_path: Path) -> None:
    """Frames of one Enhanced object are split as images of a classic series are."""
    found, refused = assembled([mr.enhanced_mr(mr.DWI, 6, b_values=(50.0, 800.0))], tmp_path)

    assert [] == sentences(refused)
    assert ["1: DWI b50 axial, 6 slices", "1: DWI b800 axial, 6 slices"] == labels(found)
    assert [7, 8, 9, 10, 11, 12] == [frame.frame for frame in found[1].frames]
    assert found[1].frames[0].multiframe


def test_a_gap_in_an_enhanced_object_names_frames(tmp_path: Path) -> None:
    _, refused = assembled([mr.enhanced_mr(mr.T2, 10, missing=[4])], tmp_path)

    assert "1 slice is missing between frame 4 at -28.0 mm and frame 5 at -20.0 mm" in refused[0].why


def dynamic(phases: int, **attributes: str) -> list[Dataset]:
    return [
        ds
        for phase in range(phases)
        for ds in mr.mr_series(
            mr.T1_VIBE, 6, start_number=1 + 6 * phase, AcquisitionTime=f"1200{10 * phase:02d}", **attributes
        )
    ]


def test_time_points_of_one_series_are_told_apart_by_time_of_acquisition(tmp_path: Path) -> None:
    """Without temporal position: the k-th acquired image of every position makes volume k."""
    found, refused = assembled(dynamic(4), tmp_path)

    assert [] == sentences(refused)
    assert [(Contrast.DCE, 1, 6), (Contrast.DCE, 2, 6), (Contrast.DCE, 3, 6), (Contrast.DCE, 4, 6)] == [
        (stack.contrast, stack.temporal_index, len(stack.frames)) for stack in found
    ]


def test_time_points_as_separate_series_are_one_dynamic(tmp_path: Path) -> None:
    """Recognised by grid, physics and time; the descriptions say nothing."""
    series = [
        ds
        for phase in range(3)
        for ds in mr.mr_series(
            mr.T1_VIBE,
            6,
            SeriesNumber=10 + phase,
            SeriesDescription="",
            AcquisitionTime=f"1200{10 * phase:02d}",
        )
    ]

    found, _ = assembled(series, tmp_path)

    assert [(10, Contrast.DCE, 1), (11, Contrast.DCE, 2), (12, Contrast.DCE, 3)] == [
        (stack.series_number, stack.contrast, stack.temporal_index) for stack in found
    ]


def test_an_enhanced_dynamic_is_split_by_temporal_position(tmp_path: Path) -> None:
    found, _ = assembled([mr.enhanced_mr(mr.T1_VIBE, 5, temporal_positions=3)], tmp_path)

    assert [(Contrast.DCE, 1), (Contrast.DCE, 2), (Contrast.DCE, 3)] == [
        (stack.contrast, stack.temporal_index) for stack in found
    ]


def test_a_dynamic_with_a_slice_missing_is_not_guessed(tmp_path: Path) -> None:
    """Which time point lost its slice cannot be known from times alone."""
    found, refused = assembled(dynamic(3)[:-1], tmp_path)

    assert () == found
    assert "two images lie at the same position" in refused[0].why


def test_duplicates_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    """The same slices under other instance UIDs: using either would be a guess."""
    series = mr.mr_series(slices=5) + mr.mr_series(slices=5, start_number=6)

    found, refused = assembled(series, tmp_path)

    assert () == found
    assert "series 1, T2 axial: two images lie at the same position -40.0 mm (image 1 and image 6)" == (
        refused[0].why
    )


def test_magnitude_and_phase_are_two_stacks(tmp_path: Path) -> None:
    phase = mr.T2.but(ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    found, _ = assembled([*mr.mr_series(mr.T2, 5), *mr.mr_series(phase, 5, start_number=6)], tmp_path)

    assert [Contrast.T2, Contrast.OTHER] == [stack.contrast for stack in found]


def test_echoes_are_separate_stacks(tmp_path: Path) -> None:
    first, second = mr.mr_series(EchoTime=80), mr.mr_series(EchoTime=160, start_number=11)

    found, _ = assembled([*second, *first], tmp_path)

    assert [80.0, 160.0] == [stack.echo_time_ms for stack in found]


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"ImagePositionPatient": None}, "series 1: 5 images without position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
         "series 1: 5 images whose direction cosines are not perpendicular unit vectors"),
        ({"PixelSpacing": [0, 0]}, "series 1: 5 images whose pixel spacing is not positive"),
        ({"PhotometricInterpretation": "MONOCHROME1"},
         "series 1: its pixels are MONOCHROME1, not MONOCHROME2"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
         "series 1: its pixels are RGB, not MONOCHROME2"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]},
         "series 1: a mosaic of unknown layout: several slices share each image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"},
         "series 1: its images are no MR images but other objects of modality CT"),
    ],
)  # fmt: skip
def test_images_without_a_faithful_place_are_refused(
    tmp_path: Path, attributes: dict[str, object], sentence: str
) -> None:
    found, refused = assembled(mr.mr_series(slices=5, **attributes), tmp_path)

    assert ((), [sentence]) == (found, sentences(refused))


def test_reports_are_neither_stacks_nor_refused(tmp_path: Path) -> None:
    assert ((), ()) == assembled([mr.report("No malignancy")], tmp_path)


def test_no_sentence_names_the_patient(tmp_path: Path) -> None:
    found, refused = assembled([*mr.uterine_study(), *mr.mr_series(missing=[3], SeriesNumber=9)], tmp_path)

    said = " ".join([*sentences(refused), *(reason for stack in found for reason in stack.reasons)])
    assert "CANARY" not in said


def test_five_hundred_instances_take_a_fraction_of_a_second(tmp_path: Path) -> None:
    """Assembling is part of the node's own two seconds."""
    instances = stored(mr.mr_series(slices=500, spacing_mm=1.0, rows=4, columns=4), tmp_path)
    started = time.process_time()

    found, _ = stacks(instances)

    assert (1, True) == (len(found), time.process_time() - started < 0.3)
