"""A small hospital on loopback: Orthanc is the PACS, storescu the scanner, the node between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.orthanc import Orthanc, orthanc
from support.served import ServedNode, served


@pytest.fixture
def prostatex(real_data: Path) -> Path:
    """The folder of ProstateX-0000 with all its series as they come; skipped aloud where absent."""
    folder = real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0000"
    if not folder.is_dir():
        pytest.skip("ProstateX-0000 is not in DICOM_NODE_TEST_DATA")
    return folder


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc that refuses to overwrite what it has."""
    with orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def node(tmp_path: Path, pacs: Orthanc) -> Iterator[ServedNode]:
    """`dicom-node serve`, ready, with Orthanc as its PACS."""
    with served(tmp_path / "node", pacs.dicom_port) as running:
        yield running
