"""What a peer has of a study: C-FIND at STUDY, SERIES and IMAGE level, Study Root (PS3.4 C.4.1, C.6.2).

Promises: a bounded number of answers in a bounded time, or RetrieveError. Answers come from
outside: one whose UIDs are none, or of another study than asked for, is counted and not used.
The instances themselves are counted (IMAGE level), since the numbers that a PACS states for a
series include objects that never come here: results, presentation states, what policy refuses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node.config import Peer, Tls
from dicom_node.dicom import elements
from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue, RetrieveError
from dicom_node.scu.association import associated, name
from dicom_node.scu.conversation import Conversation
from dicom_node.scu.find import (
    LEVEL,
    MODALITY,
    SERIES,
    SERIES_INSTANCES,
    SERIES_NUMBER,
    SOP_CLASS,
    SOP_INSTANCE,
    STUDY,
    STUDY_INSTANCES,
    STUDY_ROOT_FIND,
    matches,
)

MOST_ANSWERS = 100_000
"""Matches taken of one study; there are scanners with 20,000 images in a series."""
LONGEST_QUERY_S = 300.0


@dataclass(frozen=True, slots=True)
class PeerInstance:
    """One instance at the peer; the SOP class is "" where the peer does not state it."""

    sop_instance_uid: UID
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class PeerSeries:
    """One series at the peer. `stated` is its Number of Series Related Instances (0020,1209)."""

    series_uid: UID
    number: int | None
    modality: str
    stated: int | None
    instances: tuple[PeerInstance, ...]


@dataclass(frozen=True, slots=True)
class PeerStudy:
    """One study at the peer; without series where it does not know the study.

    `stated` is its Number of Study Related Instances (0020,1208), `unusable` the number of answers that
    could not be used.
    """

    study_uid: UID
    stated: int | None
    series: tuple[PeerSeries, ...]
    unusable: int = 0

    @property
    def instances(self) -> int:
        return sum(len(series.instances) for series in self.series)


def find(
    peer: Peer, ae_title: str, study_uid: UID, *, series_uid: UID | None = None, timeout_s: float,
    tls: Tls | None = None,
) -> PeerStudy:  # fmt: skip
    """What `peer` has of a study, or of one series of it.

    `timeout_s` bounds connecting, associating and each wait for the next answer. Raises PeerUnreachable,
    PeerRefused or RetrieveError with what to change.
    """
    wanted = [(STUDY_ROOT_FIND, str(ImplicitVRLittleEndian))]
    with associated(peer, ae_title, wanted, timeout_s, tls=tls) as association:
        if not association.accepted_contexts:
            raise RetrieveError(f"{name(peer)} does not answer queries (C-FIND, Study Root): allow it there")
        with Conversation(association, name(peer), timeout_s).open() as conversation:
            return _Query(conversation, peer, study_uid).run(series_uid)


class _Query:
    """One study's query. Mutable, one thread: how many answers came, and how many were of no use."""

    def __init__(self, conversation: Conversation, peer: Peer, study_uid: UID) -> None:
        self._conversation = conversation
        self._peer = peer
        self._study_uid = study_uid
        self._ends = time.monotonic() + LONGEST_QUERY_S
        self._answers = 0
        self._unusable = 0

    def run(self, series_uid: UID | None) -> PeerStudy:
        stated = None
        for match in self._matches("STUDY", {STUDY_INSTANCES: ""}):
            stated = _integer(match, STUDY_INSTANCES)
        series = dict(self._series(series_uid))
        whole = tuple(self._with_instances(found) for found in series.values())
        return PeerStudy(self._study_uid, stated, whole, self._unusable)

    def _series(self, series_uid: UID | None) -> Iterator[tuple[UID, PeerSeries]]:
        keys = {SERIES: series_uid or "", SERIES_NUMBER: "", MODALITY: "", SERIES_INSTANCES: ""}
        for match in list(self._matches("SERIES", keys)):
            uid = self._usable(match, SERIES)
            if uid is None or (series_uid and uid != series_uid):
                continue
            yield uid, PeerSeries(
                uid, _integer(match, SERIES_NUMBER), elements.text(match, MODALITY)[:16],
                _integer(match, SERIES_INSTANCES), (),
            )  # fmt: skip

    def _with_instances(self, series: PeerSeries) -> PeerSeries:
        found: dict[UID, str] = {}
        for match in self._matches("IMAGE", {SERIES: series.series_uid, SOP_INSTANCE: "", SOP_CLASS: ""}):
            if elements.text(match, SERIES) not in ("", series.series_uid):
                self._unusable += 1
            elif (uid := self._usable(match, SOP_INSTANCE)) is not None:
                found[uid] = elements.text(match, SOP_CLASS)[:64]
        instances = tuple(PeerInstance(uid, sop_class) for uid, sop_class in found.items())
        return PeerSeries(series.series_uid, series.number, series.modality, series.stated, instances)

    def _usable(self, match: Dataset, tag: int) -> UID | None:
        try:
            return UID(elements.text(match, tag))
        except InvalidValue:
            self._unusable += 1
            return None

    def _matches(self, level: str, keys: Mapping[int, str]) -> Iterator[Dataset]:
        """The matches of this study; others are counted as unusable."""
        asked = {LEVEL: level, STUDY: self._study_uid, **keys}
        for match in matches(self._conversation, name(self._peer), asked):
            self._count_answer()
            if match is not None and elements.text(match, STUDY) in ("", self._study_uid):
                yield match
            else:
                self._unusable += 1

    def _count_answer(self) -> None:
        self._answers += 1
        if self._answers > MOST_ANSWERS:
            raise RetrieveError(f"{name(self._peer)} gave more than {MOST_ANSWERS} answers about one study")
        if time.monotonic() > self._ends:
            raise RetrieveError(f"{name(self._peer)} took longer than {LONGEST_QUERY_S:g} s over one query")


def _integer(match: Dataset, tag: int) -> int | None:
    """An integer string (VR IS); None where it is absent or none."""
    text = elements.text(match, tag)
    try:
        return int(text) if text and len(text) <= 12 else None
    except ValueError:
        return None
