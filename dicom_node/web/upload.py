"""One store request's parts on their way into the archive: the blocking half of STOW-RS.

A part becomes what C-STORE of the same data set would be: its file meta information is read and
dropped, the data set goes to `Intake` as it comes, and `Incoming.keep` is T1, part by part. What
is answered is the list of outcomes. A part that is refused is read to its end, so that the others
have their chance; only a part above receive.max_instance_mb ends the request.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dicom_node import audit
from dicom_node.dicom.identity import Identity, identify
from dicom_node.domain.identity import UID
from dicom_node.errors import DataSetMismatch, DicomNodeError, OutOfStorage, StorageRefused, UnreadableObject
from dicom_node.receive.account import Account
from dicom_node.receive.intake import Incoming, Intake, Request
from dicom_node.receive.policy import contexts
from dicom_node.store.catalog import Recorded
from dicom_node.web.file_meta import FileMeta
from dicom_node.web.multipart import MediaType, Parts
from dicom_node.web.store_response import Outcome

PARTS_AT_MOST = 10_000
STUDY_WITHIN_BYTES = 1 << 20
"""Where the Study Instance UID of a data set has to stand, for a request that names the study."""
_MB = 1_000_000


class TransferSyntaxRefused(DicomNodeError):
    """This node does not take objects in this transfer syntax."""

    dimse_status: ClassVar[int] = 0xC122  # Referenced Transfer Syntax not supported, PS3.18 Table I.2-2
    http_status: ClassVar[int] = 409


class StudyMismatch(DataSetMismatch):
    """The data set is of another study than the request names."""

    dimse_status: ClassVar[int] = 0xA901  # of A9xx, data set does not match: PS3.18 Table I.2-2


class InstanceTooLarge(OutOfStorage):
    """The instance is larger than receive.max_instance_mb; the request was not read any further."""

    http_status: ClassVar[int] = 413
    retry = False


@dataclass(frozen=True, slots=True)
class Entrance:
    """What all uploads share: the ingest door and what may go through it."""

    intake: Intake
    trail: audit.Trail
    syntaxes: Mapping[str, frozenset[str]]
    """Transfer syntaxes by SOP class, as associations would agree on them."""

    @staticmethod
    def of(intake: Intake, trail: audit.Trail) -> Entrance:
        taken = {
            str(context.abstract_syntax): frozenset(str(uid) for uid in context.transfer_syntax or ())
            for context in contexts(intake.limits)
        }
        return Entrance(intake, trail, taken)

    def admit(self, meta: FileMeta) -> None:
        """Raises StorageRefused or TransferSyntaxRefused for what no association would agree on."""
        syntaxes = self.syntaxes.get(meta.sop_class_uid)
        if syntaxes is None:
            raise StorageRefused("this node does not take objects of this SOP class")
        if meta.transfer_syntax_uid not in syntaxes:
            raise TransferSyntaxRefused


class Upload:
    """A request while its body comes. Mutable, under its lock: one thread at a time, and `close` at any time.

    `peer` is who sends, from `address`; `study_uid` the study that the request names, if any.
    """

    def __init__(
        self, entrance: Entrance, boundary: str, *, peer: str, address: str, study_uid: UID | None
    ) -> None:
        self._entrance = entrance
        self._peer, self._study_uid = peer, study_uid
        self._account = Account(entrance.trail, peer, address)
        self._lock = threading.Lock()
        self._part: _Part | None = None
        self._parts = Parts(boundary, self, at_most=PARTS_AT_MOST)
        self.outcomes: list[Outcome] = []
        self.new = 0
        self.size_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body. Raises Malformed, TooMany or InstanceTooLarge; then it is over."""
        with self._lock:
            self.size_bytes += len(chunk)
            self._parts.feed(chunk)

    def finish(self) -> None:
        """After the last byte. Raises Malformed when the body is not whole."""
        with self._lock:
            self._parts.finish()

    def close(self, *, whole: bool) -> None:
        """At the end, whatever it was: drop what was not kept, tell the audit trail."""
        with self._lock:
            if self._part is not None:
                self._part.close()
                self._part = None
            self._account.close(whole=whole)

    # ---- the sink of `Parts`; under the lock ---------------------------------------------

    def begin(self, headers: Mapping[str, str]) -> None:
        self._part = _Part(self._entrance, self._peer, self._study_uid, headers)

    def write(self, fragment: memoryview) -> None:
        if self._part is not None:
            self._part.write(fragment)
            if self._part.too_large:
                self._account.declined(InstanceTooLarge.dimse_status)
                self._outcome(self._part, InstanceTooLarge())
                raise InstanceTooLarge

    def end(self) -> None:
        """Every error becomes a failure reason, and only a committed row becomes success."""
        part = self._part
        if part is None:
            return
        kept = self._account.keep(part)
        self.new += kept is Recorded.NEW
        self._outcome(part, kept if isinstance(kept, DicomNodeError) else None)

    def _outcome(self, part: _Part, error: DicomNodeError | None) -> None:
        part.close()
        self._part = None
        meta = part.meta
        sop_class, sop_instance = (meta.sop_class_uid, meta.sop_instance_uid) if meta else ("", "")
        self.outcomes.append(Outcome(sop_class, sop_instance, error))


class _Part:
    """One part: first its file meta information is collected, then its data set goes on. Mutable."""

    def __init__(
        self, entrance: Entrance, peer: str, study_uid: UID | None, headers: Mapping[str, str]
    ) -> None:
        self._entrance, self._peer, self._study_uid = entrance, peer, study_uid
        self._collected = bytearray()
        self._head = bytearray()
        self._incoming: Incoming | None = None
        self._refused: DicomNodeError | None = None
        self._longest = entrance.intake.limits.max_instance_mb * _MB
        self.meta: FileMeta | None = None
        self.size_bytes = 0
        content = MediaType.of(headers.get("content-type", ""))
        if content.name not in ("", "application/dicom"):
            self._refused = UnreadableObject("the part's Content-Type is not application/dicom")

    @property
    def identity(self) -> Identity | None:
        return self._incoming.identity if self._incoming is not None else None

    @property
    def too_large(self) -> bool:
        """Counted as C-STORE counts: the data set without the file meta information."""
        size = self.size_bytes if self._incoming is None else self._incoming.size_bytes
        return size > self._longest

    def write(self, fragment: memoryview) -> None:
        """Never raises for what a part holds: a reason against it is kept for its end."""
        self.size_bytes += len(fragment)
        if self._refused is not None:
            return
        if self._incoming is not None:
            self._pass_on(fragment)
            return
        self._collected += fragment
        self._open(last=False)

    def keep(self) -> Recorded:
        """T1, at the end of the part. Raises the reason against it."""
        if self._incoming is None and self._refused is None:
            self._open(last=True)
        if self._refused is not None or self._incoming is None:
            raise self._refused or UnreadableObject()
        if self._incoming.refused is None:
            self._check_study(self._incoming.size_bytes)
        return self._incoming.keep()

    def close(self) -> None:
        if self._incoming is not None:
            self._incoming.close()

    def _open(self, *, last: bool) -> None:
        try:
            self.meta = FileMeta.read(self._collected, last=last)
            if self.meta is None:
                return
            self._entrance.admit(self.meta)
        except DicomNodeError as error:
            self._refused = error
            self._collected = bytearray()
            return
        request = Request(
            sop_class_uid=self.meta.sop_class_uid,
            sop_instance_uid=self.meta.sop_instance_uid,
            agreed_class_uid=self.meta.sop_class_uid,
            transfer_syntax_uid=self.meta.transfer_syntax_uid,
            peer=self._peer,
        )
        self._incoming = self._entrance.intake.begin(request)
        collected, self._collected = self._collected, bytearray()
        self._pass_on(memoryview(collected)[self.meta.size_bytes :])

    def _pass_on(self, fragment: memoryview) -> None:
        if self._incoming is None:
            return
        if self._study_uid is not None and len(self._head) < STUDY_WITHIN_BYTES:
            self._head += fragment[: STUDY_WITHIN_BYTES - len(self._head)]
        self._incoming.write(fragment)

    def _check_study(self, size_bytes: int) -> None:
        """Raises StudyMismatch, before anything is kept."""
        if self._study_uid is None or self.meta is None:
            return
        try:
            identity = identify(bytes(self._head), self.meta.transfer_syntax_uid)
        except UnreadableObject:
            if size_bytes <= len(self._head):
                raise
            raise UnreadableObject("no Study Instance UID within its first MB") from None
        if identity.study_uid != self._study_uid:
            raise StudyMismatch
