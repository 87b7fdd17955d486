"""Associations by TLS: to peers of other makes, to wrong ones and to silent ones; what a person reads."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Peer, Tls
from dicom_node.deliver.scu import echo, send
from dicom_node.dicom.status import Kind
from dicom_node.errors import DicomNodeError
from support.certificates import Hospital, Issued, hospital
from support.orthanc import orthanc
from support.ports import end, free_port, listens, wait_until
from support.results import data_set_bytes, result_file, written
from support.scripted_scp import RESULT_CLASSES
from support.storescp import storescp

WITHIN_S = 10.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital(tmp_path_factory.mktemp("certificates"))


def pacs(port: int, *fingerprints: str, host: str = "127.0.0.1", ae_title: str = "STORESCP") -> Peer:
    return Peer(name="pacs", ae_title=ae_title, host=host, port=port, tls=True, certificates=fingerprints)


def said(peer: Peer, tls: dict[str, Any], timeout_s: float = WITHIN_S) -> str:
    """What an operator reads of a peer that cannot be spoken to."""
    with pytest.raises(DicomNodeError) as raised:
        echo(peer, "DICOMNODE", timeout_s, tls=Tls(**tls))
    return str(raised.value).replace(f"PACS 'pacs' (127.0.0.1 port {peer.port}) ", "")


def dcmtk(made: Hospital, issued: Issued, *more: str) -> tuple[str, ...]:
    """Options of storescp for TLS with `issued`, requiring a certificate of the caller."""
    files = [str(issued.private_key), str(issued.certificate), "+cf", str(made.authority.file)]
    return ("+B", "+tls", *files, "-rc", *more)


@contextmanager
def server(issued: Issued, *options: str) -> Iterator[int]:
    """`openssl s_server`: a TLS port that is no DICOM."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    port = free_port()
    files = ["-cert", str(issued.certificate), "-key", str(issued.private_key)]
    command = [program, "s_server", "-accept", f"127.0.0.1:{port}", *files, "-quiet", *options]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: listens(port), WITHIN_S, "s_server listens")
        yield port
    finally:
        end(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("pinned", [False, True], ids=["by host name", "by pin"])
def test_results_reach_dcmtk_by_mutual_tls(made: Hospital, tmp_path: Path, *, pinned: bool) -> None:
    """Every result kind, byte for byte, over TLS with a certificate on both sides."""
    files = written(tmp_path, *(result_file(kind) for kind in RESULT_CLASSES))

    with storescp(tmp_path / "pacs", *dcmtk(made, made.peer)) as scp:
        peer = pacs(scp.port, *[made.peer.fingerprint] * pinned)
        outcome = list(send(peer, "DICOMNODE", files, WITHIN_S, tls=Tls(**made.tls())))
        arrived = {data_set_bytes(path.read_bytes()) for path in scp.files()}

    assert [Kind.SUCCESS] * 4 == [one.kind for one in outcome]
    assert {data_set_bytes(path.read_bytes()) for path in files} == arrived


def test_a_large_result_goes_by_tls(made: Hospital, tmp_path: Path) -> None:
    """20 MB in many records, unchanged."""
    content = result_file("seg", padding_bytes=20_000_000)

    with storescp(tmp_path / "pacs", *dcmtk(made, made.peer)) as scp:
        (outcome,) = send(
            pacs(scp.port), "DICOMNODE", written(tmp_path, content), 30.0, tls=Tls(**made.tls())
        )
        (arrived,) = [path.read_bytes() for path in scp.files()]

    assert Kind.SUCCESS == outcome.kind
    assert data_set_bytes(content) == data_set_bytes(arrived)


def test_results_reach_orthanc_by_mutual_tls(made: Hospital, tmp_path: Path) -> None:
    """Orthanc with DicomTlsEnabled and DicomTlsRemoteCertificateRequired takes the results and C-ECHO."""
    files = written(tmp_path, *(result_file(kind) for kind in RESULT_CLASSES))

    with orthanc(tmp_path / "pacs", settings=orthanc_tls(made, made.peer)) as archive:
        peer = pacs(archive.dicom_port, ae_title=archive.ae_title)
        outcome = list(send(peer, "DICOMNODE", files, WITHIN_S, tls=Tls(**made.tls())))
        foreign = made.tls(
            certificate=str(made.stranger.certificate), private_key=str(made.stranger.private_key)
        )

        assert "does not know the one in tls.certificate" in said(peer, foreign)
    assert [Kind.SUCCESS] * 4 == [one.kind for one in outcome]


def orthanc_tls(made: Hospital, issued: Issued) -> dict[str, object]:
    return {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(issued.certificate),
        "DicomTlsPrivateKey": str(issued.private_key),
        "DicomTlsTrustedCertificates": str(made.authority.file),
        "DicomTlsRemoteCertificateRequired": True,
    }
