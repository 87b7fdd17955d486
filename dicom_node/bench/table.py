"""The result as a table in Markdown, for people and for README.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from dicom_node.bench import sender
from dicom_node.bench.measure import Measured
from dicom_node.bench.receivers import Node
from dicom_node.bench.statistics import Figures, figures
from dicom_node.errors import DicomNodeError

BEGIN = "<!-- reception: written by `dicom-node bench receive --markdown README.md` -->"
END = "<!-- end of reception -->"


def rows(results: Sequence[Measured]) -> list[dict[str, object]]:
    """One mapping per cell and receiver, JSON-able."""
    return [
        {
            "case": measured.cell.case.name, "what": measured.cell.case.sentence,
            "associations": measured.cell.associations, "tls": measured.cell.tls,
            "files on": measured.cell.place.name, "receiver": one.receiver, "rounds": one.rounds,
            "seconds": round(one.seconds, 3), "mb_per_s": round(_mb(measured) / one.seconds, 1),
            "peak_mb": round(one.peak_mb, 1), "ratio": _rounded(one.ratio),
            "ratio_least": _rounded(one.ratio_least), "ratio_most": _rounded(one.ratio_most),
        }
        for measured in results
        for one in all_figures(measured)
    ]  # fmt: skip


def all_figures(measured: Measured) -> list[Figures]:
    """The node's first, then the peers' in the order they ran."""
    names = dict.fromkeys(run.receiver for run in measured.runs)
    return [figures(measured.runs, name, Node.name) for name in names]


def markdown(results: Sequence[Measured]) -> str:
    """A line per cell: the node's time and memory, and for each peer the same with its ratio."""
    makers = list(dict.fromkeys(_maker(run.receiver) for measured in results for run in measured.runs))
    head = ["case", "associations", "files on", *makers]
    lines = [head, ["---"] * len(head)]
    for measured in results:
        cell = measured.cell
        said = {_maker(one.receiver): _figure(one) for one in all_figures(measured)}
        wire = ", TLS" if cell.tls else ""
        lines.append(
            [f"{cell.case.name}: {cell.case.sentence}{wire}", str(cell.associations), cell.place.name]
            + [said.get(maker, "") for maker in makers]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def notes(results: Sequence[Measured], command: str) -> str:
    """What the table stands on: the command, the sender, the machine, the rounds, what was missing."""
    rounds = sorted({one.rounds for measured in results for one in all_figures(measured)})
    medians = f"medians of {rounds[0]} to {rounds[-1]} rounds"
    if len(rounds) == 1:
        medians = "one round" if rounds == [1] else f"medians of {rounds[0]} rounds"
    absent = dict.fromkeys(why for measured in results for why in measured.absent)
    missing = f" Left out: {'; '.join(absent)}." if absent else ""
    return (
        f"`{command}`, on {os.cpu_count()} {platform.machine()} cores that sender and receiver share; "
        f"sent by {sender.name()}; {medians}.{missing}"
    )


def block(results: Sequence[Measured], command: str) -> str:
    return f"{markdown(results)}\n\n{notes(results, command)}"


def replaced(text: str, results: Sequence[Measured], command: str) -> str:
    """`text` with the block between its marks written anew. Raises DicomNodeError when it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DicomNodeError(f"the file has no place for the table: the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{block(results, command)}\n{END}{after}"


def _maker(receiver: str) -> str:
    """The column: two ways of running one program share it."""
    return receiver.removesuffix(" +B")


def _figure(one: Figures) -> str:
    text = f"{one.seconds:.2f} s, {one.peak_mb:.0f} MB"
    if one.receiver == Node.name or one.ratio is None:
        return text
    spread = f" ({one.ratio_least:.2f} to {one.ratio_most:.2f})" if one.rounds > 1 else ""
    return f"{text}, **{one.ratio:.2f}**{spread}"


def _mb(measured: Measured) -> float:
    case = measured.cell.case
    return case.instances * case.pixel_bytes / 1e6


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
