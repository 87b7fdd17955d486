"""`dicom-node run`: a pipeline on files, without network and ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import Config, Node
from dicom_node.errors import UnreadableObject
from dicom_node.node.offline import readable, run_files
from support import mr

TOYS = Path(__file__).parent.parent / "support" / "toys"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(node=Node(data_dir=tmp_path / "data", pipelines_dir=TOYS))


def test_a_folder_gives_result_files_and_a_report_for_people(config: Config, tmp_path: Path) -> None:
    """The report says the verdict, what was chosen and why, and where the results are."""
    mr.write(mr.mr_series(slices=5), tmp_path / "study")

    report = readable(run_files(config, "answers", tmp_path / "study", tmp_path / "out", "enforce"))

    assert "Sarcoma, says a toy." == report["verdict"]
    assert "T2: chosen 1: T2 axial, 5 slices" in str(report["chosen"])
    assert ["01-sr.dcm", "02-sc.dcm"] == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_a_second_run_leaves_nothing_of_the_first(config: Config, tmp_path: Path) -> None:
    """Results of two runs never stand side by side; what is not a result is not touched."""
    mr.write(mr.mr_series(slices=5), tmp_path / "study")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "07-pm.dcm").write_bytes(b"an earlier run's")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    run_files(config, "answers", tmp_path / "study", tmp_path / "out", "enforce")

    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert ["01-sr.dcm", "02-sc.dcm", "notes.txt"] == left


def test_two_studies_in_one_folder_are_refused(config: Config, tmp_path: Path) -> None:
    """One study at a time: a result must not be about two people."""
    mr.write([*mr.mr_series(slices=2), *mr.mr_series(slices=2, study="other")], tmp_path / "studies")

    with pytest.raises(UnreadableObject, match="2 studies"):
        run_files(config, "answers", tmp_path / "studies", tmp_path / "out", "enforce")
