"""Images brought here from a peer: C-GET and C-MOVE as SCU, Study Root (PS3.4 C.4.2, C.4.3).

C-GET: the peer stores over our own association, in presentation contexts for which this node
proposes the SCP role (PS3.7 D.3.3.4). Every sub-operation goes through the `Intake` as if it
had come through the front door: streamed to disk, checked, and T1 before its success status; what
the intake refuses is answered with its status. Nothing is taken that was not asked for.
C-MOVE: the peer stores to this node's AE title; the images come through the front door by
themselves, and the answers here only count them.

What was kept stays, however the retrieval ends: how it ended is a `Retrieved`, never an exception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_role

from dicom_node import log
from dicom_node.audit import Trail
from dicom_node.config import Peer, Receive, Tls
from dicom_node.dicom.query_status import Outcome, Service, classify
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError, RetrieveError
from dicom_node.receive.account import Account
from dicom_node.receive.intake import Incoming, Intake, Request
from dicom_node.receive.policy import TRANSFER_SYNTAXES, storage_classes
from dicom_node.scu.association import MAX_CONTEXTS, associated, name
from dicom_node.scu.conversation import Answer, Conversation, Offer, SubOperation
from dicom_node.scu.find import LEVEL, SERIES, SOP_INSTANCE, STUDY, encoded
from dicom_node.store.catalog import Recorded

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
AT_A_TIME = 100
"""Instances named in one request: their list of UIDs stays well below 64 KiB."""
NOT_ASKED_FOR = 0x0124  # Refused: Not authorised, PS3.7 C.5

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_LOSSLESS = tuple(f"1.2.840.10008.1.2.{last}" for last in ("4.70", "4.90", "4.80", "4.57", "5"))
_BY_USE = tuple(dict.fromkeys((_EXPLICIT, _IMPLICIT, *_LOSSLESS, *TRANSFER_SYNTAXES)))
"""Transfer syntaxes, the ones that archives of MR images hold first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request asks for: instances of one series. `whole`: they are all it has at the peer."""

    study_uid: UID
    series_uid: UID
    instances: tuple[UID, ...]
    whole: bool = False

    def identifier(self) -> bytes:
        """PS3.4 C.4.3.1.3: unique keys of each level; at the lowest, a list of UIDs."""
        keys = {STUDY: self.study_uid, SERIES: self.series_uid}
        if self.whole:
            return encoded({LEVEL: "SERIES", **keys})
        return encoded({LEVEL: "IMAGE", **keys, SOP_INSTANCE: "\\".join(self.instances)})


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What came of a retrieval.

    `new` and `known` were kept here (C-GET), `refused` counts what this node did not take by its status;
    `completed`, `failed` and `warned` are the peer's own numbers. `problems` are sentences, none when all
    went well.
    """

    new: int = 0
    known: int = 0
    refused: Mapping[int, int] = field(default_factory=dict)
    completed: int = 0
    failed: int = 0
    warned: int = 0
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems and not self.refused and not self.failed


def requests(study_uid: UID, series_uid: UID, instances: Sequence[UID], *, whole: bool) -> list[Wanted]:
    """Requests for these instances, each naming not too many; one for the series where they are all of it."""
    if whole:
        return [Wanted(study_uid, series_uid, tuple(instances), whole=True)]
    return [
        Wanted(study_uid, series_uid, tuple(instances[at : at + AT_A_TIME]))
        for at in range(0, len(instances), AT_A_TIME)
    ]


def storage_contexts(receive: Receive, classes: Sequence[str]) -> list[tuple[str, str]]:
    """(SOP class, transfer syntax) to propose beside the service itself, at most 127 (PS3.8 9.3.2.2).

    `classes` are those the peer said it has; where it said nothing, or nothing that is taken here, all that
    is taken. One pair each, so that the peer can send as it has stored; the most used syntaxes first.
    """
    taken = storage_classes(receive)
    known = [uid for uid in dict.fromkeys(classes) if uid in taken]
    return [(uid, syntax) for syntax in _BY_USE for uid in known or taken][: MAX_CONTEXTS - 1]


def get(
    peer: Peer, ae_title: str, wanted: Sequence[Wanted], intake: Intake, trail: Trail, *,
    classes: Sequence[str] = (), timeout_s: float, tls: Tls | None = None,
) -> Retrieved:  # fmt: skip
    """Retrieve by C-GET over one association; `classes` are the SOP classes to expect."""
    pairs = storage_contexts(intake.limits, classes)
    account = Account(trail, peer.name, peer.host)
    desk = _Desk(peer, intake, account)
    proposed = [(STUDY_ROOT_GET, str(ImplicitVRLittleEndian)), *pairs]
    roles = [build_role(uid, scp_role=True) for uid in dict.fromkeys(uid for uid, _ in pairs)]
    try:
        with associated(peer, ae_title, proposed, timeout_s, tls=tls, roles=roles) as association:
            accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
            if STUDY_ROOT_GET not in accepted or len(accepted) < 2:
                raise RetrieveError(_not_offered(peer, Service.GET, only_service=STUDY_ROOT_GET in accepted))
            with Conversation(association, name(peer), timeout_s, desk.take).open() as conversation:
                for one in wanted:
                    desk.run(conversation, one)
    except DicomNodeError as error:
        desk.problems.append(str(error))
    finally:
        account.close(whole=not desk.problems)
    return desk.retrieved()


def move(
    peer: Peer, ae_title: str, wanted: Sequence[Wanted], *, timeout_s: float, tls: Tls | None = None,
    arrived: Callable[[], object] = lambda: None,
) -> Retrieved:  # fmt: skip
    """Retrieve by C-MOVE to this node's own AE title.

    Some archives say nothing until all is sent: a change of what `arrived` gives, a count of what came,
    keeps the request alive.
    """
    desk = _Desk(peer)
    try:
        with associated(
            peer, ae_title, [(STUDY_ROOT_MOVE, str(ImplicitVRLittleEndian))], timeout_s, tls=tls
        ) as association:
            if not association.accepted_contexts:
                raise RetrieveError(_not_offered(peer, Service.MOVE, only_service=False))
            with Conversation(association, name(peer), timeout_s).open() as conversation:
                for one in wanted:
                    desk.run(conversation, one, destination=ae_title, alive=arrived)
    except DicomNodeError as error:
        desk.problems.append(str(error))
    return desk.retrieved()


def _not_offered(peer: Peer, service: Service, *, only_service: bool) -> str:
    if only_service:
        return f"{name(peer)} does {service}, but sends none of the objects that are wanted: allow that there"
    return (
        f"{name(peer)} does not do {service} (Study Root): allow it there, or change `retrieve` of this peer"
    )


class _Desk:
    """Takes what one retrieval brings. Mutable, one thread, but for `take`: the reader thread asks it."""

    def __init__(self, peer: Peer, intake: Intake | None = None, account: Account | None = None) -> None:
        self._peer = peer
        self._intake = intake
        self._account = account
        self._asked: frozenset[str] = frozenset()
        self._kept: Counter[Recorded] = Counter()
        self._refused: Counter[int] = Counter()
        self._counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def take(self, offer: Offer) -> Incoming | None:
        """Where its data set goes; nowhere when it was not asked for."""
        if self._intake is None or offer.sop_instance_uid not in self._asked:
            return None
        return self._intake.begin(
            Request(
                sop_class_uid=offer.sop_class_uid, sop_instance_uid=offer.sop_instance_uid,
                agreed_class_uid=offer.agreed_class_uid, transfer_syntax_uid=offer.transfer_syntax_uid,
                peer=self._peer.name,
            )
        )  # fmt: skip

    def run(
        self, conversation: Conversation, wanted: Wanted, *, destination: str = "",
        alive: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """One request to its final answer."""
        self._asked = frozenset(wanted.instances)
        service = Service.MOVE if destination else Service.GET
        sop_class = STUDY_ROOT_MOVE if destination else STUDY_ROOT_GET
        answers = conversation.ask(
            service, sop_class, wanted.identifier(), destination=destination, alive=alive
        )
        for answer in answers:
            if isinstance(answer, SubOperation):
                conversation.respond(answer, self._keep(answer))
                continue
            said = classify(service, answer.status)
            if said.outcome is not Outcome.PENDING:
                self._count(answer)
                if said.outcome is not Outcome.SUCCESS:
                    self.problems.append(f"{name(self._peer)} answered {service}: {said.sentence}")
                return

    def _keep(self, sub: SubOperation) -> int:
        """T1, and the status to answer."""
        if not isinstance(sub.incoming, Incoming) or self._account is None:
            log.problem("fetch.unasked", peer=self._peer.name)
            if self._account is not None:
                self._account.declined(NOT_ASKED_FOR)
            status = NOT_ASKED_FOR
        else:
            kept = self._account.keep(sub.incoming)
            if not isinstance(kept, DicomNodeError):
                self._kept[kept] += 1
                return 0x0000
            status = kept.dimse_status
        self._refused[status] += 1
        return status

    def _count(self, answer: Answer) -> None:
        self._counts.update(
            completed=answer.completed or 0, failed=answer.failed or 0, warned=answer.warning or 0
        )

    def retrieved(self) -> Retrieved:
        return Retrieved(
            new=self._kept[Recorded.NEW], known=self._kept[Recorded.SAME], refused=dict(self._refused),
            completed=self._counts["completed"], failed=self._counts["failed"],
            warned=self._counts["warned"], problems=tuple(self.problems),
        )  # fmt: skip
