"""STOW-RS over https and over bad lines: who the server is, and that every request ends."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Peer, Tls
from dicom_node.deliver import scu, stow
from dicom_node.dicom.status import Kind
from dicom_node.errors import DeliveryError
from dicom_node.tls import server_context
from support.certificates import Hospital, Issued, hospital, self_signed
from support.deliveries import Bench
from support.dicomweb import DRIP, DicomWeb
from support.results import result_file, written
from support.scripted_scp import silent

SR = result_file("sr")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path,) = written(tmp_path / "files", SR)
    return path


def server(issued: Issued) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.private_key)
    return context


def sent(
    made: Hospital, pacs: DicomWeb, file: Path, *, host: str = "127.0.0.1", tls: Tls | None = None,
    timeout_s: float = 5.0, **peer: Any,
) -> scu.Sent:  # fmt: skip
    url = pacs.url.replace("127.0.0.1", host)
    to = Peer.model_validate({"name": "pacs", "ae_title": "PACS", "host": "elsewhere", "url": url, **peer})
    (outcome,) = stow.send(to, [file], timeout_s, tls=tls or Tls.model_validate(made.tls()))
    return outcome


def test_the_right_fingerprint_is_enough_beside_trust(made: Hospital, file: Path) -> None:
    """As for DIMSE by TLS: with a fingerprint the certificate need not carry the name in `url`."""
    other_name = made.authority.issue("other-name", hosts=("pacs.elsewhere",))
    with DicomWeb(tls=server(other_name)) as pacs:
        assert Kind.SUCCESS is sent(made, pacs, file, certificates=[other_name.fingerprint]).kind
        refused = sent(made, pacs, file)

    assert [SR] == pacs.files()
    assert Kind.RETRY_LATER is refused.kind
    assert "for other names than '127.0.0.1': correct `url`, or list its fingerprint" in refused.sentence


def test_a_wrong_fingerprint_is_refused_before_anything_is_sent(
    made: Hospital, file: Path, tmp_path: Path
) -> None:
    """A good certificate, but another one: neither the token nor the object goes there."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    with DicomWeb(tls=server(made.peer)) as pacs:
        refused = sent(made, pacs, file, certificates=[made.other.fingerprint], token_file=token)

    assert ([], []) == (pacs.bodies, pacs.headers)
    assert (Kind.RETRY_LATER, False) == (refused.kind, refused.tried)
    assert "not in `certificates` of this peer" in refused.sentence
    assert made.peer.fingerprint in refused.sentence
    assert "enter it if it is new" in refused.sentence


@pytest.mark.parametrize("which", ["stranger", "expired"])
def test_a_fingerprint_does_not_mend_a_bad_certificate(made: Hospital, file: Path, which: str) -> None:
    """It must be valid and of an authority in tls.trusted all the same."""
    issued = getattr(made, which)
    with DicomWeb(tls=server(issued)) as pacs:
        refused = sent(made, pacs, file, certificates=[issued.fingerprint])

    assert [] == pacs.bodies
    assert {"stranger": "tls.trusted does not know", "expired": "has expired"}[which] in refused.sentence


def test_a_self_signed_certificate_that_is_trusted_and_listed_is_taken(
    made: Hospital, file: Path, tmp_path: Path
) -> None:
    """A device without an authority: its certificate stands in tls.trusted."""
    own = self_signed(tmp_path, "device")
    tls = Tls.model_validate(made.tls(trusted=str(own.certificate)))
    with DicomWeb(tls=server(own)) as pacs:
        assert Kind.SUCCESS is sent(made, pacs, file, certificates=[own.fingerprint], tls=tls).kind


def test_without_a_certificate_of_its_own_the_node_checks_as_well(made: Hospital, file: Path) -> None:
    """Only tls.trusted is given: name and authority count."""
    tls = Tls.model_validate({"trusted": str(made.authority.file)})
    with DicomWeb(tls=server(made.peer)) as pacs:
        assert Kind.SUCCESS is sent(made, pacs, file, tls=tls).kind
    with DicomWeb(tls=server(made.stranger)) as pacs:
        assert "tls.trusted does not know" in sent(made, pacs, file, tls=tls).sentence


def test_a_server_that_does_not_know_this_node_is_said_plainly(made: Hospital, file: Path) -> None:
    """It wants a certificate of another authority; since TLS 1.3 it says so after the handshake."""
    wants = server_context(Tls.model_validate(made.tls(trusted=str(made.stranger.certificate))))
    with DicomWeb(tls=wants) as pacs:
        refused = sent(made, pacs, file)

    assert [] == pacs.bodies
    assert Kind.RETRY_LATER is refused.kind
    assert "does not know the one in tls.certificate" in refused.sentence


def test_http_where_https_is_expected_is_said_plainly(made: Hospital, file: Path) -> None:
    """`url` says https, the port speaks http."""
    with DicomWeb() as pacs:
        pacs_url = pacs.url.replace("http:", "https:")
        refused = sent(made, pacs, file, url=pacs_url)

    assert "does not speak TLS on port" in refused.sentence
    assert "its `url` is http" in refused.sentence


@pytest.mark.parametrize("secure", [False, True])
def test_an_answer_that_drips_ends_by_the_deadline(made: Hospital, file: Path, secure: bool) -> None:
    """Seconds of bytes, each in time; the request ends after one all the same, and is repeated later."""
    with DicomWeb(tls=server(made.peer) if secure else None, otherwise=(DRIP, b"")) as pacs:
        outcome = sent(made, pacs, file, timeout_s=1.0)

    assert (Kind.RETRY_LATER, None, True) == (outcome.kind, outcome.status, outcome.tried)
    assert "did not answer this object (ReadTimeout)" in outcome.sentence


def test_a_server_that_takes_nothing_ends_by_the_deadline(made: Hospital, tmp_path: Path) -> None:
    """A body larger than any buffer, to somebody who never reads it; and TLS with a silent port."""
    (large,) = written(tmp_path / "large", result_file("sc", padding_bytes=12_000_000))
    with silent() as port, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stow, "SLOWEST_BYTES_PER_S", 12_000_000)
        peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", url=f"http://127.0.0.1:{port}")
        (outcome,) = stow.send(peer, [large], 1.0)
        assert "did not answer this object (ReadTimeout)" in outcome.sentence

        https = peer.model_copy(update={"url": f"https://127.0.0.1:{port}"})
        (outcome,) = stow.send(https, [large], 1.0, tls=Tls.model_validate(made.tls()))
        assert "came to no TLS within" in outcome.sentence
        with pytest.raises(DeliveryError, match="came to no TLS"):
            stow.reach(https, 1.0, tls=Tls.model_validate(made.tls()))


def test_a_large_object_gets_its_time(made: Hospital, tmp_path: Path) -> None:
    """The slowest line's rule: the deadline grows with the size."""
    (large,) = written(tmp_path / "large", result_file("sc", padding_bytes=500_000))
    with DicomWeb(tls=server(made.peer), otherwise=(DRIP, b"")) as pacs:
        # 40 bytes of head at ten a second: more than timeout_s, less than the 4 s that the size adds
        pacs.drips = 0.02
        assert Kind.SUCCESS is sent(made, pacs, large, timeout_s=0.5).kind


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    at: list[Bench] = []

    def make(url: str) -> Bench:
        at.append(Bench(tmp_path, {"pacs": 104}, peer={"url": url}))
        at[-1].schedule([result_file("sr", number) for number in range(40)], "pacs")
        return at[-1]

    yield make
    for one in at:
        one.close()


@pytest.mark.parametrize("retry_after", ["600", "Thu, 31 Dec 2099 23:59:59 GMT"])
def test_a_server_that_asks_for_a_pause_gets_it(bench: Any, retry_after: str) -> None:
    """503 with Retry-After (RFC 9110 10.2.3): one request, then all of them wait; a day at most."""
    with DicomWeb(otherwise=(503, b""), retry_after=retry_after) as pacs:
        at = bench(pacs.url)
        at.deliverer.deliver_due()
        at.clock.forward(minutes=9)
        at.deliverer.deliver_due()
        assert 1 == len(pacs.bodies)
        assert {"SCHEDULED"} == set(at.states())

        pacs.otherwise = (200, None)
        at.clock.forward(hours=24)
        at.deliverer.deliver_due()

    assert {"COMPLETED"} == set(at.states())
    assert 41 == len(pacs.bodies)
