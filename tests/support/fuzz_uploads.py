"""One campaign of mutated STOW-RS requests (PS3.18 10.5) against the web process, over real sockets.

After each batch it answers a good upload, holds nothing more than before, never said 500, and stored only
parts that stood whole in a body, up to the delimiter behind them.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from pathlib import Path

from support import stowing
from support.fuzz_sessions import BATCH, LONGEST_S, Totals
from support.mr import file_bytes, mr_instance
from support.mutate import flip, generated_seeds, insert, mutated_data_set, remove, truncate
from support.receiving import after_file_meta, recorded
from support.stowing import BOUNDARY
from support.watch import Held, Watch

POOL = 40
"""Threads that starlette and the uploads keep, at most."""
_KINDS = (
    "application/dicom",
    "application/dicom+json",
    "text/html",
    "",
    "\0",
    "multipart/related",
    "x" * 9000,
)


def campaign(watch: Watch, port: int, seed: int, cases: int, seconds: float) -> Totals:
    rng, totals, until = random.Random(seed), Totals(), time.monotonic() + seconds
    known = {_good_upload(port, rng)}
    before = watch.held()
    while totals.cases < cases and time.monotonic() < until:
        first, bodies, problems = totals.cases, [], []
        for _ in range(min(BATCH, cases - first)):
            body = mutated_body(rng)
            bodies.append(body)
            started = time.monotonic()
            head, sent, cut_off = _request(rng, body)
            status = _posted(port, head, sent, cut_off=cut_off)
            totals.slowest_s = max(totals.slowest_s, round(time.monotonic() - started, 3))
            totals.cases += 1
            if status == 500:
                problems.append("an answer of 500")
        problems += _judged(watch, port, rng, before, bodies, known)
        if totals.slowest_s > LONGEST_S:
            problems.append(f"a request took {totals.slowest_s} s")
        totals.crashes += [f"seed {seed}, cases {first} to {totals.cases - 1}: {one}" for one in problems]
        if problems:
            break
    totals.stored, totals.highest_mib = len(known), watch.highest_kib() >> 10
    return totals


def mutated_body(rng: random.Random) -> bytes:
    """A multipart body whose parts, headers, delimiters or bytes are not what they should be."""
    parts = [_part(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    if rng.random() < 0.2 and parts:
        parts.append(parts[0])
    body = b"".join(parts)
    if rng.random() < 0.9:
        body += f"\r\n--{BOUNDARY}--\r\n".encode()
    if rng.random() < 0.3:
        body = rng.choice((flip, truncate, insert, remove))(rng, body)
    return body


def _part(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind == 0:
        return stowing.part(mutated_data_set(rng, generated_seeds()))
    if kind == 1:
        return stowing.part(_image(rng), kind=rng.choice(_KINDS))
    if kind == 2:  # the delimiter of the body within a part
        return stowing.part(_image(rng)[:200] + f"\r\n--{BOUNDARY}\r\n".encode() + rng.randbytes(50))
    if kind == 3:
        return stowing.part(_image(rng), boundary=rng.choice(("", "other", BOUNDARY + "x", "-" * 70)))
    if kind == 4:
        return stowing.part(_image(rng)).replace(b"\r\n", rng.choice((b"\n", b"\r", b"")), rng.randint(1, 4))
    if kind == 5:
        return (
            stowing.part(b"").rstrip(b"\r\n")
            + b"\r\nX: "
            + rng.randbytes(rng.choice((10, 20_000)))
            + b"\r\n\r\n"
        )
    return stowing.part(_image(rng))


def _image(rng: random.Random) -> bytes:
    ds = mr_instance(index=rng.randrange(1, 1_000_000), Rows=8)
    ds.PixelData = rng.randbytes(2 * ds.Rows * ds.Columns)
    return file_bytes(ds)


def _request(rng: random.Random, body: bytes) -> tuple[bytes, bytes, bool]:
    """(head, body as sent, whether the client is gone then)."""
    kind = rng.randrange(10)
    if kind == 0:
        return stowing.head(), _chunked(rng, body), True
    if kind == 1:  # more or less than announced
        return stowing.head(length=max(0, len(body) + rng.choice((-50, -1, 1, 50)))), body, True
    if kind == 2:
        path = rng.choice(("/studies/1.2.3", "/studies/..%2f..", "/studies/%00"))
        return stowing.head(length=len(body), path=path), body, False
    if kind == 3:
        wrong = rng.choice(
            ('multipart/related; boundary=""', "text/plain", "multipart/related", "\x7f", "x" * 5000)
        )
        return stowing.head(length=len(body), Content_Type=wrong), body, False
    if kind == 4:
        return stowing.head(length=len(body), token=rng.choice(("", "x", "0" * 32))), body, False
    return stowing.head(length=len(body)), body, False


def _chunked(rng: random.Random, body: bytes) -> bytes:
    made, at = b"", 0
    while at < len(body):
        piece = body[at : at + rng.randint(1, 5000)]
        made += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        at += len(piece)
    made += b"0\r\n\r\n"
    return truncate(rng, made) if rng.random() < 0.3 else made


def _posted(port: int, head: bytes, body: bytes, *, cut_off: bool = False) -> int:
    """The status; 0 where none came. `cut_off`: the client is gone after the last byte."""
    head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=2 * LONGEST_S) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(head + body)
        if cut_off:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        answer = stowing.answered(connection, 2 * LONGEST_S)
    return int(answer[9:12]) if answer[:5] == b"HTTP/" else 0


def _good_upload(port: int, rng: random.Random) -> str:
    """An image that is taken; its SOP Instance UID."""
    ds = mr_instance(index=rng.randrange(10**6, 10**9), Rows=8)
    ds.PixelData = bytes(2 * ds.Rows * ds.Columns)
    body = stowing.body([ds])
    assert 200 == _posted(port, stowing.head(length=len(body)), body)
    return str(ds.SOPInstanceUID)


def _judged(
    watch: Watch, port: int, rng: random.Random, before: Held, bodies: list[bytes], known: set[str]
) -> list[str]:
    """What is wrong after a batch; `known` grows by what was stored."""
    try:
        known.add(_good_upload(port, rng))
        watch.returns_to(before, pool=POOL)
    except (AssertionError, OSError) as error:
        return [f"{type(error).__name__}: {error}"]
    new = {name: digest for name, digest in recorded(watch.folder).items() if name not in known}
    known |= set(new)
    wholes = [_content(watch.folder / "objects", digest) for digest in new.values()]
    return ["an object was not sent whole"] * sum(
        not any(after_file_meta(whole) + b"\r\n--" in body for body in bodies) for whole in wholes
    )


def _content(objects: Path, digest: str) -> bytes:
    return (objects / digest[:2] / digest).read_bytes()
