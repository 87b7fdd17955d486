"""The model of a disk that the crash gate judges by: what is durable, and by what."""

from __future__ import annotations

import random

import pytest

from crash.disk import BLOCK, Disk, Entry, Op

ROOT, SPOOL, OBJECTS, FILE = 1, 2, 3, 10


def disk(*entries: Entry) -> Disk:
    """Two folders that are there, durably, and what then was done."""
    made = Disk()
    for name, inode in (("", ROOT), ("spool", SPOOL), ("objects", OBJECTS)):
        made.holds_folder(name, inode)
    made.replay(list(entries))
    return made


def files(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if not name.endswith("/")}


def done(op: Op, inode: int = FILE, name: str = "", other: str = "", data: bytes = b"", at: int = 0) -> Entry:
    return Entry(op, inode, at, name, other, data)


CREATED = done(Op.CREATE, name="spool/a")
WRITTEN = done(Op.WRITE, data=b"bytes")
SYNCED = done(Op.SYNC)
RENAMED = done(Op.RENAME, name="spool/a", other="objects/a")


@pytest.mark.parametrize(
    ("entries", "durable"),
    [
        ((CREATED, WRITTEN, SYNCED), {}),
        ((CREATED, WRITTEN, done(Op.SYNC, SPOOL)), {"spool/a": b""}),
        ((CREATED, WRITTEN, SYNCED, done(Op.SYNC, SPOOL)), {"spool/a": b"bytes"}),
        ((CREATED, WRITTEN, SYNCED, RENAMED), {}),
        ((CREATED, WRITTEN, RENAMED, done(Op.SYNC, OBJECTS)), {"objects/a": b""}),
        ((CREATED, WRITTEN, SYNCED, RENAMED, done(Op.SYNC, OBJECTS)), {"objects/a": b"bytes"}),
        ((CREATED, SYNCED, WRITTEN, RENAMED, done(Op.SYNC, OBJECTS)), {"objects/a": b""}),
    ],
    ids=["no name", "no bytes", "both", "no new name", "renamed, no bytes", "T1's order", "synced too early"],
)  # fmt: skip
def test_only_what_was_fsynced_survives(entries: tuple[Entry, ...], durable: dict[str, bytes]) -> None:
    """Bytes by an fsync of the file, names by one of the folder."""
    assert durable == files(disk(*entries).durable())


def test_all_of_it_survives_the_death_of_the_process() -> None:
    assert {"objects/a": b"bytes"} == files(disk(CREATED, WRITTEN, RENAMED).now())


def test_bytes_that_an_fsync_failed_on_are_not_durable_by_the_next_one() -> None:
    """Linux marks the pages clean: who tries again gets success for nothing."""
    failed = done(Op.SYNC_FAILED)

    assert {"spool/a": b""} == files(disk(CREATED, WRITTEN, failed, SYNCED, done(Op.SYNC, SPOOL)).durable())


def test_an_inode_that_is_used_again_is_another_file() -> None:
    again = (CREATED, WRITTEN, SYNCED, done(Op.SYNC, SPOOL), done(Op.UNLINK, name="spool/a"))

    made = disk(*again, done(Op.CREATE, name="spool/b"), done(Op.SYNC, SPOOL))

    assert {"spool/b": b""} == files(made.durable())


def test_a_truncation_and_a_hole() -> None:
    cut = done(Op.TRUNCATE, at=2)
    beyond = done(Op.WRITE, data=b"x", at=4)

    assert {"spool/a": b"by\0\0x"} == files(disk(CREATED, WRITTEN, cut, beyond).now())


def test_a_random_part_of_what_was_not_fsynced_survives_block_by_block() -> None:
    """Never less than what was fsynced; a long write in part; every part comes up."""
    long = done(Op.WRITE, data=b"1" * BLOCK + b"2" * BLOCK)
    made = disk(CREATED, done(Op.SYNC, SPOOL), long)

    found = {files(made.some(random.Random(seed)))["spool/a"] for seed in range(50)}

    assert {b"", b"1" * BLOCK, bytes(BLOCK) + b"2" * BLOCK, b"1" * BLOCK + b"2" * BLOCK} == found


def test_a_rename_is_atomic() -> None:
    """Under one name, or the other; never under both and never under none."""
    made = disk(CREATED, WRITTEN, SYNCED, done(Op.SYNC, SPOOL), RENAMED)

    found = {tuple(files(made.some(random.Random(seed)))) for seed in range(50)}

    assert {("spool/a",), ("objects/a",)} == found
