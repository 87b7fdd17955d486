"""What a process holds, from /proc: memory, threads, descriptors, connections, files in its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from support.ports import wait_until


@dataclass(frozen=True)
class Held:
    threads: int
    descriptors: int
    sockets: int
    spooled: int
    """Files of data sets on their way."""


@dataclass(frozen=True)
class Watch:
    """One process of a receiver, and its data_dir."""

    pid: int
    folder: Path

    def memory_kib(self) -> int:
        return self._status("VmRSS")

    def highest_kib(self) -> int:
        """Ever since it began."""
        return self._status("VmHWM")

    def held(self) -> Held:
        links = []
        for entry in (Path("/proc") / str(self.pid) / "fd").iterdir():
            try:
                links.append(str(entry.readlink()))
            except FileNotFoundError:
                continue
        sockets = sum(link.startswith("socket:") for link in links)
        return Held(self._status("Threads"), len(links), sockets, len(self.spooled()))

    def spooled(self) -> list[Path]:
        return list((self.folder / "spool").iterdir())

    def returns_to(self, before: Held, within_s: float = 20.0, *, pool: int = 1) -> None:
        """Nothing of what came since `before` is still held.

        A lazily opened descriptor or two may stay, and the threads of a pool that is filled as needed.
        """

        def settled() -> bool:
            now = self.held()
            return (
                now.threads <= before.threads + pool and now.sockets <= before.sockets
                and now.descriptors <= before.descriptors + 4 and now.spooled == 0
            )  # fmt: skip

        wait_until(settled, within_s, lambda: f"held before: {before}, still held: {self.held()}")

    def _status(self, name: str) -> int:
        text = (Path("/proc") / str(self.pid) / "status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
        assert found is not None
        return int(found[1])


def tree(folder: Path) -> set[Path]:
    """Every path below a folder."""
    return set(folder.rglob("*"))
