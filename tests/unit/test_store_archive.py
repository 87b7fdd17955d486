"""The archive: content-addressed, durable in a stated order, swept of what was never finished."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from dicom_node.domain.identity import Digest
from dicom_node.errors import IntegrityError, OutOfStorage
from dicom_node.store.archive import HEAD_BYTES, Archive

CONTENT = b"a slice"
NAME = Digest(blake3(CONTENT).hexdigest())


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def spooled(archive: Archive) -> list[Path]:
    return list((archive.path(NAME).parent.parent.parent / "spool").iterdir())


def is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def test_a_file_is_named_by_its_bytes(archive: Archive, tmp_path: Path) -> None:
    """`objects/ab/<digest>`; nothing else about it is in the name, and nobody else may read it."""
    assert NAME == archive.put(CONTENT)
    assert tmp_path / "objects" / NAME[:2] / NAME == archive.path(NAME)
    assert CONTENT == archive.path(NAME).read_bytes()
    assert (0o600, 0o700) == (
        archive.path(NAME).stat().st_mode & 0o777, archive.path(NAME).parent.stat().st_mode & 0o777
    )  # fmt: skip


def test_bytes_arrive_in_pieces(archive: Archive) -> None:
    """A spool knows its size and the first 64 KiB, and holds no more than that in memory."""
    pieces = [bytes([number]) * 50_000 for number in range(4)]
    with archive.spool() as spool:
        for piece in pieces:
            spool.write(memoryview(piece))

        assert 200_000 == spool.size_bytes
        assert b"".join(pieces)[:HEAD_BYTES] == spool.head
        digest = spool.commit()

    assert b"".join(pieces) == archive.verified(digest).read_bytes()
    assert [] == spooled(archive)


def test_leaving_without_commit_leaves_nothing(archive: Archive) -> None:
    """An aborted transfer has no file, neither in the spool nor among the objects."""
    with archive.spool() as spool:
        spool.write(CONTENT)
        assert 1 == len(spooled(archive))

    assert ([], []) == (spooled(archive), list(archive.digests()))


def test_the_order_of_a_commit(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsync of the file, rename, fsync of the folder: any other order can lose acknowledged bytes."""
    order = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(fd: int) -> None:
        order.append("fsync folder" if is_folder(fd) else "fsync file")
        fsync(fd)

    def watched_rename(source: Path, target: Path) -> None:
        order.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)

    archive.put(CONTENT)

    assert ["fsync file", "rename", "fsync folder"] == order


def test_a_failed_fsync_is_not_repeated(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error the kernel calls the lost pages clean: the file is removed, OutOfStorage."""
    calls = []

    def failing(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)

    with pytest.raises(OutOfStorage, match="Input/output error"):
        archive.put(CONTENT)

    assert 1 == len(calls)
    assert ([], []) == (spooled(archive), list(archive.digests()))


def test_a_failed_folder_fsync_keeps_what_was_acknowledged_before(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes again, and the folder cannot be synced: refused, and the earlier object stands."""
    archive.put(CONTENT)
    fsync = os.fsync

    def failing(fd: int) -> None:
        if is_folder(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)

    with pytest.raises(OutOfStorage):
        archive.put(CONTENT)

    assert CONTENT == archive.verified(NAME).read_bytes()


def test_a_file_that_cannot_be_removed_costs_nothing_but_its_space(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails for good: OutOfStorage all the same, no descriptor is kept, the sweep removes it."""

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        broken.setattr(os, "unlink", failing)
        with pytest.raises(OutOfStorage):
            archive.put(CONTENT)

    assert before == len(list(Path("/proc/self/fd").iterdir()))
    assert (1, 1, []) == (len(spooled(archive)), archive.sweep_spool(), spooled(archive))


def test_a_disk_that_takes_no_more_is_out_of_storage(tmp_path: Path) -> None:
    """A real refused write (a file size limit): OutOfStorage, and nothing left behind."""
    program = (
        "import signal, sys; from pathlib import Path\n"
        "from dicom_node.store.archive import Archive; from dicom_node.errors import OutOfStorage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"archive = Archive(Path({str(tmp_path)!r}))\n"
        "try: archive.put(bytes(100_000))\n"
        "except OutOfStorage: sys.exit(7)\n"
    )

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run([sys.executable, "-B", "-c", program], preexec_fn=limited, check=False)

    assert 7 == done.returncode
    assert [] == spooled(Archive(tmp_path))


def test_the_same_bytes_twice_are_one_file(archive: Archive) -> None:
    """Storing again replaces the file by itself, and repairs one that was damaged."""
    archive.put(CONTENT)
    archive.path(NAME).write_bytes(b"rotten!")

    archive.put(CONTENT)

    assert [NAME] == list(archive.digests())
    assert archive.path(NAME) == archive.verified(NAME)


def test_a_damaged_file_is_seen_before_use(archive: Archive) -> None:
    """One changed byte, or no file at all: IntegrityError, without a path in the sentence."""
    archive.put(CONTENT)
    archive.path(NAME).write_bytes(b"A slice")
    with pytest.raises(IntegrityError, match="its digest differs"):
        archive.verified(NAME)

    archive.path(NAME).unlink()

    with pytest.raises(IntegrityError, match="No such file"):
        archive.verified(NAME)


def test_sweeping_spares_the_living(archive: Archive) -> None:
    """What a killed process left is removed; what somebody is writing just now is not."""
    (archive.path(NAME).parent.parent.parent / "spool" / "left.part").write_bytes(CONTENT)
    with archive.spool() as spool:
        spool.write(CONTENT)

        assert 1 == archive.sweep_spool()
        assert NAME == spool.commit()

    assert 0 == archive.sweep_spool()


def test_foreign_files_are_no_objects(archive: Archive) -> None:
    """A file that somebody put among the objects is passed over."""
    archive.put(CONTENT)
    (archive.path(NAME).parent / "README").write_text("x")

    assert [NAME] == list(archive.digests())


def test_an_archive_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A file where the folder should be: OutOfStorage at start, not at the first image."""
    (tmp_path / "objects").write_text("")

    with pytest.raises(OutOfStorage, match="folders cannot be made"):
        Archive(tmp_path)
