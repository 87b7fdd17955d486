"""Bounded runs of every fuzzer, so that none rots: nothing is found, and what is aimed at is reached.

`make fuzz` runs the same campaigns for as long as one likes, with other seeds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support import fuzz_sessions, fuzz_uploads, pdus
from support.mutate import DATA_SET_MUTATORS, generated_seeds, mutated_data_set
from support.mutate_sessions import complete_data_sets, mutated_session
from support.ports import free_port
from support.receiving import receiver_process
from support.stowing import web_process
from support.watch import Watch

TESTS = Path(__file__).resolve().parent.parent
FOLDERS = ("bad_pwnlabmx", "dcm_orthanc_tests", "dcm_pydicom_data")
SEED = 20260101


def real_folders() -> list[str]:
    """Corpora of malformed and odd files, where there are any."""
    data = Path(os.environ.get("DICOM_NODE_TEST_DATA", TESTS.parent.parent / "shared" / "data"))
    return [str(data / name) for name in FOLDERS if (data / name).is_dir()]


def test_mutated_data_sets_are_read_or_refused(tmp_path: Path) -> None:
    """Identity, provenance, header and pixels: the node's own errors only, in bounded time and memory."""
    asked = [str(SEED), "600", "15", str(tmp_path), *real_folders()]
    done = subprocess.run(
        [sys.executable, "-m", "support.fuzz_data_sets", *asked],
        cwd=TESTS, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr[-2000:]
    totals = json.loads(done.stdout.splitlines()[-1])
    assert [] == totals["crashes"]
    assert totals["cases"] >= 20 and totals["highest_mib"] < 1024
    assert min(totals["outcomes"].get(name, 0) for name in ("identified", "header", "pixels")) > 0


def test_mutated_sessions_harm_nobody(tmp_path: Path) -> None:
    """PDUs, data values, items and commands: a good peer is served, nothing leaks, nothing half is stored."""
    port = free_port()
    with receiver_process(tmp_path / "node", port) as process:
        watch = Watch(process.pid, tmp_path / "node")
        totals = fuzz_sessions.campaign(watch, port, SEED, 500, 8.0)

    assert [] == totals.crashes
    assert totals.cases >= 20 and totals.stored > 0 and totals.highest_mib < 512


def test_mutated_uploads_harm_nobody(tmp_path: Path) -> None:
    """Multipart bodies, headers and lengths: never 500, nothing leaks, nothing half is stored."""
    with web_process(tmp_path / "node") as (process, port):
        totals = fuzz_uploads.campaign(Watch(process.pid, tmp_path / "node"), port, SEED, 250, 8.0)

    assert [] == totals.crashes
    assert totals.cases >= 20 and totals.stored > 1 and totals.highest_mib < 512


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is missing (extra `fuzz`)")
def test_coverage_guided_fuzzing_finds_nothing_in_a_few_seconds(tmp_path: Path) -> None:
    """What reads a stranger's bytes first raises the node's own errors and no others."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "fuzz" / "coverage_guided.py"), "all", "8", str(tmp_path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr[-3000:]
    assert [] == [path for path in tmp_path.iterdir() if path.name not in ("corpus", "object")]


def test_a_seed_makes_the_same_cases_each_time() -> None:
    """What was found once can be found again."""

    def made() -> list[bytes]:
        rng = random.Random(7)
        found = [mutated_data_set(rng, generated_seeds()) for _ in range(20)]
        return found + [mutated_session(rng, "1.2.3", bytes(1000)) for _ in range(20)]

    assert made() == made()


@pytest.mark.parametrize("mutator", DATA_SET_MUTATORS, ids=lambda mutator: str(mutator.__name__))
def test_every_mutator_changes_something(mutator: object) -> None:
    """Of every seed, at least once in a while."""
    rng = random.Random(1)

    for seed in generated_seeds()[:1]:
        assert any(seed != mutator(rng, seed) for _ in range(20))  # type: ignore[operator]


def test_a_data_set_is_complete_with_its_last_fragment_and_not_before() -> None:
    """Of the oracle that says which objects may have been stored."""
    data_set = bytes(range(256)) * 200
    whole = b"".join(pdus.session(("1.2.3", data_set), piece=1000))

    assert {data_set} == complete_data_sets(whole)
    end = whole.index(pdus.release_rq())
    assert set() == complete_data_sets(whole[: end - 1])
