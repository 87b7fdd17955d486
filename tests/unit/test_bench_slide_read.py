"""The benchmark of reading slides runs, and compares with who is installed."""

from __future__ import annotations

import json

import pytest

from dicom_node.bench.slide_read import measure


@pytest.mark.filterwarnings("ignore")  # peers' own
def test_slides_are_read_beside_their_peers() -> None:
    """Each of the readers decodes the frames and finds them; a ratio says how often it was measured."""
    found = json.loads(json.dumps(measure(tiles=9, frames=400, rounds=2)))

    speeds, ratios = found["decoding"]["frames per second"], found["decoding"]
    assert {"dicom-node", "wsidicom", "openslide"} <= speeds.keys() and min(speeds.values()) > 0
    assert "n=2)" in ratios["times the processor time of this reader"]["wsidicom"]
    for table in (
        "extended offset table",
        "basic offset table",
        "no offset table",
        "no offset table, sparse",
    ):
        assert {"dicom-node", "pydicom"} < found["indexing"][table]["milliseconds"].keys()
