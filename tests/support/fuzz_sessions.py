"""One campaign of mutated sessions against a receiver in its own process, over real sockets.

After each batch the receiver answers a good peer, holds no thread, descriptor or file more than before, and
has stored nothing but data sets that came to their last fragment.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from support import pdus
from support.mr import mr_instance
from support.mutate_sessions import complete_data_sets, mutated_session
from support.pdus import Closed, good_echo
from support.receiving import after_file_meta, recorded
from support.scu import data_set_bytes
from support.watch import Held, Watch

BATCH = 50
LONGEST_S = 10.0
"""For a session whose sender has said all it had to say."""


@dataclass
class Totals:
    cases: int = 0
    crashes: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    stored: int = 0
    highest_mib: int = 0


def campaign(watch: Watch, port: int, seed: int, cases: int, seconds: float) -> Totals:
    """`cases` sessions, or as many as fit into `seconds`."""
    rng, totals, until = random.Random(seed), Totals(), time.monotonic() + seconds
    good_echo(port)
    before = watch.held()
    known: dict[str, str] = {}
    while totals.cases < cases and time.monotonic() < until:
        first, whole = totals.cases, set()
        for number in range(min(BATCH, cases - first)):
            stream = mutated_session(rng, *_image(rng))
            whole |= complete_data_sets(stream)
            taken = _sent(port, stream, politely=bool(number % 4))
            totals.slowest_s = max(totals.slowest_s, round(taken, 3))
            totals.cases += 1
        batch = f"seed {seed}, cases {first} to {totals.cases - 1}"
        known, problems = _judged(watch, port, before, whole, known)
        totals.crashes += [f"{batch}: {problem}" for problem in problems]
        if totals.slowest_s > LONGEST_S:
            totals.crashes.append(f"{batch}: a session took {totals.slowest_s} s")
        if problems:
            break  # what comes after would be judged by what is broken already
    totals.stored, totals.highest_mib = len(known), watch.highest_kib() >> 10
    return totals


def _image(rng: random.Random) -> tuple[str, bytes]:
    ds = mr_instance(index=rng.randrange(1, 1_000_000), Rows=rng.choice((8, 32, 200)))
    ds.PixelData = rng.randbytes(2 * ds.Rows * ds.Columns)
    return str(ds.SOPInstanceUID), data_set_bytes(ds)


def _sent(port: int, stream: bytes, *, politely: bool) -> float:
    """Send all, say that there is no more (or break off), read to the end; the seconds it took."""
    started = time.monotonic()
    with pdus.line(port, timeout_s=2 * LONGEST_S) as line, contextlib.suppress(Closed, OSError):
        line.send(stream)
        if politely:
            line.socket.shutdown(socket.SHUT_WR)
            while line.socket.recv(65536):
                pass
        else:
            line.break_off()
    return time.monotonic() - started


def _judged(
    watch: Watch, port: int, before: Held, whole: set[bytes], known: dict[str, str]
) -> tuple[dict[str, str], list[str]]:
    """(what is stored now, what is wrong)."""
    try:
        good_echo(port)
        watch.returns_to(before)
    except (AssertionError, Closed, OSError) as error:
        return known, [f"{type(error).__name__}: {error}"]
    stored = recorded(watch.folder)
    new = [digest for name, digest in stored.items() if name not in known]
    objects = watch.folder / "objects"
    half = [d for d in new if after_file_meta(_content(objects, d)) not in whole]
    return stored, [f"object {digest} was not sent whole" for digest in half]


def _content(objects: Path, digest: str) -> bytes:
    return (objects / digest[:2] / digest).read_bytes()
