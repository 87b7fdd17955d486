"""Files on disk, named by the digest of their bytes: `objects/ab/<digest>`.

Nothing from the network becomes a path. Bytes arrive in `spool/` on the same file system and
move into place once, complete and synced; what was left there by a killed process is swept.
Refused: a full disk and an fsync that fails, both as OutOfStorage. An fsync is never repeated:
after an error the kernel calls the lost pages clean, and a second fsync would say "all well".
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from dicom_node import log
from dicom_node.digest import hasher, is_digest_of
from dicom_node.domain.identity import Digest
from dicom_node.errors import IntegrityError, InvalidValue, OutOfStorage

Buffer = bytes | bytearray | memoryview

_START, _COUNTER = secrets.token_hex(8), itertools.count()

HEAD_BYTES = 65536
"""How much of the beginning a spool keeps at hand, to tell what is arriving."""


class Archive:
    """The folder `root`, shared by all processes of the node; it must be one file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._objects = root / "objects"
        self._spool = root / "spool"
        _make_folders(root, self._objects, self._spool)

    def spool(self) -> Spool:
        """A file to be filled piece by piece; use as a context manager. Raises OutOfStorage."""
        return Spool(self)

    def put(self, content: bytes) -> Digest:
        """Store whole bytes durably. Raises OutOfStorage."""
        with self.spool() as spool:
            spool.write(content)
            return spool.commit()

    def path(self, digest: Digest) -> Path:
        return self._objects / digest[:2] / digest

    def verified(self, digest: Digest) -> Path:
        """The path, its bytes hashed again. Raises IntegrityError if they changed or are gone."""
        path = self.path(digest)
        try:
            same = is_digest_of(digest, path)
        except OSError as error:
            raise IntegrityError(f"stored file {digest[:12]} cannot be read: {error.strerror}") from error
        if not same:
            raise IntegrityError(f"stored file {digest[:12]} is not what was received: its digest differs")
        return path

    def free_bytes(self) -> int:
        """What an ordinary user may still write. Raises OSError when the disk is gone."""
        disk = os.statvfs(self._objects)
        return disk.f_bavail * disk.f_frsize

    def sweep_spool(self) -> int:
        """Remove what killed processes left half written; returns how many. A living writer holds a lock."""
        return sum(_remove_if_abandoned(path) for path in list(self._spool.iterdir()))

    def digests(self) -> Iterator[Digest]:
        """Every object on disk, with or without a row; foreign files are passed over."""
        for folder in sorted(self._objects.iterdir()):
            for path in sorted(folder.iterdir()):
                with contextlib.suppress(InvalidValue):
                    yield Digest(path.name)

    def age_s(self, digest: Digest) -> float:
        """Seconds since the object's bytes were written; 0 when it is gone."""
        try:
            return max(0.0, time.time() - self.path(digest).stat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def _new_spool_path(self) -> str:
        """Never given twice, in no process: threads share the counter, forks differ in their number."""
        return f"{self._spool}/{_START}-{os.getpid()}-{next(_COUNTER)}.part"

    def _folder(self, digest: Digest) -> str:
        return f"{self._objects}/{digest[:2]}"


class Spool:
    """One object being written. Leaving the context without `commit` removes it.

    Mutable, one thread: the open file, its size, its hash.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._path = archive._new_spool_path()  # text: a Path costs more than the calls it is for
        self._hash = hasher()
        self._head = bytearray()
        self.size_bytes = 0
        try:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _no_room(error) from error
        fcntl.flock(self._fd, fcntl.LOCK_EX)  # tells `sweep_spool` that somebody is writing

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def head(self) -> bytes:
        """The first bytes, at most HEAD_BYTES."""
        return bytes(self._head)

    @property
    def path(self) -> Path:
        """Where the bytes are until `commit`: for a reader that needs more than the head."""
        return Path(self._path)

    def write(self, *buffers: Buffer) -> None:
        """Append all of them. Raises OutOfStorage when the disk is full or failing."""
        views = [memoryview(buffer) for buffer in buffers]
        for view in views:
            self._hash.update(view)
            self.size_bytes += len(view)
            if len(self._head) < HEAD_BYTES:
                self._head += view[: HEAD_BYTES - len(self._head)]
        try:
            written = os.writev(self._fd, views)
            for view in views:  # a write may be short, most of all on a disk that is nearly full
                view, written = view[written:], max(0, written - len(view))
                while view:
                    view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _no_room(error) from error

    def commit(self) -> Digest:
        """Make the bytes durable under their digest. Raises OutOfStorage; then nothing is stored.

        T1 and T3 rely on this order: fsync the file, so that the name never stands for fewer
        bytes; rename; fsync the folder, so that the name survives. Only then may a row say so.
        """
        digest = Digest(self._hash.hexdigest())
        folder = self._archive._folder(digest)
        try:
            os.fsync(self._fd)
            # An object of this name already there holds the same bytes, or damaged ones: replaced.
            os.rename(self._path, f"{folder}/{digest}")  # noqa: PTH104 - see __init__
        except OSError as error:
            self.close()
            raise _no_room(error) from error
        # From here on the file stays, whatever happens: an earlier row may stand on the name.
        os.close(self._fd)
        self._fd = -1
        try:
            _sync_folder(folder)
        except OSError as error:
            raise _no_room(error) from error
        return digest

    def close(self) -> None:
        """Remove what was not committed; harmless to repeat. What cannot be removed waits for the sweep."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.unlink(self._path)  # noqa: PTH108 - see __init__
            except FileNotFoundError:
                pass
            except OSError as error:
                log.problem("archive.not_removed", error=error.strerror)
            finally:
                os.close(fd)


def _no_room(error: OSError) -> OutOfStorage:
    return OutOfStorage(f"the archive cannot be written: {error.strerror}; the sender should try again later")


def _make_folders(root: Path, objects: Path, spool: Path) -> None:
    """All 256 folders at once: a folder made later would need its parent synced before each answer."""
    try:
        for folder in (root, objects, spool, *(objects / f"{number:02x}" for number in range(256))):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sync_folder(objects)  # also when another process made them: it may not have come this far
        _sync_folder(root)
    except OSError as error:
        raise OutOfStorage(f"the archive's folders cannot be made: {error.strerror}") from error


def _sync_folder(folder: Path | str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_if_abandoned(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
