"""DCMTK's storescp as the PACS: strict, of another make, and it keeps data sets bit by bit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.ports import end, free_port, listens, wait_until


@dataclass(frozen=True)
class StoreScp:
    port: int
    folder: Path

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@contextmanager
def storescp(folder: Path, *options: str, ae_title: str = "STORESCP") -> Iterator[StoreScp]:
    """`storescp` on a free port, writing into `folder`. `+B` writes what comes off the wire at once."""
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("storescp is not installed (Debian: apt install dcmtk)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [program, "-aet", ae_title, "-od", str(folder), *(options or ("+B",)), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), 10.0, "storescp listens")
        yield StoreScp(port, folder)
    finally:
        end(process)
