"""C-STORE as SCU against peers that behave, warn, refuse, hang, drop and lie; real sockets."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from dicom_node.config import Peer
from dicom_node.deliver.scu import Sent, accepted_classes, echo, send
from dicom_node.dicom.status import Kind
from dicom_node.errors import PeerRefused, PeerUnreachable
from support.results import data_set_bytes, result_file, written
from support.scripted_scp import ABORT, DROP, HANG, RESULT_CLASSES, ScriptedScp, closed_port, silent

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def pacs(port: int, host: str = "127.0.0.1") -> Peer:
    return Peer(name="pacs", ae_title="PACS", host=host, port=port)


def sent(port: int, files: list[Path], timeout_s: float = 5.0) -> list[Sent]:
    return list(send(pacs(port), "DICOMNODE", files, timeout_s))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return written(tmp_path, *(result_file(kind) for kind in RESULT_CLASSES))


def test_all_result_kinds_arrive_as_the_bytes_stored(files: list[Path]) -> None:
    """SR, SEG, PM and SC over one association; the data set on the wire is the stored one, byte for byte."""
    with ScriptedScp() as scp:
        outcome = sent(scp.port, files)

    assert [(Kind.SUCCESS, 0x0000)] * 4 == [(one.kind, one.status) for one in outcome]
    assert [data_set_bytes(path.read_bytes()) for path in files] == list(scp.data_sets.values())
    assert 1 == scp.associations


def test_a_large_object_arrives_in_many_pdus(tmp_path: Path) -> None:
    """20 MB through the peer's small PDUs, unchanged."""
    content = result_file("seg", padding_bytes=20_000_000)

    with ScriptedScp(max_pdu=4096) as scp:
        (outcome,) = sent(scp.port, written(tmp_path, content), 20.0)

    assert Kind.SUCCESS == outcome.kind
    assert data_set_bytes(content) == next(iter(scp.data_sets.values()))


def test_a_peer_with_only_the_default_transfer_syntax_still_gets_the_object(files: list[Path]) -> None:
    """Implicit VR Little Endian is every DICOM application's least (PS3.5 10.1); only then bytes change."""
    with ScriptedScp(syntaxes=(IMPLICIT,)) as scp:
        outcome = sent(scp.port, files)

    assert [Kind.SUCCESS] * 4 == [one.kind for one in outcome]
    assert 4 == len(scp.data_sets)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0xB000, Kind.WARNING), (0xB006, Kind.WARNING), (0x0111, Kind.WARNING), (0xA700, Kind.RETRY_LATER),
     (0x0110, Kind.RETRY_LATER), (0xA900, Kind.REFUSED), (0xC000, Kind.REFUSED), (0x0122, Kind.REFUSED),
     (0x0124, Kind.REFUSED)],
    ids=lambda value: f"{value:04X}" if isinstance(value, int) else str(value),
)  # fmt: skip
def test_the_peers_status_decides(files: list[Path], status: int, kind: Kind) -> None:
    """One object's status is its own: the next on the same association goes through."""
    with ScriptedScp(answers=[status]) as scp:
        first, second = sent(scp.port, files[:2])

    assert (kind, status) == (first.kind, first.status)
    assert f"0x{status:04X}" in first.sentence
    assert (Kind.SUCCESS, 0x0000) == (second.kind, second.status)


def test_the_peers_comment_is_kept(files: list[Path]) -> None:
    """Error Comment (0000,0902) says to a person what the number does not."""
    with ScriptedScp(answers=[0xA700], comment="archive volume 3 full") as scp:
        (outcome,) = sent(scp.port, files[:1])

    assert outcome.sentence.endswith("The peer says: 'archive volume 3 full'")


def test_a_refused_presentation_context_fails_that_object_only(files: list[Path]) -> None:
    """A PACS without Segmentation gets the SR, the map and the page; the operator reads what to allow."""
    without = [uid for kind, uid in RESULT_CLASSES.items() if kind != "seg"]

    with ScriptedScp(classes=without) as scp:
        outcome = dict(zip(RESULT_CLASSES, sent(scp.port, files), strict=True))

    assert {"sr": Kind.SUCCESS, "seg": Kind.REFUSED, "pm": Kind.SUCCESS, "sc": Kind.SUCCESS} == {
        kind: one.kind for kind, one in outcome.items()
    }
    assert (
        "PACS 'pacs' does not accept Segmentation Storage (presentation context rejected):"
        " allow it there, then send again with `dicom-node retry --deliveries`"
    ) == outcome["seg"].sentence


def test_a_peer_that_accepts_no_context_fails_each_object_with_its_own_sentence(files: list[Path]) -> None:
    """Nothing hangs and nothing is retried for ever when a PACS takes none of the result classes."""
    with ScriptedScp(classes=()) as scp:
        outcome = sent(scp.port, files)

    assert [Kind.REFUSED] * 4 == [one.kind for one in outcome]
    assert 4 == len({one.sentence for one in outcome})


@pytest.mark.parametrize("how", [ABORT, DROP])
def test_an_association_lost_midway_is_tried_again(files: list[Path], how: str) -> None:
    """The object in flight is tried again, those after it were not tried; the one before stands."""
    with ScriptedScp(answers=[0x0000, how]) as scp:
        outcome = sent(scp.port, files)

    assert [Kind.SUCCESS, *[Kind.RETRY_LATER] * 3] == [one.kind for one in outcome]
    assert [True, True, False, False] == [one.tried for one in outcome]


def test_a_peer_that_hangs_costs_its_timeout_and_no_more(files: list[Path]) -> None:
    """No answer to a C-STORE within the deadline: tried again, the rest not tried."""
    started = time.monotonic()

    with ScriptedScp(answers=[HANG]) as scp:
        outcome = sent(scp.port, files, timeout_s=0.5)

        assert time.monotonic() - started < 4.0
    assert [True, False, False, False] == [one.tried for one in outcome]
    assert outcome[0].sentence.startswith("PACS 'pacs' did not answer within")


def test_a_peer_that_stops_reading_costs_its_timeout(tmp_path: Path) -> None:
    """A full window holds nobody for ever, not even with an object that may take minutes to send."""
    (large,) = written(tmp_path, result_file("seg", padding_bytes=30_000_000))
    started = time.monotonic()

    with ScriptedScp(stalls=True) as scp:
        (outcome,) = sent(scp.port, [large], timeout_s=1.0)

        assert time.monotonic() - started < 10.0
    assert (Kind.RETRY_LATER, None, True) == (outcome.kind, outcome.status, outcome.tried)


A_ASSOCIATE_AC_HEAD = bytes([2, 0, 0, 0, 1, 0]) + bytes(40)


@pytest.mark.parametrize(
    ("reply", "drip"),
    [(b"", False), (A_ASSOCIATE_AC_HEAD, False), (A_ASSOCIATE_AC_HEAD, True)],
    ids=["silent", "half a PDU", "dripping"],
)
def test_a_port_that_is_no_dicom_costs_its_timeout(files: list[Path], reply: bytes, drip: bool) -> None:
    """Silent, half a PDU, or a PDU that drips: each ends at the deadline with a sentence."""
    started = time.monotonic()

    with silent(reply, drip=drip) as port:
        outcome = sent(port, files, timeout_s=1.0)

        assert time.monotonic() - started < 5.0
    assert [(Kind.RETRY_LATER, False)] * 4 == [(one.kind, one.tried) for one in outcome]
    assert "is it a DICOM port?" in outcome[0].sentence


def test_a_closed_port_is_said_plainly(files: list[Path]) -> None:
    """Connection refused: which host and port, and what to look at."""
    port = closed_port()

    outcome = sent(port, files)

    assert {
        f"PACS 'pacs' (127.0.0.1 port {port}) refuses the connection: is it running, is the port right?"
    } == {one.sentence for one in outcome}
    assert {Kind.RETRY_LATER} == {one.kind for one in outcome}


def test_an_unknown_host_is_said_plainly(files: list[Path]) -> None:
    """DNS failure names the host."""
    outcome = list(send(pacs(104, "no-such-host.invalid"), "DICOMNODE", files[:1], 5.0))

    assert ["PACS 'pacs': host 'no-such-host.invalid' has no address: check `host`, or the DNS"] == [
        one.sentence for one in outcome
    ]


def test_an_unknown_calling_ae_title_is_said_plainly(files: list[Path]) -> None:
    """PS3.8 Table 9-21, source 1 reason 3: the commonest mistake beside a PACS."""
    with ScriptedScp(calling="SOMEBODY") as scp:
        outcome = sent(scp.port, files[:1])

    assert [("PACS 'pacs' does not know calling AE 'DICOMNODE': add it there", Kind.RETRY_LATER)] == [
        (one.sentence, one.kind) for one in outcome
    ]


def test_a_file_that_is_no_dicom_is_refused_and_the_others_go(tmp_path: Path, files: list[Path]) -> None:
    """A damaged file does not hold up its neighbours."""
    (damaged,) = written(tmp_path, b"not DICOM at all")

    with ScriptedScp() as scp:
        outcome = sent(scp.port, [damaged, *files])

    assert [Kind.REFUSED, *[Kind.SUCCESS] * 4] == [one.kind for one in outcome]


def test_echo_answers_or_says_why() -> None:
    """`dicom-node check` asks each peer with C-ECHO."""
    with ScriptedScp(calling="DICOMNODE") as scp:
        assert 0.0 < echo(pacs(scp.port), "DICOMNODE", 5.0) < 5.0
        with pytest.raises(PeerRefused, match="does not know calling AE 'OTHER'"):
            echo(pacs(scp.port), "OTHER", 5.0)
    with pytest.raises(PeerUnreachable, match="refuses the connection"):
        echo(pacs(closed_port()), "DICOMNODE", 5.0)


def test_accepted_classes_are_learned_by_negotiation_only() -> None:
    """`dicom-node check` says which results a PACS would take without sending one."""
    without = [uid for kind, uid in RESULT_CLASSES.items() if kind != "pm"]

    with ScriptedScp(classes=without) as scp:
        accepted = accepted_classes(pacs(scp.port), "DICOMNODE", list(RESULT_CLASSES.values()), 5.0)

    assert set(without) == accepted
    assert [] == scp.arrived


def test_nothing_is_left_behind(files: list[Path]) -> None:
    """After good and bad peers no thread of an association is alive."""
    before = set(threading.enumerate())

    with ScriptedScp(answers=[HANG]) as scp:
        sent(scp.port, files, 0.3)
        deadline = time.monotonic() + 5.0
        while (left := _requestors(before)) and time.monotonic() < deadline:
            left[0].join(0.05)

        assert [] == _requestors(before)
    sent(closed_port(), files)
    assert [] == _requestors(before)


def _requestors(before: set[threading.Thread]) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t not in before and t.name.startswith("Requestor")]
