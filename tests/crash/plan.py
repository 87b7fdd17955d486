"""What is walked: all of it by `make crash`, a part of it by pytest.

One process forks, so it has no threads; several of them share the tasks.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from crash.area import Content
from crash.bases import SLICES, Bases, bases, warm_up
from crash.books import LOST
from crash.controls import CONTROLS, FAULTY, checkpoints_often
from crash.gate import Gate, Tally, Work
from crash.material import sending
from crash.shim import Action, Shim, compiled
from crash.wire import Peer
from crash.workloads import (
    Receive,
    Step,
    as_the_peer_has_it,
    assemble,
    assembled,
    assembled_wholly_or_not,
    commit_results,
    deliver,
    delivered,
    results_are_whole,
    results_wholly_or_not,
)
from dicom_node import log
from support.ports import free_port

KILLS = POWER_LOSSES = 10_000
"""What the whole walk has to reach, controls not counted."""
PART = 6
"""The part walks every sixth crash point or fewer."""
BEFORE, AFTER, AMID, FAIL, FAIL_FROM = Action
KILLING = (BEFORE, AFTER, AMID)
ROUNDS_OF_STEPS = 6
"""The folder before T2, T3 and T4 is always the same one: more rounds find little."""

FromBases = Callable[[Bases], Content]
Stage = tuple[Step, FromBases]


@dataclass(frozen=True)
class Task:
    """One walk."""

    name: str
    work: Work
    base: FromBases
    action: Action
    error: int = 0
    views: int = 1
    stride: int = 1
    seed: int = 0
    wal: bool = False
    hook: Callable[[], None] | None = None
    control: bool = False


def tasks(peer: Peer, *, part: bool) -> Iterator[Task]:
    """The first rounds have everything; the others have other sizes, orders and random parts."""
    steps = _steps(peer)
    thin = PART if part else 1
    yield from _controls(thin)
    first = Receive(sending(0, images=1), "first start", from_nothing=True)
    yield Task(first.name, first, _nothing, BEFORE, stride=_thinned(thin, 12))
    for number in itertools.count(1):
        if part and number > 2:
            return
        if number == 2:
            yield from _faults(steps, thin)
        yield from _round(number, steps, thin, views=2 if part else 1)


def _round(number: int, steps: list[Stage], thin: int, *, views: int) -> Iterator[Task]:
    """Everything once, killed in one of the three ways; odd rounds find a -wal, and see checkpoints."""
    odd = bool(number % 2)
    killed = partial(
        Task, action=KILLING[(number - 1) % len(KILLING)], views=views, seed=number, wal=odd,
        hook=checkpoints_often if odd else None,
    )  # fmt: skip
    yield killed("receive", Receive(sending(number)), _empty, stride=_thinned(thin, 2))
    several = Receive(sending(number, associations=3), "receive, 3 associations")
    yield killed(several.name, several, _empty, stride=_thinned(thin, 5))
    if number <= ROUNDS_OF_STEPS:
        for step, base in steps:
            yield killed(step.name, step, base, stride=_thinned(thin, 2))


def _thinned(thin: int, more: int) -> int:
    return thin * more if thin > 1 else 1


def _controls(thin: int) -> Iterator[Task]:
    for name, spoil in CONTROLS.items():
        action, error = (FAIL, errno.EIO) if name == FAULTY else (BEFORE, 0)
        yield Task(
            name, Receive(sending(7)), _empty, action, error, stride=thin, hook=spoil, control=True
        )  # fmt: skip


def _faults(steps: list[Stage], thin: int) -> Iterator[Task]:
    for error in (errno.ENOSPC, errno.EIO):
        for action in (FAIL, FAIL_FROM):
            yield Task(
                "receive", Receive(sending(3)), _empty, action, error, stride=_thinned(thin, 2), seed=3
            )  # fmt: skip
            if thin == 1:
                work = Receive(sending(4, associations=3), "receive, 3 associations")
                yield Task(work.name, work, _empty, action, error, seed=4, wal=True, hook=checkpoints_often)
            for step, base in steps:
                yield Task(step.name, step, base, action, error, stride=_thinned(thin, 4))


def _steps(peer: Peer) -> list[Stage]:
    return [
        (
            Step("assemble", assemble, assembled(SLICES), assembled_wholly_or_not(SLICES)),
            lambda b: b.received,
        ),
        (Step("results", commit_results, results_are_whole, results_wholly_or_not), lambda b: b.assembled),
        (Step("deliver", deliver, delivered, as_the_peer_has_it(peer), peer), lambda b: b.finished),
    ]


def _nothing(_: Bases) -> Content:
    return {}


def _empty(found: Bases) -> Content:
    return found.empty


def walk(folder: Path, *, part: bool, share: int, shares: int) -> Iterator[dict[str, object]]:
    """Do every `shares`-th task, until this share has its part of what has to be reached."""
    peer, port = Peer(), free_port()
    warm_up(folder / "warm", port, peer.port)
    gate = Gate(folder / "gate", Shim(), port, peer.port)
    made = {wal: bases(gate, wal=wal) for wal in (False, True)}
    total = Tally()
    for number, task in enumerate(tasks(peer, part=part)):
        enough = min(total.counts["kills"] / KILLS, total.counts["power losses"] / POWER_LOSSES)
        if not part and enough * shares >= 1:
            return
        if number % shares != share:
            continue
        gate.control = task.hook
        tally = gate.walk(
            task.work, task.base(made[task.wal]), task.action, error=task.error, views=task.views,
            stride=task.stride, seed=task.seed, first=1 + number % task.stride,
        )  # fmt: skip
        if not task.control:
            total.add(tally)
        yield {
            "name": task.name, "action": task.action.name, "error": errno.errorcode.get(task.error, ""),
            "control": task.control, "losses": len(tally.losses),
            "acknowledged_and_lost": sum(LOST in loss for loss in tally.losses), "first": tally.losses[:5],
            "calls": tally.counts["calls"], "kills": tally.counts["kills"], "faults": tally.counts["faults"],
            "power_losses": tally.counts["power losses"], "seconds": round(tally.seconds, 1),
        }  # fmt: skip


def main() -> None:
    """Build the shim, run the shares with it loaded, sum up; or be a share. Exits 1 after any loss."""
    parser = argparse.ArgumentParser(prog="crash")
    parser.add_argument("--part", action="store_true", help="what pytest runs")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--share", type=int)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash", dir=_fast_folder()) as made:
        folder = Path(made)
        if asked.share is None:
            sys.exit(_all(folder, part=asked.part, jobs=asked.jobs))
        log.start("CRITICAL")
        for line in walk(folder, part=asked.part, share=asked.share, shares=asked.jobs):
            print(json.dumps(line), flush=True)


def _fast_folder() -> str | None:
    """Memory where there is some: what is durable is the model's business, not this disk's."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108


def _all(folder: Path, *, part: bool, jobs: int) -> int:
    began = time.monotonic()
    library = compiled(folder)
    command = [sys.executable, "-m", "crash", "--jobs", str(jobs), *(["--part"] if part else [])]
    running = [
        subprocess.Popen(
            [*command, "--share", str(share)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"},
        )
        for share in range(jobs)
    ]  # fmt: skip
    lines: list[dict[str, object]] = []
    for line in _merged(running):
        lines.append(json.loads(line))
        print(line.rstrip(), flush=True)
    failed = sum(process.wait() != 0 for process in running)
    good = summary(lines, time.monotonic() - began, failed)
    return int(not good)


def _merged(running: list[subprocess.Popen[str]]) -> Iterator[str]:
    with selectors.DefaultSelector() as selector:
        for process in running:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]
                if line:
                    yield line
                else:
                    selector.unregister(key.fileobj)


def summary(lines: list[dict[str, object]], seconds: float, failed: int) -> bool:
    """The last line; True where nothing was lost, every control caught, every process at its end."""
    honest = [line for line in lines if not line["control"]]
    caught = {str(line["name"]) for line in lines if line["control"] and line["acknowledged_and_lost"]}
    keys = ("kills", "power_losses", "faults", "losses")
    total = {key: sum(int(str(line[key])) for line in honest) for key in keys}
    blind = sorted(set(CONTROLS) - caught)
    said = {"controls": len(CONTROLS), "not_caught": blind, "failed": failed, "seconds": round(seconds)}
    print(json.dumps({"total": total, **said}), flush=True)
    return not (total["losses"] or blind or failed)
