"""STOW-RS as destination (PS3.18 10.5): real HTTP, a SQLite file, Debian's Orthanc."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Config, Peer, Tls
from dicom_node.deliver import stow
from dicom_node.dicom.status import Kind
from dicom_node.errors import ConfigurationError, DeliveryError
from dicom_node.tls import server_context
from support.certificates import hospital
from support.deliveries import Bench
from support.dicomweb import CUT, Answer, DicomWeb, told
from support.orthanc import orthanc
from support.results import data_set_bytes, result_file, written
from support.scripted_scp import closed_port

RESULTS = [result_file(kind) for kind in ("sr", "seg", "sc")]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    """Makes `Bench`es in a folder, and closes them."""
    made: list[Bench] = []

    def make(url: str, **peer: Any) -> Bench:
        made.append(Bench(tmp_path, {"pacs": 104}, peer={"url": url, **peer}))
        made[-1].schedule(RESULTS, "pacs", auto=True)
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_stored_bytes_arrive_with_the_token(bench: Any, tmp_path: Path) -> None:
    """One request per object; the file is the one in the archive, byte for byte."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    with DicomWeb() as pacs:
        at = bench(pacs.url, token_file=token)
        at.deliverer.deliver_due()

    assert [("COMPLETED", 0x0000, "")] * 3 == [(row.state, row.status, row.reason) for row in at.rows()]
    assert pacs.files() == RESULTS
    assert {"Bearer 0123456789abcdef0123456789abcdef"} == {one["authorization"] for one in pacs.headers}
    assert pacs.headers[0]["content-type"].startswith(
        'multipart/related; type="application/dicom"; boundary='
    )


@pytest.mark.parametrize(
    ("answer", "state", "status", "words"),
    [
        ((200, told(warning=0xB000)), "COMPLETED", 0xB000, "stored, but not as sent"),
        ((202, told(warning=0xB007)), "COMPLETED", 0xB007, "stored, but not as sent"),
        ((202, told(failed=0xA700)), "SCHEDULED", 0xA700, "free space on it"),
        ((202, b"not JSON"), "SCHEDULED", None, "does not say whether it stored"),
        ((204, b""), "SCHEDULED", None, "does not say whether it stored"),
        ((409, told(failed=0xA900)), "FAILED", 0xA900, "data set does not match SOP class"),
        ((409, told(failed=0xA700)), "SCHEDULED", 0xA700, "free space on it"),
        ((409, told(failed=0x0111)), "COMPLETED", 0x0111, "has this object already"),
        (
            (409, told(failed=0x0122)),
            "CANCELED",
            0x0122,
            "withheld: PACS 'pacs' does not accept Segmentation",
        ),
        ((409, b""), "FAILED", None, "refuses the object (HTTP 409)"),
        ((413, b""), "FAILED", None, "too large (413)"),
        ((415, b""), "FAILED", None, "takes no objects of this kind (415)"),
        ((503, b""), "SCHEDULED", None, "answers HTTP 503"),
        ((500, b"a page" * 9), "SCHEDULED", None, "answers HTTP 500"),
        ((429, b""), "SCHEDULED", None, "answers HTTP 429"),
        ((CUT, b""), "SCHEDULED", None, "did not answer this object"),
        ((200, b'{"00081198": {"Value": [7]}}'), "SCHEDULED", 0x0110, "Processing failure"),
        ((200, b"[" * 100_000), "COMPLETED", 0x0000, ""),
    ],
)
def test_an_answer_decides_as_a_status_of_c_store_does(
    bench: Any, answer: Answer, state: str, status: int | None, words: str
) -> None:
    """PS3.18 Table 10.5.3-1: for this object alone; its neighbours go through."""
    with DicomWeb(answers=[(200, None), answer]) as pacs:
        at = bench(pacs.url)
        at.deliverer.deliver_due()

    first, row, last = at.rows()
    assert ("COMPLETED", "COMPLETED") == (first.state, last.state)
    assert (state, status) == (row.state, row.status)
    assert words in row.reason


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (401, "does not accept this node's token (401)"),
        (403, "not store (403)"),
        (404, "is `url` the base"),
        (302, "redirects (HTTP 302), which is not followed"),
        (308, "redirects (HTTP 308), which is not followed"),
    ],
)
def test_what_a_person_has_to_settle_holds_up_all_and_loses_nothing(
    bench: Any, answer: int, words: str
) -> None:
    """One request, and the rest waits with the reason; once it is settled all is delivered."""
    with DicomWeb(answers=[(answer, b"")]) as pacs:
        at = bench(pacs.url)
        at.deliverer.deliver_due()
        assert [1, ["SCHEDULED"] * 3] == [len(pacs.bodies), at.states()]
        assert all(words in row.reason for row in at.rows())

        at.clock.forward(minutes=1)
        at.deliverer.deliver_due()

    assert ["COMPLETED"] * 3 == at.states()


def test_a_server_that_is_down_is_tried_later(bench: Any) -> None:
    """Nothing is refused because nobody answers."""
    at = bench(f"http://127.0.0.1:{closed_port()}/dicom-web")
    at.deliverer.deliver_due()

    assert ["SCHEDULED"] * 3 == at.states()
    assert all("refuses the connection: is it running, is the port right?" in row.reason for row in at.rows())


def test_a_token_that_cannot_be_read_waits_for_a_person(bench: Any, tmp_path: Path) -> None:
    """The objects do not go without it."""
    with DicomWeb() as pacs:
        at = bench(pacs.url, token_file=tmp_path / "none")
        at.deliverer.deliver_due()

    assert [] == pacs.bodies
    assert all("peer.token_file" in row.reason for row in at.rows())


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (404, True), (405, True), (401, False), (302, False), (502, False)]
)
def test_check_reaches_it_without_sending(status: int, ok: bool) -> None:
    """OPTIONS: does anybody answer there, and does it let this node in?"""
    with DicomWeb(otherwise=(status, None)) as pacs:
        peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", url=pacs.url)
        if ok:
            stow.reach(peer, 5.0)
        else:
            with pytest.raises(DeliveryError):
                stow.reach(peer, 5.0)
        assert [] == pacs.bodies


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"url": "http://pacs.example/dicom-web", "token_file": "t"}, "token would travel in clear"),
        ({"url": "http://127.0.0.1.example/x", "token_file": "t"}, "token would travel in clear"),
        ({"url": "https://pacs.example", "commitment": True}, "commitment is asked by DICOM"),
        ({"url": "ftp://pacs.example"}, "should match pattern"),
        ({"url": "https://user:secret@pacs.example"}, "should match pattern"),
        ({"url": "https://p\u00e4cs.example"}, "should match pattern"),
        ({"url": "https://pacs.example:99999"}, "Port out of range"),
        ({"url": "https://:443/x"}, "names no host and port"),
    ],
)
def test_a_url_that_would_betray_something_is_refused(more: dict[str, Any], words: str) -> None:
    """At the start, with the reason."""
    peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", **more}

    with pytest.raises((ConfigurationError, ValueError), match=words):
        Config.model_validate({"peer": [peer]})


def test_https_trusts_what_the_configuration_trusts(tmp_path: Path) -> None:
    """A server of an authority in tls.trusted, which sees this node's certificate; and no other server."""
    made = hospital(tmp_path)
    (path,) = written(tmp_path / "files", RESULTS[0])
    known = server_context(Tls.model_validate(made.tls()))
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stranger.load_cert_chain(made.stranger.certificate, made.stranger.private_key)
    outcomes = []
    for context in (known, stranger):
        with DicomWeb(tls=context) as pacs:
            peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", url=pacs.url)
            outcomes += list(stow.send(peer, [path], 5.0, tls=Tls.model_validate(made.tls())))

    assert [Kind.SUCCESS, Kind.RETRY_LATER] == [one.kind for one in outcomes]
    assert "a certificate that tls.trusted does not know: add its authority there" in outcomes[1].sentence


def test_orthanc_gets_them_by_stow(bench: Any, tmp_path: Path) -> None:
    """Debian's Orthanc with its DICOMweb plugin: each object once, identical, also when sent again."""
    if not PLUGIN.exists():
        pytest.skip("orthanc-dicomweb is not installed (Debian: apt install orthanc-dicomweb)")
    settings = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with orthanc(tmp_path / "orthanc", settings=settings) as pacs:
        at = bench(f"http://127.0.0.1:{pacs.http_port}/dicom-web")
        stow.reach(at.config.peers["pacs"], 10.0)
        at.deliverer.deliver_due()
        at.ledger.redeliver(at.study(0))
        at.deliverer.deliver_due()

        held = [pacs.file(one) for one in pacs.by_sop_instance().values()]

    assert ["COMPLETED"] * 3 == at.states()
    assert sorted(map(data_set_bytes, RESULTS)) == sorted(map(data_set_bytes, held))
