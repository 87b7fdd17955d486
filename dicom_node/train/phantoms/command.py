"""`dicom-node phantom`: write generated studies as DICOM folders; `phantom slide` writes slides."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dicom_node.train.phantoms.cases import (
    DIFFICULTY,
    SEQUENCES,
    VENDORS,
    CaseSpec,
    case_specs,
    cohort,
)
from dicom_node.train.phantoms.slides.command import slide

LOCALISER_SLICES = 15
"""Five in each plane, whatever `--slices` says."""
MIN_SLICES = LOCALISER_SLICES + 2 * (len(SEQUENCES) - 1)


def phantom(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the studies; made if it is not there.  [required]")
    ] = None,
    cohort_name: Annotated[
        str,
        typer.Option("--cohort", help="development (63 sarcomas, 200 leiomyomas) or untouched (8 and 24)."),
    ] = "development",
    count: Annotated[int, typer.Option(min=0, help="How many studies; 0 means the whole cohort.")] = 1,
    label: Annotated[str | None, typer.Option(help="Only sarcoma or only leiomyoma.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    slices: Annotated[
        int | None,
        typer.Option(min=MIN_SLICES, help="Images in the whole study, about; default is the vendor's."),
    ] = None,
    vendor: Annotated[
        str | None, typer.Option(help="siemens, ge, philips or canon; default is the cohort's mix.")
    ] = None,
    matrix: Annotated[
        int | None, typer.Option(min=32, help="Rows and columns; default is the vendor's.")
    ] = None,
    difficulty: Annotated[
        float, typer.Option(min=0, max=1, help="How far sarcomas and leiomyomas overlap, 0 to 1.")
    ] = DIFFICULTY,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per study.")] = False,
) -> None:
    """Generate pelvic MR studies of phantoms: images, and truth masks beside them. `slide` makes slides.

    Nobody was scanned for these: anatomy, tissue and tumours come from a seed and from
    published ranges. Names begin with PHANTOM^.
    """
    if context.invoked_subcommand:
        return
    if out is None:
        raise typer.BadParameter("is needed: the folder for the studies", param_hint="--out")
    from dicom_node.train.phantoms.generate import render  # scipy: only when something is rendered
    from dicom_node.train.phantoms.write import study_uid, write_study

    _check_choices(cohort_name, label, vendor)
    console = Console()
    for spec in _chosen(cohort_name, count, label, seed, vendor, difficulty):
        study = render(spec, matrix=matrix, slices=slices_per_stack(slices))
        paths = write_study(study, out / spec.name)
        if json:
            facts = {
                **asdict(spec),
                "study_uid": study_uid(spec),
                "images": len(paths),
                "folder": str(out / spec.name),
            }
            typer.echo(json_format.dumps(facts))
        else:
            console.print(
                f"{spec.name}: {spec.label}, {spec.vendor} {spec.field_strength_t} T, {len(paths)} images"
            )


def slices_per_stack(whole_study: int | None) -> int | None:
    """Slices of each stack so that the study has about so many images with its localiser."""
    if whole_study is None:
        return None
    stacks = len(SEQUENCES) - 1
    return max(2, round((whole_study - LOCALISER_SLICES) / stacks))


def _check_choices(cohort_name: str, label: str | None, vendor: str | None) -> None:
    if cohort_name not in ("development", "untouched"):
        raise typer.BadParameter(
            f"{cohort_name!r} is neither development nor untouched", param_hint="--cohort"
        )
    if label not in (None, "sarcoma", "leiomyoma"):
        raise typer.BadParameter(f"{label!r} is neither sarcoma nor leiomyoma", param_hint="--label")
    if vendor is not None and vendor not in VENDORS:
        raise typer.BadParameter(f"{vendor!r} is none of {', '.join(VENDORS)}", param_hint="--vendor")


def _chosen(
    cohort_name: str, count: int, label: str | None, seed: int, vendor: str | None, difficulty: float
) -> list[CaseSpec]:
    specs = [s for s in case_specs(cohort_name, seed, difficulty=difficulty) if label in (None, s.label)]
    if vendor is not None:
        known = next(v for v in VENDORS if v == vendor)
        specs = [replace(s, vendor=known) for s in specs]
    return specs[: count or cohort(cohort_name).size]


app = typer.Typer(add_completion=False)
app.callback(invoke_without_command=True)(phantom)
app.command("slide")(slide)
