"""Outside its intended use a model does not speak, and a radiologist reads why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dicom_node.assemble.study import read_study
from dicom_node.domain.findings import NotPerformed
from dicom_node.domain.identity import UID
from dicom_node.domain.pipeline import IntendedUse, Need
from dicom_node.domain.series import Contrast, Patient, Plane, Refusal, Study
from dicom_node.route.choose import choose
from dicom_node.route.guard import guard
from support import mr
from support.stored import stored

USE = IntendedUse(
    frozenset({"MR"}), frozenset({"F"}), (18.0, 90.0), frozenset({"PELVIS", "UTERUS"}),
    "Women with uterine masses.",
)  # fmt: skip
NEEDS = (
    Need("t2_axial", Contrast.T2, Plane.AXIAL, group="t2"),
    Need("t2_sagittal", Contrast.T2, Plane.SAGITTAL, group="t2"),
    Need("adc", Contrast.ADC),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    members = stored(mr.uterine_study(), tmp_path_factory.mktemp("study") / "files")
    return read_study(members[0].study_uid, 1, members)


def judged(
    study: Study, policy: str = "enforce", needs: tuple[Need, ...] = NEEDS, **changes: Any
) -> tuple[NotPerformed | None, tuple[str, ...]]:
    changed = replace(study, **changes)
    return guard(USE, changed, choose(needs, changed), policy)


def test_a_study_within_the_intended_use_passes_without_a_word(study: Study) -> None:
    assert (None, ()) == judged(study)


OUTSIDE = [
    ({"patient": Patient("M", 50.0)}, "sex",
     "the patient's sex is male and the model is for female patients"),
    ({"patient": Patient("O", 50.0)}, "sex",
     "the patient's sex is other and the model is for female patients"),
    ({"patient": Patient("F", 12.0)}, "age",
     "the patient is 12 years old and the model is for 18 to 90 years"),
    ({"modalities": frozenset({"CT", "PT"})}, "modality",
     "the study holds CT and PT and the model is for MR"),
    ({"body_parts": frozenset({"KNEE"})}, "body-part",
     "the examined body part is KNEE and the model is for PELVIS or UTERUS"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "code", "because"), OUTSIDE)
def test_each_limit_refuses_in_words(study: Study, changes: dict[str, Any], code: str, because: str) -> None:
    """`because` completes "AI not performed, because ...": lower case, no full stop."""
    assert (NotPerformed(because, code), ()) == judged(study, **changes)


@pytest.mark.parametrize(("changes", "code", "because"), OUTSIDE)
def test_warn_lets_the_same_pass_with_the_same_words(
    study: Study, changes: dict[str, Any], code: str, because: str
) -> None:
    expected = (None, (f"outside the intended use, but run as configured: {because}",))
    assert expected == judged(study, "warn", **changes)


def test_all_reasons_are_named_and_the_first_gives_the_code(study: Study) -> None:
    found, _ = judged(study, patient=Patient("M", 12.0), body_parts=frozenset({"PROSTATE"}))

    assert found == NotPerformed(
        "the patient's sex is male and the model is for female patients; "
        "the patient is 12 years old and the model is for 18 to 90 years; "
        "the examined body part is PROSTATE and the model is for PELVIS or UTERUS",
        "sex",
    )


def test_what_is_not_stated_is_a_warning(study: Study) -> None:
    """Absent is not wrong; the reader is told what could not be checked."""
    expected = (
        "the patient's sex is not stated; the model is for female patients",
        "the patient's age is not stated; the model is for 18 to 90 years",
        "the body part is not stated; the model is for PELVIS or UTERUS",
    )
    assert (None, expected) == judged(study, patient=Patient(), body_parts=frozenset())


@pytest.mark.parametrize("policy", ["enforce", "warn"])
def test_a_missing_required_series_can_never_be_warned_away(study: Study, policy: str) -> None:
    needs = (Need("flair", Contrast.FLAIR, Plane.AXIAL, required=True), *NEEDS)

    found, _ = judged(study, policy, needs)

    assert NotPerformed("no FLAIR axial series is there", "missing-series") == found


@pytest.mark.parametrize("policy", ["enforce", "warn"])
def test_at_least_one_of_a_group_must_be_there(study: Study, policy: str) -> None:
    """Either T2 will do; neither will not."""
    one = tuple(stack for stack in study.stacks if stack.plane is not Plane.AXIAL)
    neither = tuple(stack for stack in study.stacks if stack.contrast is not Contrast.T2)

    assert None is judged(study, policy, stacks=one)[0]
    assert (
        NotPerformed("no T2 axial or T2 sagittal series is there", "missing-series")
        == (judged(study, policy, stacks=neither)[0])
    )


def test_without_any_of_its_needs_a_pipeline_has_nothing_to_judge(study: Study) -> None:
    """Also where every need by itself is optional."""
    needs = (Need("t2", Contrast.T2), Need("adc", Contrast.ADC))

    found, _ = judged(study, "warn", needs, stacks=())

    assert NotPerformed("no T2 or ADC series is there", "missing-series") == found


def test_a_refused_geometry_is_the_reason_where_it_would_have_served(study: Study) -> None:
    """The radiologist reads which series failed and how, not only that one is missing."""
    why = "series 8, T2 axial: 1 slice is missing between image 4 and image 6"
    needs = (Need("t2_axial", Contrast.T2, Plane.AXIAL, required=True),)

    found, _ = judged(study, "warn", needs, stacks=(), refusals=(Refusal(UID("1.2"), 8, why),))

    assert NotPerformed(f"no usable T2 axial series is there: {why}", "geometry") == found


def test_a_refused_series_of_another_kind_is_not_blamed(study: Study) -> None:
    refused = Refusal(UID("1.2"), 8, "series 8, DWI b800 axial: 1 slice is missing")
    needs = (Need("t2_axial", Contrast.T2, Plane.AXIAL, required=True),)

    found, _ = judged(study, "warn", needs, stacks=(), refusals=(refused,))

    assert NotPerformed("no T2 axial series is there", "missing-series") == found


def test_a_real_gap_reaches_the_sentence(tmp_path: Path) -> None:
    """From pixels' positions to the words in the report."""
    members = stored(mr.mr_series(mr.T2, 10, missing=[4], SeriesNumber=3), tmp_path / "files")
    study = read_study(members[0].study_uid, 1, members)

    found, _ = guard(USE, study, choose(NEEDS, study), "warn")

    assert found is not None
    assert "geometry" == found.code
    assert found.because.startswith(
        "no usable T2 axial or T2 sagittal series is there: series 3, T2 axial: 1 slice is missing between"
    )
