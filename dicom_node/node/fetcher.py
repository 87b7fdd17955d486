"""Asks the senders of a pending study what they have of it, beside the ticker, and brings what is missing.

Asked once a study has been quiet for `settle_s`, once per peer and state of the study (a later image
makes a new state). One thread per peer: a PACS that hangs delays neither the ticker nor the
questions to others. While an answer is awaited the study is not seen to be complete, but
`stable_after_s` still ends the waiting; a peer that cannot be asked leaves the judgement to the
images, and is asked again later as long as the study is pending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dicom_node import log
from dicom_node.config import Peer, Route
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError
from dicom_node.node.build import Node
from dicom_node.node.fetch import ask, bring, still_missing
from dicom_node.store.catalog import PendingStudy

FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Before a peer that could not be asked about a study is asked again; doubled each time."""
LOOK_EVERY_S = 0.5


class Step(StrEnum):
    """Where one question stands."""

    # none -> AWAITED -> ANSWERED | FAILED -> AWAITED: asked again after a pause
    AWAITED = "awaited"
    ANSWERED = "answered"
    FAILED = "failed"


State = tuple[datetime, int]
"""What a study looked like: when its last image came, and how many are in no revision."""


@dataclass(frozen=True, slots=True)
class Question:
    """About one study, to one peer, in one state of the study."""

    state: State
    step: Step
    attempts: int = 1
    not_before: datetime | None = None


def state_of(pending: PendingStudy) -> State:
    return pending.last_received_at, pending.new_instances


def wants(routes: Sequence[Route], senders: Sequence[str]) -> dict[str, bool]:
    """Which senders are asked; True where what is missing is retrieved too. Pure."""
    wanted: dict[str, bool] = {}
    for route in routes:
        for name in senders:
            if route.fetch != "no" and name in route.from_:
                wanted[name] = wanted.get(name, False) or route.fetch == "missing"
    return wanted


def next_question(
    before: Question | None, state: State, asked_at: datetime | None, now: datetime
) -> Question:
    """What the question to one peer is now: a new one where the state is new or a pause is over. Pure.

    `asked_at` is the peer's last answer in the ledger: a node that starts anew does not ask again.
    """
    if before is None and asked_at is not None and asked_at >= state[0]:
        return Question(state, Step.ANSWERED)
    if before is None or before.state != state:
        return Question(state, Step.AWAITED)
    if before.step is Step.FAILED and before.not_before is not None and now >= before.not_before:
        return Question(state, Step.AWAITED, before.attempts + 1)
    return before


def failed(question: Question, now: datetime) -> Question:
    pause_s = min(FIRST_PAUSE_S * 2.0 ** min(question.attempts - 1, 10), LONGEST_PAUSE_S)
    return Question(question.state, Step.FAILED, question.attempts, now + timedelta(seconds=pause_s))


class Fetcher:
    """`look` is called by the ticker's thread alone; the lanes' threads write what became of a question.

    Mutable, under the lock: the questions by (study, peer).
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._questions: dict[tuple[UID, str], Question] = {}
        self._lanes: dict[str, _Lane] = {}
        self._stop = threading.Event()

    def look(self, pending: PendingStudy, senders: Sequence[str]) -> tuple[Question, ...]:
        """Ask what is to be asked about a study that has settled; how the questions stand now."""
        config = self._node.config
        known = [name for name in senders if name in config.peers]
        return tuple(
            self._question(pending, config.peers[name], missing=missing)
            for name, missing in sorted(wants(config.route, known).items())
        )

    def awaited(self, study_uid: UID) -> tuple[str, ...]:
        """Names of the peers whose answer, or whose images, are on the way."""
        with self._lock:
            return tuple(
                sorted(
                    peer for (uid, peer), question in self._questions.items()
                    if uid == study_uid and question.step is Step.AWAITED
                )
            )  # fmt: skip

    def forget(self, pending: Sequence[PendingStudy]) -> None:
        """Keep only what is asked about studies that are still pending."""
        studies = {study.study_uid for study in pending}
        with self._lock:
            gone = [key for key in self._questions if key[0] not in studies]
            for key in gone:
                del self._questions[key]

    def stop(self, grace_s: float = 1.0) -> None:
        """Ask nobody any more; a thread that waits for a peer is left to end with the process."""
        self._stop.set()
        until = time.monotonic() + grace_s
        for lane in self._lanes.values():
            lane.thread.join(max(0.0, until - time.monotonic()))

    def _question(self, pending: PendingStudy, peer: Peer, *, missing: bool) -> Question:
        key, now = (pending.study_uid, peer.name), self._node.clock()
        with self._lock:
            before = self._questions.get(key)
        asked_at = self._asked_at(*key) if before is None else None
        question = next_question(before, state_of(pending), asked_at, now)
        if question is not before:
            with self._lock:
                self._questions[key] = question
            if question.step is Step.AWAITED:
                self._lane(peer).add(key[0], question, missing=missing)
        return question

    def _asked_at(self, study_uid: UID, peer: str) -> datetime | None:
        said = [one.asked_at for one in self._node.expectations.of(study_uid) if one.peer == peer]
        return min(said, default=None)

    def _lane(self, peer: Peer) -> _Lane:
        if peer.name not in self._lanes:
            self._lanes[peer.name] = _Lane(self, peer)
        return self._lanes[peer.name]

    def run(self, lane: _Lane) -> None:
        """A lane's thread: one question after the other."""
        while not self._stop.is_set():
            if (waiting := lane.take(LOOK_EVERY_S)) is not None:
                self._answer(lane.peer, *waiting)

    def _answer(self, peer: Peer, study_uid: UID, question: Question, missing: bool) -> None:
        try:
            whole = self._ask(peer, study_uid, missing=missing)
        except DicomNodeError as error:
            whole = False
            log.problem("fetch.failed", peer=peer.name, error=type(error).__name__, why=str(error))
        except Exception as error:  # noqa: BLE001 - the edge: the thread has other studies to ask about
            whole = False
            log.problem("fetch.failed", peer=peer.name, error=type(error).__name__, why="unforeseen")
        answered = Question(question.state, Step.ANSWERED, question.attempts)
        after = answered if whole else failed(question, self._node.clock())
        with self._lock:
            if self._questions.get((study_uid, peer.name)) is question:  # else a later image came meanwhile
                self._questions[study_uid, peer.name] = after

    def _ask(self, peer: Peer, study_uid: UID, *, missing: bool) -> bool:
        """False where the peer answered, and did not give all it should have given."""
        asked_at = self._node.clock()
        found = ask(self._node, peer, study_uid)
        said = f"PACS {peer.name!r} has {found.images} images of it, {found.missing} objects are missing here"
        counts = {one.series_uid: one.images for one in found.series}
        self._node.expectations.keep(study_uid, peer.name, counts, asked_at, said)
        log.event(
            "fetch.asked", peer=peer.name, series=len(counts), images=found.images, missing=found.missing
        )
        if not missing or not found.missing or peer.retrieve == "no":
            return True
        started = time.monotonic()
        done = bring(self._node, peer, study_uid, found, all_of_it=False)
        log.event(
            "fetch.retrieved", peer=peer.name, new=done.new or done.completed, failed=done.failed,
            refused=sum(done.refused.values()), problems=len(done.problems),
            seconds=round(time.monotonic() - started, 3),
        )  # fmt: skip
        for problem in done.problems:
            self._node.history.add(study_uid, "study.not_retrieved", problem)
        return not still_missing(self._node, found)


class _Lane:
    """The questions to one peer, and the thread that asks them."""

    def __init__(self, fetcher: Fetcher, peer: Peer) -> None:
        self.peer = peer
        self._waiting: deque[tuple[UID, Question, bool]] = deque()
        self._more = threading.Condition()
        self.thread = threading.Thread(
            target=fetcher.run, args=(self,), name=f"fetch-{peer.name}", daemon=True
        )
        self.thread.start()

    def add(self, study_uid: UID, question: Question, *, missing: bool) -> None:
        with self._more:
            self._waiting.append((study_uid, question, missing))
            self._more.notify()

    def take(self, within_s: float) -> tuple[UID, Question, bool] | None:
        with self._more:
            if not self._waiting:
                self._more.wait(within_s)
            return self._waiting.popleft() if self._waiting else None
