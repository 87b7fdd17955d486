"""The clockwork: reads headers, completes studies (T2), takes lapsed leases back, has work items performed.

One process; a second one by accident does no harm, since T2 is guarded by unique keys.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime

from dicom_node import log
from dicom_node.errors import DicomNodeError
from dicom_node.node.build import Node
from dicom_node.node.fetcher import Fetcher, Question
from dicom_node.node.flow import assemble_and_route, read_headers, senders
from dicom_node.node.performers import Performers
from dicom_node.store.catalog import PendingStudy

TICK_S = 0.2
"""Pause between two looks at what arrived."""
QUIET_ENOUGH_S = 0.5
"""A study still growing faster than this is not judged: it would be judged again at once."""


@dataclass(slots=True)
class _Looked:
    """When a pending study was last judged, and what it looked like then."""

    last_received_at: datetime
    quiet_s: float
    questions: tuple[Question, ...]
    """How its senders had been asked about it."""
    whole: int
    """How often work items had found all that they name of it here."""


class Ticker:
    """Runs until `stop` is set."""

    def __init__(self, node: Node, stop: threading.Event) -> None:
        self._node = node
        self._stop = stop
        self._looked: dict[str, _Looked] = {}  # by study; only this thread touches it
        self._fetcher = Fetcher(node)
        self._performers = Performers(node)

    def run(self) -> None:
        self._performers.start()
        while not self._stop.is_set():
            try:
                busy = self.tick()
            except DicomNodeError as error:
                log.problem("ticker.failed", error=type(error).__name__, why=str(error))
                busy = False
                self._stop.wait(1.0)
            if not busy:
                self._stop.wait(TICK_S)
        self._performers.stop()
        self._fetcher.stop()

    def tick(self) -> bool:
        """One look; True when there is more to do at once."""
        read = read_headers(self._node)
        pending = self._node.catalog.pending()
        self._fetcher.forget(pending)
        completed = [study for study in pending if self._complete(study)]
        for study in completed:
            self._looked.pop(study.study_uid, None)
        lapsed = self._node.queue.expire(self._node.config.infer.max_attempts)
        if lapsed:
            log.problem("job.failed", jobs=lapsed, error="WorkerDied")
        return bool(read or completed)

    def _complete(self, pending: PendingStudy) -> bool:
        quiet_s = (self._node.clock() - pending.last_received_at).total_seconds()
        if pending.unread:
            return False
        questions: tuple[Question, ...] = ()
        if quiet_s >= self._node.config.receive.settle_s:
            questions = self._fetcher.look(pending, senders(self._node, pending))
        if not self._due(pending, quiet_s, questions):
            return False
        self._looked[pending.study_uid] = _Looked(
            pending.last_received_at, quiet_s, questions, self._performers.whole(pending.study_uid)
        )  # fmt: skip
        awaited = self._fetcher.awaited(pending.study_uid)
        return assemble_and_route(self._node, pending, quiet_s=quiet_s, awaited=awaited)

    def _due(self, pending: PendingStudy, quiet_s: float, questions: tuple[Question, ...]) -> bool:
        """Judged when quiet for a moment, and again only when a stated time has passed or a peer answered."""
        receive = self._node.config.receive
        waits = sorted((min(QUIET_ENOUGH_S, receive.settle_s), receive.settle_s, receive.stable_after_s))
        looked = self._looked.get(pending.study_uid)
        if looked is None or looked.last_received_at != pending.last_received_at:
            return quiet_s >= waits[0]
        if self._performers.whole(pending.study_uid) != looked.whole:
            return True
        return questions != looked.questions or any(looked.quiet_s < wait <= quiet_s for wait in waits)
