"""On a real pelvic MR study the node chooses what a radiologist would, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.assemble.completeness import judge
from dicom_node.assemble.study import read_study
from dicom_node.config import Receive
from dicom_node.dicom.volume import read_volume
from dicom_node.domain.pipeline import Choice, IntendedUse, Need
from dicom_node.domain.series import Contrast, Plane, Study
from dicom_node.route.choose import choose
from dicom_node.route.guard import guard
from support.stored import stored_files

pytestmark = pytest.mark.real

NEEDS = (
    Need("t2_axial", Contrast.T2, Plane.AXIAL, group="t2"),
    Need("t2_sagittal", Contrast.T2, Plane.SAGITTAL, group="t2"),
    Need("dwi_high", Contrast.DWI, b_value=(500.0, 1500.0)),
    Need("adc", Contrast.ADC),
    Need("t1", Contrast.T1),
    Need("dce", Contrast.DCE),
)
WOMEN = IntendedUse(frozenset({"MR"}), frozenset({"F"}), (18.0, 90.0), frozenset({"PELVIS", "UTERUS"}))


def read(folder: Path) -> Study:
    members = stored_files(path for path in folder.rglob("*.dcm"))
    return read_study(members[0].study_uid, 1, members)


@pytest.fixture(scope="module")
def study(real_data: Path) -> Study:
    return read(real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0000")


@pytest.fixture(scope="module")
def choices(study: Study) -> dict[str, Choice]:
    return {choice.need.name: choice for choice in choose(NEEDS, study)}


def test_every_series_is_understood(study: Study) -> None:
    """All seven series as they came, in nine stacks, none refused."""
    assert [
        "3: T2 sagittal, 19 slices",
        "4: T2 axial, 19 slices",
        "5: T2 coronal, 15 slices",
        "6: DWI b50 axial, 19 slices",
        "6: DWI b400 axial, 19 slices",
        "6: DWI b800 axial, 19 slices",
        "7: ADC axial, 19 slices",
        "8: DWI b1000 axial, 19 slices",
        "9: PD axial, 16 slices",
    ] == [stack.label for stack in study.stacks]
    assert () == study.refusals


def test_it_takes_what_a_radiologist_would(choices: dict[str, Choice]) -> None:
    """T2 in its plane, the measured b = 800 rather than the calculated b = 1000, the scanner's ADC map.

    No T1 and no dynamic are there: the proton-density reference and the coronal T2 serve for neither.
    """
    assert {
        "t2_axial": "4: T2 axial, 19 slices",
        "t2_sagittal": "3: T2 sagittal, 19 slices",
        "dwi_high": "6: DWI b800 axial, 19 slices",
        "adc": "7: ADC axial, 19 slices",
        "t1": None,
        "dce": None,
    } == {name: choice.stack.label if choice.stack else None for name, choice in choices.items()}


def test_the_reasons_are_physics_and_geometry(choices: dict[str, Choice]) -> None:
    assert (
        "chosen 4: T2 axial, 19 slices",
        "spin echo with TE 104 ms, TR 5660 ms: T2-weighted",
        "the series description agrees",
        "slice normal 18 degrees from head-foot: axial",
        "does not fit 3: T2 sagittal, 19 slices: sagittal, not axial",
        "does not fit 5: T2 coronal, 15 slices: coronal, not axial",
        "6 other stacks of another contrast",
    ) == choices["t2_axial"].reasons


def test_the_calculated_b_value_is_passed_over(study: Study, choices: dict[str, Choice]) -> None:
    """Its sequence name says that b = 50 to 800 was measured; b = 1000 was computed from these."""
    calculated = study.stacks[7]

    assert "calculated: the sequence measured b = 50 to 800, not 1000" in calculated.reasons
    assert (
        "passed over 8: DWI b1000 axial, 19 slices: calculated from other images, and a measured one is there"
    ) in choices["dwi_high"].reasons


def test_a_man_is_outside_the_intended_use(study: Study, choices: dict[str, Choice]) -> None:
    found, _ = guard(WOMEN, study, tuple(choices.values()))

    assert found is not None
    assert (
        "sex",
        "the patient's sex is male and the model is for female patients; "
        "the examined body part is PROSTATE and the model is for PELVIS or UTERUS",
    ) == (found.code, found.because)


def test_with_warn_he_passes_with_warnings(study: Study, choices: dict[str, Choice]) -> None:
    found, warnings = guard(WOMEN, study, tuple(choices.values()), "warn")

    assert (None, 2) == (found, len(warnings))


def test_the_study_is_shown_to_be_complete(study: Study) -> None:
    """It need not wait for the last resort."""
    wanted = tuple(need for need in NEEDS if need.name not in ("t1", "dce"))

    judgement = judge(study, study.instances, [wanted], 3.0, Receive())

    assert (True, "every series is whole and every need is met; quiet for 3 s") == (
        judgement.complete, judgement.because,
    )  # fmt: skip


def test_the_chosen_volumes_share_the_patients_space(choices: dict[str, Choice]) -> None:
    """T2 and ADC of one frame of reference overlap in millimetres."""
    t2, adc = (read_volume(choices[name].stack) for name in ("t2_axial", "adc"))  # type: ignore[arg-type]

    assert ((19, 384, 384), (19, 128, 84)) == (t2.array.shape, adc.array.shape)
    assert t2.stack.frame_of_reference_uid == adc.stack.frame_of_reference_uid
    centres = [(v.affine @ [*(n / 2 for n in v.array.shape), 1])[:3] for v in (t2, adc)]
    assert abs(centres[0] - centres[1]).max() < 20.0


def test_the_missing_slice_is_named(real_data: Path) -> None:
    """Series 8 without its sixth image: refused, with place and distance."""
    study = read(real_data / "mr_prostatex" / "ProstateX-missing-slice")

    assert () == study.stacks
    assert [
        "series 8, DWI b1000 axial: 1 slice is missing between image 7 at -15.9 mm and image 5 at -9.9 mm "
        "along the slice normal (6.0 mm where the slices are 3.0 mm apart)"
    ] == [refusal.why for refusal in study.refusals]


def test_the_missing_slice_becomes_the_reason_of_no_result(real_data: Path) -> None:
    study = read(real_data / "mr_prostatex" / "ProstateX-missing-slice")
    needs = (Need("dwi_high", Contrast.DWI, b_value=(500.0, 1500.0), required=True),)

    found, _ = guard(WOMEN, study, choose(needs, study), "warn")

    assert found is not None
    assert "geometry" == found.code
    assert found.because.startswith(
        "no usable DWI b500-1500 series is there: series 8, DWI b1000 axial: 1 slice is missing between"
    )


def test_another_patient_of_the_same_protocol(real_data: Path) -> None:
    """Other series numbers, other oblique angle, no DWI: the same needs, the right series."""
    study = read(real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0001")

    assert ["10: T2 axial, 19 slices", "4: T2 sagittal, 19 slices", None, "8: ADC axial, 19 slices"] == [
        choice.stack.label if choice.stack else None for choice in choose(NEEDS[:4], study)
    ]
