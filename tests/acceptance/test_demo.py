"""`dicom-node demo` and `bench latency`, as a person starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread

PROGRAM = Path(sys.executable).with_name("dicom-node")
FORMS = {
    "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.7",
}  # fmt: skip
"""Comprehensive 3D SR, Segmentation, Parametric Map, Secondary Capture."""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROGRAM), *words], capture_output=True, text=True, timeout=280, check=False)


def phantom(folder: Path) -> Path:
    """A small generated study with the sarcoma of the demo in it."""
    made = run("phantom", "--out", str(folder), "--cohort", "untouched", "--label", "sarcoma",
               "--slices", "90", "--matrix", "128")  # fmt: skip
    assert 0 == made.returncode, made.stderr
    return folder


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of the demo on a small study: its folder and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    study = phantom(folder / "study")
    return folder / "out", run("demo", "--input", str(study), "--out", str(folder / "out"))


def test_the_demo_ends_with_every_result_object(shown: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Exit code 0 means: SR, SEG, Parametric Map and Secondary Capture arrived at the PACS, in one study."""
    out, done = shown

    assert 0 == done.returncode, done.stdout + done.stderr
    received = [dcmread(path) for path in (out / "dicom").glob("*.dcm")]
    assert FORMS == {str(item.SOPClassUID) for item in received}
    assert 1 == len({str(item.StudyInstanceUID) for item in received})


def test_the_demo_says_the_same_in_words_page_and_json(
    shown: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The verdict on the terminal, in index.html and in result.json is the one of the SR."""
    out, done = shown
    result = json.loads((out / "result.json").read_text())
    verdict = result["verdict"]
    page = (out / "index.html").read_text()

    assert verdict["headline"] in done.stdout
    assert f"<h1>{verdict['headline']}</h1>" in page
    assert f"{100 * verdict['probability']:.1f}<i>%</i>" in page
    assert {"quiet time", "networks", "encode", "deliver"} <= {step["name"] for step in result["steps"]}
    assert {"0x0000"} == {item["status"] for item in result["results"]}


def test_the_demo_draws_what_it_received(shown: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The SC page and one picture per slice behind the verdict."""
    out, _ = shown
    kept = json.loads((out / "result.json").read_text())["verdict"]["kept"]

    assert (out / "previews" / "page.png").is_file()
    assert kept == len(list((out / "previews").glob("slice-*.png")))


def test_without_a_terminal_the_demo_speaks_in_lines(
    shown: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Each stage has its line, no control characters, no name of a patient."""
    _, done = shown

    for stage in ("receive", "assemble", "route", "infer", "encode", "deliver"):
        assert f"ok  {stage}" in done.stdout
    assert "\x1b" not in done.stdout
    assert "PHANTOM^" not in done.stdout + (shown[0] / "index.html").read_text()


def test_the_demo_leaves_nothing_running(shown: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The node, its parts and its ports are gone when the command ends; so are its data."""
    out, _ = shown
    config = (out / "node.toml").read_text()
    data_dir = next(line for line in config.splitlines() if line.startswith("data_dir")).split('"')[1]

    left = [
        process.pid for process in psutil.process_iter(["cmdline"])
        if any(str(out) in word for word in process.info["cmdline"] or ())
    ]  # fmt: skip
    assert [] == left
    assert not Path(data_dir).exists()


@pytest.mark.real
@pytest.mark.slow
def test_a_real_study_outside_the_intended_use_is_shown_aloud(tmp_path: Path, real_data: Path) -> None:
    """ProstateX is a male pelvis: the demo runs it and says in words and on the page that it should not."""
    study = real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0000"
    if not study.is_dir():
        pytest.skip(f"no {study.name}")

    done = run("demo", "--input", str(study), "--out", str(tmp_path / "out"))

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Outside its intended use" in " ".join(done.stdout.split())
    assert "shown because this is a demo" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_latency_is_measured_from_the_last_image_to_the_report() -> None:
    """`bench latency --json` names every step; they sum to the total; peaks of memory stand beside."""
    done = run("bench", "latency", "--slices", "45", "--json")
    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)

    steps = [value for name, value in told.items() if name.endswith(", s")]
    assert 9 == len(steps)
    assert pytest.approx(told["total_s"], abs=0.01) == sum(steps)
    assert 0 < told["receiver_peak_mb"] < told["worker_peak_mb"]
