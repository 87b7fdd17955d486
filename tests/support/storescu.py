"""DCMTK's storescu as the scanner: sends a folder, and says of each file what was answered."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_FILE = re.compile(r"^I: Sending file: (.+)$")
_SUCCESS = re.compile(r"^I: Received Store Response \(Success\)")


@dataclass(frozen=True)
class Transmission:
    code: int
    acknowledged: frozenset[Path]
    """Files for which 0x0000 came back."""
    output: str


def storescu(
    folder: Path, port: int, *options: str,
    called: str = "DICOMNODE", calling: str = "STORESCU", timeout_s: float = 120.0,
) -> Transmission:  # fmt: skip
    """Send all of `folder` to loopback `port`; a failure ends the transmission, as at a scanner."""
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("storescu is not installed (Debian: apt install dcmtk)")
    command = [
        program, "-v", "-aet", calling, "-aec", called, "-to", "10", "-ta", "20", "-td", "20",
        *options, "+sd", "+r", "127.0.0.1", str(port), str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    output = done.stdout + done.stderr
    return Transmission(done.returncode, frozenset(_acknowledged(output)), output[-4000:])


def _acknowledged(output: str) -> list[Path]:
    found, current = [], None
    for line in output.splitlines():
        if sending := _FILE.match(line):
            current = Path(sending[1])
        elif _SUCCESS.match(line) and current is not None:
            found.append(current)
            current = None
    return found
