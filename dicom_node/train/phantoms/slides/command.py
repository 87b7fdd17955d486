"""`dicom-node phantom slide`: write a generated slide as DICOM, with what lies where beside it."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.train.phantoms.slides.spec import STAINS, Kind, Layout, OffsetTable, SlideSpec


def slide(
    out: Annotated[Path, typer.Option(help="Folder for the slide; made if it is not there.")],
    kind: Annotated[
        Kind, typer.Option(help="cytology: cervical cells, Papanicolaou; smear: blood, red cells all around.")
    ] = Kind.CYTOLOGY,
    cells: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real cell crops with labels.csv (path, class, ...) instead of drawn cells."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=0, help="Cells on the slide.")] = 200,
    abnormal: Annotated[
        int | None,
        typer.Option(min=0, help="Of them, not of the class --normal; default is their share among all."),
    ] = None,
    classes: Annotated[
        str, typer.Option("--classes", "--only", help="Only these classes, e.g. NILM,HSIL; default is all.")
    ] = "",
    normal: Annotated[str, typer.Option(help="The class that is not abnormal.")] = "NILM",
    mix: Annotated[str, typer.Option(help="Shares of classes, e.g. neutrophil=60,lymphocyte=30.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only cells whose column of labels.csv has one of these values: COLUMN=VALUE,... or "
            "COLUMN=@FILE with a value on each line. May be given several times."
        ),
    ] = None,
    width: Annotated[int | None, typer.Option(min=64, help="Pixels; default is room for the cells.")] = None,
    height: Annotated[int | None, typer.Option(min=64, help="Pixels; default is --width.")] = None,
    um_per_px: Annotated[float, typer.Option(help="Micrometres between pixels of the finest level.")] = 0.25,
    tile: Annotated[int, typer.Option(help="Rows and columns of a frame.")] = 256,
    levels: Annotated[int, typer.Option(min=1, max=16, help="Levels of the pyramid.")] = 3,
    planes: Annotated[int, typer.Option(min=1, max=99, help="Focal planes.")] = 1,
    pitch_um: Annotated[float, typer.Option(help="Micrometres between focal planes.")] = 1.0,
    layout: Annotated[
        Layout,
        typer.Option(
            help="full: all planes in one instance; instances: one for each plane; sparse: only tiles "
            "with cells, each frame saying its place and height."
        ),
    ] = Layout.FULL,
    concatenate: Annotated[
        int, typer.Option(min=1, help="Cut each instance of the finest level into so many.")
    ] = 1,
    offset_table: Annotated[
        OffsetTable, typer.Option(help="How a reader finds the frames.")
    ] = OffsetTable.BASIC,
    background: Annotated[
        float, typer.Option(min=0, max=0.999, help="Share of the slide without cells.")
    ] = 0.3,
    off_focus: Annotated[
        bool,
        typer.Option(
            "--off-focus",
            help="What tells abnormal cells apart shows only far from the middle plane: they lie in the "
            "outer parts of the stack and, if drawn, differ by chromatin and outline alone.",
        ),
    ] = False,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG frames.")] = 85,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Generate a whole slide image of cells in depth: DICOM, and truth.csv and slide.json beside it.

    Nobody's cells are on it, unless --cells lays photographs of real ones there: without overlap, turned
    and mirrored at random, each sharp on a focal plane of its own.
    """
    from dicom_node.train.phantoms.slides.build import Wish, build_slide
    from dicom_node.train.phantoms.slides.material import drawn_cells, real_cells, surroundings
    from dicom_node.train.phantoms.slides.truth import facts, write_truth
    from dicom_node.train.phantoms.slides.write import write_slide

    spec = SlideSpec(
        name=f"phantom slide {seed}", width=width or 1, height=height or width or 1, um_per_px=um_per_px,
        tile=tile, levels=levels, planes=planes, pitch_um=pitch_um, layout=layout, concatenate=concatenate,
        offset_table=offset_table, quality=quality, seed=seed, stain=STAINS[kind],
    )  # fmt: skip
    material = real_cells(cells, wanted(where or ())) if cells else drawn_cells(kind, spec, subtle=off_focus)
    mixed = shares(mix) or ({} if cells or abnormal is not None or classes else material.mix)
    wish = Wish(
        count, abnormal, normal, _names(classes), mixed, background=background, overlap=material.overlap,
        between_planes=cells is None, off_focus=off_focus,
    )  # fmt: skip
    scene = build_slide(spec, material.sprites, wish, surroundings(kind, spec, material.sprites))
    paths = write_slide(scene, out)
    table = write_truth(scene, out, material.sources)
    said = {**facts(scene), "instances": len(paths), "bytes": sum(p.stat().st_size for p in paths)}
    if json:
        typer.echo(json_format.dumps({**said, "folder": str(out), "truth": str(table)}))
        return
    laid = ", ".join(f"{n} {name}" for name, n in said["cells"].items() if n)
    typer.echo(
        f"{out}: {scene.spec.width} x {scene.spec.height} px, {planes} planes, {len(paths)} instances, "
        f"{said['bytes'] / 1e6:.1f} MB; {laid or 'no cells'}"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def shares(text: str) -> Mapping[str, float]:
    """`a=60,b=30` as a mapping."""
    pairs = [item.partition("=") for item in _names(text)]
    try:
        return {name.strip(): float(share) for name, _, share in pairs}
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not NAME=SHARE,...", param_hint="--mix") from error


def wanted(where: Sequence[str]) -> dict[str, frozenset[str]]:
    """`--where` options as the values that each column may have."""
    found: dict[str, frozenset[str]] = {}
    for item in where:
        column, equals, values = item.partition("=")
        if not equals:
            raise typer.BadParameter(f"{item!r} is not COLUMN=VALUE,...", param_hint="--where")
        listed = _lines(Path(values[1:])) if values.startswith("@") else values.split(",")
        found[column] = frozenset(filter(None, (value.strip() for value in listed)))
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="--where") from error
