"""The runs themselves: for each cell of the table, round after round, each receiver once.

Each run starts a fresh receiver on an empty folder of the same file system that the files lie
on, sends everything, ends it and counts what it holds: one that acknowledged without keeping fails
the whole. Dirty pages are written out, and as much space used once, before each run, so that none
pays for another's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from time import monotonic

from dicom_node.bench import material
from dicom_node.bench.certificates import Certificates
from dicom_node.bench.material import Case, Material
from dicom_node.bench.processes import Watch, running
from dicom_node.bench.receivers import Held, Node, Receiver, Setting
from dicom_node.bench.sender import send
from dicom_node.bench.statistics import Run, figures
from dicom_node.demo.loopback import free_ports
from dicom_node.errors import DicomNodeError, NodeStopping

Say = Callable[[str], None]
_PIECE_BYTES, _TOUCHED_BYTES = 1 << 20, 2 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """A folder on a kind of file system."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table."""

    case: Case
    place: Place
    associations: int
    tls: bool

    @property
    def sentence(self) -> str:
        many = "associations" if self.associations > 1 else "association"
        wire = "TLS" if self.tls else "plain"
        return f"{self.case.name}, {self.associations} {many}, {wire}, {self.place.name}"


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell and all its runs."""

    cell: Cell
    runs: tuple[Run, ...]
    absent: tuple[str, ...]
    """Why a receiver is missing, a sentence each."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done: at most `rounds`, and no further one that would take a cell past `cell_s`."""

    rounds: int
    cell_s: float


def measure(
    cells: Sequence[Cell], peers: Sequence[tuple[Receiver, ...]], effort: Effort,
    certificates: Certificates | None, say: Say,
) -> Iterator[Measured]:  # fmt: skip
    """Each cell in turn; cells that stand together share their files. Raises DicomNodeError."""
    for (place, case), group in groupby(cells, key=lambda cell: (cell.place, cell.case)):
        folder = place.folder / case.name
        try:
            files = material.write(case, folder / "files")
            for cell in group:
                yield _measured(cell, files, folder / "run", peers, effort, certificates, say)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _measured(
    cell: Cell, files: Material, folder: Path, peers: Sequence[tuple[Receiver, ...]], effort: Effort,
    certificates: Certificates | None, say: Say,
) -> Measured:  # fmt: skip
    ways: list[tuple[Receiver, ...]] = [(Node(),), *peers]
    absent = tuple(dict.fromkeys(why for group in ways for one in group if (why := one.absent(tls=cell.tls))))
    ways = [left for group in ways if (left := tuple(one for one in group if not one.absent(tls=cell.tls)))]
    runs: list[Run] = []
    began = last = monotonic()
    for number in range(effort.rounds):
        now = monotonic()
        if number and (now - began) + (now - last) > effort.cell_s:
            break
        last = now
        for one in [one for group in ways for one in group]:
            run = _run(number, one, cell, files, folder, certificates if cell.tls else None)
            say(f"{cell.sentence}: {one.name} {run.seconds:.2f} s, {run.peak_mb:.0f} MB")
            runs.append(run)
    kept = {faster(group, runs).name for group in ways}
    return Measured(cell, tuple(run for run in runs if run.receiver in kept), absent)


def faster(ways: Sequence[Receiver], runs: Sequence[Run]) -> Receiver:
    """Of several ways to run one program, that with the shorter median."""
    return min(ways, key=lambda one: figures(runs, one.name, Node.name).seconds)


def _run(
    number: int, receiver: Receiver, cell: Cell, files: Material, folder: Path, tls: Certificates | None
) -> Run:
    port, spare = free_ports(2)
    setting = Setting(folder, port, spare, cell.associations, tls, cell.case.is_slide)
    setting.store.mkdir(parents=True)
    try:
        os.sync()
        command, stdin = receiver.command(setting), receiver.stdin(setting)
        with running(command, port, folder / "log.txt", stdin=stdin) as pid:
            watch = Watch(pid)
            try:
                _touch(setting.store, files.file_bytes)
                seconds = send(files, port, cell.associations, tls)
            finally:
                peak_mb = watch.end()
        check(receiver.name, receiver.held(setting), files)
        return Run(number, receiver.name, seconds, peak_mb)
    except NodeStopping:
        raise
    except DicomNodeError as error:
        said = _last_words(folder / "log.txt")
        raise DicomNodeError(f"{cell.sentence}, {receiver.name}: {error}{said}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _touch(folder: Path, size: int) -> None:
    """Use as much of the file system as will be used, and give it back.

    On a tmpfs of a virtual machine the first use of a page costs many times the next one: which
    receiver comes after a pause must not matter.
    """
    piece = bytes(_PIECE_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(min(size, _TOUCHED_BYTES) // len(piece)):
            file.write(piece)


def _last_words(log_file: Path) -> str:
    if not log_file.exists() or not (text := log_file.read_text(encoding="utf-8", errors="replace").strip()):
        return ""
    return f"; its log ends: {text[-400:]}"


def check(name: str, held: Held, files: Material) -> None:
    """Raises DicomNodeError unless all that was sent is there, pixels and all."""
    case = files.case
    if held.instances != case.instances or held.file_bytes < case.instances * case.pixel_bytes:
        raise DicomNodeError(
            f"{name} acknowledged {case.instances} instances of {case.pixel_bytes} bytes and holds "
            f"{held.instances}, {held.file_bytes} bytes in all"
        )
