"""The stand-in PACS of `dicom-node demo`."""

from __future__ import annotations

from pathlib import Path

from dicom_node.config import Peer
from dicom_node.deliver.scu import accepted_classes, echo, send
from dicom_node.demo.standin import StandInPacs
from dicom_node.dicom.status import Kind
from support.results import data_set_bytes, result_file, written
from support.scripted_scp import RESULT_CLASSES


def test_it_keeps_what_it_gets_as_files_and_notes_each_arrival(tmp_path: Path) -> None:
    """Every result kind is taken, unchanged; the same object twice is noted twice and kept once."""
    files = written(tmp_path / "archive", *(result_file(kind) for kind in RESULT_CLASSES))

    with StandInPacs(tmp_path / "pacs", "STANDIN") as pacs:
        peer = Peer(name="pacs", ae_title="STANDIN", host="127.0.0.1", port=pacs.port)
        assert 0.0 < echo(peer, "DICOMNODE", 5.0)
        classes = list(RESULT_CLASSES.values())
        assert set(classes) == accepted_classes(peer, "DICOMNODE", classes, 5.0)
        assert {Kind.SUCCESS} == {sent.kind for sent in send(peer, "DICOMNODE", [*files, files[0]], 5.0)}
        assert pacs.wait_for(lambda arrivals: len(arrivals) == 5, 5.0)

    assert 4 == len(list((tmp_path / "pacs").iterdir()))
    kept = [arrival.path.read_bytes() for arrival in pacs.arrivals if arrival.path is not None]
    assert [data_set_bytes(path.read_bytes()) for path in [*files, files[0]]] == [
        data_set_bytes(content) for content in kept
    ]
    assert {0x0000} == {arrival.status for arrival in pacs.arrivals}
