"""The folder a job's results are written to before they are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import OutOfStorage
from dicom_node.node.worker import RESUME, scratch, sweep_resume


def test_a_disk_without_room_for_it_is_no_reason_to_die(tmp_path: Path) -> None:
    """The job is tried again later; the error says what the disk said."""
    (tmp_path / "scratch").write_bytes(b"in the way")

    with (
        pytest.raises(OutOfStorage, match="cannot be made: Not a directory"),
        scratch(tmp_path, "worker:1"),
    ):
        pass


def test_it_is_gone_afterwards(tmp_path: Path) -> None:
    with scratch(tmp_path, "worker:1") as folder:
        (folder / "01-sr.dcm").write_bytes(b"result")

    assert not folder.exists()


def test_what_a_live_job_kept_stays_and_the_rest_goes(tmp_path: Path) -> None:
    """After a crash the next attempt finds it; of a job that ended nothing is left."""
    for name in ("7", "8", "stray"):
        (tmp_path / RESUME / name).mkdir(parents=True)
        (tmp_path / RESUME / name / "step.npz").write_bytes(b"done so far")

    sweep_resume(tmp_path, frozenset({8}))

    assert ["8"] == [folder.name for folder in (tmp_path / RESUME).iterdir()]
    assert b"done so far" == (tmp_path / RESUME / "8" / "step.npz").read_bytes()
