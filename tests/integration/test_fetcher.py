"""A route that asks the sender: what was missing comes, and the study is one revision with one job."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from structlog.testing import capture_logs

from dicom_node.audit.report import rows
from dicom_node.domain.identity import UID
from dicom_node.errors import ConfigurationError, RetrieveError
from dicom_node.node import fetcher
from dicom_node.node.build import Node, build
from dicom_node.node.fetch import can_be_asked, is_asked
from dicom_node.node.ticker import Ticker
from dicom_node.scu.find import STUDY_ROOT_FIND
from dicom_node.store.catalog import Arrival, Recorded
from dicom_node.store.database import migrate
from support import mr
from support.archive_pacs import QUERY_RETRIEVE, asking, fill
from support.orthanc import orthanc
from support.ports import wait_until
from support.scripted_pacs import ABORT, HANG, ScriptedPacs

TOYS = Path(__file__).parent.parent / "support" / "toys"
STUDY = mr.mr_series(slices=12)
STUDY_UID = UID(STUDY[0].StudyInstanceUID)
COMPLETE_WITHIN_S = 30.0


@contextmanager
def ticking(
    folder: Path, port: int, fetch: str, *, retrieve: str = "get", stable_after_s: float = 600.0,
    timeout_s: float = 10.0,
) -> Iterator[Node]:  # fmt: skip
    """A node whose clockwork runs; what it did not see to be complete waits for longer than the test."""
    config = asking(
        folder, port, retrieve=retrieve, route={"pipeline": "answers", "fetch": fetch}, pipelines=TOYS,
        settle_s=0.6, stable_after_s=stable_after_s,
    )  # fmt: skip
    config = config.model_copy(update={"deliver": config.deliver.model_copy(update={"timeout_s": timeout_s})})
    node, stop = build(config), threading.Event()
    migrate(node.engine)
    thread = threading.Thread(target=Ticker(node, stop).run)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        thread.join(20)
        node.engine.dispose()


def arrive(node: Node, instances: Sequence[Dataset]) -> set[Recorded]:
    """T1, as the front door does it."""
    return {_arrive(node, ds) for ds in instances}


def _arrive(node: Node, ds: Dataset) -> Recorded:
    content = mr.file_bytes(ds)
    arrival = Arrival(
        UID(ds.SOPInstanceUID), UID(ds.SOPClassUID), UID("1.2.840.10008.1.2.1"),
        UID(ds.StudyInstanceUID), UID(ds.SeriesInstanceUID), "pacs",
    )  # fmt: skip
    return node.catalog.record(arrival, node.archive.put(content), len(content))


def revisions(node: Node) -> list[tuple[int, int, str]]:
    """(revision, instances, why it counted as complete)."""
    with node.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT revision, instances, because FROM revisions ORDER BY id")
        return [(row[0], row[1], row[2].split(";")[0]) for row in rows]


def wait_for_revision(node: Node, number: int = 1) -> None:
    wait_until(
        lambda: len(revisions(node)) >= number, COMPLETE_WITHIN_S,
        lambda: f"revision {number}: {[row.detail for row in node.history.of(STUDY_UID)]}",
    )  # fmt: skip


def test_what_was_not_sent_is_retrieved_and_the_study_is_one_revision(tmp_path: Path) -> None:
    """Orthanc has 12 images and sent 9: the study completes once, with 12, and makes one job."""
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE) as pacs:
        fill(pacs, STUDY)
        with ticking(tmp_path / "node", pacs.dicom_port, "missing") as node:
            arrive(node, STUDY[:9])
            wait_for_revision(node)
            made, jobs = revisions(node), node.queue.jobs()
            told = [row.detail for row in node.history.of(STUDY_UID) if row.event == "study.asked"]
            trail = [row["what"] for row in rows(node.config.audit_folder)]

    assert [(1, 12, "PACS 'pacs' has 12 images of it, all are here")] == made
    assert [1] == [job.revision for job in jobs]
    assert "PACS 'pacs' has 12 images of it, 3 objects are missing here" == told[0]
    begin, end = "Begin Transferring DICOM Instances", "DICOM Instances Transferred"
    assert ["Query", begin, end, begin, "Query"] == trail  # the second one is our request, and how it ended


def test_a_count_is_waited_for_and_nothing_is_retrieved(tmp_path: Path) -> None:
    """`count`: 9 of 12 are here, and whole as they look; the study waits until the others were sent."""
    with ScriptedPacs(STUDY) as pacs, ticking(tmp_path / "node", pacs.port, "count") as node:
        arrive(node, STUDY[:9])
        wait_until(lambda: node.expectations.of(STUDY_UID) != (), COMPLETE_WITHIN_S, "the PACS was asked")
        looks = pacs.asked.count("IMAGE")
        pacs.pause(1.5)  # more than the settling time
        assert [] == revisions(node)
        assert looks == pacs.asked.count("IMAGE")

        arrive(node, STUDY[9:])
        wait_for_revision(node)

        assert [(1, 12, "PACS 'pacs' has 12 images of it, all are here")] == revisions(node)
        assert 2 == pacs.asked.count("IMAGE")


def test_a_late_image_is_asked_about_anew(tmp_path: Path) -> None:
    """The PACS grew after the first revision: a later image brings the others with it, in one revision."""
    held = list(STUDY[:9])
    with ScriptedPacs(held) as pacs, ticking(tmp_path / "node", pacs.port, "missing") as node:
        arrive(node, STUDY[:9])
        wait_for_revision(node)
        held += STUDY[9:]
        arrive(node, STUDY[9:10])
        wait_for_revision(node, 2)

        assert [(1, 9), (2, 12)] == [(number, count) for number, count, _ in revisions(node)]


def test_a_peer_that_cannot_be_asked_leaves_the_judgement_to_the_images(tmp_path: Path) -> None:
    """It says no at once: a study seen to be whole does not wait for it."""
    with ScriptedPacs(services=[]) as pacs, ticking(tmp_path / "node", pacs.port, "missing") as node:
        arrive(node, STUDY[:9])
        wait_for_revision(node)

        assert [(1, 9, "every series is whole and every need is met")] == revisions(node)


def test_a_peer_that_hangs_stops_neither_the_ticker_nor_the_study(tmp_path: Path) -> None:
    """The last resort comes in its time, though the answer never does."""

    def hang(level: str, asked: Dataset) -> list[str]:
        return [HANG]

    with (
        ScriptedPacs(find=hang) as pacs,
        ticking(tmp_path / "node", pacs.port, "missing", stable_after_s=1.5, timeout_s=60.0) as node,
    ):
        arrive(node, STUDY[:9])
        started = time.monotonic()
        wait_for_revision(node)
        took_s = time.monotonic() - started
        ((_, count, because),) = revisions(node)

    assert took_s < COMPLETE_WITHIN_S
    assert 9 == count
    assert because.endswith("the last resort, since: PACS 'pacs' is being asked what it has of it")


def test_what_could_not_be_retrieved_is_said_and_waited_for(tmp_path: Path) -> None:
    """The PACS aborts in the middle: what came stays, the story tells why, the last resort completes."""
    with (
        ScriptedPacs(STUDY, get=lambda asked: [STUDY[9], ABORT]) as pacs,
        ticking(tmp_path / "node", pacs.port, "missing", stable_after_s=2.5) as node,
    ):
        arrive(node, STUDY[:9])
        wait_for_revision(node)
        ((_, count, because),) = revisions(node)
        story = [row.detail for row in node.history.of(STUDY_UID) if row.event == "study.not_retrieved"]

    assert 10 == count
    assert because.endswith("since: PACS 'pacs' has 12 images of series 1, 10 are here")
    assert "PACS 'pacs' ended the association" in story[0]


@pytest.mark.parametrize(("fetch", "retrieve"), [("no", "get"), ("missing", "no")])
def test_nothing_is_retrieved_without_both_keys(tmp_path: Path, fetch: str, retrieve: str) -> None:
    """A route without `fetch` asks nobody; a peer with `retrieve = "no"` is asked and gives nothing."""
    given: list[Dataset] = []

    def get(asked: Dataset) -> list[Dataset]:
        given.append(asked)
        return []

    with (
        ScriptedPacs(STUDY, get=get) as pacs,
        ticking(tmp_path / "node", pacs.port, fetch, retrieve=retrieve, stable_after_s=1.5) as node,
    ):
        arrive(node, STUDY[:9])
        wait_for_revision(node)

        assert [(1, 9)] == [(number, count) for number, count, _ in revisions(node)]
        assert ([], fetch == "missing") == (given, "IMAGE" in pacs.asked)


def test_the_log_names_no_patient_and_no_study(tmp_path: Path) -> None:
    """Neither what a peer answers nor what it sends gets into the log, whatever goes wrong with it."""
    with (
        capture_logs() as logged,
        ScriptedPacs(STUDY, get=lambda asked: [STUDY[11], STUDY[0], ABORT]) as pacs,
        ticking(tmp_path / "node", pacs.port, "missing", stable_after_s=2.5) as node,
    ):
        arrive(node, STUDY[:11])
        wait_for_revision(node)

    written = str([line for line in logged if line["log_level"] != "debug"])
    assert {"fetch.asked", "fetch.unasked", "fetch.retrieved"} <= {line["event"] for line in logged}
    forbidden = ("CANARY", STUDY_UID, *(ds.SOPInstanceUID for ds in STUDY))
    assert [] == [word for word in forbidden if word in written]


def test_check_says_whether_a_peer_can_be_asked(tmp_path: Path) -> None:
    """By negotiation alone, with what to change; also where the two keys contradict each other."""
    route = {"pipeline": "answers", "fetch": "missing"}
    with ScriptedPacs() as whole, ScriptedPacs(services=[STUDY_ROOT_FIND]) as half:
        willing = asking(tmp_path, whole.port, route=route, pipelines=TOYS)
        by_move = asking(tmp_path, whole.port, retrieve="move")
        unwilling = asking(tmp_path, half.port, route=route, pipelines=TOYS)
        contrary = asking(tmp_path, whole.port, retrieve="no", route=route, pipelines=TOYS)

        assert "does C-FIND and C-GET" == can_be_asked(willing, willing.peer[0])
        assert "does C-FIND and C-MOVE" == can_be_asked(by_move, by_move.peer[0])
        with pytest.raises(RetrieveError, match=r"does not do C-GET .* allow it there"):
            can_be_asked(unwilling, unwilling.peer[0])
        with pytest.raises(ConfigurationError, match='fetch = "missing", but this peer'):
            can_be_asked(contrary, contrary.peer[0])
        assert [] == whole.asked

    assert [True, True] == [is_asked(config, config.peer[0]) for config in (willing, contrary)]
    assert not is_asked(asking(tmp_path, 1, retrieve="no"), contrary.peer[0])


def test_what_did_not_come_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PACS was out of resources for a moment: after a pause the study is completed all the same."""
    monkeypatch.setattr(fetcher, "FIRST_PAUSE_S", 0.2)
    refusals = [0xA702, 0xA702]

    def get(asked: Dataset) -> list[int | Dataset]:
        return [refusals.pop()] if refusals else [*STUDY[9:], 0x0000]

    with (
        ScriptedPacs(STUDY, get=get) as pacs,
        ticking(tmp_path / "node", pacs.port, "missing") as node,
    ):
        arrive(node, STUDY[:9])
        wait_for_revision(node)

        assert [(1, 12, "PACS 'pacs' has 12 images of it, all are here")] == revisions(node)
    assert [] == refusals
