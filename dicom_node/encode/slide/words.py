"""What was found on a slide or a photograph, in sentences: for the report and for the page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dicom_node.domain.findings import Findings
from dicom_node.domain.slide import CellClass, GalleryCell, Photograph, Reading, Share
from dicom_node.encode import words
from dicom_node.encode.document import plain

LISTED = 10
"""Cells that a report names one by one; the page shows more of them."""
_PHOTOGRAPHS = 12


def report(findings: Findings) -> tuple[str, ...]:
    """All that is said beside the verdict's own sentence, one entry for each line of a report."""
    verdict = findings.verdict
    of_verdict = [words.probability(verdict), words.operating_point(verdict)] if verdict else []
    of_reading = [*counts(findings.readings), *adequacy(findings.readings), *_pictures(findings.readings)]
    warned = words.warnings(verdict) if verdict else ()
    lines = [*of_verdict, *of_reading, *suspicious(findings.readings), *warned, *words.making(findings)]
    return tuple(line for line in lines if line)


def counts(readings: Sequence[Reading]) -> Iterable[str]:
    """How many cells of each class, worst first, over all pictures."""
    tally = counted(readings)
    if tally:
        each = ", ".join(f"{plain(kind.label)} {n}" for kind, n in reversed(tally))
        yield f"Cells found: {sum(n for _, n in tally)} ({each})."


def counted(readings: Sequence[Reading]) -> list[tuple[CellClass, int]]:
    """Every class with its cells on all pictures, the least grade first."""
    tally: dict[CellClass, int] = {}
    for reading in readings:
        for kind, n in zip(reading.cells.classes, reading.cells.counts(), strict=True):
            tally[kind] = tally.get(kind, 0) + n
    return sorted(tally.items(), key=lambda pair: pair[0].grade)


def adequacy(readings: Sequence[Reading]) -> Iterable[str]:
    """Whether there was enough to look at, and what to do; each thing once."""
    said = [f"Adequacy: {words.sentence(r.adequacy.statement)}" for r in readings if r.adequacy]
    said += [f"Triage: {words.sentence(r.triage)}" for r in readings if r.triage]
    return dict.fromkeys(said)


def name(reading: Reading) -> str:
    """`slide of series 3`, `photograph 2 of series 1`."""
    picture = reading.picture
    if isinstance(picture, Photograph):
        return f"photograph {picture.instance_number} of series {picture.series_number}"
    return f"slide of series {picture.series_number}"


def _pictures(readings: Sequence[Reading]) -> Iterable[str]:
    for reading in readings[:_PHOTOGRAPHS]:
        picture, n = reading.picture, len(reading.cells)
        if isinstance(picture, Photograph):
            yield f"Read: {name(reading)}, {picture.rows} x {picture.columns} px, {n} cells."
            continue
        height, width = picture.size_mm
        planes = len(picture.base.planes_um)
        deep = f", {reading.planes_read} of {planes} focal planes" if planes > 1 else ""
        yield f"Read: {name(reading)}, {width:.1f} x {height:.1f} mm at {_um(reading)} um per pixel{deep}."
    if len(readings) > _PHOTOGRAPHS:
        yield f"Read as well: {len(readings) - _PHOTOGRAPHS} more."


def _um(reading: Reading) -> str:
    picture = reading.picture
    return "" if isinstance(picture, Photograph) else f"{picture.base.um_per_px[0]:.3g}"


def suspicious(readings: Sequence[Reading]) -> Iterable[str]:
    """The first cells of the galleries with their places."""
    shown = gallery(readings)
    for number, (reading, cell) in enumerate(shown[:LISTED], start=1):
        yield f"Cell {number}: {called(reading, cell)}, {place(reading, cell)}."
    if len(shown) > LISTED:
        yield f"{len(shown) - LISTED} more cells are on the page and in the region report."


def gallery(readings: Sequence[Reading]) -> list[tuple[Reading, GalleryCell]]:
    """The cells to look at first, as their pipeline has them; of several pictures in turn."""
    turns = max((len(reading.gallery) for reading in readings), default=0)
    return [
        (reading, reading.gallery[turn])
        for turn in range(turns) for reading in readings if turn < len(reading.gallery)
    ]  # fmt: skip


def called(reading: Reading, shown: GalleryCell) -> str:
    """`HSIL 97.1 %`."""
    k = int(reading.cells.label[shown.cell])
    return f"{plain(reading.cells.classes[k].label)} {words.percent(probability(reading, shown))}"


def probability(reading: Reading, shown: GalleryCell) -> float:
    """Of the class that the cell was given."""
    return float(reading.cells.probability[shown.cell, reading.cells.label[shown.cell]])


def place(reading: Reading, shown: GalleryCell) -> str:
    """Where the cell is, as a viewer's ruler and its pixel read-out say it."""
    picture, cells = reading.picture, reading.cells
    column, row = (int(value) for value in np.floor(cells.centre_px[shown.cell]))
    pixel = f"column {column}, row {row}"
    if isinstance(picture, Photograph):
        return f"{pixel} of {name(reading)}"
    rows_um, columns_um = picture.base.um_per_px
    deep = f", focal plane {int(cells.plane[shown.cell]) + 1}" if len(picture.base.planes_um) > 1 else ""
    across, down = column * columns_um / 1000, row * rows_um / 1000
    return f"{across:.3f} mm from the left and {down:.3f} mm from the top ({pixel}){deep}"


def differential(shares: Sequence[Share]) -> str:
    """A table of fixed columns: class, cells, share, 95 % interval."""
    wide = max([5, *(len(plain(share.cell_class.label)) for share in shares)])
    lines = [f"{'Class':<{wide}}  {'Cells':>6}  {'Share':>7}  95 % interval"]
    for share in shares:
        part = share.count / share.total if share.total else 0.0
        cells = f"{plain(share.cell_class.label):<{wide}}  {share.count:>6}"
        lines.append(f"{cells}  {words.percent(part):>7}  {interval(share)}")
    return "\r\n".join(lines)


def interval(share: Share) -> str:
    return f"{words.percent(share.low)} to {words.percent(share.high)}"
