"""What must be true of a node's folder, whatever happened: read by SQL and from files, not by the node."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from crash.disk import as_found
from crash.material import CONFLICTS, Item, after_file_meta
from dicom_node.digest import is_digest_of
from dicom_node.domain.identity import Digest

LOST = "and lost"
LEFT_IN_PEACE = {"node.sqlite3", "node.sqlite3-wal", "node.sqlite3-shm"}


def rows(folder: Path, statement: str) -> list[tuple[Any, ...]]:  # Any: what the columns hold
    with closing(sqlite3.connect(folder / "node.sqlite3")) as connection:
        return connection.execute(statement).fetchall()


def kept(folder: Path, digest: str) -> bytes | None:
    """A stored file's bytes, if they are those that its name was made of."""
    path = folder / "objects" / digest[:2] / digest
    try:
        return path.read_bytes() if is_digest_of(Digest(digest), path) else None
    except OSError:
        return None


def missing(folder: Path, items: list[Item]) -> list[str]:
    """Those of the acknowledged instances that are not there, once, whole and as sent."""
    known = _by_uid(folder, "instances")
    aside = _by_uid(folder, "conflicts")
    return [
        f"acknowledged with 0x{item.status:04X} {LOST}: {item.uid}"
        for item in items
        if not _holds(folder, (aside if item.status == CONFLICTS else known).get(item.uid, []), item)
    ]


def disagreements(folder: Path) -> list[str]:
    """Rows without their file. An object without a row is allowed until the work was done again."""
    said = []
    for table in ("instances", "conflicts", "results"):
        for uid, digests in _by_uid(folder, table).items():
            said += [f"{table}: {uid} has no whole file" for d in digests if kept(folder, d) is None]
            if len(digests) != 1 and table != "conflicts":
                said.append(f"{table}: {uid} is there {len(digests)} times")
    return said


def unaccounted(folder: Path) -> list[str]:
    """Files that nothing speaks of, once all was done again."""
    named = {d for table in ("instances", "conflicts", "results") for ds in _by_uid(folder, table).values()
             for d in ds}  # fmt: skip
    files = [name for name in as_found(str(folder)) if not name.endswith("/")]
    objects = {name.rpartition("/")[2] for name in files if name.startswith("objects/")}
    others = {name for name in files if not name.startswith(("objects/", "audit/"))}
    return [f"unaccounted: {name}" for name in sorted((objects - named) | (others - LEFT_IN_PEACE))]


def _holds(folder: Path, digests: list[str], item: Item) -> bool:
    contents = [kept(folder, digest) for digest in digests]
    return item.data_set in [after_file_meta(content) for content in contents if content is not None]


def _by_uid(folder: Path, table: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for uid, digest in rows(folder, f"SELECT sop_instance_uid, digest FROM {table}"):  # noqa: S608
        found.setdefault(uid, []).append(digest)
    return found
