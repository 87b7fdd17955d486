"""Training and evaluation: patients stay on one side, thresholds come from calibration alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_node.infer.bundle import Bundle, bundle_digests
from dicom_node.train.bundles import write_bundles
from dicom_node.train.calibrate import Scored, best_cut, case_scores, fit, platt
from dicom_node.train.dataset import NEEDS, Slices
from dicom_node.train.evaluate import evaluate
from dicom_node.train.phantoms.cases import case_specs
from dicom_node.train.table import table_rows
from dicom_node.train.train import Scores, Setup, Task, _task, assign_folds
from support.bundles import FILTER, uterine_bundles
from support.source import ROOT

LABELS = ["sarcoma"] * 63 + ["leiomyoma"] * 200
PER_NEED = 4


def synthetic(count: int, cohort: str, *, size: int = 8) -> Slices:
    """Slices without pictures: four per sequence and case, of which the middle two show the tumour."""
    specs = tuple(case_specs(cohort)[:count])
    per_case = PER_NEED * len(NEEDS)
    case = np.repeat(np.arange(count), per_case)
    shows = np.tile(np.array([0, 1, 1, 0], np.float32), count * len(NEEDS)) * 100
    sarcoma = np.array([spec.label == "sarcoma" for spec in specs])[case]
    rng = np.random.default_rng(0)
    return Slices(
        specs, rng.integers(0, 255, (len(case), size, size), dtype=np.uint8), case,
        np.tile(np.repeat(np.arange(len(NEEDS)), PER_NEED), count),
        np.where(sarcoma, 0, shows).astype(np.float32), np.where(sarcoma, shows, 0).astype(np.float32),
    )  # fmt: skip


def scored(slices: Slices, *, spread: float, seed: int) -> Scored:
    """What good networks would say, with noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, spread, len(slices.specs))[slices.case]
    return Scored(
        np.where(slices.tumour, 3.0, -3.0) + rng.normal(0, 1, len(slices.case)),
        np.where(slices.case_is_sarcoma[slices.case], 2.0, -2.0) + noise,
    )


@pytest.fixture(scope="module")
def scores() -> Scores:
    development, untouched = synthetic(100, "development"), synthetic(32, "untouched")
    fold = assign_folds([spec.label for spec in development.specs], 5, 0)
    numbers = np.array(fold)[development.case]
    on_development = []
    for f in range(5):
        said = scored(development, spread=1.5, seed=f)
        learned = (numbers != f) & (numbers != (f + 1) % 5)
        blank = [np.where(learned, np.nan, values) for values in (said.filter_logits, said.evaluator_logits)]
        on_development.append(Scored(*blank))
    later = tuple(scored(untouched, spread=1.5, seed=10 + f) for f in range(6))
    return Scores(development, untouched, fold, tuple(on_development), later[:5], later[5], 1.0)


FACTS = {
    "difficulty": 0.5, "pretrained": "chance", "steps": {"filter": 1, "evaluator": 1}, "batch": 2,
    "networks": 12, "minutes": 1.0, "cohort": "development", "command": "a test",
    "note": "Seen twice.",
}  # fmt: skip


def test_folds_are_by_patient_and_stratified() -> None:
    """A case is in one fold, with all its slices; every fold has its share of sarcomas."""
    folds = assign_folds(LABELS, 5, seed=0)

    sarcomas = np.bincount(np.array(folds)[:63])
    assert [13, 13, 13, 12, 12] == sorted(sarcomas.tolist(), reverse=True)
    assert [40] * 5 == np.bincount(np.array(folds)[63:]).tolist()


def test_nobody_is_on_both_sides(tmp_path: Path) -> None:
    """Of every fold: learned, calibrated and judged cases are three disjoint sets."""
    folds = assign_folds(LABELS, 5, seed=0)
    setup = Setup(tmp_path, tmp_path, None)

    judged: list[int] = []
    for f in range(5):
        task: Task = _task(setup, folds, f)
        assert set(task.learn) & set(task.score) == set()
        assert set(task.learn) | set(task.score) == set(range(263))
        judged += [case for case in task.score if folds[case] == f]
    assert sorted(judged) == list(range(263))


def test_calibration_looks_at_its_cases_alone(scores: Scores) -> None:
    """What the other cases are like changes nothing: their scores may be anything."""
    slices, said = scores.development, scores.folds_on_development[0]
    cases = [case for case, fold in enumerate(scores.fold) if fold == 1]
    others = ~np.isin(slices.case, cases)

    spoilt = Scored(*(np.where(others, 9.0, v) for v in (said.filter_logits, said.evaluator_logits)))

    assert fit(said, slices, cases) == fit(spoilt, slices, cases)


def test_the_pipeline_and_the_training_fuse_alike(scores: Scores) -> None:
    """A case's scores are those of `Fusion.sequence_score` on the slices the filter keeps."""
    slices, said = scores.development, scores.folds_on_development[0]
    case = next(case for case, fold in enumerate(scores.fold) if fold == 0)
    calibration = fit(said, slices, [c for c, fold in enumerate(scores.fold) if fold == 1])

    found = case_scores(said, slices, case, 0.5)

    rows = np.flatnonzero((slices.case == case) & (slices.need == 0) & (said.filter_logits >= 0))
    assert found["t2_axial"] == calibration.fusion.sequence_score(
        [float(value) for value in np.round(said.evaluator_logits[rows], 4)]
    )


def test_the_band_always_surrounds_the_threshold(scores: Scores) -> None:
    """At least a factor of two in odds to either side, also where calibration cases are separated."""
    separated = scored(scores.development, spread=0.0, seed=0)

    found = fit(separated, scores.development, list(range(100)))

    odds = found.threshold / (1 - found.threshold)
    assert found.low / (1 - found.low) <= odds / 2 + 1e-3
    assert found.high / (1 - found.high) >= odds * 2 - 1e-3


def test_the_threshold_is_the_share_of_sarcomas(scores: Scores) -> None:
    """Where calibrated probabilities separate best; not a cut that follows the noise of few cases."""
    sarcomas = scores.development.case_is_sarcoma

    found = fit(scored(scores.development, spread=1.5, seed=0), scores.development, list(range(100)))

    assert round(float(sarcomas.mean()), 4) == found.threshold


def test_platt_keeps_separated_classes_finite() -> None:
    """Perfectly separated scores give a slope, not infinity; reversed ones no slope below 0."""
    x = np.array([-2.0, -1.0, 1.0, 2.0])

    slope, intercept = platt(x, x > 0)
    reversed_slope, _ = platt(x, x < 0)

    assert 0 < slope < 10 and math.isclose(0.0, intercept, abs_tol=0.05)
    assert 0.0 == reversed_slope


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_platt_finds_the_minimum(scale: float) -> None:
    """Whatever the scale of the scores, no small change of slope or intercept fits better."""
    rng = np.random.default_rng(0)
    y = rng.random(60) < 0.25
    x = (np.where(y, 1.0, -1.0) + rng.normal(0, 1, 60)) * scale
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    slope, intercept = platt(x, y)

    def cost(a: float, b: float) -> float:
        logit = a * x + b
        fit = float((np.logaddexp(0, logit) - target * logit).sum())
        return fit + 0.25 * ((a - 1) ** 2 + b**2)

    steps = [(da, db) for da in (-1e-3, 0, 1e-3) for db in (-1e-3, 0, 1e-3)]
    assert all(cost(slope, intercept) <= cost(slope + da, intercept + db) + 1e-9 for da, db in steps)


def test_the_cut_is_in_the_middle_of_the_widest_gap() -> None:
    """Of equally good cuts the one that is least likely to be chance."""
    p, y = np.array([0.1, 0.2, 0.6, 0.7]), np.array([False, False, True, True])

    assert 0.4 == best_cut(p, y, within=(0.02, 0.98))


def test_a_case_without_kept_slices_counts_as_wrong(scores: Scores) -> None:
    """No verdict is a miss for a sarcoma and a false answer for a leiomyoma."""
    blind = Scored(np.full_like(scores.shipped_on_untouched.filter_logits, -9.0),
                   scores.shipped_on_untouched.evaluator_logits)  # fmt: skip

    document, _ = evaluate(replace(scores, shipped_on_untouched=blind), FACTS)

    row = document["results"]["untouched"]["shipped"]
    assert 32 == row["without_verdict"]
    assert (0, 0, 0) == tuple(row[name]["hits"] for name in ("accuracy", "sensitivity", "specificity"))


def test_the_table_has_every_line_with_n_and_interval(scores: Scores) -> None:
    """And AutoDiag-AI's figures beside those that have one."""
    document, _ = evaluate(scores, FACTS)

    rows = {line[0]: line for line in table_rows(document)}
    assert "92.68 %" == rows["Filter, accuracy, cross-validated"][3]
    assert "89.32 %" == rows["Cross-validated by patient, accuracy"][3]
    assert "92.44 %" == rows["Untouched, accuracy, mean over models"][3]
    assert "84.38 % (27/32)" == rows["Untouched, specialist radiologist"][3]
    for name in ("sensitivity", "specificity", "accuracy"):
        assert "/" in rows[f"Untouched, ensemble by case, {name}"][2]
        assert " to " in rows[f"Untouched, ensemble by case, {name}"][2]


def test_written_bundles_load_and_their_cards_say_what_they_are(scores: Scores, tmp_path: Path) -> None:
    """Weights, thresholds and digests agree; the card's figures are those of evaluation.json."""
    models = uterine_bundles(tmp_path / "models")
    weights = {}
    for name in ("uterine_tumor_filter", "uterine_sarcoma_evaluator"):
        (models / name / "configs" / "train.json").write_text("{}")
        weights[name] = (models / name / "models" / "model.safetensors").rename(tmp_path / name)
    document, calibration = evaluate(scores, FACTS)

    write_bundles(models, weights, calibration, document, "9.9.9")

    assert "9.9.9" == Bundle(FILTER, models).version
    assert calibration.keep_from == Bundle(FILTER, models).config("threshold")["keep_from"]
    for name in bundle_digests(weights, models):
        text = (models / name / "docs" / "README.md").read_text(encoding="utf-8")
        stored = json.loads((models / name / "docs" / "evaluation.json").read_text(encoding="utf-8"))
        assert document == stored
        assert "\n\nSeen twice.\n" in text
        assert "Trained on generated phantoms only" in text and "Research use only" in text
        assert all(f"| {line[0]} | {line[1]} | {line[2]} |" in text for line in table_rows(stored))


@pytest.mark.parametrize("name", ["uterine_tumor_filter", "uterine_sarcoma_evaluator"])
def test_committed_bundles_are_whole(name: str) -> None:
    """Digests fit, the card belongs to the evaluation beside it, and weights are a few MB."""
    folder = ROOT / "models" / name

    assert name in bundle_digests([name], ROOT / "models")
    document = json.loads((folder / "docs" / "evaluation.json").read_text(encoding="utf-8"))
    card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(f"| {line[0]} | {line[1]} | {line[2]} |" in card for line in table_rows(document))
    assert (folder / "models" / "model.safetensors").stat().st_size < 6e6
    assert (folder / "LICENSE").is_file()


def test_a_network_learns_and_repeats(tmp_path: Path) -> None:
    """A bright square is told from none in a few steps; the same seed gives the same weights."""
    import torch

    from dicom_node.train.network import Recipe, logits, train_network

    torch.set_num_threads(1)
    models = uterine_bundles(tmp_path / "models")
    slices = synthetic(12, "development", size=64)
    images = slices.images // 4
    images[slices.tumour, 16:48, 16:48] = 250
    slices = replace(slices, images=images)
    small = dict.fromkeys(("scale", "shift", "contrast", "gamma", "noise"), 0.05)
    augment = {"turn_deg": 5, "flip": True, **small}
    recipe = Recipe(12, 16, 2e-3, 0.0, 0, 0.1, 3, augment)
    positive, negative = np.flatnonzero(slices.tumour), np.flatnonzero(~slices.tumour)

    def learn() -> torch.nn.Module:
        return train_network(models / FILTER, slices, positive, negative, recipe=recipe, pretrained=None)

    first, second = learn(), learn()
    said = logits(first, slices, np.arange(len(slices.case)))

    assert said[slices.tumour].mean() > said[~slices.tumour].mean()
    states = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_folded_imagenet_weights_survive_calibration(tmp_path: Path) -> None:
    """Unfolding and measuring the batch norms leaves what the network says as it was."""
    import torch

    from dicom_node.train.network import calibrate, new_network, norms

    torch.set_num_threads(1)
    models = uterine_bundles(tmp_path / "models")
    network = new_network(models / FILTER, None)
    names = dict(network.named_modules())
    folded: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    for conv, _ in norms(network):
        weight = names[conv].weight.detach().numpy()
        folded[f"{conv}.weight"] = weight
        folded[f"{conv}.bias"] = rng.normal(0, 0.1, len(weight)).astype(np.float32)
    np.savez(tmp_path / "start.npz", **folded)
    network = new_network(models / FILTER, tmp_path / "start.npz").eval()
    batch = torch.from_numpy(rng.normal(0, 1, (4, 3, 64, 64)).astype(np.float32))

    with torch.no_grad():
        before = network.features(batch)
        calibrate(network, batch)
        after = network.features(batch)
        network.train()
        training = network.features(batch)

    assert torch.allclose(before, after, atol=1e-4)
    assert torch.allclose(before, training, atol=2e-2)
