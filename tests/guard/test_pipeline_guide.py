"""docs/writing-a-pipeline.md is executed: its example is saved, found and run on a small study."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node import pipeline as authors_page
from dicom_node.config import Config, Node
from dicom_node.domain.pipeline import IntendedUse, Need
from dicom_node.infer.registry import DECLARED, pipelines
from dicom_node.node.offline import run_files
from support import mr
from support.source import ROOT

GUIDE = (ROOT / "docs" / "writing-a-pipeline.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pipelines with the guide's example in it, as the guide says to make one."""
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    made = tmp_path / "pipelines"
    made.mkdir()
    (made / "bladder_volume.py").write_text(code, encoding="utf-8")
    return made


def study(radius_mm: float, **attributes: object) -> list[pydicom.Dataset]:
    """An axial T2 series, 4 mm isotropic, of a bright ball in dim surroundings."""
    made = mr.mr_series(mr.T2, 32, rows=32, columns=32, pixel_mm=(4.0, 4.0), spacing_mm=4.0, **attributes)
    k, row, column = np.mgrid[0:32, 0:32, 0:32]
    inside = np.sqrt((k - 15.5) ** 2 + (row - 15.5) ** 2 + (column - 15.5) ** 2) * 4.0 <= radius_mm
    for number, ds in enumerate(made):
        ds.PixelData = np.where(inside[number], 1000, 100).astype(np.uint16).tobytes()
    return made


def run(folder: Path, tmp_path: Path, instances: list[pydicom.Dataset]) -> dict[str, object]:
    mr.write(instances, tmp_path / "study")
    config = Config(node=Node(pipelines_dir=folder))
    return run_files(config, "bladder_volume", tmp_path / "study", tmp_path / "out", "enforce")


def test_the_example_is_found(folder: Path) -> None:
    """A file in the folder is a pipeline; nothing has to be registered."""
    assert list(pipelines(folder)) == ["bladder_volume"]


def test_the_example_measures_a_ball(folder: Path, tmp_path: Path) -> None:
    """A ball of 40 mm radius holds 4/3 pi 4^3 = 268 ml: a full bladder, within the error of the grid."""
    report = run(folder, tmp_path, study(radius_mm=40.0))

    found = re.fullmatch(r"The bladder holds (\d+) ml\.", str(report["verdict"]))
    assert found
    assert float(found[1]) == pytest.approx(268, rel=0.05)
    assert report["probability"] == pytest.approx(1.0, abs=0.01)


def test_the_example_gives_the_objects_the_guide_names(folder: Path, tmp_path: Path) -> None:
    """Report, page, region, its outlines as a report and as a presentation state; readable as DICOM."""
    run(folder, tmp_path, study(radius_mm=40.0))

    made = sorted(pydicom.dcmread(path).Modality for path in (tmp_path / "out").glob("*.dcm"))
    assert made == ["OT", "PR", "SEG", "SR", "SR"]


def test_the_example_is_refused_outside_its_intended_use(folder: Path, tmp_path: Path) -> None:
    """The declared limits are guarded without a line of code in the pipeline."""
    report = run(folder, tmp_path, study(radius_mm=40.0, PatientAge="009Y", PatientBirthDate="20170101"))

    assert str(report["verdict"]).startswith("AI not performed, because ")


def test_the_guide_names_every_declared_attribute() -> None:
    """The table of what the node reads has all that makes a class a pipeline."""
    table = GUIDE.split("## What the node reads from the class")[1].split("##")[0]
    first = "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)
    named = set(re.findall(r"`(\w+)`", first))

    assert named == set(DECLARED) - {"run"}


def test_the_guide_imports_what_there_is() -> None:
    """Every name the guide takes from the authors' page is exported by it."""
    (names,) = re.findall(r"from dicom_node\.pipeline import \((.*?)\)", GUIDE, re.S)

    assert {name.strip() for name in names.split(",") if name.strip()} <= set(authors_page.__all__)
    assert {"Need", "IntendedUse", "Bundle", "NotPerformed", "PipelineError"} <= set(authors_page.__all__)
    assert (authors_page.Need, authors_page.IntendedUse) == (Need, IntendedUse)
