"""`dicom-node train` and `dicom-node evaluate`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicom_node.config import PROJECT
from dicom_node.errors import InvalidValue, ModelError

if TYPE_CHECKING:
    from dicom_node.train.train import Scores, Setup

KNOWN = ("uterine_mri",)
Name = Annotated[str, typer.Argument(metavar="PIPELINE", help=f"One of: {', '.join(KNOWN)}.")]
Models = Annotated[Path, typer.Option("--out", help="Folder of bundles, where weights and cards are put.")]


def train(
    pipeline: Name,
    out: Models = PROJECT / "models",
    work: Annotated[
        Path, typer.Option(help="Folder for rendered slices and scores; what is there is used again.")
    ] = Path("var/train"),
    cohort: Annotated[str, typer.Option(help="Cohort of phantoms to learn from.")] = "development",
    pretrained: Annotated[
        Path | None, typer.Option(help="ImageNet weights: .npz (folded, torchvision names) or .safetensors.")
    ] = None,
    folds: Annotated[int, typer.Option(min=3, max=20, help="Parts for cross-validation by patient.")] = 5,
    limit: Annotated[int | None, typer.Option(min=10, help="Only so many cases per cohort: a trial.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of train.json's steps: a trial.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = os.cpu_count() or 1,
    version: Annotated[str, typer.Option(help="Version of the bundles.")] = "1.0.0",
    note: Annotated[str, typer.Option(help="What readers of the cards must know about this training.")] = "",
) -> None:
    """Train a pipeline's networks on generated phantoms, cross-validate, and write bundles and cards.

    For uterine_mri about half an hour on two cores: twelve MobileNetV2 on 63 + 200 cases.
    """
    _check(pipeline)
    from dicom_node.train.train import Setup, train_uterine

    setup = Setup(out, work, pretrained, cohort, folds, limit, steps, jobs)
    scores = train_uterine(setup, _say)
    document = finish(setup, scores, version, note)
    show(document)


def finish(setup: Setup, scores: Scores, version: str, note: str) -> dict[str, Any]:  # Any: JSON-able
    """Evaluate, calibrate and write the bundles; the evaluation as JSON."""
    from dicom_node.train.bundles import write_bundles
    from dicom_node.train.evaluate import evaluate as judge
    from dicom_node.train.names import EVALUATOR, FILTER
    from dicom_node.train.network import read_recipe
    from dicom_node.train.train import shipped_weights

    recipes = {bundle: read_recipe(setup.models / bundle, setup.steps) for bundle in (FILTER, EVALUATOR)}
    start = "chance" if setup.pretrained is None else f"ImageNet weights, {setup.pretrained.name}"
    facts = {
        "command": "dicom-node train uterine_mri",
        "cohort": setup.cohort,
        "difficulty": scores.development.specs[0].difficulty,
        "pretrained": start,
        "steps": {"filter": recipes[FILTER].steps, "evaluator": recipes[EVALUATOR].steps},
        "batch": recipes[FILTER].batch,
        "networks": 2 * (setup.folds + 1),
        "minutes": scores.minutes,
        "note": note,
    }
    document, calibration = judge(scores, facts)
    weights = shipped_weights(setup, len(scores.fold))
    write_bundles(setup.models, weights, calibration, document, version)
    return document


def evaluate(
    pipeline: Name,
    models: Annotated[Path, typer.Option(help="Folder of bundles.")] = PROJECT / "models",
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Run the pipeline on the untouched phantoms now, too.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="With --rerun: only so many cases.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print the AutoDiag-AI table of a pipeline's models: every figure with n and a 95 % interval."""
    _check(pipeline)
    from dicom_node.infer.manifest import read_json, read_manifest
    from dicom_node.train.names import EVALUATOR

    folder = read_manifest(EVALUATOR, models).folder  # the figures belong to weights that are what they were
    path = folder / "docs" / "evaluation.json"
    if not path.is_file():
        raise ModelError(f"bundle {EVALUATOR} has no docs/evaluation.json; run `dicom-node train {pipeline}`")
    document = read_json(path, EVALUATOR)
    if rerun:
        from dicom_node.train.rerun import rerun_untouched

        document["rerun"] = rerun_untouched(models, limit, _say)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        show(document)


def show(document: dict[str, Any]) -> None:  # Any: JSON-able
    """The table, as people read it."""
    from rich.console import Console
    from rich.table import Table

    from dicom_node.train.table import table_rows

    table = Table(title="AutoDiag-AI's table on generated phantoms", caption=str(document["data"]))
    for heading in ("", "here", "n, 95 % interval", "AutoDiag-AI, on patients"):
        table.add_column(heading, overflow="fold")
    for row in table_rows(document):
        table.add_row(*row)
    Console().print(table)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _check(pipeline: str) -> None:
    if pipeline not in KNOWN:
        raise InvalidValue(f"no pipeline {pipeline!r} can be trained here; there are {', '.join(KNOWN)}")
