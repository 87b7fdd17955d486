"""The training command, whole, on a dozen phantoms: processes, cache, bundles, table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dicom_node.cli import _mount, app
from dicom_node.errors import DicomNodeError
from dicom_node.infer.bundle import Bundle, bundle_digests
from dicom_node.train import dataset
from dicom_node.train.dataset import cached
from dicom_node.train.names import UNTOUCHED_SEED
from dicom_node.train.phantoms.cases import case_specs
from dicom_node.train.rerun import phantom_case
from pipelines.uterine_mri import UterineMri
from support.source import ROOT

BUNDLES = ("uterine_tumor_filter", "uterine_sarcoma_evaluator")
runner = CliRunner()


@pytest.fixture(autouse=True, scope="module")
def commands() -> None:
    if not any(command.name == "train" for command in app.registered_commands):
        _mount()


def fill_cache(folder: Path, inference: Path) -> None:
    """Ten cases of each cohort with a few slices of noise, as if they had been rendered."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for spec in (*case_specs("development")[:10], *case_specs("untouched", UNTOUCHED_SEED)[:10]):
        tumour = np.tile([0.0, 100.0], 4).astype(np.float32)
        is_sarcoma = spec.label == "sarcoma"
        np.savez(
            cached(spec, folder, inference), images=rng.integers(0, 255, (8, 112, 112), dtype=np.uint8),
            need=np.repeat(np.arange(4), 2), leiomyoma_mm2=tumour * (not is_sarcoma),
            sarcoma_mm2=tumour * is_sarcoma,
        )  # fmt: skip


def test_training_makes_whole_bundles(tmp_path: Path) -> None:
    """One step a network on ten small cases, in processes: bundles that load, and a table."""
    models, work = tmp_path / "models", tmp_path / "work"
    for name in BUNDLES:
        shutil.copytree(ROOT / "models" / name / "configs", models / name / "configs")
    fill_cache(work / "slices", models / BUNDLES[0] / "configs" / "inference.json")

    done = runner.invoke(
        app,
        ["train", "uterine_mri", "--out", str(models), "--work", str(work), "--limit", "10", "--folds", "3",
         "--steps", "1", "--jobs", "1", "--version", "0.0.1"],
    )  # fmt: skip

    assert 0 == done.exit_code, done.output
    assert "rendering" not in done.output
    assert set(BUNDLES) == set(bundle_digests(BUNDLES, models))
    evaluation = json.loads((models / BUNDLES[0] / "docs" / "evaluation.json").read_text())
    assert 10 == evaluation["cohorts"]["development"]["cases"]
    assert 10 == evaluation["results"]["untouched"]["shipped"]["accuracy"]["n"]


def test_a_rendered_case_is_what_the_networks_get(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preprocessed like at inference, to one part in 255; the masks say which slices show what."""
    monkeypatch.setattr(dataset, "MATRIX", 64)
    bundle = Bundle(BUNDLES[0], ROOT / "models")
    spec = next(spec for spec in case_specs("development") if spec.label == "sarcoma")

    arrays = dataset.render_case(spec, bundle.prepare)

    case = phantom_case(spec, UterineMri.needs, matrix=64)
    for at, need in enumerate(dataset.NEEDS):
        expected = bundle.preprocess(case.volumes[need])[:, 0].numpy()
        found = arrays["images"][arrays["need"] == at] / 127.5 - 1
        assert np.abs(expected - found).max() <= 1 / 255 + 1e-6
    assert arrays["sarcoma_mm2"].max() > 100
    assert (arrays["sarcoma_mm2"] == 0).any()


def test_the_stored_table_is_printed() -> None:
    """`evaluate` prints what the weights' evaluation says, also as JSON."""
    table = runner.invoke(app, ["evaluate", "uterine_mri"], env={"COLUMNS": "160"})
    as_json = runner.invoke(app, ["evaluate", "uterine_mri", "--json"])

    assert 0 == table.exit_code, table.output
    assert "89.32 %" in table.output and "84.38 % (27/32)" in table.output
    stored = json.loads((ROOT / "models" / BUNDLES[1] / "docs" / "evaluation.json").read_text())
    assert stored == json.loads(as_json.stdout)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_unknown_pipeline_is_named(command: str) -> None:
    """And what there is."""
    done = runner.invoke(app, [command, "no_such"])

    assert isinstance(done.exception, DicomNodeError)
    there = "uterine_mri, blood_smear, cervical_cytology, cervical_fields"
    assert f"no pipeline 'no_such' can be trained here; there are {there}" == str(done.exception)
