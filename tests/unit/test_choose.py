"""For each need the stack a radiologist would take, with reasons, also for those passed over."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.assemble.study import read_study
from dicom_node.domain.pipeline import Choice, Need
from dicom_node.domain.series import Contrast, Plane, Study
from dicom_node.route.choose import choose
from support import mr
from support.stored import stored

T2_AXIAL = Need("t2_axial", Contrast.T2, Plane.AXIAL)
T1 = Need("t1", Contrast.T1)
DWI_HIGH = Need("dwi_high", Contrast.DWI, b_value=(500.0, 1500.0))
ADC = Need("adc", Contrast.ADC)
TRACE = ["DERIVED", "PRIMARY", "DIFFUSION", "TRACEW"]


def study_of(instances: Iterable[Dataset], folder: Path) -> Study:
    members = stored(instances, folder / "files")
    return read_study(members[0].study_uid, 1, members)


def chosen(need: Need, instances: Iterable[Dataset], folder: Path) -> Choice:
    (choice,) = choose([need], study_of(instances, folder))
    return choice


def number(choice: Choice) -> int | None:
    return choice.stack.series_number if choice.stack else None


def test_each_need_of_a_whole_study_is_met(tmp_path: Path) -> None:
    needs = (T2_AXIAL, Need("t2_sagittal", Contrast.T2, Plane.SAGITTAL), T1, DWI_HIGH, ADC)

    choices = choose(needs, study_of(mr.uterine_study(), tmp_path))

    assert [3, 2, 4, 5, 6] == [number(choice) for choice in choices]
    assert choices[3].stack is not None
    assert 800.0 == choices[3].stack.b_value


def test_the_reasons_cover_the_chosen_and_those_passed_over(tmp_path: Path) -> None:
    choice = chosen(DWI_HIGH, mr.uterine_study(), tmp_path)

    assert (
        "chosen 5: DWI b800 axial, 8 slices",
        "echo planar spin echo with b = 800 s/mm2",
        "the series description agrees",
        "fat suppressed: scan option FS",
        "slice normal 0 degrees from head-foot: axial",
        "does not fit 5: DWI b50 axial, 8 slices: b = 50, not 500 to 1500",
        "7 other stacks of another contrast",
    ) == choice.reasons


def test_a_measured_b_value_is_preferred_to_a_calculated_higher_one(tmp_path: Path) -> None:
    """A calculated image extrapolates: it holds nothing that was not measured, and other noise."""
    calculated = mr.DWI.but(ImageType=TRACE, SequenceName="*ep_b50_800", DiffusionBValue=1400.0)
    study = [*mr.mr_series(mr.DWI, 8, SeriesNumber=6), *mr.mr_series(calculated, 8, SeriesNumber=8)]

    choice = chosen(DWI_HIGH, study, tmp_path)

    assert 6 == number(choice)
    assert (
        "passed over 8: DWI b1400 axial, 8 slices: calculated from other images, and a measured one is there"
        in choice.reasons
    )


def test_a_calculated_b_value_is_better_than_none(tmp_path: Path) -> None:
    calculated = mr.DWI.but(ImageType=TRACE, SequenceName="*ep_b50_400", DiffusionBValue=1400.0)

    choice = chosen(DWI_HIGH, mr.mr_series(calculated, 8), tmp_path)

    assert 1 == number(choice)
    assert "calculated: the sequence measured b = 50 to 400, not 1400" in choice.reasons


def test_preferences_in_their_order(tmp_path: Path) -> None:
    """Without contrast agent, without fat suppression, more slices, finer pixels, the later of equals."""
    series = {
        "with agent": mr.mr_series(mr.T2, 20, SeriesNumber=1, ContrastBolusAgent="Gadobutrol"),
        "fat suppressed": mr.mr_series(mr.T2, 20, SeriesNumber=2, ScanOptions="FS"),
        "fewer slices": mr.mr_series(mr.T2, 8, SeriesNumber=3),
        "coarse": mr.mr_series(mr.T2, 12, SeriesNumber=4, pixel_mm=(3.0, 3.0)),
        "first": mr.mr_series(mr.T2, 12, SeriesNumber=5),
        "repeated": mr.mr_series(mr.T2, 12, SeriesNumber=6),
    }

    choice = chosen(T2_AXIAL, [ds for part in series.values() for ds in part], tmp_path)

    assert 6 == number(choice)
    assert [
        "passed over 5: T2 axial, 12 slices: equally good, but earlier: "
        "a repeated series usually replaces the first",
        "passed over 4: T2 axial, 12 slices: coarser pixels",
        "passed over 3: T2 axial, 8 slices: 8 slices, fewer than 12",
        "passed over 2: T2 axial, 20 slices: fat suppressed, and one without is there",
        "passed over 1: T2 axial, 20 slices: with contrast agent, and one without is there",
    ] == [reason for reason in choice.reasons if reason.startswith("passed over")]


def test_too_few_slices_do_not_fit(tmp_path: Path) -> None:
    choice = chosen(T2_AXIAL, mr.mr_series(mr.T2, 3), tmp_path)

    assert choice.stack is None
    expected = (
        "no T2 axial among 1 usable stack",
        "does not fit 1: T2 axial, 3 slices: 3 slices, fewer than 5",
    )
    assert expected == choice.reasons


def test_a_refused_series_is_named_where_it_would_have_served(tmp_path: Path) -> None:
    choice = chosen(T2_AXIAL, mr.mr_series(mr.T2, 10, missing=[4], SeriesNumber=8), tmp_path)

    assert choice.stack is None
    assert choice.reasons[1].startswith("refused series 8, T2 axial: 1 slice is missing")


def test_the_choice_does_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    parts = [mr.mr_series(mr.T2, 6, SeriesNumber=n, SeriesDescription=str(n)) for n in (1, 2, 3)]

    found = {
        chosen(T2_AXIAL, [ds for part in order for ds in part], tmp_path / str(k)).reasons
        for k, order in enumerate(permutations(parts))
    }

    assert 1 == len(found)


def test_a_dynamic_need_gets_the_middle_of_the_dynamic(tmp_path: Path) -> None:
    phases = [
        ds
        for phase in range(5)
        for ds in mr.mr_series(
            mr.T1_VIBE, 6, start_number=1 + 6 * phase, AcquisitionTime=f"1200{10 * phase:02d}"
        )
    ]

    choice = chosen(Need("dce", Contrast.DCE), phases, tmp_path)

    assert choice.stack is not None
    assert 3 == choice.stack.temporal_index


def test_the_reasons_stay_readable_for_many_stacks(tmp_path: Path) -> None:
    """At most two dozen lines and how many more."""
    many = [ds for n in range(40) for ds in mr.mr_series(mr.T2, 5, rows=4, columns=4, SeriesNumber=n + 1)]

    choice = chosen(T2_AXIAL, many, tmp_path)

    assert (25, "and 19 more") == (len(choice.reasons), choice.reasons[-1])
