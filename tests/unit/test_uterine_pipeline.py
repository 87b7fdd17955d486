"""The uterine pipeline on phantoms, with small untrained networks: what it says and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from dicom_node.domain.pipeline import Plan
from dicom_node.errors import UnfaithfulGeometry
from dicom_node.infer import runtime
from dicom_node.infer.run import Readers, infer
from dicom_node.infer.runtime import Runtime, use
from dicom_node.pipeline import Case, Certainty, Findings, NotPerformed, Stack, Volume
from dicom_node.train.phantoms.cases import case_specs
from dicom_node.train.rerun import phantom_case
from pipelines.uterine_mri import INDETERMINATE, LEIOMYOMA, SARCOMA, UterineMri
from support.bundles import uterine_bundles

NEVER, ALWAYS = 1.1, 0.0


@pytest.fixture(autouse=True)
def runtime_as_before() -> Iterator[None]:
    before = runtime.current()
    yield
    runtime._current = before


def pipeline(folder: Path, *, keep_from: float = ALWAYS, **fusion: object) -> UterineMri:
    use(Runtime(uterine_bundles(folder / "models", keep_from=keep_from, **fusion)))
    return UterineMri()


@pytest.fixture(scope="module")
def case() -> Case:
    return phantom_case(case_specs("untouched")[0], UterineMri.needs, matrix=64)


def point(low: float, threshold: float, high: float) -> dict[str, object]:
    return {"operating_point": {"low": low, "threshold": threshold, "high": high, "chosen_on": "a test."}}


def test_every_slice_of_every_sequence_is_scored(tmp_path: Path, case: Case) -> None:
    """Each frame has its probability of tumour, and of sarcoma where it was kept."""
    findings = pipeline(tmp_path).run(case)

    assert {"t2_axial", "t2_sagittal", "dwi_b1000", "adc"} == {s.need for s in findings.sequences}
    for sequence in findings.sequences:
        assert [s.frame for s in sequence.slices] == list(sequence.stack.frames)
        assert all((s.positive_probability is not None) == s.kept for s in sequence.slices)


def test_the_same_case_gives_the_same_findings(tmp_path: Path, case: Case) -> None:
    """Bytes of maps, regions and previews included; time aside."""
    runner = pipeline(tmp_path)

    first, second = runner.run(case), runner.run(case)

    assert first.verdict == second.verdict
    assert first.sequences == second.sequences
    assert [m.values.tobytes() for m in first.maps] == [m.values.tobytes() for m in second.maps]
    assert [r.mask.tobytes() for r in first.regions] == [r.mask.tobytes() for r in second.regions]
    assert [p.tobytes() for _, p in first.previews] == [p.tobytes() for _, p in second.previews]


def test_maps_and_regions_are_on_the_source_grid(tmp_path: Path, case: Case) -> None:
    """0 to 1 in steps of 1/255, only on kept slices; the strongest place of the case is 1."""
    findings = pipeline(tmp_path, keep_from=0.5).run(case)

    assert findings.maps and findings.regions
    assert 0.9 < max(float(heat.values.max()) for heat in findings.maps) <= 1.0
    for heat in findings.maps:
        kept = [s.kept for q in findings.sequences if q.stack is heat.stack for s in q.slices]
        assert (len(heat.stack.frames), heat.stack.rows, heat.stack.columns) == heat.values.shape
        assert kept == heat.present.tolist()
        assert 0.0 == heat.values[~heat.present].sum()
        assert np.allclose(np.rint(heat.values * 255), heat.values * 255, atol=1e-3)
    for region in findings.regions:
        heat = next(heat for heat in findings.maps if heat.stack is region.stack)
        assert region.mask.shape == heat.values.shape
        assert (heat.values[region.mask] >= 0.5).all()


@pytest.mark.parametrize(
    ("low", "threshold", "high", "certainty", "diagnosis", "begins"),
    [
        (0.0, 0.0, 0.0, Certainty.POSITIVE, SARCOMA, "Sarcoma suspected: probability of sarcoma "),
        (1.0, 1.0, 1.0, Certainty.NEGATIVE, LEIOMYOMA, "Leiomyoma favoured: probability of sarcoma "),
        (0.0, 0.5, 1.0, Certainty.INDETERMINATE, INDETERMINATE, "Indeterminate: probability of sarcoma "),
    ],
)
def test_the_verdict_follows_the_operating_point(
    tmp_path: Path, case: Case, low: float, threshold: float, high: float, certainty: Certainty,
    diagnosis: object, begins: str,
) -> None:  # fmt: skip
    """Verdict first, in one sentence."""
    verdict = pipeline(tmp_path, **point(low, threshold, high)).run(case).verdict

    assert verdict is not None
    assert (certainty, diagnosis) == (verdict.certainty, verdict.diagnosis)
    assert verdict.statement.startswith(begins)
    assert 1 == verdict.statement.count("%.") and verdict.statement.endswith(".")


def test_nothing_kept_is_not_performed(tmp_path: Path, case: Case) -> None:
    """A filter that saw no tumour leaves nothing to evaluate; that is no negative verdict."""
    findings = pipeline(tmp_path, keep_from=NEVER).run(case)

    assert findings.verdict is None and findings.not_performed is not None
    assert "no-tumour-slices" == findings.not_performed.code
    assert findings.not_performed.because.startswith("the tumour image filter found no tumour-bearing slice")
    assert not findings.maps and not findings.regions
    assert 4 == len(findings.sequences)


def test_a_missing_sequence_is_tolerated_and_said(tmp_path: Path, case: Case) -> None:
    """The verdict rests on what is there, and names what is not."""
    choices = tuple(
        replace(choice, found=None) if choice.need.name != "t2_axial" else choice for choice in case.choices
    )
    only = replace(case, volumes={"t2_axial": case.volumes["t2_axial"]}, choices=choices)

    verdict = pipeline(tmp_path).run(only).verdict

    assert verdict is not None
    missing = "Missing sequences: t2_sagittal, dwi_b1000, adc; the verdict rests on fewer images"
    assert missing in verdict.warnings


def test_disagreement_and_guard_warnings_reach_the_verdict(tmp_path: Path, case: Case) -> None:
    """Where the referral says leiomyoma and the AI sarcoma, statement and warnings say so."""
    referred = replace(
        case, study=replace(case.study, referral="Growing fibroid"), warnings=("the patient is a man",)
    )

    verdict = pipeline(tmp_path, **point(0.0, 0.0, 0.0)).run(referred).verdict

    assert verdict is not None
    assert "the patient is a man" in verdict.warnings
    assert "Disagreement: the referral named leiomyoma, the AI says sarcoma" in verdict.warnings
    assert verdict.statement.endswith("; disagreement: the referral named leiomyoma, the AI says sarcoma.")


def test_time_and_progress_are_told(tmp_path: Path, case: Case) -> None:
    """Forward passes are timed apart from the rest; progress grows to 1."""
    seen: list[tuple[float, str]] = []

    findings = pipeline(tmp_path).run(
        replace(case, progress=lambda fraction, step: seen.append((fraction, step)))
    )

    assert findings.seconds is not None
    assert {"preprocess", "forward", "postprocess"} == set(findings.seconds)
    assert sorted(seen, key=lambda entry: entry[0]) == seen
    assert (1.0, "fuse") == seen[-1]


def run_plan(runner: UterineMri, case: Case, unreadable: set[str]) -> Findings:
    """Through `infer`, with some stacks that make no regular volume."""
    names = {choice.stack.series_uid: choice.need.name for choice in case.choices if choice.stack}

    def read_volume(stack: Stack) -> Volume:
        if names[stack.series_uid] in unreadable:
            raise UnfaithfulGeometry("a slice is missing")
        return case.volumes[names[stack.series_uid]]

    return infer(runner, Plan(runner.name, runner.version, case.choices), case.study, reading(read_volume))


def test_an_unreadable_sequence_is_left_out_aloud(tmp_path: Path, case: Case) -> None:
    """One of two T2 planes is enough; what was left out is a warning."""
    findings = run_plan(pipeline(tmp_path), case, {"t2_sagittal", "adc"})

    assert findings.verdict is not None
    assert any("was left out: a slice is missing" in warning for warning in findings.verdict.warnings)
    assert findings.seconds is not None and "read" in findings.seconds


def test_without_any_readable_t2_nothing_is_performed(tmp_path: Path, case: Case) -> None:
    """The needs of a group cannot all be missing."""
    findings = run_plan(pipeline(tmp_path), case, {"t2_sagittal", "t2_axial"})

    assert findings.not_performed is not None
    assert "geometry" == findings.not_performed.code
    assert 2 == len(findings.algorithms)


def test_a_plan_that_says_no_is_not_run(tmp_path: Path, case: Case) -> None:
    """The guard's reason becomes the finding, with the models that would have run."""
    runner = pipeline(tmp_path)
    no = NotPerformed("the patient is a man", "sex")

    refused = Plan(runner.name, runner.version, (), not_performed=no)
    findings = infer(runner, refused, case.study, reading(_never))

    assert no == findings.not_performed
    assert ["uterine_tumor_filter", "uterine_sarcoma_evaluator"] == [a.name for a in findings.algorithms]


def reading(read_volume: Callable[[Stack], Volume]) -> Readers:
    """Volumes by `read_volume`, and nothing else."""
    return Readers(read_volume, _never, _never)


def _never(what: object) -> NoReturn:
    raise AssertionError(what)
