"""The path as a whole, step by step on a clock of its own: T1 to T4 and what a late image does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.config import Config, Infer, Node, Peer, Route
from dicom_node.demo.standin import StandInPacs
from dicom_node.domain.identity import UID
from dicom_node.domain.job import State
from dicom_node.node import flow
from dicom_node.node.build import Node as Parts
from dicom_node.node.build import build
from dicom_node.node.recover import adopt_orphans
from dicom_node.node.sandbox import Sandbox
from dicom_node.node.ticker import Ticker
from dicom_node.node.worker import Worker
from dicom_node.store.catalog import Arrival, Recorded
from dicom_node.store.database import migrate
from support import mr

TOYS = Path(__file__).parent.parent / "support" / "toys"


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Hospital:
    """A node, its clock, and the PACS it sends to."""

    node: Parts
    clock: Clock
    pacs: StandInPacs
    sandbox: Sandbox

    def arrive(self, instances: Sequence[Dataset], peer: str = "pacs") -> list[Recorded]:
        """T1 as the receiver does it: file first, then the row."""
        return [self._arrive(ds, peer) for ds in instances]

    def _arrive(self, ds: Dataset, peer: str) -> Recorded:
        content = mr.file_bytes(ds)
        arrival = Arrival(
            UID(ds.SOPInstanceUID), UID(ds.SOPClassUID), UID("1.2.840.10008.1.2.1"),
            UID(ds.StudyInstanceUID), UID(ds.SeriesInstanceUID), peer,
        )  # fmt: skip
        return self.node.catalog.record(arrival, self.node.archive.put(content), len(content))

    def tick(self, after_s: float = 0.0) -> None:
        """Let time pass, then look until nothing is left to do at once."""
        self.clock.pass_s(after_s)
        while self.ticker.tick():
            pass

    @property
    def ticker(self) -> Ticker:
        if not hasattr(self, "_ticker"):
            self._ticker = Ticker(self.node, threading.Event())
        return self._ticker

    def work(self) -> bool:
        return Worker(self.node, threading.Event()).work_once(self.sandbox)

    def tell(self) -> bool:
        return Worker(self.node, threading.Event()).tell_once(self.sandbox)

    def deliver(self) -> None:
        flow.deliver(self.node).deliver_due()

    def states(self) -> list[tuple[int, State]]:
        return sorted((job.revision, job.state) for job in self.node.queue.jobs())


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    config = Config(
        node=Node(data_dir=tmp_path_factory.mktemp("sandbox"), pipelines_dir=TOYS),
        infer=Infer(job_time_limit_s=20.0, threads=1),
    )
    with Sandbox(config, ("answers", "declines", "dies")) as opened:
        yield opened


def hospital_for(pipeline: str, tmp_path: Path, pacs: StandInPacs, sandbox: Sandbox) -> Hospital:
    clock = Clock()
    config = Config(
        node=Node(data_dir=tmp_path / "data", pipelines_dir=TOYS),
        peer=(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=pacs.port),),
        route=(Route.model_validate({"pipeline": pipeline, "from": ["pacs"], "to": ["pacs"]}),),
    )
    node = build(config, clock=clock)
    migrate(node.engine)
    return Hospital(node, clock, pacs, sandbox)


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[StandInPacs]:
    with StandInPacs(tmp_path / "pacs", "PACS") as started:
        yield started


@pytest.fixture
def hospital(tmp_path: Path, pacs: StandInPacs, sandbox: Sandbox) -> Iterator[Hospital]:
    made = hospital_for("answers", tmp_path, pacs, sandbox)
    yield made
    made.node.engine.dispose()


def test_a_study_goes_in_and_its_results_come_out_once(hospital: Hospital) -> None:
    """Received, assembled, routed, inferred, encoded, delivered; and nothing of it a second time."""
    series = mr.mr_series(slices=6)
    hospital.arrive(series)
    hospital.tick(after_s=60)

    assert hospital.work()
    hospital.deliver()
    hospital.deliver()

    assert [(1, State.COMPLETED)] == hospital.states()
    assert 2 == len(hospital.pacs.arrivals)
    assert not hospital.work()


def test_the_same_study_again_changes_nothing(hospital: Hospital) -> None:
    """A repeated transmission is answered and makes no revision, no job, no object."""
    series = mr.mr_series(slices=6)
    hospital.arrive(series)
    hospital.tick(after_s=60)
    hospital.work()
    hospital.deliver()

    again = hospital.arrive(series)
    hospital.tick(after_s=60)
    hospital.deliver()

    assert {Recorded.SAME} == set(again)
    assert [(1, State.COMPLETED)] == hospital.states()
    assert 2 == len(hospital.pacs.arrivals)


def test_nothing_is_routed_before_the_study_is_quiet(hospital: Hospital) -> None:
    """Without proof of completeness only quiet time counts, and it starts anew with each image."""
    series = mr.mr_series(mr.T1, slices=6)  # not what the pipeline needs: more may come
    hospital.arrive(series[:3])
    hospital.tick(after_s=20)
    hospital.arrive(series[3:])
    hospital.tick(after_s=20)

    assert [] == hospital.states()

    hospital.tick(after_s=11)

    assert [(1, State.SCHEDULED)] == hospital.states()


def test_a_late_slice_makes_a_new_revision_and_supersedes(hospital: Hospital) -> None:
    """The job is done anew with all slices; what the first revision said is marked superseded."""
    series = mr.mr_series(slices=6)
    hospital.arrive(series[:5])
    hospital.tick(after_s=60)
    hospital.work()
    first = hospital.node.ledger.results(1)

    hospital.arrive(series[5:])
    hospital.tick(after_s=60)
    hospital.work()

    assert [(1, State.COMPLETED), (2, State.COMPLETED)] == hospital.states()
    assert first != ()
    assert () == hospital.node.ledger.results(1, superseded=False)
    canceled = [row.state for row in hospital.node.ledger.rows(job_id=1)]
    assert [State.CANCELED, State.CANCELED] == canceled
    (report,) = (made for made in hospital.node.ledger.results(2) if made.kind == "sr")
    data_set = dcmread(hospital.node.archive.path(report.digest))
    (named,) = data_set.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [named.ReferencedSOPInstanceUID] == [old.sop_instance_uid for old in first if old.kind == "sr"]


def test_a_late_series_the_pipeline_does_not_use_repeats_nothing(hospital: Hospital) -> None:
    """The study has a new revision, and the result stands: only what changed is done anew."""
    hospital.arrive(mr.mr_series(slices=6))
    hospital.tick(after_s=60)
    hospital.work()

    hospital.arrive(mr.mr_series(mr.T1, slices=6, SeriesNumber=9))
    hospital.tick(after_s=60)

    assert [(1, State.COMPLETED)] == hospital.states()
    assert not hospital.work()
    study = hospital.node.queue.job(1).study_uid
    assert "revision 2" in " ".join(row.detail for row in hospital.node.history.of(study))


def test_images_whose_rows_were_lost_join_the_ledger_again(hospital: Hospital) -> None:
    """After a restore from an older backup every image is back and routed; results are not taken for one."""
    hospital.arrive(mr.mr_series(slices=6))
    hospital.tick(after_s=60)
    hospital.work()
    for table in ("deliveries", "results", "jobs", "revisions", "instances"):
        with hospital.node.engine.begin() as connection:
            connection.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608 - names above
    for path in hospital.node.config.node.data_dir.glob("objects/*/*"):
        os.utime(path, (0, 0))  # older than anything that may still be on its way into the ledger

    assert 6 == adopt_orphans(hospital.node)
    assert 0 == adopt_orphans(hospital.node)
    hospital.tick(after_s=60)
    assert [(1, State.SCHEDULED)] == hospital.states()


def test_a_job_that_cannot_succeed_fails_with_its_sentence(
    tmp_path: Path, pacs: StandInPacs, sandbox: Sandbox
) -> None:
    """FAILED at once, with the reason a person reads in `dicom-node jobs`."""
    hospital = hospital_for("declines", tmp_path, pacs, sandbox)
    hospital.arrive(mr.mr_series(slices=4))
    hospital.tick(after_s=60)

    hospital.work()

    (job,) = hospital.node.queue.jobs()
    assert (State.FAILED, "the toy declines this study") == (job.state, job.reason)
    hospital.node.engine.dispose()


def test_a_job_whose_process_dies_is_repeated_and_then_given_up(
    tmp_path: Path, pacs: StandInPacs, sandbox: Sandbox
) -> None:
    """Three attempts with growing pauses; others would be served meanwhile; then FAILED, with the reason."""
    hospital = hospital_for("dies", tmp_path, pacs, sandbox)
    hospital.arrive(mr.mr_series(slices=4))
    hospital.tick(after_s=60)
    attempts = 0
    for _ in range(6):
        attempts += hospital.work()
        hospital.clock.pass_s(60)

    (job,) = hospital.node.queue.jobs()

    assert 3 == attempts
    assert (State.FAILED, 3) == (job.state, job.attempts)
    assert "ended with code 139" in job.reason
    hospital.node.engine.dispose()


@pytest.mark.parametrize(
    ("pipeline", "because"),
    [
        ("declines", "the computation met an error"),
        ("dies", "the program that computes it stopped unexpectedly"),
    ],
)
def test_the_pacs_is_told_once_of_a_job_that_failed(
    tmp_path: Path, pacs: StandInPacs, sandbox: Sandbox, pipeline: str, because: str
) -> None:
    """SR and page in the study say that AI did not run and why, in fixed words and not the error's own;
    the same failure again has the same UIDs, so nothing is sent twice."""
    hospital = hospital_for(pipeline, tmp_path, pacs, sandbox)
    hospital.arrive(mr.mr_series(slices=4))
    hospital.tick(after_s=60)
    for _ in range(2):
        while hospital.work():
            hospital.clock.pass_s(60)
        assert hospital.tell()
        assert not hospital.tell()
        hospital.deliver()
        (job,) = hospital.node.queue.jobs()
        hospital.node.queue.retry(job.id)

    rows = hospital.node.ledger.rows()
    assert [("sr", State.COMPLETED, 1), ("sc", State.COMPLETED, 1)] == [
        (row.result.kind.value, row.state, row.attempts) for row in rows
    ]
    report = dcmread(hospital.node.archive.path(rows[0].result.digest))
    said = [item.value for item in report.iterall() if item.keyword == "TextValue"]
    assert f"AI not performed, because {because}." in said
    assert not any(job.reason in text for text in said)
    hospital.node.engine.dispose()


def test_two_nodes_make_the_same_bytes(tmp_path: Path, pacs: StandInPacs, sandbox: Sandbox) -> None:
    """The same study on another day, in another archive: the same UIDs and the same digests."""
    made = []
    for name, days in (("one", 0), ("other", 100)):
        hospital = hospital_for("answers", tmp_path / name, pacs, sandbox)
        hospital.clock.pass_s(days * 86400)
        hospital.arrive(mr.mr_series(slices=6))
        hospital.tick(after_s=60)
        hospital.work()
        made.append({(result.sop_instance_uid, result.digest) for result in hospital.node.ledger.results(1)})
        hospital.node.engine.dispose()

    assert made[0] == made[1]
    assert 2 == len(made[0])
