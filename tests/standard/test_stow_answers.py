"""What a STOW-RS answer means for a delivery: PS3.18 Tables 10.5.3-1, I.2-1 and I.2-2, typed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import Peer
from dicom_node.deliver import stow
from dicom_node.deliver.scu import Sent
from dicom_node.dicom.status import Kind
from support.dicomweb import DicomWeb, told
from support.results import result_file, written

STORED, WARNED, LATER, REFUSED = Kind.SUCCESS, Kind.WARNING, Kind.RETRY_LATER, Kind.REFUSED

WARNING_REASONS = (0xB000, 0xB006, 0xB007)
"""Table I.2-1: Coercion of Data Elements, Elements Discarded, Data Set does not match SOP Class."""
FAILURE_REASONS = {
    0xA700: LATER, 0xA7FF: LATER,  # Refused out of Resources
    0xA900: REFUSED, 0xA9FF: REFUSED,  # Data Set does not match SOP Class
    0xC000: REFUSED, 0xC122: REFUSED, 0xCFFF: REFUSED,  # Cannot understand; C122 is the transfer syntax
    0x0110: LATER,  # Processing failure
    0x0122: REFUSED,  # Referenced SOP Class not supported
}  # fmt: skip
"""Table I.2-2, and what follows."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (path,) = written(tmp_path, result_file("sr"))
    return path


def answered(file: Path, status: int, content: object, **server: str) -> Sent:
    with DicomWeb(otherwise=(status, content), **server) as pacs:  # type: ignore[arg-type]
        peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", url=pacs.url)
        (outcome,) = stow.send(peer, [file], 5.0)
    return outcome


def test_200_says_that_all_is_stored(file: Path) -> None:
    """200 (OK): the origin server successfully stored all Instances."""
    outcome = answered(file, 200, told())

    assert (STORED, 0x0000) == (outcome.kind, outcome.status)


@pytest.mark.parametrize("http", [200, 202])
@pytest.mark.parametrize("reason", WARNING_REASONS)
def test_a_warning_reason_was_stored(file: Path, http: int, reason: int) -> None:
    """202 (Accepted): some stored, but warnings exist; the object is in Referenced SOP Sequence."""
    outcome = answered(file, http, told(warning=reason))

    assert (WARNED, reason) == (outcome.kind, outcome.status)


@pytest.mark.parametrize("http", [202, 409, 400, 200])
@pytest.mark.parametrize("reason", FAILURE_REASONS)
def test_a_failure_reason_decides_whatever_the_status_code(file: Path, http: int, reason: int) -> None:
    """202 with a Failed SOP Sequence, 409 (Conflict): the object was not stored, and why says the item."""
    outcome = answered(file, http, told(failed=reason))

    assert (FAILURE_REASONS[reason], reason) == (outcome.kind, outcome.status)
    assert f"0x{reason:04X}" in outcome.sentence


@pytest.mark.parametrize("reason", range(0, 0x10000, 0x555))
def test_no_failure_reason_counts_as_stored(file: Path, reason: int) -> None:
    """What stands in the Failed SOP Sequence was not stored, also with a number of a success or warning."""
    outcome = answered(file, 202, told(failed=reason))

    assert outcome.kind in (LATER, REFUSED)


def test_a_duplicate_is_there(file: Path) -> None:
    """0x0111, as for C-STORE: a result's UID stands for one file for ever."""
    assert WARNED is answered(file, 409, told(failed=0x0111)).kind


@pytest.mark.parametrize(
    ("http", "kind", "words"),
    [
        (400, REFUSED, "finds the request wrong (400)"),  # bad syntax
        (409, REFUSED, "refuses the object (HTTP 409)"),
        (415, REFUSED, "takes no objects of this kind (415)"),
        (202, LATER, "does not say whether it stored"),
        (413, REFUSED, "too large (413)"),  # section 8.5, as the following
        (429, LATER, "HTTP 429"),
        (500, LATER, "HTTP 500"),
        (503, LATER, "HTTP 503"),
        (507, LATER, "HTTP 507"),
    ],
)
def test_a_status_code_without_a_payload(file: Path, http: int, kind: Kind, words: str) -> None:
    """Only 200 says by itself that the object is stored."""
    outcome = answered(file, http, b"")

    assert kind is outcome.kind
    assert words in outcome.sentence


@pytest.mark.parametrize(
    ("said", "wait_s"), [("120", 120.0), ("9" * 30, 86400.0), ("soon", 0.0), ("-5", 0.0)]
)
def test_retry_after_is_heeded(file: Path, said: str, wait_s: float) -> None:
    """503 (Service Unavailable) with Retry-After, RFC 9110 10.2.3."""
    outcome = answered(file, 503, b"", retry_after=said)

    assert (LATER, wait_s) == (outcome.kind, outcome.wait_s)
