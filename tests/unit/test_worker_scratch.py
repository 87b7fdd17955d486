"""The folder a job's results are written to before they are stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.errors import OutOfStorage
from dicom_node.node.worker import scratch


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
