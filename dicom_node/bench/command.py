"""`dicom-node bench receive`: which cells are measured, where, and how it is printed."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.errors import DicomNodeError, InvalidValue

if TYPE_CHECKING:
    from dicom_node.bench.measure import Cell, Place
    from dicom_node.bench.receivers import Receiver

ASSOCIATIONS = (1, 2, 4, 8)
DEFAULT: tuple[tuple[str, str, tuple[int, ...], bool], ...] = (
    ("small", "tmpfs", (1, 4, 8), False), ("small", "tmpfs", (1, 4), True), ("small", "disk", (1, 4), False),
    ("tiny", "tmpfs", (1, 8), False), ("tiny", "disk", (1,), False),
    ("large", "tmpfs", (1,), False), ("large", "tmpfs", (1,), True), ("large", "disk", (1,), False),
)  # fmt: skip
"""(case, place, associations, TLS): what is measured when nothing is asked for; minutes on two cores."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - the tmpfs of every Linux; a fresh folder is made in it


class CaseName(StrEnum):
    SMALL = "small"
    TINY = "tiny"
    LARGE = "large"
    ALL = "all"


class On(StrEnum):
    TMPFS = "tmpfs"
    DISK = "disk"
    BOTH = "both"


class Wire(StrEnum):
    PLAIN = "plain"
    TLS = "tls"
    BOTH = "both"


def receive(
    case: Annotated[CaseName | None, typer.Option(help="Without it: a choice of lines.")] = None,
    associations: Annotated[str | None, typer.Option(help="At a time, with commas: some of 1,2,4,8.")] = None,
    wire: Annotated[Wire | None, typer.Option(help="TLS, plain, or both.")] = None,
    on: Annotated[On | None, typer.Option(help="Where the files lie, sent and received.")] = None,
    disk: Annotated[
        Path | None, typer.Option(help="A folder on the disk to measure; else that of temporary files.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=99)] = 3,
    cell_s: Annotated[
        float, typer.Option(help="No further round that would take a line past this.", min=0.0)
    ] = 45.0,
    peers: Annotated[
        str,
        typer.Option(
            help="With commas, of: storescp, storescp-defaults, orthanc, orthanc-unsynced, pynetdicom."
        ),
    ] = "storescp,storescp-defaults,orthanc,pynetdicom",
    large_gb: Annotated[float, typer.Option(min=0.01, max=60.0, help="Size of the large instance.")] = 1.0,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few instances, to see that it runs.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="Rewrite the table between its marks in this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Receive side by side with storescp, Orthanc and pynetdicom: seconds, peak memory, and their ratio.

    Every number is the median over the rounds; a ratio above 1 says that the node was faster.
    """
    from dicom_node.bench import table
    from dicom_node.bench.certificates import made
    from dicom_node.bench.measure import Effort, measure
    from dicom_node.demo.loopback import ends_on_sigterm

    chosen = receivers(peers)
    with ends_on_sigterm(), ExitStack() as stack:
        places = _places(stack, disk, None if on in (None, On.BOTH) else str(on))
        counts = _associations(associations) if associations else None
        if tiny and on is None:
            places = places[:1]
        wanted = cells(case, counts, wire, places, large_gb=large_gb, tiny=tiny)
        secrets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicom-node-bench-")))
        certificates = made(secrets) if any(cell.tls for cell in wanted) else None
        if certificates is None:
            wanted = [cell for cell in wanted if not cell.tls]
        effort = Effort(1 if tiny else rounds, cell_s)
        say = (lambda line: None) if as_json else (lambda line: typer.echo(line, err=True))
        results = list(measure(wanted, chosen, effort, certificates, say))
    command = typed(sys.argv[3:])
    if markdown is not None:
        text = table.replaced(markdown.read_text(encoding="utf-8"), results, command)
        markdown.write_text(text, encoding="utf-8")
    typer.echo(json.dumps(table.rows(results), indent=2) if as_json else table.block(results, command))


def receivers(names: str) -> list[tuple[Receiver, ...]]:
    """Raises InvalidValue for a name that is none."""
    from dicom_node.bench.receivers import PEERS

    wanted = [name for name in names.split(",") if name]
    if unknown := [name for name in wanted if name not in PEERS]:
        raise InvalidValue(f"no receiver {unknown[0]!r}; there are {', '.join(PEERS)}")
    return [PEERS[name] for name in wanted]


def cells(
    case: CaseName | None, associations: Sequence[int] | None, wire: Wire | None, places: Sequence[Place],
    *, large_gb: float, tiny: bool,
) -> list[Cell]:  # fmt: skip
    """The lines of the table, those with the same files together.

    Asked for nothing, a choice of them; asked for anything, all that fit, the rest of what was
    left open being small, one association, plain. One instance goes over one association.
    """
    from dicom_node.bench import material
    from dicom_node.bench.measure import Cell

    kinds = {
        "small": material.small(20 if tiny else 1000),
        "tiny": material.tiny(20 if tiny else 5000),
        "large": material.large(min(large_gb, 0.02) if tiny else large_gb),
    }
    if case is None and associations is None and wire is None and not tiny:
        asked = DEFAULT
    else:
        names = [str(case)] if case not in (None, CaseName.ALL) else ["small", "tiny", "large"]
        if case is None and not tiny:
            names = ["small"]
        wires = {None: [False], Wire.PLAIN: [False], Wire.TLS: [True], Wire.BOTH: [False, True]}[wire]
        asked = tuple(
            (name, place.name, tuple(associations or (1,)), tls)
            for place in places for name in names for tls in wires
        )  # fmt: skip
    return [
        Cell(kinds[name], place, count, tls)
        for name, on, counts, tls in asked
        for place in places
        if place.name == on
        for count in (counts if kinds[name].instances > 1 else (1,))
    ]


def _associations(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or set(counts) - set(ASSOCIATIONS):
        raise InvalidValue(f"associations are some of {', '.join(map(str, ASSOCIATIONS))}, not {text!r}")
    return counts


def _places(stack: ExitStack, disk: Path | None, only: str | None) -> list[Place]:
    """A fresh folder each, gone when the stack is left. Raises DicomNodeError when there is none."""
    from dicom_node.bench.measure import Place

    roots = {"tmpfs": _MEMORY, "disk": disk or _disk()}
    found = [
        Place(
            name, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicom-node-bench-", dir=root)))
        )
        for name, root in roots.items()
        if root.is_dir() and only in (None, name)
    ]
    if not found:
        raise DicomNodeError(f"there is no {only or 'place'} to measure on")
    return found


def _disk() -> Path:
    """Where temporary files lie, unless that is memory too."""
    import psutil

    folder = Path(tempfile.gettempdir()).resolve()
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    kind = next((mounts[one] for one in (folder, *folder.parents) if one in mounts), "")
    return Path.cwd() if kind == "tmpfs" else folder


def typed(arguments: Sequence[str]) -> str:
    """The command, without where its output goes."""
    kept, skip = ["dicom-node bench receive"], False
    for word in arguments:
        if not skip and word not in ("--markdown", "--json"):
            kept.append(word)
        skip = word == "--markdown"
    return " ".join(kept)
