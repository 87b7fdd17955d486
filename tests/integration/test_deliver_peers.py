"""Delivering to archives of other makes: DCMTK's storescp and Debian's Orthanc."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import Peer
from dicom_node.deliver.scu import accepted_classes, echo, send
from dicom_node.dicom.status import Kind
from support.orthanc import Orthanc, orthanc
from support.results import data_set_bytes, result_file, written
from support.scripted_scp import RESULT_CLASSES
from support.storescp import storescp


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return written(tmp_path / "archive", *(result_file(kind) for kind in RESULT_CLASSES))


def of(pacs: Orthanc) -> Peer:
    return Peer(name="pacs", ae_title=pacs.ae_title, host="127.0.0.1", port=pacs.dicom_port)


def test_storescp_gets_the_stored_bytes(tmp_path: Path, files: list[Path]) -> None:
    """DCMTK writes the data set it read from the wire: it equals the one in the archive."""
    with storescp(tmp_path / "received") as scp:
        peer = Peer(name="scp", ae_title="STORESCP", host="127.0.0.1", port=scp.port)
        outcome = list(send(peer, "DICOMNODE", files, 10.0))
        assert echo(peer, "DICOMNODE", 5.0) < 5.0

    assert [Kind.SUCCESS] * 4 == [sent.kind for sent in outcome]
    stored = sorted(data_set_bytes(path.read_bytes()) for path in files)
    assert stored == sorted(data_set_bytes(path.read_bytes()) for path in scp.files())


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_same_object_twice_stands_once_in_orthanc(
    tmp_path: Path, files: list[Path], overwrite: bool
) -> None:
    """A repeat after a lost answer is the same object in the PACS, and its bytes are those sent."""
    with orthanc(tmp_path / "orthanc", overwrite=overwrite) as pacs:
        for _ in range(2):
            outcome = list(send(of(pacs), "DICOMNODE", files, 10.0))
            assert [Kind.SUCCESS] * 4 == [sent.kind for sent in outcome]

        assert 4 == pacs.count()
        assert 1 == len(pacs.studies())
        held = sorted(data_set_bytes(pacs.file(one)) for one in pacs.by_sop_instance().values())
    assert sorted(data_set_bytes(path.read_bytes()) for path in files) == held


def test_orthanc_accepts_all_result_classes_and_echo(tmp_path: Path) -> None:
    """What `dicom-node check` prints for it."""
    classes = list(RESULT_CLASSES.values())

    with orthanc(tmp_path / "orthanc") as pacs:
        assert set(classes) == accepted_classes(of(pacs), "DICOMNODE", classes, 10.0)
        assert echo(of(pacs), "DICOMNODE", 5.0) < 5.0


def test_orthanc_called_by_a_wrong_title_is_said_plainly(tmp_path: Path, files: list[Path]) -> None:
    """PS3.8 Table 9-21, called AE title not recognised."""
    with orthanc(tmp_path / "orthanc") as pacs:
        wrong = Peer(name="pacs", ae_title="WRONG", host="127.0.0.1", port=pacs.dicom_port)
        (outcome,) = send(wrong, "DICOMNODE", files[:1], 10.0)

    expected = "PACS 'pacs' does not answer to called AE 'WRONG': correct `ae_title` of this peer"
    assert (Kind.RETRY_LATER, expected) == (outcome.kind, outcome.sentence)
