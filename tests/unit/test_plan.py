"""A plan is the same for the same study, says all of itself, and its key changes with what decides."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.assemble.study import read_study
from dicom_node.config import Route
from dicom_node.domain.findings import Findings
from dicom_node.domain.job import Level
from dicom_node.domain.pipeline import Case, IntendedUse, Need
from dicom_node.domain.series import Contrast, Patient, Plane, Study
from dicom_node.route.plan import describe, input_key, plan
from dicom_node.route.rules import matching
from support import mr
from support.stored import stored

MODELS = {"filter": "a" * 64}


class Women:
    """A pipeline that is only looked at."""

    name, version, title, level = "women", "1.0.0", "Test", Level.STUDY
    needs = (Need("t2_axial", Contrast.T2, Plane.AXIAL, required=True), Need("adc", Contrast.ADC))
    intended_use = IntendedUse(frozenset({"MR"}), frozenset({"F"}))
    models = ("filter",)

    def run(self, case: Case) -> Findings:
        raise NotImplementedError


def study_of(instances: Iterable[Dataset], folder: Path) -> Study:
    members = stored(instances, folder)
    return read_study(members[0].study_uid, 1, members)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_of(mr.uterine_study(), tmp_path_factory.mktemp("study") / "files")


def key(study: Study, policy: str = "enforce", models: dict[str, str] = MODELS) -> str:
    return input_key(plan(Women, study, policy), study, policy, models)


def test_a_plan_is_printable(study: Study) -> None:
    """JSON, with each need, what was taken for it, and why."""
    told = describe(plan(Women, study, "enforce"))

    assert told == json.loads(json.dumps(told))
    assert ("women", True, "", []) == (told["pipeline"], told["performed"], told["because"], told["warnings"])
    assert [("t2_axial", 3, "3: T2 axial, 12 slices"), ("adc", 6, "6: ADC axial, 8 slices")] == [
        (choice["need"], choice["series"], choice["stack"]) for choice in told["choices"]
    ]
    assert "chosen 3: T2 axial, 12 slices" == told["choices"][0]["reasons"][0]


def test_with_the_study_it_also_says_what_came(study: Study) -> None:
    told = describe(plan(Women, study, "enforce"), study)

    assert (9, []) == (len(told["stacks"]), told["refusals"])


def test_enforce_and_warn_differ_in_the_answer_only(study: Study) -> None:
    man = replace(study, patient=Patient("M", 60.0))

    enforced, warned = plan(Women, man, "enforce"), plan(Women, man, "warn")

    assert enforced.choices == warned.choices
    assert enforced.not_performed is not None
    assert ("sex", None, 1) == (enforced.not_performed.code, warned.not_performed, len(warned.warnings))


def test_the_same_input_gives_the_same_key(study: Study, tmp_path: Path) -> None:
    """Received again in another order, at another place, in another revision."""
    again = study_of(reversed(mr.uterine_study()), tmp_path / "again")

    assert key(study) == key(again) == key(replace(again, revision=2))
    assert 64 == len(key(study))


def test_what_decides_the_result_changes_the_key(study: Study) -> None:
    """Policy, models, patient, referral, reports, chosen pixels."""
    keys = [
        key(study), key(study, "warn"), key(study, models={"filter": "b" * 64}),
        key(replace(study, patient=Patient("F", 51.0))), key(replace(study, referral="Leiomyoma")),
        key(replace(study, reports=("Leiomyoma",))), key(replace(study, stacks=study.stacks[:-1])),
    ]  # fmt: skip

    assert len(keys) == len(set(keys))


def test_an_unchosen_series_does_not_change_the_key(study: Study, tmp_path: Path) -> None:
    """A late localiser makes a new revision but no new result."""
    more = study_of([*mr.uterine_study(), *mr.mr_series(mr.PD, SeriesNumber=9)], tmp_path / "more")

    assert key(study) == key(more)


def test_routes_match_by_the_peer_that_sent(study: Study) -> None:
    routes = [
        Route.model_validate({"pipeline": "a", "from": ["pacs"], "to": ["pacs"]}),
        Route.model_validate({"pipeline": "b", "from": ["scanner", "pacs"], "to": ["pacs"]}),
        Route.model_validate({"pipeline": "c", "from": ["scanner"], "to": ["pacs"]}),
    ]

    assert [0, 1] == matching(routes, ("pacs",))
    assert [0, 1, 2] == matching(routes, ("scanner", "pacs"))
    assert [] == matching(routes, ())
