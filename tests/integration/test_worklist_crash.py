"""Whatever is killed, lost, repeated or late: an item is claimed once and ended once, and never forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_node.config import Config, Peer
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import OPEN, Item, Step
from dicom_node.errors import PeerUnreachable
from dicom_node.node.performer import manager_of
from dicom_node.store.database import utc_now
from dicom_node.worklist.item import keys, read
from dicom_node.worklist.manager import Reply, Said, Sought
from support import mr
from support.performing import Performing, configuration
from support.ports import wait_until
from support.scripted_pacs import ScriptedPacs
from support.ups_book import UpsBook, scheduled
from support.ups_scp import CUT, UpsRest, UpsScp

STUDY = mr.mr_series(slices=4)
TESTS = Path(__file__).parent.parent


@dataclass
class Victim:
    """The performing process. `at` kills it the first time it hears of each moment in `moments`."""

    config: Path
    moments: list[str]
    kills: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    heard: Counter[str] = field(default_factory=Counter)

    def at(self, what: str) -> str:
        self.heard[what] += 1
        moment = f"{what} {self.heard[what]}"
        if self.process is not None and moment in self.moments and self.process.poll() is None:
            self.moments.remove(moment)
            self.kills.append(moment)
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(10.0)
            return CUT
        return ""

    def live(self) -> None:
        """Started anew where it was killed, as the supervisor does."""
        if self.process is None or self.process.poll() is not None:
            assert self.process is None or self.process.returncode == -signal.SIGKILL
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.perform_child", str(self.config)],
                env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10.0)


@contextmanager
def victim(config: Config, folder: Path, moments: Sequence[str]) -> Iterator[Victim]:
    file = folder / "config.json"
    file.write_text(config.model_dump_json(by_alias=True), encoding="utf-8")
    made = Victim(file, list(moments))
    try:
        yield made
    finally:
        made.end()


MESSAGES = ("N-ACTION IN PROGRESS", "N-SET", "N-ACTION COMPLETED")
MOMENTS = {
    "dimse": [
        *(f"{when} {what} 1" for what in ("C-FIND", "N-GET", *MESSAGES) for when in ("before", "after")),
        "before N-SET 2", "after N-SET 3", "after N-ACTION COMPLETED 2", "stored 2",
    ],
    "rs": [*(f"{when} {what} 1" for what in MESSAGES for when in ("before", "after")), "stored 2"],
}  # fmt: skip
SERVERS: dict[str, Callable[[], UpsScp | UpsRest]] = {"dimse": UpsScp, "rs": UpsRest}


@pytest.mark.parametrize("way", ["dimse", "rs"])
def test_a_performer_killed_at_every_message_claims_once_and_ends_once(tmp_path: Path, way: str) -> None:
    """SIGKILL before the manager looks at a request, and after it was carried out and not answered; and
    in the middle of a C-GET. The process starts anew each time, with nothing but the ledger.
    """  # fmt: skip
    with SERVERS[way]() as ris, ScriptedPacs(STUDY) as pacs:
        config = configuration(tmp_path, ris.peer, pacs.peer)
        site = Performing(config, manager_of(config, config.peers["ris"]), utc_now)
        uid = ris.book.add(scheduled("1.2.3.4", STUDY))
        with victim(config, tmp_path, MOMENTS[way]) as performer:
            ris.trouble = performer.at
            pacs.on_stored = lambda status: performer.at("stored") and None

            def others_go_on() -> bool:
                performer.live()
                site.complete()
                site.work()
                site.deliver()
                return ris.book.ends != [] and site.steps() == ["COMPLETED"]

            wait_until(others_go_on, 240.0, lambda: f"{site.steps()} after {performer.kills}")
            kills = performer.kills
        jobs = site.node.queue.jobs()
        site.node.engine.dispose()

    assert len(kills) >= len(MOMENTS[way]) - 2  # a second C-FIND or N-SET may never be needed
    assert {"after N-ACTION IN PROGRESS 1", "after N-SET 1", "after N-ACTION COMPLETED 1"} <= set(kills)
    assert [uid] == [claimed for claimed, _ in ris.book.claims]
    assert [(uid, "COMPLETED")] == ris.book.ends
    assert [1] == [job.revision for job in jobs]


class Killed(BaseException):
    """The process ended here."""


LOST, UNHEARD, TWICE, LATE, CRASH, CRASH_AFTER, FINE = range(7)
_SAID = {
    0x0000: Said.DONE, 0xB304: Said.DONE, 0xB306: Said.DONE, 0xC301: Said.NOT_OURS, 0xC307: Said.GONE,
    0xC304: Said.REFUSED,
}  # fmt: skip


@dataclass
class FaultyManager:
    """The book by a line that does to each request what `faults` says: the third way to ask a manager."""

    book: UpsBook
    faults: list[int] = field(default_factory=list)
    late: list[Callable[[], object]] = field(default_factory=list)
    loose: bool = False
    """Answers that an item is ended, not that it is in the requested state already."""

    def search(self, sought: Sought) -> Sequence[Item]:
        return [read(ds) for ds in self.book.find(keys(sought))]

    def get(self, uid: UID) -> Item | None:
        ds = self.book.get(uid)
        return None if ds is None else read(ds, uid)

    def update(self, uid: UID, transaction_uid: UID, changes: Dataset) -> Reply:
        ds = Dataset()
        ds.update(changes)
        ds.TransactionUID = transaction_uid
        return self._by(lambda: self.book.update(uid, ds))

    def change_state(self, uid: UID, transaction_uid: UID, state: str) -> Reply:
        return self._by(lambda: self.book.change_state(uid, transaction_uid, state))

    def _by(self, request: Callable[[], int]) -> Reply:
        fault = self.faults.pop(0) if self.faults else FINE
        if fault == CRASH:
            raise Killed
        if fault == UNHEARD:
            raise PeerUnreachable("the request was lost")
        if fault == LATE:
            self.late.append(request)
            raise PeerUnreachable("the request comes later")
        if fault == TWICE:
            request()
        status = request()
        while self.late:
            self.late.pop(0)()
        if fault == CRASH_AFTER:
            raise Killed
        if fault == LOST:
            raise PeerUnreachable("the answer was lost")
        if self.loose and status in (0xB304, 0xB306):
            status = 0xC300
        return Reply(_SAID.get(status, Said.CONFLICT), f"0x{status:04X}")


def test_no_order_of_faults_does_an_item_twice_or_loses_it(tmp_path: Path) -> None:
    """Requests lost, answers lost, requests that come twice or late, crashes, a rival: in any order."""
    ris = Peer(name="ris", ae_title="RIS", host="127.0.0.1")
    config = configuration(tmp_path, ris, worklist={"at_a_time": 1000})
    manager = FaultyManager(UpsBook())
    site = Performing(config, manager)
    site.arrive(STUDY)
    numbers = iter(range(10**6))

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        faults=st.lists(st.integers(LOST, FINE), max_size=14), rival_at=st.integers(0, 12),
        images=st.sampled_from([4, 0]), loose=st.booleans(),
    )  # fmt: skip
    def in_any_order(faults: list[int], rival_at: int, images: int, loose: bool) -> None:
        manager.book, manager.late, manager.faults = UpsBook(), [], list(faults)
        manager.loose = loose
        uid = manager.book.add(scheduled(f"1.2.3.{next(numbers)}", STUDY[:images]))
        for round_ in range(30):
            if round_ == rival_at - 1:
                manager.book.change_state(uid, "9.9.9", "IN PROGRESS")
            try:
                site.turn(after_s=2000.0)
            except Killed:
                site.restart()
            site.complete()
            site.work()
            site.deliver()
            claim = site.node.work_items.latest(1)[0]
            if round_ > rival_at and claim.uid == uid and claim.step not in OPEN:
                break
        while manager.late:
            manager.late.pop(0)()

        claims = [lock for _, lock in manager.book.claims]
        assert len(claims) == 1
        if claims == ["9.9.9"]:
            assert (claim.uid != uid or claim.step is Step.LOST) and manager.book.ends == []
        else:
            final = "COMPLETED" if images else "CANCELED"
            assert manager.book.ends == [(uid, final)]
            assert (claim.uid, claim.step.value) == (uid, final)
        assert len(site.node.queue.jobs()) <= 1

    in_any_order()
    site.node.engine.dispose()
