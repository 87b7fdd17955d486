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

KNOWN = ("uterine_mri", "blood_smear", "cervical_cytology", "cervical_fields")
Name = Annotated[str, typer.Argument(metavar="PIPELINE", help=f"One of: {', '.join(KNOWN)}.")]
Models = Annotated[Path, typer.Option("--out", help="Folder of bundles, where weights and cards are put.")]


def train(
    pipeline: Name,
    out: Models = PROJECT / "models",
    work: Annotated[
        Path, typer.Option(help="Folder for rendered slices and scores; what is there is used again.")
    ] = Path("var/train"),
    cohort: Annotated[str, typer.Option(help="Cohort of phantoms to learn from.")] = "development",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the data sets (blood_smear_pbc, cervical_cric), for networks of cells."),
    ] = None,
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
    """Train a pipeline's networks, judge them on what they never saw, and write bundles and cards.

    uterine_mri learns from generated phantoms, about half an hour on two cores: twelve MobileNetV2 on
    63 + 200 cases. The others learn from real cells in --data, a few minutes each.
    """
    _check(pipeline)
    if pipeline != "uterine_mri":
        _train_cells(pipeline, out, data, work, pretrained, steps, limit, version)
        return
    from dicom_node.train.train import Setup, train_uterine

    setup = Setup(out, work, pretrained, cohort, folds, limit, steps, jobs)
    scores = train_uterine(setup, _say)
    document = finish(setup, scores, version, note)
    show(document)


def _train_cells(
    pipeline: str, out: Path, data: Path | None, work: Path, pretrained: Path | None, steps: int | None,
    limit: int | None, version: str,
) -> None:  # fmt: skip
    if data is None:
        raise InvalidValue(f"{pipeline} learns from real cells: say where they are with --data")
    from dicom_node.train.cells.run import train_cells
    from dicom_node.train.cells.setup import Setup as CellSetup

    setup = CellSetup(out, data, work, pretrained, steps, limit, version)
    show(train_cells(pipeline, setup, _say))


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
    slides: Annotated[
        int,
        typer.Option(min=0, help="For cervical_cytology: run so many slides of cells it never saw, now."),
    ] = 0,
    data: Annotated[
        Path | None, typer.Option(help="With --slides: folder of the data sets; without it cells are drawn.")
    ] = None,
    normals: Annotated[int, typer.Option(min=1, help="With --slides: normal cells on each.")] = 5000,
    planes: Annotated[int, typer.Option(min=1, help="With --slides: focal planes of each.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="With --rerun: only so many cases.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print the table of a pipeline's models: every figure with n and a 95 % interval."""
    _check(pipeline)
    document = _stored(pipeline, models)
    if rerun and pipeline == "uterine_mri":
        from dicom_node.train.rerun import rerun_untouched

        document["rerun"] = rerun_untouched(models, limit, _say)
    if slides and pipeline == "cervical_cytology":
        from dicom_node.train.cells.slides import run_slides

        more = run_slides(models, data, slides, normals, planes, _say)
        document["slides"] = more
        document["lines"] += more["lines"]
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        show(document)


def _stored(pipeline: str, models: Path) -> dict[str, Any]:  # Any: JSON-able
    """The evaluation that lies in the bundle. Raises ModelError where the bundle is not what it was."""
    from dicom_node.infer.manifest import read_json, read_manifest
    from dicom_node.train.names import EVALUATOR

    bundle = EVALUATOR
    if pipeline != "uterine_mri":
        from dicom_node.train.cells.tasks import PIPELINES

        bundle = PIPELINES[pipeline]
    folder = read_manifest(bundle, models).folder  # the figures belong to weights that are what they were
    path = folder / "docs" / "evaluation.json"
    if not path.is_file():
        raise ModelError(f"bundle {bundle} has no docs/evaluation.json; run `dicom-node train {pipeline}`")
    return read_json(path, bundle)


def show(document: dict[str, Any]) -> None:  # Any: JSON-able
    """The table, as people read it."""
    from rich.console import Console
    from rich.table import Table

    from dicom_node.train.table import headings, table_rows

    title = "Evaluation" if "lines" in document else "AutoDiag-AI's table on generated phantoms"
    table = Table(title=title, caption=str(document["data"]))
    for heading in ("", "here", *headings(document)[2:]):
        table.add_column(heading, overflow="fold")
    for row in table_rows(document):
        table.add_row(*row)
    Console().print(table)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _check(pipeline: str) -> None:
    if pipeline not in KNOWN:
        raise InvalidValue(f"no pipeline {pipeline!r} can be trained here; there are {', '.join(KNOWN)}")
