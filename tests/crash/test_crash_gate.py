"""No crash loses what was acknowledged: a part of the walk that `make crash` does in full.

See docs/durability.md. The walk runs in processes of its own, with the shim loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crash.controls import CONTROLS
from crash.shim import compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="no gcc: the crash gate's shim cannot be built")

Line = dict[str, Any]


@pytest.fixture(scope="module")
def walked() -> list[Line]:
    """What the walk said: a line per task, and the sum."""
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "crash", "--part", "--jobs", "2"],
        cwd=tests, env={**os.environ, "PYTHONPATH": str(tests)}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines and "total" in lines[-1], done.stderr[-2000:]
    return lines


def tasks(walked: list[Line], name: str, *, control: bool = False) -> list[Line]:
    found = [line for line in walked if line.get("name") == name and line["control"] is control]
    assert found, f"{name} was not walked"
    return found


@pytest.mark.parametrize(
    "workload",
    ["first start", "receive", "receive, 3 associations", "assemble", "results", "deliver"],
)
def test_no_crash_point_loses_or_doubles_anything(walked: list[Line], workload: str) -> None:
    """Killed, or with the power: what was acknowledged is there, and the work comes to its end."""
    killed = [line for line in tasks(walked, workload) if not line["error"]]

    assert [] == [loss for line in killed for loss in line["first"]]
    assert 0 < sum(line["kills"] for line in killed)
    assert sum(line["kills"] for line in killed) <= sum(line["power_losses"] for line in killed)


@pytest.mark.parametrize("workload", ["receive", "assemble", "results", "deliver"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_disk_that_fails_is_survived(walked: list[Line], workload: str, error: str) -> None:
    """One call fails, or all from there on: no false success, and service as before afterwards."""
    failed = [line for line in tasks(walked, workload) if line["error"] == error]

    assert [] == [loss for line in failed for loss in line["first"]]
    assert {"FAIL", "FAIL_FROM"} == {line["action"] for line in failed}
    assert all(line["faults"] > 0 for line in failed)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_node_that_loses_images_is_caught(walked: list[Line], control: str) -> None:
    """The gate can fail: it sees each of the mistakes that it is there for."""
    (line,) = tasks(walked, control, control=True)

    assert 0 < line["acknowledged_and_lost"]


def test_all_processes_of_the_walk_came_to_their_end(walked: list[Line]) -> None:
    assert [] == walked[-1]["not_caught"]
    assert len(CONTROLS) == walked[-1]["controls"]
    assert 0 == walked[-1]["failed"]
