"""Shared by all tests: where real data is, and nothing on the network beyond loopback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real DICOM; the test is skipped aloud where it is absent."""
    folder = Path(os.environ.get("DICOM_NODE_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: DICOM_NODE_TEST_DATA is not a folder ({folder.name})")
    return folder
