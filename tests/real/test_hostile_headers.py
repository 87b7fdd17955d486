"""Whatever is in a file, reading its header ends soon, in facts or in UnreadableObject."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dicom_node.dicom.header import Identity, identify, read_header
from dicom_node.errors import UnreadableObject

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore"),  # as in production, where pydicom's warnings are only counted
]


def header_or_refusal(path: Path) -> dict[str, object] | UnreadableObject:
    try:
        return read_header(path)
    except UnreadableObject as error:
        return error


@pytest.mark.parametrize(
    "folder",
    ["bad_pwnlabmx", "dcm_orthanc_tests", "dcm_pydicom_data", "dcm_highdicom", "dcm_dcmqi", "mr_prostatex"],
)
def test_every_file_ends_in_facts_or_a_refusal(real_data: Path, folder: str) -> None:
    """Malformed, fuzzed, truncated, compressed: nothing else is raised, within a second each, and the
    facts survive the ledger's JSON unchanged."""
    paths = sorted(path for path in (real_data / folder).rglob("*") if path.is_file())
    assert paths

    for path in paths:
        started = time.process_time()
        found = header_or_refusal(path)
        assert time.process_time() - started < 1.0, path.name
        if isinstance(found, dict):
            assert found == json.loads(json.dumps(found, allow_nan=False)), path.name


def test_identify_agrees_with_the_header(real_data: Path) -> None:
    """The receiver's glance and the indexer's reading name the same instance, for every readable file."""
    paths = sorted((real_data / "dcm_orthanc_tests").rglob("*.dcm"))
    headers = [(path, found) for path in paths if isinstance(found := header_or_refusal(path), dict)]
    assert len(headers) > 60

    for path, found in headers:
        identity = glance(path)

        expected = (found["sop_instance_uid"], found["series_uid"])
        assert expected == (identity.sop_instance_uid, identity.series_uid)


def glance(path: Path) -> Identity:
    """As the receiver does it: the first bytes, and the file where a long sequence stands in the way."""
    try:
        return identify(path.read_bytes()[:65536], "1.2.840.10008.1.2.1")
    except UnreadableObject:
        return identify(path, "1.2.840.10008.1.2.1")
