"""Train both networks of the uterine pipeline on phantoms, cross-validated by patient, in one go.

    fold f:  networks learn from all cases but two fifths, are calibrated on one of these (f + 1)
             and judged on the other (f). A case is wholly in one fold.
    shipped: networks learn from all cases; their calibration is that of the five calibration
             parts together, in which every case was scored by networks that never saw it.
    untouched cases: scored by every fold's networks and by the shipped ones, once, at the end; other
             seeds than any that were looked at while this was made.

Folds run in processes of one thread each: faster than threads on few cores, and the same
weights whatever the number of cores. Scores are left in a work folder; what is there already
is not computed again. `evaluate.py` makes tables of them, and `bundles.py` the bundles.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError
from dicom_node.train.calibrate import Scored, tumour_probabilities
from dicom_node.train.dataset import Slices, load, one_thread, recipe, render_missing
from dicom_node.train.names import EVALUATOR, FILTER, UNTOUCHED_SEED
from dicom_node.train.phantoms.cases import CaseSpec, case_specs

if TYPE_CHECKING:
    import torch

Report = Callable[[str], None]
Cases = tuple[int, ...]
Rows = npt.NDArray[np.int64]
SHIPPED = "shipped"
NEVER_KEPT = 0.02
"""Slices of a lower probability of tumour are kept at no threshold that is tried: not evaluated."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One training: where, from what, how much."""

    models: Path
    """Folder with both bundles' configs; weights and cards are written there."""
    work: Path
    """Cache of rendered slices and scores; outside the repository."""
    pretrained: Path | None
    cohort: str = "development"
    folds: int = 5
    limit: int | None = None
    """Only so many cases of each cohort, for trials."""
    steps: int | None = None
    """Instead of train.json's, for trials."""
    jobs: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Scores:
    """What training leaves behind, for `evaluate`."""

    development: Slices
    untouched: Slices
    fold: Cases
    """By development case: the fold it is judged in."""
    folds_on_development: tuple[Scored, ...]
    """By fold: NaN on the cases its networks learned from."""
    folds_on_untouched: tuple[Scored, ...]
    shipped_on_untouched: Scored
    minutes: float
    """Of all folds together, as if one had come after the other."""


@dataclass(frozen=True, slots=True)
class Task:
    """Both networks of one fold: the development cases to learn from, and those to score."""

    setup: Setup
    name: str
    learn: Cases
    score: Cases


def train_uterine(setup: Setup, report: Report) -> Scores:
    """Train, score, and leave the weights in the work folder."""
    development, untouched = load_cohorts(setup, report)
    started = time.monotonic()
    fold = assign_folds([spec.label for spec in development.specs], setup.folds, setup.seed)
    tasks = [_task(setup, fold, f) for f in range(setup.folds)]
    tasks.append(Task(setup, SHIPPED, (*range(len(fold)),), ()))
    with ProcessPoolExecutor(setup.jobs, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        futures = {pool.submit(_carry_out, task): task.name for task in tasks}
        for future in as_completed(futures):
            future.result()
            report(f"{futures[future]} is done, {(time.monotonic() - started) / 60:.1f} minutes")
    scored = [_read(task) for task in tasks]
    minutes = sum(_minutes(task) for task in tasks)
    return Scores(
        development, untouched, fold,
        tuple(on_development for on_development, _ in scored[:-1]),
        tuple(on_untouched for _, on_untouched in scored[:-1]),
        scored[-1][1],
        round(minutes, 1),
    )  # fmt: skip


def load_cohorts(setup: Setup, report: Report) -> tuple[Slices, Slices]:
    """(development, untouched), rendered where the cache lacks them."""
    inference = setup.models / FILTER / "configs" / "inference.json"
    folder = setup.work / "slices"
    development, untouched = (_specs(cohort, setup.limit) for cohort in (setup.cohort, "untouched"))
    render_missing([*development, *untouched], folder, inference, setup.jobs, report)
    return load(development, folder, inference), load(untouched, folder, inference)


def _specs(cohort: str, limit: int | None) -> Sequence[CaseSpec]:
    specs = case_specs(cohort, UNTOUCHED_SEED if cohort == "untouched" else 0)
    return specs[:limit] if limit else specs


def assign_folds(labels: Sequence[str], folds: int, seed: int) -> Cases:
    """A fold for each case, with the same share of each label in every fold."""
    rng = np.random.default_rng([seed, folds])
    result = np.zeros(len(labels), int)
    for label in sorted(set(labels)):
        cases = rng.permutation([at for at, other in enumerate(labels) if other == label])
        result[cases] = np.arange(len(cases)) % folds
    return tuple(int(fold) for fold in result)


def _task(setup: Setup, fold: Cases, f: int) -> Task:
    held = {f, (f + 1) % setup.folds}
    learn = tuple(case for case, other in enumerate(fold) if other not in held)
    return Task(setup, f"fold{f}", learn, tuple(case for case, other in enumerate(fold) if other in held))


def _carry_out(task: Task) -> None:
    """In a process of its own: train and score both networks, unless weights or scores are there."""
    if _scores_path(task).is_file():
        return
    cohorts = _cohorts(task.setup)
    columns: dict[str, npt.NDArray[np.float64]] = {}
    wanted = [
        np.flatnonzero(np.isin(cohorts[0].case, task.score)), np.arange(len(cohorts[1].case)),
    ]  # fmt: skip
    for bundle in (FILTER, EVALUATOR):
        network = _trained(task, bundle, cohorts[0])
        for at, (slices, rows) in enumerate(zip(cohorts, wanted, strict=True)):
            if bundle == EVALUATOR:
                tumour = tumour_probabilities(columns[f"{FILTER}-{at}"][rows])
                rows = rows[tumour >= NEVER_KEPT]
            columns[f"{bundle}-{at}"] = _scored(network, slices, rows)
    path = _scores_path(task)
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **columns)
    partial.replace(path)  # last, and whole or not at all: its being there says that the fold is done


@lru_cache(maxsize=1)
def _cohorts(setup: Setup) -> tuple[Slices, Slices]:
    return load_cohorts(setup, lambda line: None)


def _trained(task: Task, bundle: str, development: Slices) -> torch.nn.Module:
    from dicom_node.train.network import half_precision, read_recipe, train_network

    if weights_path(task, bundle).is_file():
        return half_precision(_again(task, bundle))
    started = time.monotonic()
    positive, negative = _truth(bundle, development, task.learn)
    network = train_network(
        task.setup.models / bundle, development, positive, negative,
        recipe=read_recipe(task.setup.models / bundle, task.setup.steps),
        pretrained=task.setup.pretrained,
    )  # fmt: skip
    _minutes_path(task, bundle).parent.mkdir(parents=True, exist_ok=True)
    _minutes_path(task, bundle).write_text(f"{(time.monotonic() - started) / 60:.2f}\n")
    _save(half_precision(network), weights_path(task, bundle))
    return network


def _again(task: Task, bundle: str) -> torch.nn.Module:
    """The network that was trained already; only what it is scored on is new."""
    from safetensors.torch import load_file

    from dicom_node.train.network import new_network

    network = new_network(task.setup.models / bundle, None)
    network.load_state_dict(load_file(weights_path(task, bundle)))
    return network.eval()


def _truth(bundle: str, slices: Slices, cases: Cases) -> tuple[Rows, Rows]:
    """Rows of either class: tumour or none for the filter; sarcoma or only leiomyoma for the evaluator."""
    mine = np.isin(slices.case, cases)
    if bundle == FILTER:
        return np.flatnonzero(mine & slices.tumour), np.flatnonzero(mine & ~slices.tumour)
    tumour = mine & slices.tumour
    return np.flatnonzero(tumour & slices.sarcoma), np.flatnonzero(tumour & ~slices.sarcoma)


def _scored(network: torch.nn.Module, slices: Slices, rows: Rows) -> npt.NDArray[np.float64]:
    from dicom_node.train.network import logits

    values = np.full(len(slices.case), np.nan)
    values[rows] = logits(network, slices, rows)
    return values


def _save(network: torch.nn.Module, path: Path) -> None:
    """Weights in 16 bits; what is scored is what is saved, see `half_precision`."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in network.state_dict().items()
        },
        path,
    )


def _read(task: Task) -> tuple[Scored, Scored]:
    with np.load(_scores_path(task)) as file:
        on = [Scored(file[f"{FILTER}-{at}"], file[f"{EVALUATOR}-{at}"]) for at in (0, 1)]
    return on[0], on[1]


def _minutes(task: Task) -> float:
    """How long both networks of a fold learned."""
    return sum(float(_minutes_path(task, bundle).read_text()) for bundle in (FILTER, EVALUATOR))


def _minutes_path(task: Task, bundle: str) -> Path:
    return weights_path(task, bundle).with_suffix(".minutes")


def _scores_path(task: Task) -> Path:
    return task.setup.work / "scores" / f"{task.name}-{_key(task)}.npz"


def weights_path(task: Task, bundle: str) -> Path:
    return task.setup.work / "scores" / f"{task.name}-{_weights_key(task)}-{bundle}.safetensors"


def shipped_weights(setup: Setup, cases: int) -> dict[str, Path]:
    """By bundle, the weights of the networks that learned from all cases. Raises ModelError."""
    task = Task(setup, SHIPPED, (*range(cases),), ())
    found = {bundle: weights_path(task, bundle) for bundle in (FILTER, EVALUATOR)}
    if missing := [path.name for path in found.values() if not path.is_file()]:
        raise ModelError(f"the work folder lacks {missing[0]}")
    return found


@lru_cache
def _key(task: Task) -> str:
    """A digest of all that decides a fold's scores, so that a changed setting is scored anew."""
    untouched = [asdict(spec) for spec in _specs("untouched", task.setup.limit)]
    return _digest([_weights_key(task), untouched, task.score])


@lru_cache
def _weights_key(task: Task) -> str:
    """A digest of all that decides a fold's weights, so that a changed setting is trained anew."""
    setup = task.setup
    configs = [
        json.loads((setup.models / bundle / "configs" / name).read_text(encoding="utf-8"))
        for bundle in (FILTER, EVALUATOR) for name in ("inference.json", "train.json")
    ]  # fmt: skip
    for config in configs:
        for key in ("_meta_", "gradcam"):  # decide nothing about training
            config.pop(key, None)
    start = hashlib.sha256(setup.pretrained.read_bytes()).hexdigest() if setup.pretrained else ""
    specs = [asdict(spec) for spec in _specs(setup.cohort, setup.limit)]
    made_by = recipe(setup.models / FILTER / "configs" / "inference.json")
    return _digest([configs, start, specs, made_by, setup.steps, setup.seed, task.learn])


def _digest(facts: Any) -> str:  # Any: JSON values
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
