"""A week without an answer: every result is in the PACS once, as it was made, also over a bad line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicom_node.config import Deliver, Node
from dicom_node.node.report import retry_deliveries
from support.deliveries import Bench
from support.orthanc import Orthanc, orthanc
from support.outage import run
from support.results import data_set_bytes, result_file
from support.scripted_scp import RESULT_CLASSES

KINDS = tuple(RESULT_CLASSES)
WEEK = timedelta(days=7)


@pytest.mark.timeout(120)
def test_deliveries_over_a_bad_line_arrive_once_and_unchanged(tmp_path: Path) -> None:
    """Connections are refused, cut in requests and in answers, delayed, silent and repeated whole;
    `make outage` is the same with 5,000 deliveries."""
    told = run(tmp_path, 64, seed=4)

    assert 64 == told.deliveries
    assert told.attempts > 64 * (1 + told.calls_while_down)  # the line did harm
    assert {"cut request", "cut answer", "repeat"} <= set(told.faults)


class Site:
    """A node with the default settings, and Debian's Orthanc as its PACS, which is switched off and on."""

    def __init__(self, folder: Path, pacs: Orthanc) -> None:
        (folder / "node").mkdir()
        self.pacs, self.folder = pacs, folder / "node"
        self.at = Bench(self.folder, {"pacs": pacs.dicom_port})
        self.made: dict[str, bytes] = {}
        self.calls = 0

    def new_results(self) -> None:
        """A study's results, as T3 leaves them."""
        files = [result_file(kind, study=f"study {len(self.made)}") for kind in KINDS]
        self.at.schedule(files, "pacs")
        uids = self.at.last_uids(len(files))
        self.made |= dict(zip(uids, map(data_set_bytes, files), strict=True))

    def until(self, then: datetime) -> None:
        """Let time pass as the ledger has it: each attempt when it is due."""
        clock = self.at.clock
        self.at.deliverer.deliver_due()
        while (due := self.at.next_attempt()) and due < then:
            clock.now = max(due, clock.now)
            self.calls += 1
            self.at.deliverer.deliver_due()
        clock.now = then
        self.at.deliverer.deliver_due()

    def held(self) -> dict[str, bytes]:
        """What the PACS has, by SOP Instance UID."""
        found = self.pacs.by_sop_instance()
        assert len(found) == self.pacs.count()  # each once
        return {uid: data_set_bytes(self.pacs.file(one)) for uid, one in found.items()}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with orthanc(tmp_path / "orthanc", ae_title="PACS") as pacs:
        made = Site(tmp_path, pacs)
        try:
            yield made
        finally:
            made.at.close()


def test_the_default_gives_an_outage_of_a_week_and_more_its_time() -> None:
    """Twice a week: what had waited before the PACS went down counts its days from then."""
    assert 2 * WEEK <= timedelta(days=Deliver().give_up_after_days)


@pytest.mark.timeout(600)
def test_a_week_without_the_pacs_is_delivered_in_full(site: Site) -> None:
    """Default settings: results made as it begins and on its last day are there within half an hour of its
    end, each once, with the bytes first made; nothing has FAILED."""
    at = site.at
    assert at.config.deliver == Deliver(timeout_s=5.0)
    began = at.clock.now
    site.pacs.stop()
    site.new_results()
    site.until(began + timedelta(days=6, hours=12))
    site.new_results()
    site.until(began + WEEK)
    assert {"SCHEDULED"} == set(at.states())
    assert 330 < site.calls < 520  # about one in half an hour

    site.pacs.start()
    site.until(began + WEEK + timedelta(seconds=Deliver().retry_at_most_s))

    assert {"COMPLETED"} == set(at.states())
    assert site.made == site.held()
    assert [] == at.ledger.destinations_due()


@pytest.mark.timeout(600)
def test_beyond_giving_up_everything_is_kept_and_a_person_sends_it(site: Site) -> None:
    """Longer than `give_up_after_days`: FAILED with a sentence that says what to do; `retry` delivers all."""
    at = site.at
    site.new_results()
    began, limit = at.clock.now, timedelta(days=Deliver().give_up_after_days)
    site.pacs.stop()
    at.clock.now = began + limit - timedelta(hours=1)
    site.until(began + limit)
    assert {"SCHEDULED"} == set(at.states())

    site.new_results()  # the days of each object are its own
    site.until(began + limit + timedelta(hours=1))
    count = len(KINDS)
    assert ["FAILED"] * count + ["SCHEDULED"] * count == at.states()
    given_up = at.rows()[0].reason
    assert given_up.startswith(
        "given up after 14 days of trying: mend it, then `dicom-node retry --deliveries`. Last: PACS 'pacs'"
    )

    site.pacs.start()
    site.until(began + limit + timedelta(hours=2))
    assert ["FAILED"] * count + ["COMPLETED"] * count == at.states()
    config = at.config.model_copy(update={"node": Node(data_dir=site.folder)})
    assert {"deliveries scheduled again": count} == retry_deliveries(config)
    at.deliverer.deliver_due()

    assert {"COMPLETED"} == set(at.states())
    assert site.made == site.held()
