"""The audit trail's chain: what was recorded stays, and what somebody did to it shows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node.audit import Admitted, Begun, Refused, Started, Stopped, Trail, Transferred
from dicom_node.audit.chain import Anchor, verify
from dicom_node.audit.command import checked
from dicom_node.audit.flood import Flood, Hourly
from dicom_node.audit.report import rows
from dicom_node.config import Audit, Config
from dicom_node.errors import AuditError
from support.ports import wait_until

NOVEMBER = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, 0, 0, tzinfo=UTC)


@dataclass
class Clock:
    now: datetime = NOVEMBER

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def recorded(folder: Path, count: int = 5) -> list[bytes]:
    """The lines of a trail of so many records."""
    trail = Trail(folder, "DICOMNODE", Clock())
    for number in range(count):
        trail.record(Begun("pacs", "127.0.0.1", f"1.2.{number}", f"P{number}"))
    return file_of(folder).read_bytes().splitlines(keepends=True)


def file_of(folder: Path) -> Path:
    return folder / "audit-2026-11.jsonl"


def test_an_untouched_trail_holds(folder: Path) -> None:
    """Five records, nothing wrong; the head is the fifth."""
    lines = recorded(folder)

    verdict = verify(folder)

    assert (5, 1, "", ()) == (verdict.records, verdict.first, verdict.broken, verdict.notes)
    assert Anchor(5, json.loads(lines[4])["hash"]) == verdict.head


def test_the_hash_is_as_documented(folder: Path) -> None:
    """sha256 of prev, seq, torn and message, a newline between: anybody can check it without this program."""
    from hashlib import sha256

    first, second = (json.loads(line) for line in recorded(folder, 2))

    assert "0" * 64 == first["prev"]
    assert first["hash"] == second["prev"]
    assert sha256(f"{second['prev']}\n2\n\n{second['message']}".encode()).hexdigest() == second["hash"]


def edit(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[2].replace(b"P2", b"P9"), *lines[3:]]


def edit_with_its_hash(lines: list[bytes]) -> list[bytes]:
    from dicom_node.audit.trail import Record

    old = json.loads(lines[2])
    new = Record(3, old["prev"], old["message"].replace("P2", "P9"))
    return [*lines[:2], new.line(), *lines[3:]]


def spoil(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], b"not a record\n", *lines[3:]]


def delete(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


def delete_first(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"seq": 1', b'"seq": 2'), *lines[2:]]


def reorder(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def repeat(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], *lines[2:]]


def truncate(lines: list[bytes]) -> list[bytes]:
    return lines[:4]


def truncate_within_a_line(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[4][:30]]


TAMPERING: list[tuple[Callable[[list[bytes]], list[bytes]], str]] = [
    (edit, "line 3: was changed"),
    (edit_with_its_hash, "line 4: record 4 does not follow record 3"),
    (spoil, "line 3: is not a record"),
    (delete, "line 3: record 4 does not follow record 2"),
    (delete_first, "line 1: was changed"),
    (reorder, "line 2: record 3 does not follow record 1"),
    (repeat, "line 4: record 3 does not follow record 3"),
    (truncate, "after record 4: the end is missing, the head names record 5"),
    (truncate_within_a_line, "after record 4: the end is missing"),
]


@pytest.mark.parametrize(("tamper", "sentence"), TAMPERING, ids=lambda value: getattr(value, "__name__", ""))
def test_tampering_shows_with_file_and_line(
    folder: Path, tamper: Callable[[list[bytes]], list[bytes]], sentence: str
) -> None:
    """Edited, deleted, reordered, repeated, cut off: the first place that is wrong is named."""
    file_of(folder).write_bytes(b"".join(tamper(recorded(folder))))

    assert sentence in verify(folder).broken


@pytest.mark.parametrize(("tamper", "sentence"), TAMPERING, ids=lambda value: getattr(value, "__name__", ""))
def test_tampering_shows_after_the_node_went_on(
    folder: Path, tamper: Callable[[list[bytes]], list[bytes]], sentence: str
) -> None:
    """Later records heal nothing: what was wrong stays to be seen."""
    file_of(folder).write_bytes(b"".join(tamper(recorded(folder))))
    trail = Trail(folder, "DICOMNODE", Clock())
    with capture_logs():
        trail.record(Stopped("receive"))
        trail.record(Started("receive"))

    assert verify(folder).broken
    assert 0 == trail.failures


def test_a_cut_trail_is_said_so_at_the_next_record(folder: Path) -> None:
    """Whoever appends sees that the head is beyond the files, and says so in the log."""
    file_of(folder).write_bytes(b"".join(recorded(folder)[:3]))

    with capture_logs() as log:
        Trail(folder, "DICOMNODE", Clock()).record(Stopped("receive"))

    assert [("audit.cut_short", 5, 3)] == [(line["event"], line["head"], line["found"]) for line in log]


def test_a_missing_head_shows(folder: Path) -> None:
    """Without the head nothing says where the trail ends."""
    recorded(folder)
    (folder / "head").unlink()

    assert "head: is missing" in verify(folder).broken


def test_an_anchor_shows_a_whole_new_chain(folder: Path) -> None:
    """Who may write to the folder can make a chain that holds; a hash written down elsewhere tells."""
    recorded(folder)
    anchor = verify(folder).head
    for path in folder.iterdir():
        path.unlink()
    Trail(folder, "OTHER", Clock()).record(Started("receive"))

    assert "" == verify(folder).broken
    assert "the anchor names record 5" in verify(folder, anchor).broken
    recorded(folder)
    assert "not the one that the head or the anchor names" in verify(folder, anchor).broken


def test_an_anchor_is_what_verify_prints() -> None:
    """`812:HASH`; anything else is a sentence."""
    assert Anchor(812, "ab" * 32) == Anchor.of(f"812:{'AB' * 32}")
    with pytest.raises(AuditError, match="no anchor"):
        Anchor.of("812")


def test_the_chain_goes_on_from_month_to_month(folder: Path) -> None:
    """One file a month; a clock that is set back opens no earlier file."""
    clock = Clock()
    trail = Trail(folder, "DICOMNODE", clock)
    for clock.now in (NOVEMBER, DECEMBER, NOVEMBER):
        trail.record(Started("receive"))

    assert ["audit-2026-11.jsonl", "audit-2026-12.jsonl"] == sorted(
        path.name for path in folder.glob("*.jsonl")
    )
    assert (3, "") == (verify(folder).records, verify(folder).broken)
    assert 2 == len((folder / "audit-2026-12.jsonl").read_bytes().splitlines())


def test_old_files_may_go(folder: Path) -> None:
    """Retention: with the oldest month removed the rest still verifies, and says where it begins."""
    clock = Clock()
    trail = Trail(folder, "DICOMNODE", clock)
    for clock.now in (NOVEMBER, NOVEMBER, DECEMBER):
        trail.record(Started("receive"))
    file_of(folder).unlink()

    verdict = verify(folder)

    assert (1, 3, "") == (verdict.records, verdict.first, verdict.broken)
    assert ("begins with record 3: older files are not here",) == verdict.notes


@pytest.mark.parametrize("kept", [1, 40, -2, -1], ids=lambda kept: f"{kept} bytes")
def test_half_a_record_after_a_crash_is_closed_off(folder: Path, kept: int) -> None:
    """A crash amid the write leaves part of a line; the next record explains it, and the chain holds."""
    lines = recorded(folder)
    head = (folder / "head").read_bytes()
    Trail(folder, "DICOMNODE", Clock()).record(Stopped("receive"))
    last = file_of(folder).read_bytes().splitlines(keepends=True)[5]
    file_of(folder).write_bytes(b"".join(lines) + last[:kept])
    (folder / "head").write_bytes(head)
    before = verify(folder)

    with capture_logs() as log:
        Trail(folder, "DICOMNODE", Clock()).record(Started("receive"))
    after = verify(folder)

    whole = kept == -1  # only the line's end is missing: the record itself is there
    assert "" == before.broken == after.broken
    assert ([] if whole else ["audit.torn"]) == [line["event"] for line in log]
    assert (7 if whole else 6) == after.records
    assert whole or "half written at a crash" in after.notes[0]


def test_a_half_line_in_last_months_file_is_closed_off_too(folder: Path) -> None:
    """The first record of December explains what a crash left in November."""
    recorded(folder)
    with file_of(folder).open("ab") as file:
        file.write(b'{"seq": 6, "pre')
    with capture_logs():
        Trail(folder, "DICOMNODE", Clock(DECEMBER)).record(Started("receive"))

    assert (6, "") == (verify(folder).records, verify(folder).broken)


def test_a_head_behind_the_files_is_a_crash(folder: Path) -> None:
    """The head is written after the record and not fsynced: the files count."""
    recorded(folder, 3)
    head = (folder / "head").read_bytes()
    recorded(folder, 2)
    (folder / "head").write_bytes(head)
    Trail(folder, "DICOMNODE", Clock()).record(Started("receive"))

    assert (6, "") == (verify(folder).records, verify(folder).broken)


_WRITER = """
import sys
from pathlib import Path
from dicom_node.audit import Started, Trail
trail = Trail(Path(sys.argv[1]), "DICOMNODE")
sys.stdout.write("x"); sys.stdout.flush()
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    trail.record(Started(sys.argv[3]))
sys.exit(1 if trail.failures else 0)
"""


def writer(folder: Path, count: int, role: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _WRITER, str(folder), str(count), role]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"x" == process.stdout.read(1)
    return process


def go(process: subprocess.Popen[bytes]) -> None:
    """Let it write: all that are to write at once are there."""
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


def closed(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, with the pipes closed."""
    code = process.wait(60)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    return code


def test_processes_and_threads_write_at_once(folder: Path) -> None:
    """Three processes and two threads, two hundred records each: one chain of a thousand."""
    processes = [writer(folder, 200, role) for role in ("receive", "web", "tick")]
    trail = Trail(folder, "DICOMNODE")
    threads = [
        threading.Thread(target=lambda: [trail.record(Started("work")) for _ in range(200)]) for _ in range(2)
    ]
    for process in processes:
        go(process)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [0, 0, 0] == [closed(process) for process in processes]
    assert (1000, "", 0) == (verify(folder).records, verify(folder).broken, trail.failures)


def test_a_writer_killed_at_any_moment_breaks_no_chain(folder: Path) -> None:
    """SIGKILL amid appending, a few times: others go on, and the chain holds."""
    for _ in range(4):
        process = writer(folder, 100_000, "receive")
        before = verify(folder).records
        go(process)
        wait_until(lambda start=before: verify(folder).records > start + 5, 30.0, "it writes")
        process.send_signal(signal.SIGKILL)
        closed(process)
        with capture_logs():
            Trail(folder, "DICOMNODE").record(Started("tick"))

    assert "" == verify(folder).broken


def test_only_the_nodes_user_may_read_it(folder: Path) -> None:
    """Folder 0700, files 0600, whatever the umask."""
    before = os.umask(0o000)
    try:
        recorded(folder)
    finally:
        os.umask(before)

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_a_trail_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """Nothing is raised; the log says so and counts."""
    (tmp_path / "audit").write_text("a file where the folder should be")
    trail = Trail(tmp_path / "audit", "DICOMNODE", Clock())

    with capture_logs() as log:
        trail.record(Begun("pacs", "127.0.0.1", "1.2", "P1"))
        trail.record(Stopped("receive"))

    assert [("audit.failed", "Begun", 1), ("audit.failed", "Stopped", 2)] == [
        (line["event"], line["kind"], line["failures"]) for line in log
    ]
    assert 2 == trail.failures
    assert "P1" not in str(log)


def test_a_full_disk_leaves_no_half_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What of a record reached a disk that then filled up is taken back; the next one fits on."""
    recorded(folder)
    write = os.write

    def half(handle: int, data: bytes) -> int:
        return write(handle, data[: len(data) // 2])

    trail = Trail(folder, "DICOMNODE", Clock())
    with capture_logs() as log, monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        trail.record(Stopped("receive"))
    trail.record(Started("receive"))

    assert ["audit.failed"] == [line["event"] for line in log]
    assert (6, "", ()) == (verify(folder).records, verify(folder).broken, verify(folder).notes)


def test_a_writer_that_hangs_holds_up_nobody_for_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is waited for with a deadline; the record is given up, the caller is not."""
    import fcntl

    monkeypatch.setattr("dicom_node.audit.trail.PATIENCE_S", 0.05)
    recorded(folder)
    trail = Trail(folder, "DICOMNODE", Clock())
    with contextlib.ExitStack() as stack:
        held = stack.enter_context((folder / "head").open("r+"))
        fcntl.flock(held, fcntl.LOCK_EX)
        log = stack.enter_context(capture_logs())
        trail.record(Stopped("receive"))
    trail.record(Started("receive"))

    assert [("audit.failed", "AuditError")] == [(line["event"], line["error"]) for line in log]
    assert (6, "") == (verify(folder).records, verify(folder).broken)


def audit(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, as an operator runs it."""
    program = Path(sys.executable).with_name("dicom-node")
    (folder.parent / "node.toml").write_text(f'[audit]\nfolder = "{folder}"\n', encoding="utf-8")
    command = [str(program), "audit", "--config", str(folder.parent / "node.toml"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"COLUMNS": "300"}
    )


def test_the_command_shows_what_when_who_and_where(folder: Path) -> None:
    """A line each, without patients; JSON has them. Looking is itself an event (A.5.3.2)."""
    trail = Trail(folder, "DICOMNODE", Clock())
    trail.record(Transferred("pacs", "192.0.2.7", True, "1.2.3", "P1", {"1.2.840": 24}, True))
    trail.record(Transferred("pacs", "192.0.2.7", False, "1.2.3", "P1", {"1.2.840": 2}, False))
    trail.record(Refused("192.0.2.9", "[/red]\x1b[31mSTRANGER", "DICOMNODE", "not a listed peer"))

    lines, rows = audit(folder).stdout.splitlines(), json.loads(audit(folder, "--json").stdout)

    assert [
        "2026-11-20 12:00:00  DICOM Instances Transferred          pacs to DICOMNODE  (192.0.2.7)"
        "  study 1.2.3  24 instances",
        "2026-11-20 12:00:00  DICOM Instances Transferred          DICOMNODE to pacs  (192.0.2.7)"
        "  study 1.2.3  2 instances  not taken over",
        "2026-11-20 12:00:00  Security Alert: Node Authentication  [/red]\\x1b[31mSTRANGER to DICOMNODE"
        "  (192.0.2.9)  not a listed peer (called DICOMNODE)",
    ] == lines
    assert ["P1", "P1", "", ""] == [row["patient"] for row in rows]
    assert "Audit Log Used" == rows[3]["what"]


def test_the_command_looks_back_as_far_as_asked(folder: Path) -> None:
    """--since is inclusive, and UTC; what is no time is a sentence."""
    clock = Clock()
    trail = Trail(folder, "DICOMNODE", clock)
    for clock.now in (NOVEMBER, DECEMBER):
        trail.record(Started("receive"))

    rows = json.loads(audit(folder, "--json", "--since", "2026-12-01").stdout)
    wrong = audit(folder, "--since", "yesterday")

    assert ["2026-12-01T00:00:00.000+00:00"] == [row["time"] for row in rows if "Start" in str(row["what"])]
    assert 1 == wrong.returncode
    assert "'yesterday' is no date or time" in wrong.stderr


def test_the_command_verifies(folder: Path) -> None:
    """Whole: exit 0 and the head to keep; broken: exit 1, file and line; the kept head counts."""
    recorded(folder)
    before = verify(folder).head
    whole = audit(folder, "--verify")
    head = whole.stdout.split("head: ")[1].strip()
    file_of(folder).write_bytes(file_of(folder).read_bytes().replace(b"P3", b"P8"))
    broken = audit(folder, "--verify")
    for path in folder.iterdir():
        path.unlink()
    recorded(folder, 6)
    forged = audit(folder, "--verify", "--anchor", f"5:{'0' * 64}")

    assert (0, "whole: 5 records, 1 to 5") == (whole.returncode, whole.stdout.splitlines()[0])
    assert Anchor.of(head) == before
    assert (1, "BROKEN  audit-2026-11.jsonl, line 4: was changed") == (broken.returncode, broken.stdout[:48])
    assert (1, True) == (forged.returncode, "head or the anchor names" in forged.stdout)


def test_a_flood_of_refusals_is_summed_up() -> None:
    """Sixty records a minute; then they are counted, and the next minute says how many there were."""
    flood = Flood()

    first = [flood.let_through(Refused("192.0.2.9", f"S{n}", "", "peer"), 0.1 * n) for n in range(100)]
    later = flood.let_through(Refused("192.0.2.9", "LATER", "", "peer"), 70.0)

    assert [1] * 60 + [0] * 40 == [len(some) for some in first]
    assert ["S99", "LATER"] == [event.calling for event in later]
    assert "peer; the last of 40 refusals without a record" == later[0].reason


def test_the_last_refusals_are_summed_up_at_the_end(folder: Path) -> None:
    """What was counted stands in the trail when the part that counted it ends."""
    trail = Trail(folder, "DICOMNODE", Clock())
    for _ in range(75):
        trail.record(Refused("192.0.2.9", "STRANGER", "DICOMNODE", "peer"))
    trail.record(Stopped("receive"))

    found = rows(folder)
    assert 62 == len(found)
    assert "peer; the last of 15 refusals without a record (called DICOMNODE)" == found[60]["detail"]


def test_a_peer_that_calls_all_day_is_recorded_once_an_hour(folder: Path) -> None:
    """By peer and address: a monitor's C-ECHO must not be all there is in the trail."""
    monitor, scanner = (Admitted(name, "192.0.2.7", "AE", "certificate") for name in ("monitor", "scanner"))
    hourly = Hourly()

    due = [(hourly.is_due(monitor, at), hourly.is_due(scanner, at)) for at in (0.0, 5.0, 3599.0, 3600.0)]
    trail = Trail(folder, "DICOMNODE", Clock())
    for _ in range(3):
        trail.record(monitor)

    assert [(True, True), (False, False), (False, False), (True, True)] == due
    assert ["User Authentication: Login"] == [row["what"] for row in rows(folder)]


def test_check_looks_at_the_trail(folder: Path) -> None:
    """No record yet is fine; a broken chain is not."""
    config = Config(audit=Audit(folder=folder))

    before = checked(config)
    recorded(folder)
    whole = checked(config)
    file_of(folder).write_bytes(file_of(folder).read_bytes().replace(b"P3", b"P8"))

    assert before.startswith("no record yet")
    assert "5 records, whole" == whole
    with pytest.raises(AuditError, match=r"broken at audit-2026-11.*line 4: was changed"):
        checked(config)
