"""`make fuzz`: every fuzzer for a share of FUZZ_SECONDS, each round with another seed; totals at the end.

`python tests/fuzz/long.py SECONDS`. Exit status 1 where anything was found; inputs are kept in `fuzz-out`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from support import fuzz_sessions, fuzz_uploads  # noqa: E402 - after the path is set
from support.ports import free_port  # noqa: E402
from support.receiving import receiver_process  # noqa: E402
from support.stowing import web_process  # noqa: E402
from support.watch import Watch  # noqa: E402

OUT = TESTS.parent / "fuzz-out"
TARGETS = ("identify", "header", "command", "associate")
FOLDERS = ("bad_pwnlabmx", "dcm_orthanc_tests", "dcm_pydicom_data")
EVERY = 10**9


def data_sets(seed: int, seconds: float) -> dict[str, Any]:
    data = Path(os.environ.get("DICOM_NODE_TEST_DATA", TESTS.parent.parent / "shared" / "data"))
    folders = [str(data / name) for name in FOLDERS if (data / name).is_dir()]
    kept = OUT / "data-sets"
    kept.mkdir(parents=True, exist_ok=True)
    asked = [str(seed), str(EVERY), str(seconds), str(kept), *folders]
    done = subprocess.run(
        [sys.executable, "-m", "support.fuzz_data_sets", *asked],
        cwd=TESTS, capture_output=True, text=True, timeout=seconds + 120,
    )  # fmt: skip
    if done.returncode:
        return {"crashes": [f"seed {seed}: the process ended with {done.returncode}; {kept}/current made it"]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def sessions(seed: int, seconds: float) -> dict[str, Any]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, receiver_process(Path(folder) / "node", port) as process:
        return vars(
            fuzz_sessions.campaign(Watch(process.pid, Path(folder) / "node"), port, seed, EVERY, seconds)
        )


def uploads(seed: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, web_process(Path(folder) / "node") as (process, port):
        return vars(
            fuzz_uploads.campaign(Watch(process.pid, Path(folder) / "node"), port, seed, EVERY, seconds)
        )


def coverage_guided(target: str, seconds: float) -> dict[str, Any]:
    folder = OUT / target
    done = subprocess.run(
        [sys.executable, str(TESTS / "fuzz" / "coverage_guided.py"), target, str(int(seconds)), str(folder)],
        capture_output=True, text=True, timeout=seconds + 120,
    )  # fmt: skip
    counts = dict(
        line.split("stat::", 1)[1].split(":", 1) for line in done.stderr.splitlines() if "stat::" in line
    )
    crashes = [str(path) for path in folder.glob("*-*") if path.is_file()]
    if done.returncode and not crashes:
        crashes = [done.stderr[-500:]]
    return {
        "cases": int(counts.get("number_of_executed_units", 0)), "crashes": crashes,
        "slowest_s": float(counts.get("slowest_unit_time_sec", 0)),
        "highest_mib": int(counts.get("peak_rss_mb", 0)),
    }  # fmt: skip


def main() -> int:
    seconds, seed = float(sys.argv[1]), int(time.time())
    share = seconds / 6
    runs: dict[str, Any] = {
        "data sets": lambda: data_sets(seed, 2 * share),
        "sessions": lambda: sessions(seed, 2 * share),
        "uploads": lambda: uploads(seed, share),
    }
    if importlib.util.find_spec("atheris"):
        runs |= {f"atheris {name}": lambda name=name: coverage_guided(name, share / 4) for name in TARGETS}
    else:
        print('no coverage-guided fuzzing: pip install "dicom-node[fuzz]" brings atheris')
    found = 0
    print(f"seed {seed}")
    for name, run in runs.items():
        totals = run()
        found += len(totals["crashes"])
        print(
            f"{name:24} {totals.get('cases', 0):>10} cases {len(totals['crashes']):>4} crashes"
            f"  slowest {totals.get('slowest_s', 0):6.3f} s  memory {totals.get('highest_mib', 0):>5} MiB"
        )
        for crash in totals["crashes"]:
            print(f"    {crash}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
