"""A disk, rebuilt from the journal of what was done to it: as the kernel shows it, and as it may be after
the power failed.

The model is stricter than any file system in use. A file's bytes are durable by a successful fsync of the
file, its name by one of its folder, and by nothing else. After an fsync that failed, what waited for it
is lost, also for the next one (Linux marks those pages clean). A rename is atomic. One leniency: once
an fsync of a folder was made to fail, an fsync of a new file in it makes its name durable, too, as
ext4, XFS and Btrfs have it; SQLite, which ignores that failure, counts on it.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

BLOCK = 4096
"""What is written to the disk as a whole; a longer write may survive in part."""
_ENTRY = struct.Struct("=IIIIQQ")


class Op(IntEnum):
    """The numbers are those of the C source."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    SYNC_FAILED = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    LINK = 10
    REACHED = 11
    """The chosen call; nothing is done yet."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One call that was done. Names are relative to the root."""

    op: Op
    inode: int
    offset: int
    name: str
    other: str
    data: bytes


def read_journal(raw: bytes) -> list[Entry]:
    entries, at = [], 0
    while at < len(raw):
        op, name, other, data, inode, offset = _ENTRY.unpack_from(raw, at)
        at += _ENTRY.size
        first, second, end = at + name, at + name + other, at + name + other + data
        entries.append(
            Entry(Op(op), inode, offset, raw[at:first].decode(), raw[first:second].decode(), raw[second:end])
        )
        at = end
    return entries


@dataclass(slots=True)
class File:
    """Mutable: bytes as read now, bytes on the disk, and the changes in between as (offset, bytes or None).

    None stands for a truncation to `offset`.
    """

    now: bytearray
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.now, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        on_disk = bytearray(self.durable)
        for offset, data in self.pending:
            _apply(on_disk, offset, data)
        self.durable = bytes(on_disk)
        self.pending.clear()

    def some(self, dice: random.Random) -> bytes:
        """What may be there when the power fails: each block of each change, or not."""
        on_disk = bytearray(self.durable)
        for offset, data in self.pending:
            if data is None:
                if dice.random() < 0.5:
                    _apply(on_disk, offset, None)
                continue
            for start, piece in _blocks(offset, data):
                if dice.random() < 0.5:
                    _apply(on_disk, start, piece)
        return bytes(on_disk)


@dataclass(slots=True)
class Folder:
    """Mutable: names as seen now, names on the disk, and the changes in between.

    A change is (number of the call, name, file or None); a file is named by its key in `Disk.files`.
    """

    now: dict[str, int] = field(default_factory=dict)
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[int, str, int | None]] = field(default_factory=list)
    failed: bool = False
    """Whether an fsync of it was made to fail."""

    def change(self, call: int, name: str, key: int | None) -> None:
        _put(self.now, name, key)
        self.pending.append((call, name, key))

    def sync(self) -> None:
        for _, name, key in self.pending:
            _put(self.durable, name, key)
        self.pending.clear()

    def some(self, survives: dict[int, bool]) -> dict[str, int]:
        names = dict(self.durable)
        for call, name, key in self.pending:
            if survives[call]:
                _put(names, name, key)
        return names


class Disk:
    """All below one folder. Files and folders have keys of their own, since inode numbers are used again."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.folders: dict[str, Folder] = {"": Folder()}
        self._keys: dict[int, int] = {}
        self._folder_of: dict[int, str] = {}
        self._next = 1
        self._calls = 0

    def holds(self, name: str, inode: int, content: bytes) -> None:
        """A file that was there, durably, before the journal began."""
        key = self._new(inode, File(bytearray(content), content))
        folder, leaf = _split(name)
        self.folders[folder].now[leaf] = self.folders[folder].durable[leaf] = key

    def holds_folder(self, name: str, inode: int) -> None:
        self._folder_of[inode] = name
        self.folders.setdefault(name, Folder())
        if name:
            folder, leaf = _split(name)
            self.folders[folder].now[leaf] = self.folders[folder].durable[leaf] = 0

    def replay(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._calls += 1
            self._do(entry)

    def now(self) -> dict[str, bytes]:
        """File names and contents as the kernel shows them: what survives the death of the process."""
        return self._walk({path: f.now for path, f in self.folders.items()}, lambda file: bytes(file.now))

    def durable(self) -> dict[str, bytes]:
        """Only what was fsynced."""
        return self._walk({path: f.durable for path, f in self.folders.items()}, lambda file: file.durable)

    def some(self, dice: random.Random) -> dict[str, bytes]:
        """What was fsynced, and a random part of the rest."""
        calls = sorted({call for f in self.folders.values() for call, _, _ in f.pending})
        survives = {call: dice.random() < 0.5 for call in calls}
        names = {path: f.some(survives) for path, f in self.folders.items()}
        return self._walk(names, lambda file: file.some(dice))

    def _do(self, entry: Entry) -> None:
        if entry.op in (Op.CREATE, Op.MKDIR, Op.LINK):
            self._create(entry)
        elif entry.op is Op.RENAME:
            self._rename(entry.name, entry.other)
        elif entry.op in (Op.UNLINK, Op.RMDIR):
            self._set(entry.name, None)
        elif entry.op is Op.REACHED:
            return
        elif entry.op is Op.WRITE:
            self._file(entry).change(entry.offset, entry.data)
        elif entry.op is Op.TRUNCATE:
            self._file(entry).change(entry.offset, None)
        else:
            self._sync(entry)

    def _create(self, entry: Entry) -> None:
        if entry.op is Op.MKDIR:
            self._folder_of[entry.inode] = entry.name
            self.folders[entry.name] = Folder()
            self._set(entry.name, 0)
        elif entry.op is Op.LINK:
            self._set(entry.name, self._keys[entry.inode])
        else:
            self._set(entry.name, self._new(entry.inode, File(bytearray())))

    def _rename(self, old: str, new: str) -> None:
        folder, leaf = _split(old)
        key = self.folders[folder].now[leaf]
        assert key, f"{old}: renamed folders are not modelled"
        self._set(old, None)
        self._set(new, key)

    def _sync(self, entry: Entry) -> None:
        name = self._folder_of.get(entry.inode)
        node: File | Folder = self._file(entry) if name is None else self.folders[name]
        if entry.op is Op.SYNC:
            node.sync()
            if isinstance(node, File):
                self._name_after_failure(self._keys[entry.inode])
        elif isinstance(node, File):
            node.pending.clear()
        else:
            node.failed = True

    def _name_after_failure(self, key: int) -> None:
        """SQLite ignores what the fsync of a folder says; file systems do not need it for a new file."""
        for folder in self.folders.values():
            if folder.failed:
                for _, name, named in folder.pending:
                    if named == key:
                        folder.durable[name] = key

    def _set(self, name: str, key: int | None) -> None:
        folder, leaf = _split(name)
        self.folders[folder].change(self._calls, leaf, key)

    def _new(self, inode: int, file: File) -> int:
        key, self._next = self._next, self._next + 1
        self._folder_of.pop(inode, None)
        self.files[key], self._keys[inode] = file, key
        return key

    def _file(self, entry: Entry) -> File:
        return self.files[self._keys[entry.inode]]

    def _walk(self, names: dict[str, dict[str, int]], content: Callable[[File], bytes]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            for leaf, key in names[folder].items():
                path = f"{folder}/{leaf}" if folder else leaf
                if key == 0:
                    waiting.append(path)
                    found[f"{path}/"] = b""
                else:
                    found[path] = content(self.files[key])
        return found


def as_found(root: str, prefix: str = "") -> dict[str, bytes]:
    """What a folder holds, in the form of `Disk.now`."""
    found: dict[str, bytes] = {}
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir():
                found[f"{prefix}{entry.name}/"] = b""
                found |= as_found(entry.path, f"{prefix}{entry.name}/")
            else:
                found[prefix + entry.name] = Path(entry.path).read_bytes()
    return found


def _split(name: str) -> tuple[str, str]:
    folder, _, leaf = name.rpartition("/")
    return folder, leaf


def _put(names: dict[str, int], name: str, key: int | None) -> None:
    if key is None:
        names.pop(name, None)
    else:
        names[name] = key


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _blocks(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    pieces, at = [], 0
    while at < len(data):
        length = min(BLOCK - (offset + at) % BLOCK, len(data) - at)
        pieces.append((offset + at, data[at : at + length]))
        at += length
    return pieces
