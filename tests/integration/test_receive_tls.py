"""The TLS port of the receiver, called by DCMTK and Orthanc: who gets in as whom, and what is audited."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from support.certificates import Hospital, hospital, self_signed
from support.mr import file_bytes, mr_series, write
from support.orthanc import orthanc
from support.ports import wait_until
from support.scu import associated, rejection
from support.secured import Node, node
from support.storescu import storescu

CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
"""A-ASSOCIATE-RJ (result, source, reason), PS3.8 9.3.4."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def opened(tmp_path: Path, made: Hospital) -> Iterator[Node]:
    with node(tmp_path / "node", made) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write(mr_series(slices=3), tmp_path / "images")
    return tmp_path / "images"


def test_certificate_and_ae_title_together_let_a_peer_in(opened: Node, images: Path) -> None:
    """DCMTK over TLS, with the certificate and the AE title of one peer: stored and acknowledged."""
    sent = opened.send(images, opened.made.peer, "SCANNER")

    assert (0, 3, 3) == (sent.code, len(sent.acknowledged), opened.stored())


@pytest.mark.parametrize("calling", ["OTHER", "PLAIN", "NOBODY"])
def test_a_certificate_does_not_open_another_ae_title(opened: Node, images: Path, calling: str) -> None:
    """Nobody speaks for another peer, not even for one without certificates: rejected, and in the trail."""
    sent = opened.send(images, opened.made.peer, calling)

    assert (0, 0) == (len(sent.acknowledged), opened.stored())
    assert "Calling AE Title Not Recognized" in sent.output
    assert calling in opened.audited()
    assert "Security Alert" in opened.audited()


def test_a_trusted_certificate_nobody_lists_opens_nothing(opened: Node, images: Path) -> None:
    """The authority says that it is genuine; which peer it is says the configuration alone."""
    unlisted = opened.made.authority.issue("unlisted")

    sent = opened.send(images, unlisted, "SCANNER")

    assert (0, 0) == (len(sent.acknowledged), opened.stored())
    assert "Calling AE Title Not Recognized" in sent.output


@pytest.mark.parametrize("which", ["stranger", "expired", "revoked", "self-signed", "none"])
def test_a_bad_certificate_ends_in_the_handshake(
    tmp_path: Path, made: Hospital, images: Path, which: str
) -> None:
    """Unknown authority, expired, revoked, its own, none at all: no association, and an alert."""
    shown = {
        "stranger": made.stranger, "expired": made.expired, "revoked": made.revoked,
        "self-signed": self_signed(tmp_path, "alone"),
    }.get(which)  # fmt: skip

    with node(tmp_path / "node", made, revoked=str(made.revocations)) as opened:
        if shown is None:
            authority = ("+cf", str(made.authority.file))
            sent = storescu(images, opened.receiver.tls_port, "+tla", *authority, calling="SCANNER")
        else:
            sent = opened.send(images, shown, "SCANNER")
        wait_until(lambda: "Security Alert" in opened.audited(), 10.0, "the refusal is in the trail")

        assert (0, 0) == (len(sent.acknowledged), opened.stored())


def test_a_peer_with_certificates_is_rejected_without_tls(opened: Node, images: Path) -> None:
    """Its AE title and address are no proof, so there is no way round; one without certificates gets in."""
    with associated(opened.receiver.port, calling="SCANNER") as scu:
        assert CALLING_AE_TITLE_NOT_RECOGNISED == rejection(scu)

    sent = storescu(images, opened.receiver.port, calling="PLAIN")

    assert 3 == len(sent.acknowledged)


def test_plain_dicom_at_the_tls_port_is_closed(opened: Node, images: Path) -> None:
    """An A-ASSOCIATE-RQ in the clear gets no association there, and no word that names the node."""
    sent = storescu(images, opened.receiver.tls_port, calling="PLAIN")

    assert (0, 0) == (len(sent.acknowledged), opened.stored())
    with socket.create_connection(("127.0.0.1", opened.receiver.tls_port), timeout=20.0) as connection:
        connection.sendall(b"\x01\0\0\0\x00\xcd\0\1\0\0" + b"DICOMNODE       PLAIN           ")
        answer = _last_words(connection)

    assert b"" == answer or answer.startswith(b"\x15\x03")  # nothing, or a TLS alert
    assert b"DICOMNODE" not in answer


def _last_words(connection: socket.socket) -> bytes:
    """All that comes until the other side closes; a test that waits too long fails."""
    said = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(4096):
            said += more
    return said


def test_orthanc_sends_by_tls(tmp_path: Path, made: Hospital) -> None:
    """Orthanc with DicomTlsEnabled and UseDicomTls as the PACS that sends a study."""
    with node(tmp_path / "node", made) as opened:
        settings = {
            "DicomTlsEnabled": True, "DicomTlsCertificate": str(made.peer.certificate),
            "DicomTlsPrivateKey": str(made.peer.private_key),
            "DicomTlsTrustedCertificates": str(made.authority.file),
            "DicomModalities": {
                "node": {
                    "AET": "DICOMNODE", "Host": "127.0.0.1", "Port": opened.receiver.tls_port,
                    "UseDicomTls": True,
                },
            },
        }  # fmt: skip
        with orthanc(tmp_path / "pacs", ae_title="SCANNER", settings=settings) as pacs:
            rest = f"http://127.0.0.1:{pacs.http_port}"
            for ds in mr_series(slices=3):
                file = file_bytes(ds)
                httpx.post(f"{rest}/instances", content=file, trust_env=False).raise_for_status()
            (study,) = pacs.studies()
            sent = httpx.post(
                f"{rest}/modalities/node/store", content=study["ID"], timeout=60.0, trust_env=False
            )

        assert 200 == sent.status_code
        assert 3 == opened.stored()
