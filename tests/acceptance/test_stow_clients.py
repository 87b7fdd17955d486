"""STOW-RS clients of other makes: dicomweb-client, and Orthanc with its DICOMweb plugin."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from support.mr import file_bytes, mr_instance, mr_series
from support.orthanc import orthanc
from support.receiving import after_file_meta
from support.stowing import TOKEN, Stowing, stowing

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Stowing]:
    with stowing(tmp_path / "node") as opened:
        yield opened


def dicomweb_store(port: int, data_sets: list[Dataset], study: str | None = None) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about its own
        api = pytest.importorskip("dicomweb_client.api", reason="pip install dicomweb-client")
        session = pytest.importorskip("requests").Session()
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        session.trust_env = False
        client = api.DICOMwebClient(url=f"http://127.0.0.1:{port}", session=session)
        stored: Dataset = client.store_instances(data_sets, study_instance_uid=study)
        session.close()
        return stored


def with_meta(ds: Dataset) -> Dataset:
    """As read from a file: dicomweb-client sends preamble and file meta information as they are."""
    return dcmread(BytesIO(file_bytes(ds)))


def test_dicomweb_client_reads_what_was_stored(door: Stowing) -> None:
    """Its data set of the response names every instance, none failed."""
    sent = [with_meta(ds) for ds in mr_series(slices=4)]

    answer = dicomweb_store(door.port, sent, str(sent[0].StudyInstanceUID))

    named = [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence]
    assert named == [ds.SOPInstanceUID for ds in sent] == [row[0] for row in door.rows()]
    assert "FailedSOPSequence" not in answer


def test_dicomweb_client_reads_what_failed(door: Stowing) -> None:
    """202 is a success to it, with the reason in the response."""
    good, bad = with_meta(mr_instance(index=1)), with_meta(mr_instance(SOPClassUID=SECONDARY_CAPTURE))

    answer = dicomweb_store(door.port, [good, bad])

    (failed,) = answer.FailedSOPSequence
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (bad.SOPInstanceUID, 0x0122)
    assert len(answer.ReferencedSOPSequence) == 1


def test_orthanc_sends_a_study(door: Stowing, tmp_path: Path) -> None:
    """What it holds arrives bit for bit, and it counts it as sent."""
    if not PLUGIN.exists():
        pytest.skip("Orthanc's DICOMweb plugin is not installed (Debian: apt install orthanc-dicomweb)")
    server = {
        "Url": f"http://127.0.0.1:{door.port}/",
        "HttpHeaders": {"Authorization": f"Bearer {TOKEN}"},
        "HasDelete": False,
    }
    settings = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Servers": {"node": server}}}
    sent = mr_series(slices=30)
    with orthanc(tmp_path / "orthanc", settings=settings) as pacs:
        url = f"http://127.0.0.1:{pacs.http_port}"
        for ds in sent:
            httpx.post(f"{url}/instances", content=file_bytes(ds), trust_env=False).raise_for_status()
        (study,) = pacs.get("/studies")
        held = {uid: pacs.file(one) for uid, one in pacs.by_sop_instance().items()}

        answer = httpx.post(
            f"{url}/dicom-web/servers/node/stow", json={"Resources": [study], "Synchronous": True},
            trust_env=False, timeout=120,
        )  # fmt: skip

        assert answer.status_code == 200, answer.text
    assert door.data_sets() == {uid: after_file_meta(file) for uid, file in held.items()}
    assert len(held) == len(sent)
