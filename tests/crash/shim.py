"""The C shim, built by gcc and loaded into this process by LD_PRELOAD."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).parent / "shim" / "crashpoint.c"
NEVER = 0
"""No call has this number."""


class Action(IntEnum):
    """What happens at the chosen call; the numbers are those of the C source."""

    KILL_BEFORE = 1
    KILL_AFTER = 2
    KILL_AMID = 3
    """Half of a write is written; any other call is left alone."""
    FAIL = 4
    FAIL_FROM = 5
    """And so does every call after it."""


def compiler() -> str | None:
    return shutil.which("gcc")


def compiled(folder: Path) -> Path:
    """The library; raises CalledProcessError with gcc's own words."""
    library = folder / "crashpoint.so"
    gcc = compiler()
    assert gcc is not None
    subprocess.run(
        [gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE, "-pthread"],
        check=True,
    )
    return library


class Shim:
    """The shim of this process. It is inherited, unarmed, by forked children."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.crashpoint_arm.argtypes = [
            ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int,
        ]  # fmt: skip
        self._library.crashpoint_count.restype = ctypes.c_long

    def arm(self, root: Path, journal: int, at: int, action: Action, error: int = 0) -> None:
        self._library.crashpoint_arm(os.fsencode(root), journal, at, int(action), error)

    def heal(self) -> None:
        """Faults are over."""
        self._library.crashpoint_heal()

    def count(self) -> int:
        """Crash points passed so far."""
        return int(self._library.crashpoint_count())
