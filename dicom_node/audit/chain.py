"""Reading the trail: does the chain hold, and if not, where does it break first?

A chain can show that records were changed, taken out, put in or reordered, and, by the head, that
the end was cut off. Who may write to the folder can make a whole new chain: against that helps only
a head that was written down elsewhere, the *anchor*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.audit.trail import GENESIS, Head, Record, digest, files, parse, read_head
from dicom_node.errors import AuditError


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the trail: where it stands, and the record it holds unless it holds none."""

    file: str
    number: int
    raw: bytes
    record: Record | None
    claimed: str
    """The hash it says it has."""

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.number}"


@dataclass(frozen=True, slots=True)
class Anchor:
    """A record's number and hash, as somebody wrote them down elsewhere."""

    seq: int
    hash: str

    @classmethod
    def of(cls, text: str) -> Anchor:
        """`812:3f9a...`, as `audit --verify` prints it. Raises AuditError."""
        seq, _, digits = text.strip().partition(":")
        if not seq.isdecimal() or len(digits) != 64:
            raise AuditError(
                f"{text!r} is no anchor: a record's number, a colon and its hash, as --verify says"
            )
        return cls(int(seq), digits.lower())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying found. `broken` is the first thing wrong, with file and line; "" where nothing is."""

    records: int
    first: int
    head: Anchor
    broken: str
    notes: tuple[str, ...]


def lines(folder: Path) -> Iterator[Line]:
    """Every line of every file, oldest first. Raises AuditError where a file cannot be read."""
    try:
        for path in files(folder):
            with path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    whole = parse(raw)
                    record, claimed = whole or (None, "")
                    yield Line(path.name, number, raw.removesuffix(b"\n"), record, claimed)
    except OSError as error:
        raise AuditError(f"cannot read the audit trail in {folder}: {error.strerror}") from error


def verify(folder: Path, anchor: Anchor | None = None) -> Verdict:
    """Follow the whole chain; stops at the first thing wrong. Raises AuditError."""
    head = read_head(folder)  # before the files: what is appended meanwhile is no cut
    walk = _Walk({point.seq: point for point in (anchor, _anchor(head)) if point})
    broken = next((wrong for line in lines(folder) if (wrong := walk.step(line))), "")
    broken = broken or walk.end(head, anchor)
    return Verdict(walk.records, walk.first, Anchor(walk.seq, walk.hash), broken, tuple(walk.notes))


def _anchor(head: Head | None) -> Anchor | None:
    return Anchor(head.seq, head.hash) if head else None


@dataclass
class _Walk:
    """From line to line. Mutable: the last good record, and a half-written line still to be explained."""

    known: dict[int, Anchor]
    records: int = 0
    first: int = 0
    seq: int = 0
    hash: str = GENESIS
    torn: Line | None = None
    notes: list[str] = field(default_factory=list)

    def step(self, line: Line) -> str:
        """What is wrong with this line, or with the one before it; "" where nothing is."""
        if line.record is None:
            if self.torn is not None:
                return f"{self.torn.where}: is not a record"
            self.torn = line
            return ""
        return self._explained(line, line.record) or self._follows(line, line.record)

    def _explained(self, line: Line, record: Record) -> str:
        torn, self.torn = self.torn, None
        if torn is None:
            return f"{line.where}: speaks of a half-written line that is not there" if record.torn else ""
        if record.torn != digest(torn.raw):
            return f"{torn.where}: is not a record"
        self.notes.append(f"{torn.where}: half written at a crash, and closed off")
        return ""

    def _follows(self, line: Line, record: Record) -> str:
        if record.hash != line.claimed:
            return f"{line.where}: was changed: its hash is not that of what it says"
        if not self.records and record.seq > 1:
            self.notes.append(f"begins with record {record.seq}: older files are not here")
            self.seq, self.hash = record.seq - 1, record.prev
        if record.seq != self.seq + 1 or record.prev != self.hash:
            return f"{line.where}: record {record.seq} does not follow record {self.seq}"
        known = self.known.get(record.seq)
        if known and known.hash != record.hash:
            return f"{line.where}: record {record.seq} is not the one that the head or the anchor names"
        self.first = self.first or record.seq
        self.seq, self.hash, self.records = record.seq, record.hash, self.records + 1
        return ""

    def end(self, head: Head | None, anchor: Anchor | None) -> str:
        if self.torn is not None:
            self.notes.append(f"{self.torn.where}: half written; the next record will close it off")
        for name, point in (("head", head), ("anchor", anchor)):
            if point and point.seq > self.seq:
                return f"after record {self.seq}: the end is missing, the {name} names record {point.seq}"
        if self.records and head is None:
            return "head: is missing, so nothing says where the trail ends"
        if anchor and self.records and anchor.seq < self.first:
            self.notes.append(f"the anchor, record {anchor.seq}, is in an older file that is not here")
        return ""
