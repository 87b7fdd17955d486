"""Associations by TLS: to peers of other makes, to wrong ones and to silent ones; what a person reads."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node.config import Peer, Tls
from dicom_node.deliver.scu import echo, send
from dicom_node.dicom.status import Kind
from dicom_node.errors import DicomNodeError
from dicom_node.scu.association import _Socket
from dicom_node.scu.handshake import Handshake
from dicom_node.tls import server_context
from support.certificates import Authority, Hospital, Issued, hospital, self_signed
from support.orthanc import orthanc
from support.ports import end, free_port, listens, wait_until
from support.results import data_set_bytes, result_file, written
from support.scripted_scp import RESULT_CLASSES, silent
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


def test_a_peer_nobody_vouches_for_is_refused(made: Hospital, tmp_path: Path) -> None:
    """Unknown authority, and a device's own certificate that is not trusted: what to add, and where."""
    unknown = "shows a certificate that tls.trusted does not know: add its authority there"
    alone = self_signed(tmp_path, "alone")

    for issued in (made.stranger, alone):
        with server(issued) as port:
            assert unknown == said(pacs(port), made.tls())
            assert unknown == said(pacs(port, issued.fingerprint), made.tls())


def test_a_devices_own_certificate_may_be_trusted(made: Hospital, tmp_path: Path) -> None:
    """Self-signed, in tls.trusted and pinned: enough, as long as it has not expired."""
    good, old = self_signed(tmp_path, "good"), self_signed(tmp_path, "old", begins=-9, ends=-1)
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(good.certificate.read_text() + old.certificate.read_text())
    tls = made.tls(trusted=str(trusted))

    with storescp(tmp_path / "pacs", *dcmtk(made, good)) as scp:
        assert 0.0 < echo(pacs(scp.port, good.fingerprint), "DICOMNODE", WITHIN_S, tls=Tls(**tls))
    with server(old) as port:
        assert "shows a certificate that has expired: it needs a new one" == said(
            pacs(port, old.fingerprint), tls
        )


def test_expired_revoked_and_other_certificates_are_refused(made: Hospital, tmp_path: Path) -> None:
    """A certificate of the right authority is not enough: it must be valid, and this peer's."""
    lists = {"revoked": str(made.revocations)}
    elsewhere = made.authority.issue("elsewhere", hosts=["pacs.hospital.example"])

    with server(made.expired) as port:
        assert said(pacs(port), made.tls()).startswith("shows a certificate that has expired")
    with server(made.revoked) as port:
        assert "tls.revoked says is revoked" in said(pacs(port), made.tls(**lists))
    with server(made.other) as port:
        assert made.other.fingerprint in said(pacs(port, made.peer.fingerprint), made.tls())
    with server(elsewhere) as port:
        assert said(pacs(port), made.tls()).startswith("shows a certificate for other names than '127.0.0.1'")
        assert "is it a DICOM port" in said(pacs(port, elsewhere.fingerprint), made.tls(), 1.0)


def test_revocation_lists_must_be_there_and_fresh(made: Hospital, tmp_path: Path) -> None:
    """A list of each authority, and none out of date: else nothing it issued can be told from revoked."""
    authority = Authority(tmp_path, "second")
    issued = authority.issue("second-peer")
    trusted = tmp_path / "both.pem"
    trusted.write_text(made.authority.file.read_text() + authority.file.read_text())
    tls = made.tls(trusted=str(trusted), revoked=str(made.revocations))

    with server(issued) as port:
        assert "whose authority has no list in tls.revoked" in said(pacs(port), tls)
        stale = made.tls(trusted=str(trusted), revoked=str(authority.revoke(ends=-1)))
        assert "a list in tls.revoked is out of date" in said(pacs(port), stale)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_peer_that_does_not_know_our_certificate_says_so(
    made: Hospital, tmp_path: Path, version: str
) -> None:
    """Also in TLS 1.3, where the refusal comes when the handshake looks done (RFC 8446 4.4.2.4)."""
    foreign = made.tls(certificate=str(made.stranger.certificate), private_key=str(made.stranger.private_key))
    ca = ("-CAfile", str(made.authority.file), "-Verify", "1", "-verify_return_error")

    with server(made.peer, version, *ca) as port:
        sentence = said(pacs(port), foreign)

    assert "does not know the one in tls.certificate: enter its authority there" in sentence or (
        "does it know the certificate in tls.certificate?" in sentence  # the connection's end was faster
    )


def test_a_peer_without_tls_is_said_plainly(made: Hospital, tmp_path: Path) -> None:
    """A plain DICOM port behind `tls = true`, and a TLS port behind `tls = false`."""
    with storescp(tmp_path / "plain") as scp:
        assert f"port {scp.port}" in said(pacs(scp.port), made.tls())
        assert "speak TLS" in said(pacs(scp.port), made.tls())
    with storescp(tmp_path / "tls", *dcmtk(made, made.peer)) as scp:
        plain = pacs(scp.port).model_copy(update={"tls": False})

        assert "does it want TLS?" in said(plain, made.tls())


def test_old_versions_and_suites_are_refused(made: Hospital) -> None:
    """RFC 8996: nothing below 1.2; RFC 9325: nothing without forward secrecy and AEAD."""
    old = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")

    with server(made.peer, *old) as port:
        assert said(pacs(port), made.tls()).startswith("speaks no TLS of version 1.2 or 1.3")
    with server(made.peer, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256") as port:
        assert said(pacs(port), made.tls()).startswith("finds nothing in common")


@pytest.mark.parametrize(
    ("reply", "drip"), [(b"", False), (b"\x16\x03\x03\x7f\x00", True)], ids=["silent", "drips"]
)
def test_a_handshake_that_does_not_end_costs_its_timeout(made: Hospital, reply: bytes, *, drip: bool) -> None:
    """A port that takes the connection and says nothing, or a record that drips."""
    started = time.monotonic()

    with silent(reply, drip=drip) as port:
        sentence = said(pacs(port), made.tls(), timeout_s=1.0)

        assert time.monotonic() - started < 8.0
    assert "took the connection but did not answer within 1 s: is it a DICOM port with TLS?" == sentence


def test_unusable_files_of_our_own_hold_results_back(made: Hospital, tmp_path: Path) -> None:
    """A missing key is mended by a person: the results wait, with the key's name in the reason."""
    files = written(tmp_path, result_file("sr"))
    tls = Tls(**made.tls(private_key=str(tmp_path / "none.key")))

    (outcome,) = send(pacs(104), "DICOMNODE", files, WITHIN_S, tls=tls)

    assert (Kind.RETRY_LATER, False) == (outcome.kind, outcome.tried)
    assert outcome.sentence.startswith("PACS 'pacs' is spoken to by TLS: tls.private_key: cannot read")


def test_nothing_is_sent_in_the_clear(made: Hospital) -> None:
    """The first bytes a TLS peer gets are a ClientHello: no A-ASSOCIATE-RQ with AE titles, ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        heard: list[bytes] = []

        def listen() -> None:
            with listening.accept()[0] as connection:
                connection.settimeout(WITHIN_S)
                heard.append(connection.recv(65536))

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        said(pacs(listening.getsockname()[1]), made.tls(), timeout_s=2.0)
        listener.join(WITHIN_S)

    assert [b"\x16\x03\x01"] == [first[:3] for first in heard]
    assert b"DICOMNODE" not in heard[0]


def test_messages_of_tls_itself_are_not_taken_for_the_peers(made: Hospital) -> None:
    """Session tickets arrive, no word of the peer: reading would wait for one while ours cannot be sent."""
    listening = server_context(Tls(**made.tls()))
    listening.num_tickets = 2
    handshake = Handshake.of(pacs(104), Tls(**made.tls()))
    ours, theirs = socket.socketpair()
    hold = threading.Event()
    threading.Thread(target=_tickets_then_a_word, args=(listening, theirs, hold), daemon=True).start()

    with theirs, handshake.wrapped(ours) as secured:
        handshake.shake(secured)
        transport = _Socket(SimpleNamespace(dul=SimpleNamespace(event_queue=Queue())), client_socket=secured)
        select.select([secured], [], [], WITHIN_S)
        tickets_only = transport.ready
        hold.set()
        wait_until(lambda: transport.ready, WITHIN_S, "the word is seen")

        assert (False, bytearray(b"word")) == (tickets_only, transport.recv(4))


def _tickets_then_a_word(context: ssl.SSLContext, connection: socket.socket, hold: threading.Event) -> None:
    with context.wrap_socket(connection, server_side=True) as secured:
        hold.wait(WITHIN_S)
        secured.sendall(b"word")
        with suppress(OSError):
            secured.recv(1)
