"""Made again, a result is the same object: the same UIDs and bytes, on any day, in any process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.dicom import provenance
from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.findings import enhanced, found, pelvis, refused

ROOT = Path(__file__).resolve().parents[2]
_MAKE = """
import datetime, hashlib, json, sys, time
years = float(sys.argv[1])
real = time.time
time.time = lambda: real() + years * 31557600.0

class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

datetime.datetime = Clock
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.findings import enhanced, found, pelvis, refused
from dicom_node.encode.results import encode
folder = Path(sys.argv[3])
made = []
for study, findings in [(s, f) for s in (pelvis(folder), enhanced(folder)) for f in (found(s), refused())]:
    for result in encode(findings, study, input_key="k", pipeline="p", pipeline_version="1", title="T"):
        made.append([result.sop_instance_uid, hashlib.sha256(result.content).hexdigest()])
print(json.dumps({"year": Clock.now().year, "made": made}))
"""


def test_another_process_years_later_in_another_time_zone_writes_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of the clock, the time zone, the hash seed or chance gets into a result."""
    now = _made(tmp_path / "now", 0.0, TZ="UTC", PYTHONHASHSEED="1")
    later = _made(tmp_path / "later", 7.3, TZ="Asia/Tokyo", PYTHONHASHSEED="2")

    assert now["year"] != later["year"]
    assert now["made"] == later["made"]
    assert 13 + 2 + 10 + 2 == len(now["made"])


def _made(folder: Path, years: float, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", _MAKE, str(years), str(ROOT / "tests"), str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert not done.returncode, done.stderr
    made: dict[str, object] = json.loads(done.stdout)
    return made


def test_another_input_key_gives_other_objects(tmp_path: Path) -> None:
    """Input, models or configuration changed: no UID is used twice for different content."""
    study = pelvis(tmp_path)

    first, second = _uids(found(study), study, "one"), _uids(found(study), study, "two")

    assert not first & second
    assert 26 == len(first)


def test_another_version_of_the_node_gives_other_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer node may write other bytes, so it must not write them under the old UIDs."""
    study = pelvis(tmp_path)
    first = _uids(found(study), study, "one")

    monkeypatch.setattr(provenance, "SOFTWARE_VERSION", "999")

    assert not first & _uids(found(study), study, "one")


def test_no_uid_in_a_result_is_random(tmp_path: Path) -> None:
    """Dimension organisations, observers and tracking ids included: the sets of two runs are equal."""
    study = enhanced(tmp_path)
    contents = [
        [hashlib.sha256(r.content).hexdigest() for r in _encode(found(study), study, "k")] for _ in range(2)
    ]

    assert contents[0] == contents[1]
    assert [r.sop_instance_uid for r in _encode(refused(), study, "k")] != []


def _encode(findings: Findings, study: Study, key: str) -> tuple[ResultObject, ...]:
    return encode(findings, study, input_key=key, pipeline="p", pipeline_version="1", title="T")


def _uids(findings: Findings, study: Study, key: str) -> set[str]:
    objects = _encode(findings, study, key)
    return {result.sop_instance_uid for result in objects} | {result.series_uid for result in objects}
