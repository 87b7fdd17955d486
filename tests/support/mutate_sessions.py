"""Mutations of a DICOM session, deterministic for a seed: bytes, PDUs, data values, items and commands.

As stateful protocol fuzzers do it: the message sequence stays near one that leads somewhere.
"""

from __future__ import annotations

import random
import struct

from support import pdus
from support.mutate import LIES, flip, insert, remove, truncate
from support.pdus import Context

Rng = random.Random


# ---- sessions -----------------------------------------------------------------------------------


def mutated_session(rng: Rng, instance: str, data_set: bytes) -> bytes:
    """A session of association, C-ECHO, C-STORE and release, changed at one or more levels."""
    request = _request(rng) if rng.random() < 0.25 else pdus.associate_rq()
    echo = _message(rng, 1, pdus.COMMAND, _command(rng, pdus.echo_rq()))
    if rng.random() < 0.2:
        data_set = rng.choice((flip, truncate, insert, remove))(rng, data_set)
    name = rng.choice(HOSTILE_NAMES) if rng.random() < 0.1 else instance
    command = _command(rng, pdus.store_rq(name))
    store = _message(rng, 3, pdus.COMMAND, command) + _message(rng, 3, 0, data_set)
    sent = [request, *echo, *store, pdus.release_rq()]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        sent = _reordered(rng, sent)
    stream = b"".join(sent)
    return rng.choice((flip, truncate, insert, remove))(rng, stream) if rng.random() < 0.3 else stream


HOSTILE_NAMES = (
    "../../etc/x",
    "..",
    "/",
    "1.2.3/../4",
    "1" * 65,
    "1." + "2" * 300,
    "1.2\x003",
    "\0",
    "",
    "1.2.é",
    "१.२",
    "1..2",
    ".1",
    "1.",
    "1.2.3\n",
    "%2e%2e",
    "C:\\x",
    "1.2.3; rm",
    "\x1b[2J",
)
"""SOP Instance UIDs that are none."""


def _reordered(rng: Rng, sent: list[bytes]) -> list[bytes]:
    at, other = rng.randrange(len(sent)), rng.randrange(len(sent))
    kind = rng.randrange(6)
    if kind == 0:
        sent[at], sent[other] = sent[other], sent[at]
    elif kind == 1:
        sent.insert(at, sent[other])
    elif kind == 2:
        del sent[at]
        sent = sent or [b""]
    elif kind == 3:
        sent[at] = pdus.pdu(rng.randrange(10), sent[at][6:])
    elif kind == 4:
        sent[at] = sent[at][:2] + struct.pack(">I", rng.choice(LIES)) + sent[at][6:]
    else:
        junk = (
            pdus.abort(),
            pdus.release_rq(),
            pdus.associate_rq(),
            pdus.pdu(rng.randrange(256), rng.randbytes(20)),
        )
        sent.insert(at, rng.choice(junk))
    return sent


def _message(rng: Rng, context: int, header: int, content: bytes) -> list[bytes]:
    """In PDUs and PDVs of any cut, sometimes with a wrong context, header or length."""
    pieces, at = [], 0
    longest = rng.choice((64, 1000, 16000, 100_000))
    while at < len(content) or not pieces:
        size = rng.randint(1, longest)
        pieces.append(content[at : at + size])
        at += size
    values = [
        pdus.pdv(context, header | pdus.LAST * (number == len(pieces)), piece)
        for number, piece in enumerate(pieces, start=1)
    ]
    if rng.random() < 0.15:
        number = rng.randrange(len(values))
        values[number] = pdus.pdv(
            rng.choice((context, 0, 2, 5, 255)), rng.choice((header, 0, 1, 2, 3, 0xFF)), pieces[number],
            length=rng.choice((None, *LIES)),
        )  # fmt: skip
    if rng.random() < 0.3:
        return [pdus.p_data(*values)]
    return [pdus.p_data(value) for value in values]


def _command(rng: Rng, command: bytes) -> bytes:
    """Elements of a command set dropped, doubled, exchanged, or with another value or length."""
    if rng.random() > 0.2:
        return command
    values = pdus.command_elements(command)
    element = rng.choice(sorted(values))
    kind = rng.randrange(5)
    if kind == 0:
        del values[element]
    elif kind == 1:
        values[element] = rng.choice((b"", b"\0", rng.randbytes(2), rng.randbytes(4), b"1" * 70, bytes(1000)))
    elif kind == 2:
        values[rng.choice((0x0001, 0x1031, 0x0902, 0xFFFF))] = rng.randbytes(6)
    values.pop(0, None)
    made = pdus.command_set(values)
    if kind == 3:
        at = rng.randrange(len(made) - 4)
        return made[:at] + struct.pack("<I", rng.choice(LIES)) + made[at + 4 :]
    return flip(rng, made) if kind == 4 else made


def _request(rng: Rng) -> bytes:
    """An A-ASSOCIATE-RQ that is odd in one or another way."""
    contexts: list[Context] = [*pdus.USUAL]
    kind = rng.randrange(8)
    if kind == 0:
        contexts = [Context(rng.randrange(256)) for _ in range(rng.choice((0, 1, 5, 256)))]
    elif kind == 1:
        contexts += [Context(5, rng.choice(("", "1.2.3", "x" * 500)), rng.choice(((), ("1.2",), ("", ""))))]
    elif kind == 2:
        contexts = [Context(number) for number in range(1, 256, 2)]
    user = b"".join(rng.sample((
        pdus.ASYNCHRONOUS, pdus.BOTH_ROLES, pdus.IDENTITY, pdus.EXTENDED, pdus.COMMON_EXTENDED,
        pdus.item(rng.randrange(256), rng.randbytes(8)), pdus.item(0x54, b"", length=rng.choice(LIES)),
    ), rng.randrange(4)))  # fmt: skip
    title = rng.choice(("SCANNER", "STRANGER", "", "\0\n", "A" * 16))
    called = rng.choice(("OTHER", "")) if kind == 4 else "DICOMNODE"
    request = pdus.associate_rq(
        calling=title if kind == 3 else "SCANNER", called=called,
        contexts=contexts, user_items=user, application=pdus.APPLICATION_CONTEXT if kind != 5 else "1.2",
        version=rng.randrange(4) if kind == 6 else 1, max_pdu=rng.choice(LIES),
    )  # fmt: skip
    return flip(rng, request) if kind == 7 else request


def complete_data_sets(stream: bytes) -> set[bytes]:
    """The data sets that came to their last fragment in a session, whatever else is wrong with it."""
    found, at, gathered = set(), 0, b""
    while at + 6 <= len(stream):
        kind, length = struct.unpack_from(">BxI", stream, at)
        body, at = stream[at + 6 : at + 6 + length], at + 6 + length
        inner = 0
        while kind == pdus.P_DATA and inner + 6 <= len(body):
            size, _, header = struct.unpack_from(">IBB", body, inner)
            fragment, inner = body[inner + 6 : inner + 4 + size], inner + 4 + max(size, 2)
            if header & pdus.COMMAND:
                gathered = b""
                continue
            gathered += fragment
            if header & pdus.LAST and inner <= len(body):
                found.add(gathered)
                gathered = b""
    return found
