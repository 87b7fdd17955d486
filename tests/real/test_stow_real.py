"""Real and malformed files by STOW-RS: stored bit for bit or refused with a reason, and the node goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.mr import mr_instance
from support.stowing import FAILED, OTHER, REFERENCED, body, content_type, stowing

pytestmark = pytest.mark.real

FOLDERS = (
    "bad_pwnlabmx", "dcm_orthanc_tests", "dcm_pydicom_data", "dcm_highdicom", "dcm_dcmqi", "mr_dcm_qa_canon",
    "mr_dcm_qa_enh", "mr_dcm_qa_nih", "mr_dcm_qa_philips", "mr_dcm_qa_xa30", "wsi_jcupitt",
)  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("unwanted", ["refuse", "store"])
def test_every_file_is_stored_or_refused(real_data: Path, tmp_path: Path, name: str, unwanted: str) -> None:
    """As many outcomes as parts, with a status of the store response; the stored ones hold the sent bytes."""
    contents = [path.read_bytes() for path in sorted((real_data / name).rglob("*")) if path.is_file()]
    parts = [content for content in contents if b"\r\n--a-boundary" not in content]
    assert parts, f"{name} is empty"
    with stowing(tmp_path, unwanted=unwanted) as door:
        for batch in batches(parts):
            answer = door.client.post("/studies", content=body(batch), headers=content_type())

            assert answer.status_code in (200, 202, 409), answer.text
            found = answer.json()
            assert len(batch) == sum(
                len(found.get(key, {"Value": []})["Value"]) for key in (REFERENCED, FAILED, OTHER)
            )
        assert [] == door.spooled()
        for data_set in door.data_sets().values():
            assert any(content.endswith(data_set) for content in parts)
        assert 200 == door.post(mr_instance()).status_code


def batches(parts: list[bytes]) -> list[list[bytes]]:
    return [parts[at : at + 20] for at in range(0, len(parts), 20)]
