"""Whether a destination shows what it took: C-FIND at IMAGE level (PS3.4 C.4.1), or QIDO-RS with a `url`.

For peers with `confirm = "query"`. What is not shown after some questions is sent again (`store/sightings.py`
decides, and counts). A destination that cannot be asked is no error: it is asked later, with longer pauses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydicom.uid import ImplicitVRLittleEndian

from dicom_node import log
from dicom_node.audit import Queried, Trail
from dicom_node.config import Config, Peer
from dicom_node.deliver.qido import searching
from dicom_node.dicom import elements
from dicom_node.domain.identity import UID
from dicom_node.errors import DeliveryError, QueryRefused, RetrieveError
from dicom_node.scu.association import associated, name
from dicom_node.scu.conversation import Conversation
from dicom_node.scu.find import LEVEL, SERIES, SOP_INSTANCE, STUDY, STUDY_ROOT_FIND, matches
from dicom_node.store.sightings import Sightings, Unseen

Question = Callable[[UID, UID, UID], bool]
"""Whether the peer shows the object with these UIDs of study, series and instance."""
AT_A_TIME = 100
"""Objects asked about over one association."""
LONGEST_S = 60.0
"""After so long what is to be sent there has its turn; the other objects are asked about next."""
MOST_ANSWERS = 1000
"""To a question that at most one object answers; a peer that overlooks its keys may have millions."""
ASK_AGAIN_AFTER_S = 600.0
"""When it could not be asked; doubled each time."""
AT_MOST_S = 24 * 3600.0


@dataclass
class _Answers:
    """What is known so far of one round. Mutable, used by one thread."""

    shown: dict[int, bool] = field(default_factory=dict)
    studies: dict[str, int] = field(default_factory=dict)
    """Study -> objects found, for the audit trail."""

    def add(self, one: Unseen, *, there: bool) -> None:
        self.shown[one.delivery_id] = there
        self.studies[one.study_uid] = self.studies.get(one.study_uid, 0) + there


@dataclass(frozen=True)
class Sighting:
    """Asks. One thread per destination may use it at a time."""

    config: Config
    sightings: Sightings
    trail: Trail
    clock: Callable[[], datetime]

    def ask_due(self, peer: Peer) -> int:
        """Ask `peer` about what is due there, for a while; how many objects it answered about.

        Never raises for what the peer does.
        """
        wanted, answers, why = self.sightings.due(peer.name, AT_A_TIME), _Answers(), ""
        if not wanted:
            return 0
        try:
            self._ask(peer, wanted, answers)
        except (DeliveryError, RetrieveError) as error:
            why = str(error)
        self._record(peer, answers)
        if why:
            self._put_off(peer, why)
        return len(answers.shown)

    def _ask(self, peer: Peer, wanted: Sequence[Unseen], answers: _Answers) -> None:
        """Fills `answers` as they come. Raises DeliveryError or RetrieveError."""
        ends = time.monotonic() + LONGEST_S
        with asking(self.config, peer) as shows:
            for one in wanted:
                there = shows(one.study_uid, one.series_uid, one.sop_instance_uid)
                answers.add(one, there=there)
                if time.monotonic() > ends:
                    return

    def _record(self, peer: Peer, answers: _Answers) -> None:
        if not answers.shown:
            return
        outcome = self.sightings.answered(answers.shown)
        for study_uid, found in answers.studies.items():
            self.trail.record(Queried(peer.name, peer.host, "IMAGE", study_uid, found))
        log.event("sighting.asked", destination=peer.name, seen=outcome.seen, waiting=outcome.waiting)
        if outcome.sent_again or outcome.failed:
            log.problem(
                "sighting.missing", destination=peer.name, sent_again=outcome.sent_again,
                failed=outcome.failed,
            )  # fmt: skip

    def _put_off(self, peer: Peer, why: str) -> None:
        now = self.clock()
        given_up = self.sightings.put_off(
            peer.name, why, lambda attempt: now + timedelta(seconds=_pause_s(attempt)),
            asked_since=now - timedelta(days=self.config.deliver.give_up_after_days),
        )  # fmt: skip
        log.event("sighting.later", destination=peer.name, given_up=given_up)


def asking(config: Config, peer: Peer) -> AbstractContextManager[Question]:
    """One question after the other, as the peer speaks. Raises DeliveryError or RetrieveError."""
    return searching(config, peer) if peer.url else _finding(config, peer)


@contextmanager
def _finding(config: Config, peer: Peer) -> Iterator[Question]:
    """By one association. Raises PeerUnreachable or PeerRefused."""
    title, timeout_s = str(config.node.ae_title), config.deliver.timeout_s
    contexts = [(STUDY_ROOT_FIND, str(ImplicitVRLittleEndian))]
    with associated(peer, title, contexts, timeout_s, tls=config.tls) as association:
        if not association.accepted_contexts:
            raise QueryRefused(
                f"{name(peer)} does not answer queries (C-FIND, Study Root): allow it there, or set"
                ' `confirm = "no"`'
            )
        with Conversation(association, name(peer), timeout_s).open() as conversation:
            yield lambda *uids: _shows(conversation, peer, *uids)


def _pause_s(attempt: int) -> float:
    return float(min(AT_MOST_S, ASK_AGAIN_AFTER_S * 2.0 ** min(attempt - 1, 20)))


def _shows(conversation: Conversation, peer: Peer, study: UID, series: UID, sop_instance: UID) -> bool:
    """One C-FIND by all unique keys. Raises RetrieveError."""
    keys = {LEVEL: "IMAGE", STUDY: study, SERIES: series, SOP_INSTANCE: sop_instance}
    there, ends = False, time.monotonic() + LONGEST_S
    for count, match in enumerate(matches(conversation, name(peer), keys), 1):
        there |= match is not None and elements.text(match, SOP_INSTANCE) == sop_instance
        if count > MOST_ANSWERS or time.monotonic() > ends:
            raise RetrieveError(f"{name(peer)} does not come to an end with its answers about one object")
    return there
