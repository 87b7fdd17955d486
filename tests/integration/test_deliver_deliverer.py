"""T4: the ledger, the peers and the clock together. Real sockets, a SQLite file, no sleeping."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import select, update

from dicom_node.audit import report
from dicom_node.store.schema import results
from support.deliveries import Bench
from support.orthanc import orthanc
from support.ports import wait_until
from support.results import data_set_bytes, result_file
from support.scripted_scp import ABORT, HANG, RESULT_CLASSES, ScriptedScp, closed_port

RESULTS = [result_file(kind) for kind in RESULT_CLASSES]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Any]:
    """Makes `Bench`es in a folder, and closes them."""
    made: list[Bench] = []

    def make(ports: dict[str, int], **settings: float) -> Bench:
        made.append(Bench(tmp_path, ports, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_results_are_delivered_with_the_peers_status(bench: Any) -> None:
    """One row per object and destination, COMPLETED with 0x0000; the bytes are those stored."""
    with ScriptedScp() as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")

        assert 4 == at.deliverer.deliver_due()

    assert [("COMPLETED", 0x0000, "")] * 4 == [(row.state, row.status, row.reason) for row in at.rows()]
    assert [data_set_bytes(content) for content in RESULTS] == list(scp.data_sets.values())
    assert 1 == scp.associations


def test_what_was_sent_stands_in_the_audit_trail(bench: Any) -> None:
    """One message per study, association and outcome: to whom, of which patient, how many of each class."""
    with ScriptedScp(answers=[0xC000]) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()
    rows = report.rows(at.trail.folder)

    assert [("pacs", "127.0.0.1", False, 1), ("pacs", "127.0.0.1", True, 3)] == [
        (row["to"], row["address"], row["ok"], row["instances"]) for row in rows
    ]
    assert {str(dcmread(BytesIO(content)).PatientID) for content in RESULTS} == {
        row["patient"] for row in rows
    }
    assert {str(dcmread(BytesIO(content)).StudyInstanceUID) for content in RESULTS} == {
        row["study"] for row in rows
    }


def test_an_unreachable_peer_gets_nothing_and_no_record_says_so(bench: Any) -> None:
    """What never left is no transfer."""
    at = bench({"pacs": closed_port()})
    at.schedule(RESULTS, "pacs")
    at.deliverer.deliver_due()

    assert [] == report.rows(at.trail.folder)


def test_nothing_is_sent_twice_by_itself(bench: Any) -> None:
    """A second look finds nothing due and calls nobody."""
    with ScriptedScp() as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()

        assert 0 == at.deliverer.deliver_due()
        assert 4 == len(scp.arrived)


def test_a_warning_is_delivered_and_its_reason_kept(bench: Any) -> None:
    """0xBxxx says that the object was stored."""
    with ScriptedScp(otherwise=0xB000) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS[:1], "pacs")
        at.deliverer.deliver_due()

    (row,) = at.rows()
    assert ("COMPLETED", 0xB000) == (row.state, row.status)
    assert row.reason.startswith("Coercion of data elements (0xB000)")


def test_a_refusal_fails_at_once_with_the_reason(bench: Any) -> None:
    """0xC000: sending it again would change nothing; a person reads why."""
    with ScriptedScp(answers=[0xC000]) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()

    assert ["FAILED", "COMPLETED", "COMPLETED", "COMPLETED"] == at.states()
    assert 0xC000 == at.rows()[0].status
    assert at.rows()[0].reason.startswith("Error: cannot understand (0xC000)")


def test_a_refused_segmentation_context_fails_the_segmentation_only(bench: Any) -> None:
    """The SR reaches a PACS that takes no SEG."""
    without = [uid for kind, uid in RESULT_CLASSES.items() if kind != "seg"]

    with ScriptedScp(classes=without) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()

    assert ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"] == at.states()


def test_a_full_pacs_is_tried_again_after_the_pause(bench: Any) -> None:
    """0xA700: not before the pause, then delivered."""
    with ScriptedScp(answers=[0xA700]) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS[:1], "pacs")

        at.deliverer.deliver_due()
        assert ["SCHEDULED"] == at.states()
        pause = at.next_attempt() - at.clock.now
        assert timedelta(seconds=7.5) <= pause <= timedelta(seconds=10)

        at.clock.forward(seconds=pause.total_seconds() - 0.1)
        assert 0 == at.deliverer.deliver_due()

        at.clock.forward(seconds=0.2)
        assert 1 == at.deliverer.deliver_due()
    assert ["COMPLETED"] == at.states()


def test_a_pacs_that_was_down_gets_all_when_it_is_up(bench: Any) -> None:
    """Down: every row waits with the reason; up: everything arrives, once."""
    port = closed_port()
    at = bench({"pacs": port})
    at.schedule(RESULTS, "pacs")

    at.deliverer.deliver_due()
    assert ["SCHEDULED"] * 4 == at.states()
    said = f"PACS 'pacs' (127.0.0.1 port {port}) refuses the connection: is it running, is the port right?"
    assert {said} == {row.reason for row in at.rows()}

    at.clock.forward(seconds=11)
    with ScriptedScp(port=port) as scp:
        at.deliverer.deliver_due()
        assert 4 == len(scp.arrived)
    assert ["COMPLETED"] * 4 == at.states()


def test_a_pacs_that_answers_again_gets_at_once_what_waited_for_it(bench: Any) -> None:
    """After a night down the pauses are long; a new result finds the PACS up, and the old ones follow."""
    port = closed_port()
    at = bench({"pacs": port})
    at.schedule(RESULTS[:3], "pacs")
    for _ in range(8):
        at.deliverer.deliver_due()
        at.clock.now = at.next_attempt()
    at.deliverer.deliver_due()
    assert at.next_attempt() - at.clock.now > timedelta(minutes=20)

    with ScriptedScp(port=port) as scp:
        at.schedule(RESULTS[3:], "pacs")
        at.deliverer.deliver_due()
        assert 4 == len(scp.arrived)
    assert ["COMPLETED"] * 4 == at.states()


def test_seven_days_down_lose_nothing(bench: Any) -> None:
    """An outage as long as give_up_after_days ends with everything delivered, in full and once."""
    port = closed_port()
    at = bench({"pacs": port}, retry_at_most_s=6 * 3600.0, give_up_after_days=7.0)
    at.schedule(RESULTS, "pacs")
    ends = at.clock.now + timedelta(days=7)
    calls = 0

    while (due := at.next_attempt() or at.clock.now) < ends:
        at.clock.now = max(due, at.clock.now)
        calls += 1
        at.deliverer.deliver_due()
    assert ["SCHEDULED"] * 4 == at.states()
    assert 28 <= calls <= 28 / 0.75 + 12  # for all four together, every 4.5 to 6 h after the first doublings

    at.clock.now = ends + timedelta(hours=2)
    with ScriptedScp(port=port) as scp:
        at.deliverer.deliver_due()
        assert 4 == len(scp.data_sets) == len(scp.arrived)
    assert ["COMPLETED"] * 4 == at.states()


def test_after_give_up_days_a_person_is_told(bench: Any) -> None:
    """An attempt that fails later than give_up_after_days is the last; the reason says so."""
    at = bench({"pacs": closed_port()}, give_up_after_days=1.0)
    at.schedule(RESULTS[:1], "pacs")

    at.clock.forward(days=1, seconds=1)
    at.deliverer.deliver_due()

    (row,) = at.rows()
    assert "FAILED" == row.state
    mend = "given up after 1 days of trying: mend it, then `dicom-node retry --deliveries`. Last: "
    assert row.reason.startswith(f"{mend}PACS 'pacs' (127.0.0.1 port")


def test_an_object_that_breaks_the_association_does_not_hold_up_the_others(bench: Any) -> None:
    """The object in flight waits its pause; those behind it go on the next association, at once."""
    with ScriptedScp(answers=[ABORT]) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()

    assert ["SCHEDULED", "COMPLETED", "COMPLETED", "COMPLETED"] == at.states()
    assert 2 == scp.associations


def test_a_row_of_a_crashed_node_is_taken_over_when_its_lease_lapses(bench: Any) -> None:
    """Claimed and never answered for: sent by the next deliverer, and the first one cannot commit."""
    with ScriptedScp() as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        crashed = at.ledger.claim("pacs", at.deliverer.lease_s, 16)

        assert (4, 0) == (len(crashed), at.deliverer.deliver_due("pacs"))

        at.clock.forward(seconds=at.deliverer.lease_s + 1)
        assert 4 == at.deliverer.deliver_due()
    assert ["COMPLETED"] * 4 == at.states()


def test_a_damaged_file_is_never_sent(bench: Any) -> None:
    """Bytes that are not those T3 stored are FAILED with a reason, not delivered."""
    with ScriptedScp() as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS[:2], "pacs")
        damaged = next(path for path in (at.archive.path(digest) for digest in at.archive.digests())
                       if path.read_bytes() == RESULTS[0])  # fmt: skip
        damaged.chmod(0o600)
        damaged.write_bytes(RESULTS[0][:-1] + b"!")

        at.deliverer.deliver_due()

    assert ["FAILED", "COMPLETED"] == at.states()
    assert "the stored file is missing or damaged: run the job again" == at.rows()[0].reason


def test_a_destination_that_left_the_configuration_is_failed_with_its_name(bench: Any) -> None:
    """A row nobody can deliver does not wait silently."""
    at = bench({"pacs": closed_port()})
    at.schedule(RESULTS[:1], "gone")

    at.deliverer.deliver_due()

    (row,) = at.rows()
    assert "FAILED" == row.state
    assert row.reason.startswith("no peer named 'gone' is configured any more: list it again and")


def test_one_destination_down_never_delays_another(bench: Any) -> None:
    """One hangs, one refuses connections; the third has everything long before the first times out."""
    hang_s = 20.0
    with ScriptedScp(otherwise=HANG) as hanging, ScriptedScp() as good:
        at = bench({"hangs": hanging.port, "down": closed_port(), "good": good.port}, timeout_s=hang_s)
        at.schedule(RESULTS, "hangs", "down", "good")
        started = time.monotonic()

        at.deliverer.start()
        wait_until(lambda: at.states("good") == ["COMPLETED"] * 4, hang_s / 2, "the good one has everything")
        took_s = time.monotonic() - started
        wait_until(lambda: len(hanging.arrived) == 1, hang_s / 2, "the hanging one was asked")
        hanging._let_go.set()
        at.deliverer.stop()

    assert took_s < 5.0
    assert ["SCHEDULED"] * 4 == at.states("down")
    assert "COMPLETED" not in at.states("hangs")


def test_stopping_does_not_wait_for_a_peer_that_hangs(bench: Any) -> None:
    """A node told to end ends; what was in flight stays in the ledger and is sent by the next start."""
    with ScriptedScp(otherwise=HANG) as hanging:
        at = bench({"hangs": hanging.port}, timeout_s=60.0)
        at.schedule(RESULTS, "hangs")
        at.deliverer.start()
        wait_until(lambda: len(hanging.arrived) == 1, 10.0, "the hanging one was asked")
        started = time.monotonic()

        at.deliverer.stop(grace_s=0.2)

        assert time.monotonic() - started < 2.0
        left = [t for t in threading.enumerate() if t.name.startswith(("Requestor", "deliver"))]
        assert [True] * len(left) == [thread.daemon for thread in left]
        assert ["IN PROGRESS"] * 4 == at.states()


def test_a_started_deliverer_sees_new_results_within_a_moment(bench: Any) -> None:
    """From T3's commit to the peer's answer well under a second, without being told."""
    with ScriptedScp() as scp:
        at = bench({"pacs": scp.port})
        at.deliverer.start()
        wait_until(lambda: True, 1.0, "started")
        started = time.monotonic()
        at.schedule(RESULTS, "pacs")
        wait_until(lambda: at.states() == ["COMPLETED"] * 4, 5.0, "delivered")
        took_s = time.monotonic() - started
        at.deliverer.stop()

    assert took_s < 1.0


def test_orthanc_killed_and_started_again_has_each_result_once(bench: Any, tmp_path: Path) -> None:
    """A PACS that goes away between two studies and comes back, and one study sent again by hand."""
    second = [result_file(kind, study="second") for kind in RESULT_CLASSES]
    with orthanc(tmp_path / "orthanc") as pacs:
        at = bench({"pacs": pacs.dicom_port})
        at.deliverer._config = at.config.model_copy(
            update={"peer": (at.config.peer[0].model_copy(update={"ae_title": pacs.ae_title}),)}
        )
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()
        pacs.stop()
        at.schedule(second, "pacs")
        at.deliverer.deliver_due()
        assert ["COMPLETED"] * 4 + ["SCHEDULED"] * 4 == at.states()

        pacs.start()
        at.clock.forward(seconds=11)
        at.deliverer.deliver_due()

        assert ["COMPLETED"] * 8 == at.states()
        assert (8, 2) == (pacs.count(), len(pacs.studies()))


def test_nothing_about_a_patient_is_logged(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The canary of the data sets and the peer's free text reach neither log nor output."""
    with ScriptedScp(answers=[0xA700, 0xC000, 0xB000], comment="CANARY^COMMENT") as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()

    said = "".join(capsys.readouterr())
    assert "deliver.done" in said
    assert "CANARY" not in said


def test_redelivered_results_are_the_bytes_first_made(bench: Any) -> None:
    """Whatever became of them they are sent again as they were, also to a peer that had none of them."""
    with ScriptedScp(answers=[0x0000, 0xC000, 0x0000, 0x0000]) as scp, ScriptedScp() as archive:
        at = bench({"pacs": scp.port, "archive": archive.port})
        at.schedule(RESULTS, "pacs")
        at.deliverer.deliver_due()
        assert ["COMPLETED", "FAILED", "COMPLETED", "COMPLETED"] == at.states()

        assert 4 == at.ledger.redeliver(at.study(0))
        assert 4 == at.ledger.redeliver(at.study(0), "archive")
        at.deliverer.deliver_due()

    first_made = [data_set_bytes(content) for content in RESULTS]
    assert ["COMPLETED"] * 8 == at.states()
    assert first_made == list(archive.data_sets.values())
    assert sorted(first_made) == sorted(scp.data_sets.values())
    assert 8 == len(scp.arrived)


def test_what_is_superseded_or_on_its_way_is_not_redelivered(bench: Any) -> None:
    """The results that stand for the study, and no second copy of one that is being sent."""
    at = bench({"pacs": closed_port()})
    at.schedule(RESULTS, "pacs")
    (sent,) = at.ledger.claim("pacs", 60.0, 1)
    with at.engine.begin() as connection:
        last = select(results.c.id).order_by(results.c.id.desc()).limit(1).scalar_subquery()
        connection.execute(update(results).where(results.c.id == last).values(superseded_at=at.clock()))

    assert 2 == at.ledger.redeliver(at.study(0))
    at.ledger.delivered(sent, 0x0000)
    assert 0 == at.ledger.redeliver(at.study(1))


def test_what_only_waits_for_its_turn_is_not_given_up(bench: Any) -> None:
    """After give_up_after_days the association breaks over the first object: the others were not tried."""
    with ScriptedScp(answers=[ABORT]) as scp:
        at = bench({"pacs": scp.port})
        at.schedule(RESULTS, "pacs")
        at.clock.forward(days=15)
        at.deliverer.deliver_due()

    assert ["FAILED", "COMPLETED", "COMPLETED", "COMPLETED"] == at.states()
