"""The trail on disk: one JSON line per message, each hash over the one before.

Promises: a record is on the disk (fsync) when `record` returns; several processes and threads may
write at once; what was edited, deleted, reordered or cut off shows (`chain.py`). Refuses to break
the work it records: nothing is raised, a record that cannot be written is `audit.failed` in the log.

    {"seq": 7, "prev": "hash of 6", "hash": "of prev, seq, torn, message", "message": "<AuditMessage ...>"}

One file a month; the chain goes on from file to file. `head` holds the last record's place, written
after the record itself: a head behind the files is a crash, a head beyond them is a trail cut short.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from dicom_node import log
from dicom_node.audit.events import Admitted, Event, Refused, Stopped
from dicom_node.audit.flood import Flood, Hourly
from dicom_node.audit.messages import message
from dicom_node.errors import AuditError

GENESIS = "0" * 64
"""What the first record of all points back to."""
PATIENCE_S = 5.0
"""Longest wait for another writer; a record that waited longer is given up, the caller is not."""
_HEAD_BYTES = 256
"""The head is overwritten in place at one length, inside one sector: it is never half of two."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last record: its number and hash, its file and that file's size after it."""

    seq: int
    hash: str
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """One line. `torn` is the sha256 of a half-written line before it, if a crash left one."""

    seq: int
    prev: str
    message: str
    torn: str = ""

    @property
    def hash(self) -> str:
        return digest(f"{self.prev}\n{self.seq}\n{self.torn}\n{self.message}".encode())

    def line(self) -> bytes:
        known = {"seq": self.seq, "prev": self.prev, "hash": self.hash}
        torn = {"torn": self.torn} if self.torn else {}
        text = json.dumps(known | torn | {"message": self.message}, ensure_ascii=False)
        return text.encode() + b"\n"


@dataclass(frozen=True, slots=True)
class _End:
    """The record to go on from; a half-written line's hash, and the file whose last line has no end."""

    seq: int
    hash: str
    torn: str = ""
    unclosed: str = ""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Trail:
    """The writing end. Cheap to make; the folder is made with the first record.

    Mutable: `failures`, records that could not be written, under `_count`. `_turn` lets one thread
    of this process at a time wait for the other processes.
    """

    def __init__(self, folder: Path, ae_title: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder, self._ae_title, self._clock = folder, ae_title, clock
        self._turn, self._count = threading.Lock(), threading.Lock()
        self._flood, self._greeted = Flood(), Hourly()
        self.failures = 0

    def record(self, event: Event) -> None:
        """Append one event; it is on the disk on return, or `audit.failed` is in the log."""
        try:
            for one in self._due(event):
                now = self._clock()
                self._append(message(one, self._ae_title, now), now)
        except Exception as error:  # noqa: BLE001 - an edge: what is recorded goes on without its record
            with self._count:
                self.failures += 1
            facts = {"kind": type(event).__name__, "error": type(error).__name__, "failures": self.failures}
            log.problem("audit.failed", **facts)

    def _due(self, event: Event) -> Sequence[Event]:
        if isinstance(event, Refused):
            return self._flood.let_through(event, time.monotonic())
        if isinstance(event, Admitted):
            return [event] if self._greeted.is_due(event, time.monotonic()) else []
        return [*self._flood.rest(), event] if isinstance(event, Stopped) else [event]

    def _append(self, text: str, now: datetime) -> None:
        with self._alone() as handle:
            head, found = _read_head(handle), files(self.folder)
            end = _end(head, found)
            # never an earlier file than the last one, wherever the clock was set back to
            name = max([f"audit-{now:%Y-%m}.jsonl", *(path.name for path in found[-1:])])
            record = Record(end.seq + 1, end.hash, text, end.torn)
            closing = b"\n" if end.unclosed == name else b""
            size = _add(self.folder / name, closing + record.line())
            _write_head(handle, Head(record.seq, record.hash, name, size))

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The head, open and locked. Raises AuditError when another writer keeps it too long."""
        deadline = time.monotonic() + PATIENCE_S
        if not self._turn.acquire(timeout=PATIENCE_S):
            raise AuditError
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.folder / "head", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _lock(handle, deadline)
                yield handle
            finally:
                os.close(handle)  # unlocks
        finally:
            self._turn.release()


def files(folder: Path) -> list[Path]:
    """The files of a trail, oldest first."""
    return sorted(folder.glob("audit-*.jsonl"))


def read_head(folder: Path) -> Head | None:
    """The head as it stands; None where there is none, or none that can be read."""
    try:
        return _parse_head((folder / "head").read_bytes())
    except OSError:
        return None


def parse(line: bytes) -> tuple[Record, str] | None:
    """A line's record and the hash it claims; None where it is not a record."""
    try:
        found = json.loads(line)
        record = Record(found["seq"], found["prev"], found["message"], found.get("torn", ""))
        claimed = found["hash"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (record, claimed) if isinstance(record.seq, int) and isinstance(claimed, str) else None


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def _end(head: Head | None, found: list[Path]) -> _End:
    """Where the chain goes on; the files are looked at only where the head does not fit them."""
    if head and found and found[-1].name == head.file and found[-1].stat().st_size == head.size:
        return _End(head.seq, head.hash)
    end = _look(found)
    if end.torn:
        log.problem("audit.torn", record=end.seq + 1)
    if head and end.seq < head.seq:
        log.problem("audit.cut_short", head=head.seq, found=end.seq)
        return replace(end, seq=head.seq, hash=head.hash)  # the gap stays to be seen
    return end


def _look(found: list[Path]) -> _End:
    """The end of the chain as the files have it; a month at most is read, and only after a crash."""
    torn = unclosed = ""
    for path in reversed(found):
        *lines, rest = path.read_bytes().split(b"\n")
        if path == found[-1] and rest:
            unclosed = path.name
            if parse(rest) is None:
                torn = digest(rest)
            else:
                lines.append(rest)  # whole but for its line's end
        for line in reversed(lines):
            if whole := parse(line):
                return _End(whole[0].seq, whole[1], torn, unclosed)
    return _End(0, GENESIS, torn, unclosed)


def _lock(handle: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AuditError from None
            time.sleep(0.001)  # held for one fsync; flock itself has no deadline


def _add(path: Path, line: bytes) -> int:
    """Append and fsync, all or nothing as far as the disk lets us; returns the file's new size."""
    new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(handle).st_size
        try:
            if os.write(handle, line) != len(line):
                raise AuditError
            os.fsync(handle)
        except BaseException:
            os.ftruncate(handle, before)  # a full disk: no half line for the next record to explain
            raise
    finally:
        os.close(handle)
    if new:
        _sync_folder(path.parent)
    return before + len(line)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_head(handle: int) -> Head | None:
    return _parse_head(os.pread(handle, _HEAD_BYTES, 0))


def _parse_head(raw: bytes) -> Head | None:
    try:
        return Head(**json.loads(raw))
    except (ValueError, TypeError):
        return None


def _write_head(handle: int, head: Head) -> None:
    """Not fsynced: a head that is behind after a power cut says nothing wrong."""
    os.pwrite(handle, json.dumps(asdict(head)).encode().ljust(_HEAD_BYTES - 1) + b"\n", 0)
