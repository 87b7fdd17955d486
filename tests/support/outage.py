"""`make outage`: many deliveries to Orthanc over a bad line, after a week in which nobody answered.

`python -m support.outage COUNT [SEED]`, in the folder of the tests. Every object must be in the PACS
exactly once, with the bytes first made. The clock of the ledger is virtual; the sockets are real.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dicom_node import log
from support.bad_line import BadLine
from support.deliveries import Bench
from support.orthanc import Orthanc, orthanc
from support.results import data_set_bytes, result_file
from support.scripted_scp import RESULT_CLASSES

DAYS_DOWN = 7
KINDS = tuple(RESULT_CLASSES)


@dataclass(frozen=True)
class Told:
    """What the run came to."""

    deliveries: int
    attempts: int
    seconds: float
    faults: Counter[str]
    calls_while_down: int


def run(folder: Path, count: int, seed: int) -> Told:
    """`count` deliveries, rounded up to whole studies. Raises AssertionError for what is lost or changed."""
    started = time.monotonic()
    with orthanc(folder / "orthanc", ae_title="PACS") as pacs, BadLine(pacs.dicom_port, seed) as line:
        (folder / "node").mkdir()
        # A day between attempts, so that a week of them is soon over; the bad line then takes months of them.
        at = Bench(
            folder / "node", {"pacs": line.port},
            timeout_s=2.0, retry_at_most_s=24 * 3600.0, give_up_after_days=3650.0,
        )  # fmt: skip
        made = _schedule(at, count)
        try:
            calls = _down(at, line)
            _deliver(at)
            line.settle()
            attempts = sum(row.attempts for row in at.rows())
        finally:
            at.close()
        _compare(pacs, made)
    return Told(len(made), attempts, time.monotonic() - started, line.faults, calls)


def _schedule(at: Bench, count: int) -> dict[str, bytes]:
    """SOP Instance UID -> the data set as first made."""
    made: dict[str, bytes] = {}
    for number in range(-(-count // len(KINDS))):
        padding = 40 + (number * 7919) % 30_000
        files = [result_file(kind, padding_bytes=padding, study=f"study {number}") for kind in KINDS]
        at.schedule(files, "pacs")
        made |= dict(zip(at.last_uids(len(files)), map(data_set_bytes, files), strict=True))
    return made


def _down(at: Bench, line: BadLine) -> int:
    """A week without an answer: all waits, nothing is given up. Returns how often the PACS was called."""
    line.up, ends, before = False, at.clock.now + timedelta(days=DAYS_DOWN), line.faults["down"]
    while (due := at.next_attempt() or at.clock.now) < ends:
        at.clock.now = max(due, at.clock.now)
        at.deliverer.deliver_due()
    at.clock.now = ends
    assert {"SCHEDULED"} == set(at.states()), Counter(at.states())
    line.up = True
    return line.faults["down"] - before


def _deliver(at: Bench) -> None:
    """Until nothing waits; an hour of retries is more than any run needs."""
    until = time.monotonic() + 3600.0
    while "SCHEDULED" in (states := set(at.states())):
        assert time.monotonic() < until
        at.clock.now = max(at.clock.now, at.next_attempt() or at.clock.now)
        at.deliverer.deliver_due()
    assert {"COMPLETED"} == states, [row.reason for row in at.rows() if row.state != "COMPLETED"][:3]


def _compare(pacs: Orthanc, made: dict[str, bytes]) -> None:
    held = pacs.by_sop_instance()
    assert held.keys() == made.keys(), f"{len(held)} of {len(made)}"
    assert len(made) == pacs.count()
    changed = [uid for uid, one in held.items() if data_set_bytes(pacs.file(one)) != made[uid]]
    assert not changed, f"{len(changed)} objects changed"


def main() -> None:
    logging.disable(logging.CRITICAL)
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        log.start(stream=nowhere)
        told = run(Path(folder), count, seed)
    befell = ", ".join(f"{fault} {number}" for fault, number in sorted(told.faults.items()))
    sys.stdout.write(
        f"{told.deliveries} deliveries in {told.seconds:.0f} s with seed {seed}: "
        f"each in the PACS once, identical; "
        f"{told.attempts} attempts, {told.calls_while_down} calls in {DAYS_DOWN} days of silence; "
        f"connections: {befell}\n"
    )


if __name__ == "__main__":
    main()
