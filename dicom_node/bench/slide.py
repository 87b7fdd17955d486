"""`dicom-node bench slide`: a network over all patches of a slide, beside the loops others run.

The same patches of the same DICOM slide with the same weights, each reader and runtime in a fresh
process, round after round in one run. Peers are given what makes them fast: channels-last memory, all
cores for torch, and of reading in the process or in a DataLoader's workers the faster.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from dicom_node.bench.slide_run import Task
from dicom_node.config import PROJECT
from dicom_node.errors import DicomNodeError, InvalidValue

BEGIN = "<!-- slides: written by `dicom-node bench slide --markdown README.md` -->"
END = "<!-- end of slides -->"
_LONGEST_S = 3600.0
_PEERS = ("openslide", "wsidicom")


@dataclass(frozen=True, slots=True)
class Ran:
    """One process's run."""

    name: str
    round: int
    tiles: int
    seconds: float
    cpu_s: float
    peak_mb: float
    loaded_mb: float
    choice: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: medians over the rounds."""

    name: str
    tiles: int
    tiles_per_s: float
    cpu_ms: float
    """CPU milliseconds per tile of the slide, also of those the mask left out."""
    peak_mb: float
    loaded_mb: float
    """Of the peak, what libraries and network took before the first patch."""
    times: float | None
    """Median over the rounds of the fastest peer's seconds / its own; None for peers, or without one."""
    same_class: float | None
    """Share of patches with the class that torch says."""
    apart: float | None
    """Largest difference of a probability from torch's."""
    choice: str


def slide(
    slide: Annotated[
        Path | None, typer.Option(help="Folder with the files of one slide; else generated.")
    ] = None,
    model: Annotated[str, typer.Option(help="Bundle for microscope images.")] = "cervical_cells",
    models: Annotated[Path, typer.Option(help="Folder of bundles.")] = PROJECT / "models",
    patches: Annotated[int, typer.Option(min=0, help="At most so many patches; 0 is all.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, max=99)] = 3,
    peers: Annotated[str, typer.Option(help="With commas, of: openslide, wsidicom.")] = ",".join(_PEERS),
    tiny: Annotated[bool, typer.Option("--tiny", help="A few patches, to see that it runs.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Rewrite the table between its marks in this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Networks on slides side by side with wsidicom or OpenSlide and torch: tiles/s, CPU time, memory.

    A number above 1 in the last column says how much faster the node was than the fastest peer.
    """
    wanted = [name for name in peers.split(",") if name]
    if unknown := set(wanted) - set(_PEERS):
        raise InvalidValue(f"no peer {min(unknown)!r}; there are {', '.join(_PEERS)}")
    say = (lambda line: None) if as_json else (lambda line: typer.echo(line, err=True))
    with tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as scratch:
        folder = slide or _generated(Path(scratch) / "slide", tiny=tiny)
        base = Task("node", "openvino", "f32", 0, str(folder), str(models), model, "", os.cpu_count() or 1,
                    64 if tiny else patches)  # fmt: skip
        runs, absent, outputs = _measured(base, wanted, 1 if tiny else rounds, Path(scratch), say)
    found = rows(runs, outputs)
    if markdown is not None:
        markdown.write_text(replaced(markdown.read_text(encoding="utf-8"), found, absent), encoding="utf-8")
    typer.echo(json.dumps([asdict(row) for row in found], indent=2) if as_json else block(found, absent))


def tasks(base: Task, peers: Sequence[str]) -> Iterator[tuple[str, Task]]:
    """What is run in each round, by the name of its line."""
    from dataclasses import replace

    from dicom_node.infer.openvino import has_bf16

    yield "node, f32", base
    if has_bf16():
        yield "node, bf16", replace(base, precision="bf16")
    yield "node, f32, empty glass left out", replace(base, masked=True)
    yield "node, torch", replace(base, runtime="torch")
    for peer in peers:
        for workers in (0, base.threads):
            how = f", {workers} workers" if workers else ""
            yield f"{peer} + torch{how}", replace(base, reader=peer, runtime="torch", workers=workers)


Outputs = dict[str, Any]  # Any: arrays by name


def _measured(
    base: Task, peers: Sequence[str], rounds: int, scratch: Path, say: Callable[[str], None]
) -> tuple[list[Ran], dict[str, str], dict[str, Outputs]]:
    runs: list[Ran] = []
    absent: dict[str, str] = {}
    outputs: dict[str, Outputs] = {}
    for number in range(rounds):
        for name, task in tasks(base, peers):
            if name in absent:
                continue
            try:
                said, outputs[name] = _run(task, scratch / "logits.npz")
            except DicomNodeError as error:
                if task.reader == "node":
                    raise
                absent[name] = str(error)
                say(f"{name}: {error}")
                continue
            if said["precision"] != task.precision:
                absent[name] = said["choice"]
                continue
            run = Ran(
                name, number, int(said["tiles"]), float(said["seconds"]), float(said["cpu_s"]),
                float(said["peak_mb"]), float(said["loaded_mb"]), str(said["choice"]),
            )  # fmt: skip
            say(f"{name}: {run.tiles} patches, {run.seconds:.1f} s, {run.peak_mb:.0f} MB")
            runs.append(run)
    return runs, absent, outputs


def _run(task: Task, out: Path) -> tuple[dict[str, Any], Outputs]:  # Any: parsed JSON
    from dataclasses import replace

    given = json.dumps(asdict(replace(task, out=str(out))))
    environment = os.environ | {"OMP_NUM_THREADS": str(task.threads)}
    done = subprocess.run(  # noqa: S603 - this interpreter, arguments of our own
        [sys.executable, "-m", "dicom_node.bench.slide_run", given],
        capture_output=True, text=True, check=False, timeout=_LONGEST_S, env=environment,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise DicomNodeError(f"{task.reader} cannot: {last[:200]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    with np.load(out) as arrays:
        return said, {name: arrays[name] for name in arrays.files}


def rows(runs: Sequence[Ran], outputs: dict[str, Outputs]) -> list[Row]:
    """Medians; of a peer's two ways the faster; agreement with what torch says of the same patches."""
    names = list(dict.fromkeys(run.name for run in runs))
    seconds = {name: median(run.seconds for run in runs if run.name == name) for name in names}
    kept = [name for name in names if " + " not in name or seconds[name] == min(
        seconds[other] for other in names if other.split(" + ")[0] == name.split(" + ")[0])]  # fmt: skip
    peers = [name for name in kept if " + " in name]
    fastest = min(peers, key=seconds.__getitem__, default=None)
    whole = max((run.tiles for run in runs), default=0)
    reference = outputs.get("node, torch")
    return [_row(name, runs, fastest, whole, outputs[name], reference) for name in kept]


def _row(
    name: str,
    runs: Sequence[Ran],
    fastest: str | None,
    whole: int,
    output: Outputs,
    reference: Outputs | None,
) -> Row:
    mine = {run.round: run for run in runs if run.name == name}
    theirs = {run.round: run for run in runs if run.name == fastest}
    ratios = [theirs[at].seconds / run.seconds for at, run in mine.items() if at in theirs]
    same, apart = agreement(output, reference) if reference else (None, None)
    return Row(
        name, max(run.tiles for run in mine.values()), median(whole / run.seconds for run in mine.values()),
        1000 * median(run.cpu_s / whole for run in mine.values()), max(run.peak_mb for run in mine.values()),
        min(run.loaded_mb for run in mine.values()),
        median(ratios) if ratios and " + " not in name else None, same, apart,
        next(iter(mine.values())).choice,
    )  # fmt: skip


def agreement(output: Outputs, reference: Outputs) -> tuple[float, float]:
    """(share of the same class, largest difference of a probability) over the patches both have."""
    from dicom_node.infer.parity import classes, probabilities

    at = {tuple(place): number for number, place in enumerate(reference["places"].tolist())}
    theirs = reference["logits"][[at[tuple(place)] for place in output["places"].tolist()]]
    if not len(theirs):
        return 1.0, 0.0
    same = float((classes(output["logits"]) == classes(theirs)).mean())
    return same, float(np.abs(probabilities(output["logits"]) - probabilities(theirs)).max())


def table(found: Sequence[Row]) -> str:
    head = ["reader and runtime", "patches", "patches/s", "CPU ms/patch", "peak MB", "of it loaded"]
    head += ["same class", "probabilities within", "times"]
    lines = [head, ["---"] * len(head)]
    for row in found:
        figures = [f"{row.tiles:,}", f"{row.tiles_per_s:,.0f}", f"{row.cpu_ms:.2f}", f"{row.peak_mb:,.0f}"]
        figures.append(f"{row.loaded_mb:,.0f}")
        figures.append("" if row.same_class is None else f"{row.same_class:.2%}")
        figures.append("" if row.apart is None else f"{row.apart:.1e}")
        figures.append("" if row.times is None else f"**{row.times:.1f}**")
        lines.append([row.name, *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def block(found: Sequence[Row], absent: dict[str, str]) -> str:
    """The table, and what it stands on."""
    fast = next((row.choice for row in found if row.name == "node, f32"), "")
    left_out = "; ".join(f"{name}: {why}" for name, why in absent.items())
    cores = f"{os.cpu_count()} {platform.machine()} cores"
    return (
        f"{table(found)}\n\n`dicom-node bench slide`, on {cores}; {fast}. Times: how much faster than the "
        f"fastest peer.{f' Left out: {left_out}.' if left_out else ''}"
    )


def replaced(text: str, found: Sequence[Row], absent: dict[str, str]) -> str:
    """`text` with the block between its marks written anew. Raises DicomNodeError when it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DicomNodeError(f"the file has no place for the table: the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{block(found, absent)}\n{END}{after}"


def _generated(folder: Path, *, tiny: bool) -> Path:
    from dicom_node.train.phantoms.slides.command import slide as phantom

    phantom(out=folder, width=1024 if tiny else 6144, count=20 if tiny else 500)
    return folder
