"""Folders that are filled and emptied thousands of times, and children that are forked to work in them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crash.disk import Disk

Content = Mapping[str, bytes]
"""Name -> bytes; a folder's name ends with a slash."""


class Area:
    """One data_dir. `fill` makes it hold exactly what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def fill(self, content: Content) -> None:
        _empty(str(self.folder), content, "")
        for name in sorted(content):
            path = f"{self.folder}/{name}"
            if name.endswith("/"):
                if not os.path.isdir(path):  # noqa: PTH112 - thousands of them
                    os.mkdir(path)  # noqa: PTH102
            else:
                with open(path, "wb") as file:  # noqa: PTH123
                    file.write(content[name])

    def disk(self, content: Content) -> Disk:
        """A model of what it was filled with."""
        disk = Disk()
        disk.holds_folder("", os.stat(self.folder).st_ino)  # noqa: PTH116
        for name in sorted(content):
            inode = os.stat(f"{self.folder}/{name}").st_ino  # noqa: PTH116
            if name.endswith("/"):
                disk.holds_folder(name[:-1], inode)
            else:
                disk.holds(name, inode, content[name])
        return disk


def _empty(folder: str, keep: Content, prefix: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                os.unlink(entry.path)  # noqa: PTH108
            elif f"{prefix}{entry.name}/" in keep:
                _empty(entry.path, keep, f"{prefix}{entry.name}/")
            else:
                shutil.rmtree(entry.path)


@dataclass(frozen=True)
class Link:
    """Words between a child and who forked it, one per line."""

    reads: int
    writes: int

    def tell(self, word: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self.writes, f"{word}\n".encode())

    def hear(self) -> str:
        """The next word; "" when the other side is gone."""
        said = bytearray()
        while piece := os.read(self.reads, 1):
            if piece == b"\n":
                return said.decode()
            said += piece
        return ""

    def close(self) -> None:
        os.close(self.reads)
        os.close(self.writes)


class Child:
    """A fork of this process that does one thing and ends. What it prints goes to `log`."""

    def __init__(self, work: Callable[[Link], None], log: Path) -> None:
        down, up = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(down[1])
            os.close(up[0])
            _run(work, Link(down[0], up[1]), log)
        os.close(down[0])
        os.close(up[1])
        self.link = Link(up[0], down[1])

    def wait(self) -> int:
        """Its exit status; negative where a signal ended it."""
        self.link.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _run(work: Callable[[Link], None], link: Link, log: Path) -> None:
    """Never returns: nothing of the parent runs in the child."""
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        work(link)
        code = 0
    except BaseException:  # noqa: BLE001 - an edge: the status tells the parent, the log a person
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
