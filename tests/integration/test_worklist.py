"""Work items from a manager that keeps PS3.4 Annex CC strictly, by DICOM and by UPS-RS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node.config import Peer
from dicom_node.domain.identity import UID
from dicom_node.domain.job import State
from dicom_node.errors import PeerRefused, PeerUnreachable
from dicom_node.node.check import check_all
from dicom_node.node.performer import GONE_AFTER_S, manager_of
from dicom_node.node.performers import answers
from dicom_node.node.ticker import Ticker
from dicom_node.store.database import utc_now
from dicom_node.worklist.dimse import DimseManager
from dicom_node.worklist.item import progress
from dicom_node.worklist.manager import Said, Sought
from dicom_node.worklist.ups_rs import RestManager
from support import mr
from support.performing import Performing, configuration
from support.ports import free_port, wait_until
from support.scripted_pacs import ScriptedPacs
from support.ups_book import scheduled
from support.ups_scp import CUT, UpsRest, UpsScp

STUDY = mr.mr_series(slices=6)
STUDY_UID = UID(STUDY[0].StudyInstanceUID)
SERVERS: dict[str, type[UpsScp] | type[UpsRest]] = {"dimse": UpsScp, "rs": UpsRest}


@pytest.fixture(params=["dimse", "rs"])
def ris(request: pytest.FixtureRequest) -> Iterator[UpsScp | UpsRest]:
    with SERVERS[request.param]() as started:
        yield started


@contextmanager
def performing(
    folder: Path, ris: UpsScp | UpsRest, pacs: Peer | None = None, **changes: object
) -> Iterator[Performing]:
    config = configuration(folder, ris.peer, pacs, **changes)  # type: ignore[arg-type]
    made = Performing(config, manager_of(config, config.peers["ris"]))
    try:
        yield made
    finally:
        made.node.engine.dispose()


def to_the_end(site: Performing, turns: int = 8) -> None:
    """Turns of all parts, until nothing moves any more."""
    for _ in range(turns):
        site.turn(after_s=11.0)
        site.complete()
        site.work()
        site.deliver()


def test_an_item_is_claimed_performed_and_completed(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """The whole way: claimed, its images fetched from the PACS it names, one job, its result referenced."""
    with ScriptedPacs(STUDY) as pacs, performing(tmp_path, ris, pacs.peer) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))

        to_the_end(site)

        jobs = site.node.queue.jobs()
        done = ris.book.items[uid].UnifiedProcedureStepPerformedProcedureSequence[0]
        output = done.OutputInformationSequence[0]
        results = site.node.ledger.rows()
        assert [(uid, "COMPLETED")] == ris.book.ends
        assert [uid] == [claimed for claimed, _ in ris.book.claims]
        assert [(STUDY_UID, 1, State.COMPLETED)] == [(j.study_uid, j.revision, j.state) for j in jobs]
        assert 6 == len(site.node.catalog.held(STUDY_UID))
        assert STUDY_UID == output.StudyInstanceUID
        assert [row.result.sop_instance_uid for row in results] == [
            one.ReferencedSOPInstanceUID for one in output.ReferencedSOPSequence
        ]
        assert "ORTHANC" == output.DICOMRetrievalSequence[0].RetrieveAETitle
        assert "110004" == done.PerformedWorkitemCodeSequence[0].CodeValue
        assert "DICOMNODE" == done.PerformedStationNameCodeSequence[0].CodeValue
        assert done.PerformedProcedureStepStartDateTime <= done.PerformedProcedureStepEndDateTime
        assert ["COMPLETED"] == site.steps()


def test_progress_is_told_as_it_is_made(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Claimed, images here, computing, delivering: the manager sees how far it is."""
    with performing(tmp_path, ris) as site:
        ris.book.add(scheduled("1.2.3.4", STUDY))
        site.turn(after_s=1.0)
        site.arrive(STUDY)
        site.turn(after_s=11.0)
        site.complete()
        site.turn(after_s=11.0)
        site.work()
        site.turn(after_s=11.0)
        site.deliver()
        site.turn(after_s=11.0)

        assert [
            "5 0 of 6 images are here", "5 6 of 6 images are here", "20 waits for a worker",
            "90 the results are being delivered", "100 results are delivered",
        ] == ris.book.progress  # fmt: skip


def test_images_that_somebody_sends_are_waited_for(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """No peer to fetch from: nothing happens before the last image is here; then the study is complete."""
    with performing(tmp_path, ris) as site:
        ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY[:4])
        to_the_end(site, turns=3)
        assert ["INPUTS"] == site.steps()
        assert () == site.node.queue.jobs()

        site.arrive(STUDY[4:])
        to_the_end(site)

        assert ["COMPLETED"] == site.steps()
        assert [1] == [job.revision for job in site.node.queue.jobs()]


def test_images_that_do_not_come_end_the_item(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """After `wait_h` the manager is told, with a code and in words, that it was not performed."""
    with performing(tmp_path, ris, worklist={"wait_h": 1.0}) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY[:4])
        site.turn(after_s=1.0)
        site.turn(after_s=3700.0)

        why = ris.book.items[uid].ProcedureStepProgressInformationSequence[0]
        assert [(uid, "CANCELED")] == ris.book.ends
        assert "4 of its 6 images came within 1 hours" == why.ReasonForCancellation
        assert "110513" == why.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue
        assert ["CANCELED"] == site.steps()


def test_a_study_that_was_done_before_is_not_done_again(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Asked for by the PACS's route first: the item is completed with the results there are."""
    with performing(tmp_path, ris, routed=("pacs", "ris")) as site:
        site.arrive(STUDY)
        site.complete()
        site.passes(601.0)
        site.complete()
        assert 1 == site.work()
        assert 1 == site.deliver()

        ris.book.add(scheduled("1.2.3.4", STUDY))
        site.turn(after_s=11.0)

        assert ["COMPLETED"] == site.steps()
        assert 1 == len(site.node.queue.jobs())


def test_a_job_that_failed_cancels_the_item_with_the_reason(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """The sentence is the one the PACS gets, not the error's own text."""
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY)
        site.turn(after_s=1.0)
        site.complete()
        site.turn(after_s=11.0)
        claimed = site.node.queue.claim("worker", 30.0)
        assert claimed is not None
        site.node.queue.fail(claimed[1], "a sentence with a value", retry_at=None, failure="memory")
        site.turn(after_s=11.0)

        why = ris.book.items[uid].ProcedureStepProgressInformationSequence[0].ReasonForCancellation
        assert [(uid, "CANCELED")] == ris.book.ends
        assert "AI not performed, because the computation needed more memory than this node allows" == why


def test_results_that_no_destination_takes_cancel_the_item(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """COMPLETED would say that there is something to read."""
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY)
        site.turn(after_s=1.0)
        site.complete()
        site.turn(after_s=11.0)
        site.work()
        (delivery,) = site.node.ledger.claim("pacs", 30.0, 10)
        site.node.ledger.failed(delivery, 0x0122, "the SOP class is not supported")
        site.turn(after_s=11.0)

        why = ris.book.items[uid].ProcedureStepProgressInformationSequence[0].ReasonForCancellation
        assert [(uid, "CANCELED")] == ris.book.ends
        assert "PACS 'pacs' took none of the results: the SOP class is not supported" == why


def test_a_later_revision_that_overtakes_the_job_is_waited_for(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """A late image cancels the job before it ran; the item goes on with the job of the new revision."""
    with performing(tmp_path, ris, routed=("pacs", "ris")) as site:
        ris.book.add(scheduled("1.2.3.4", STUDY[:5]))
        site.arrive(STUDY[:5])
        site.turn(after_s=1.0)
        site.complete()
        site.turn(after_s=11.0)
        assert ["JOBS"] == site.steps()
        site.arrive(STUDY[5:])
        site.passes(601.0)
        site.complete()
        to_the_end(site)

        states = [(job.revision, job.state) for job in site.node.queue.jobs()]
        assert [(2, State.COMPLETED), (1, State.CANCELED)] == states
        assert ["COMPLETED"] == site.steps()
        assert 1 == len(ris.book.ends)


def test_only_what_is_meant_for_this_node_is_claimed(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Another code, another station, images that are not ready, and those of others are left alone."""
    ours = ("AI1", "99SITE")
    with performing(tmp_path, ris, worklist={"station": "AI1^99SITE"}) as site:
        ris.book.add(scheduled("1.2.1", STUDY, code=("110005", "DCM"), station=ours))
        ris.book.add(scheduled("1.2.2", STUDY, station=("AI2", "99SITE")))
        ris.book.add(scheduled("1.2.3", STUDY, station=ours, readiness="UNREADY"))
        ris.book.add(scheduled("1.2.4", STUDY))
        ris.book.take_away(ris.book.add(scheduled("1.2.5", STUDY, station=ours)))
        ris.book.add(scheduled("1.2.6", STUDY, station=ours))
        site.turn(after_s=1.0)

        assert ["1.2.6"] == [uid for uid, _ in ris.book.claims]


def test_no_more_are_claimed_than_can_be_worked_on(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """The rest is left to other performers; an item that ends makes room."""
    with performing(tmp_path, ris, worklist={"at_a_time": 2}) as site:
        for number in range(3):
            ris.book.add(scheduled(f"1.2.3.{number}", STUDY))
        site.turn(after_s=2.0)
        site.turn(after_s=2.0)
        assert 2 == len(ris.book.claims)

        site.arrive(STUDY)
        to_the_end(site)

        assert 3 == len(ris.book.ends)
        assert 1 == len(site.node.queue.jobs())


def test_a_race_that_is_lost_is_dropped(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Another performer claims it between our look and our claim: it is told apart from a claim of ours."""
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))

        def somebody_is_faster(what: str) -> str:
            if what == "before N-ACTION IN PROGRESS":
                ris.book.take_away(uid)
            return ""

        ris.trouble = somebody_is_faster
        site.arrive(STUDY)
        to_the_end(site, turns=3)

        assert [] == ris.book.claims
        assert ["LOST"] == site.steps()
        assert () == site.node.queue.jobs()


@pytest.mark.parametrize(
    "when",
    [
        "before N-ACTION IN PROGRESS", "after N-ACTION IN PROGRESS", "after N-SET", "before N-SET",
        "before N-ACTION COMPLETED", "after N-ACTION COMPLETED",
    ],
)  # fmt: skip
@pytest.mark.parametrize("restarts", [False, True])
def test_an_answer_that_is_lost_is_asked_for_again(
    ris: UpsScp | UpsRest, tmp_path: Path, when: str, restarts: bool
) -> None:
    """Three times in a row, with and without a restart: one claim, one end, whichever answer it was."""
    left = [3]

    def trouble(what: str) -> str:
        left[0] -= what == when
        return CUT if what == when and left[0] >= 0 else ""

    ris.trouble = trouble
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY)
        for _ in range(12):
            if restarts:
                site.restart()
            to_the_end(site, turns=1)

        assert left[0] < 0
        assert [uid] == [claimed for claimed, _ in ris.book.claims]
        assert [(uid, "COMPLETED")] == ris.book.ends
        assert ["COMPLETED"] == site.steps()
        assert 1 == len(site.node.queue.jobs())


def test_an_item_that_is_taken_away_is_left_alone(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Somebody at the manager gave it to another performer: nothing is set or ended any more."""
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.turn(after_s=1.0)
        ris.book.take_away(uid)
        site.arrive(STUDY)
        to_the_end(site)

        assert [] == ris.book.ends
        assert ["LOST"] == site.steps()
        assert "IN PROGRESS" == ris.book.state(uid)


def test_a_cancel_that_was_asked_for_is_honoured(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Where the manager notes it in the item: between two steps the node ends it as CANCELED."""
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.turn(after_s=1.0)
        ris.book.ask_to_cancel(uid)
        site.arrive(STUDY)
        to_the_end(site, turns=3)

        assert [(uid, "CANCELED")] == ris.book.ends
        assert () == site.node.queue.jobs()


def test_an_item_that_names_no_images_is_ended(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4"))
        site.turn(after_s=1.0)

        assert [(uid, "CANCELED")] == ris.book.ends


def test_a_manager_that_is_away_is_asked_again(tmp_path: Path) -> None:
    """The item waits in the ledger, is tried with growing pauses, and ends when the manager is back."""
    port = free_port()
    with UpsScp(port=port) as first, performing(tmp_path, first) as site:
        book = first.book
        uid = book.add(scheduled("1.2.3.4", STUDY))
        site.turn(after_s=1.0)
        first.__exit__()
        site.arrive(STUDY)
        with capture_logs() as logs:
            to_the_end(site, turns=4)
        assert ["ENDING"] == site.steps()
        assert {"workitem.untold", "workitem.later"} <= {line["event"] for line in logs}

        with UpsScp(book, port=port):
            to_the_end(site, turns=4)

        assert [(uid, "COMPLETED")] == book.ends


def test_an_item_its_manager_forgot_is_lost_after_a_while(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """At first it may be restarting; then the node does not ask for ever."""
    with performing(tmp_path, ris) as site:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY)
        site.turn(after_s=1.0)
        del ris.book.items[uid]
        to_the_end(site, turns=3)
        assert ["ENDING"] == site.steps()

        site.turn(after_s=GONE_AFTER_S + 1.0)

        assert ["LOST"] == site.steps()


def test_nothing_about_the_patient_is_kept_or_logged(
    ris: UpsScp | UpsRest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The manager knows name and id; the ledger and the log do not."""
    with performing(tmp_path, ris) as site:
        ris.book.add(scheduled("1.2.3.4", STUDY))
        site.arrive(STUDY)
        with capture_logs() as logs:
            to_the_end(site)
        with closing(site.node.engine.raw_connection()) as connection:
            rows = connection.cursor().execute("SELECT * FROM work_items").fetchall()

        assert rows
        assert "CANARY" not in f"{rows}{logs}{capfd.readouterr()}"


def test_the_clockwork_performs_work_items_by_itself(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """Ticker, performers and the rest on real time: only the worker and the deliverer are played."""
    with ScriptedPacs(STUDY) as pacs:
        config = configuration(tmp_path, ris.peer, pacs.peer)
        site = Performing(config, manager_of(config, config.peers["ris"]), utc_now)
        stop = threading.Event()
        ris.book.add(scheduled("1.2.3.4", STUDY))
        thread = threading.Thread(target=Ticker(site.node, stop).run)
        thread.start()
        try:
            wait_until(lambda: site.work() == 1, 30.0, "a job")
            wait_until(lambda: site.deliver() == 1, 30.0, "a delivery")
            wait_until(lambda: ris.book.ends != [], 30.0, lambda: f"the end: {site.steps()}")
        finally:
            stop.set()
            thread.join(20.0)
            site.node.engine.dispose()

    assert [("1.2.3.4", "COMPLETED")] == ris.book.ends


def test_check_says_whether_the_worklist_answers(ris: UpsScp | UpsRest, tmp_path: Path) -> None:
    """A line of `dicom-node check`, and nothing is claimed by it."""
    ris.book.add(scheduled("1.2.3.4", STUDY))
    with performing(tmp_path, ris) as site:
        said = answers(site.node, site.config.worklist[0])
        lines = {one.what: one for one in check_all(site.config)}

    assert said.endswith("1 item(s) wait with 110004^DCM for answers")
    assert lines["worklist of ris"].ok
    assert [] == ris.book.claims


def test_a_manager_without_ups_pull_is_named() -> None:
    """What to change stands in the sentence."""
    with UpsScp(services=("1.2.840.10008.5.1.4.34.6.1",)) as ris:
        manager = DimseManager(ris.peer, "DICOMNODE", 5.0, tls=_NO_TLS)

        with pytest.raises(PeerRefused, match="PACS 'ris' does not offer UPS Pull"):
            manager.search(Sought(("110004", "DCM")))


@pytest.mark.parametrize(
    ("status", "error", "why"),
    [
        (401, PeerRefused, "token"), (403, PeerRefused, "allow it there"), (503, PeerUnreachable, "503"),
        (302, PeerRefused, "redirects"), (404, PeerRefused, "no UPS-RS"), (500, PeerUnreachable, "500"),
    ],
)  # fmt: skip
def test_answers_of_http_that_mean_settings(status: int, error: type[Exception], why: str) -> None:
    """PS3.18 8.5: what a person has to end is told apart from what passes."""
    with UpsRest(answers={"GET": status}) as ris:
        manager = RestManager(ris.peer, 5.0, tls=_NO_TLS)

        with pytest.raises(error, match=why):
            manager.search(Sought(("110004", "DCM")))


def test_a_server_that_looks_for_the_lock_here_or_there_finds_it() -> None:
    """PS3.18 11.6.1 writes ?{transaction-uid}; others look for `transaction`, or in the data set."""
    with UpsRest() as ris:
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        manager = RestManager(ris.peer, 5.0, tls=_NO_TLS)
        manager.change_state(UID(uid), UID("2.25.1"), "IN PROGRESS")

        assert Said.NOT_OURS is manager.update(UID(uid), UID("2.25.2"), progress(1, "x")).said
        assert Said.DONE is manager.update(UID(uid), UID("2.25.1"), progress(1, "x")).said
        assert any("2.25.1=&transaction=2.25.1" in request for request in ris.requests)


_NO_TLS = configuration(Path("unused"), Peer(name="ris", ae_title="RIS", host="127.0.0.1")).tls
