"""T1: one data set from the network to the disk to the ledger, and only then success.

The order is what makes an acknowledged image safe:
    1. every fragment goes to a spool file as it comes; nothing is held in memory
    2. fsync of the file, rename to its digest, fsync of the folder   (`Spool.commit`)
    3. the row of `instances`, committed                              (`Catalog.record`)
    4. 0x0000 goes out
A process killed between any two of them leaves a sender without success, which sends again.

What cannot be taken is still read to its end (the association stays usable) and then refused:
    0xA700  the disk is below its reserve, failing, or the data set is above max_instance_mb; the peer's
            quota is used up; the ledger does not answer. The sender should try again; no restart
            is needed here
    0xA900  the data set is another SOP class or instance than the request said
    0xC000  the data set cannot be read as DICOM, or its UIDs are missing
    0x0117  the request's SOP Instance UID is no UID
    0x0122  the request's SOP class was not agreed on, or the object is another AI node's result
    0x0111  Duplicate SOP Instance (PS3.7 C.5): the UID is known with other bytes. The object is kept
            aside, durably, for a person to look at, and nothing uses it. A warning (0xBxxx)
            would say that it was stored with its study, and success would hide that the sender has
            an image that differs from the one that was analysed; 0x0111 says exactly what is so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from dicom_node import log
from dicom_node.config import Config, Receive
from dicom_node.dicom.header import Identity, identify
from dicom_node.domain.identity import UID, known_uid
from dicom_node.errors import (
    DataSetMismatch,
    DicomNodeError,
    InvalidValue,
    OutOfStorage,
    StorageRefused,
    UnreadableObject,
)
from dicom_node.receive.part10 import file_head
from dicom_node.receive.policy import MR_IMAGES, made_by_a_node
from dicom_node.receive.quota import Quota
from dicom_node.store.archive import Archive, Buffer, Spool
from dicom_node.store.catalog import Arrival, Catalog, Recorded

_MB = 1_000_000
_LOOK_EVERY_S, _LOOK_EVERY_BYTES = 0.1, 16 * _MB
"""The free space is looked at before an object, and after each so many bytes of it; a look that found
room holds for a moment."""


class InvalidInstanceUID(DicomNodeError):
    """The SOP Instance UID of the request is no UID."""

    dimse_status: ClassVar[int] = 0x0117  # Invalid SOP Instance, PS3.7 C.5
    http_status: ClassVar[int] = 400


class DuplicateInstance(DicomNodeError):
    """Other bytes are stored under this UID already; this object was kept aside."""

    dimse_status: ClassVar[int] = 0x0111  # Duplicate SOP Instance, PS3.7 C.5
    http_status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class Request:
    """What a C-STORE request says before its data set comes. The UIDs are as sent, unchecked."""

    sop_class_uid: str
    sop_instance_uid: str
    agreed_class_uid: str
    """The abstract syntax of the presentation context."""
    transfer_syntax_uid: str
    peer: str


@dataclass(slots=True)
class Looks:
    """When the disk was last seen to have room. Mutable; a look too many does no harm."""

    had_room_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Intake:
    """Where data sets go, and within which limits. Shared by all associations."""

    limits: Receive
    archive: Archive
    catalog: Catalog
    quotas: Mapping[str, Quota]
    """By the peer's name; a peer that is not in it has none."""
    looks: Looks = field(default_factory=Looks)

    @staticmethod
    def of(config: Config, archive: Archive, catalog: Catalog) -> Intake:
        quotas = {peer.name: Quota(peer) for peer in config.peer}
        return Intake(config.receive, archive, catalog, quotas)

    def begin(self, request: Request) -> Incoming:
        return Incoming(self, request)

    def check_room(self) -> None:
        """Raises OutOfStorage when the disk is below its reserve."""
        now = time.monotonic()
        if now - self.looks.had_room_at < _LOOK_EVERY_S:
            return
        try:
            free = self.archive.free_bytes()
        except OSError as error:
            raise OutOfStorage("the archive's disk does not answer") from error
        if free < self.limits.reserve_mb * _MB:
            raise OutOfStorage("the archive's disk is below receive.reserve_mb")
        self.looks.had_room_at = now


class Incoming:
    """One data set on its way in. Mutable; used by one thread at a time, written before kept.

    `refused` holds the first reason against it; from then on its bytes are dropped.
    """

    def __init__(self, intake: Intake, request: Request) -> None:
        self._intake = intake
        self._request = request
        self._spool: Spool | None = None
        self._look_at = 0
        self._quota = intake.quotas.get(request.peer)
        self.refused: DicomNodeError | None = None
        self.size_bytes = 0
        self.identity: Identity | None = None
        """Which instance it is; known once it was kept."""
        try:
            self._open()
        except DicomNodeError as error:
            self._refuse(error)

    def write(self, *fragments: Buffer) -> None:
        """The next bytes of the data set. Never raises: a reason against them is kept for the answer."""
        self.size_bytes += sum(map(len, fragments))
        if self._spool is None:
            return
        try:
            self._check_limits()
            self._spool.write(*fragments)
        except DicomNodeError as error:
            self._refuse(error)

    def keep(self) -> Recorded:
        """T1, after the last byte. When it returns, success may be answered; it raises the reason if not."""
        try:
            if self.refused is not None or self._spool is None:
                raise self.refused or OutOfStorage()
            return self._keep(self._spool)
        finally:
            self.close()

    def close(self) -> None:
        """Remove what was not kept; harmless to repeat."""
        if self._quota is not None:
            self._quota.add(self.size_bytes)
            self._quota = None
        self._drop()

    def _drop(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _open(self) -> None:
        request = self._request
        try:
            instance = UID(request.sop_instance_uid)
        except InvalidValue as error:
            raise InvalidInstanceUID from error
        if request.sop_class_uid != request.agreed_class_uid:
            raise StorageRefused("the SOP class is not the one agreed on for this presentation context")
        if self._quota is not None:
            self._quota.begin()
        self._intake.check_room()
        self._spool = self._intake.archive.spool()
        head = file_head(known_uid(request.sop_class_uid), instance, known_uid(request.transfer_syntax_uid))
        self._spool.write(head)
        self._look_at = _LOOK_EVERY_BYTES

    def _check_limits(self) -> None:
        if self.size_bytes > self._intake.limits.max_instance_mb * _MB:
            raise OutOfStorage("the data set is larger than receive.max_instance_mb")
        if self.size_bytes >= self._look_at:
            self._look_at = self.size_bytes + _LOOK_EVERY_BYTES
            self._intake.check_room()

    def _refuse(self, reason: DicomNodeError) -> None:
        self.refused = reason
        self._drop()

    def _keep(self, spool: Spool) -> Recorded:
        request = self._request
        identity = self.identity = _identity(spool, request.transfer_syntax_uid)
        if (identity.sop_class_uid, identity.sop_instance_uid) != (
            request.sop_class_uid, request.sop_instance_uid,
        ):  # fmt: skip
            raise DataSetMismatch
        if self._is_own_result(identity, spool.head):
            return Recorded.SAME
        digest = spool.commit()  # file synced, renamed, folder synced: before the row
        arrival = Arrival(
            identity.sop_instance_uid, identity.sop_class_uid, known_uid(request.transfer_syntax_uid),
            identity.study_uid, identity.series_uid, request.peer,
        )  # fmt: skip
        recorded = self._intake.catalog.record(arrival, digest, spool.size_bytes)  # before the answer
        if recorded is Recorded.CONFLICT:
            log.problem("instance.conflict", peer=request.peer, bytes=spool.size_bytes)
            raise DuplicateInstance
        return recorded

    def _is_own_result(self, identity: Identity, head: bytes) -> bool:
        """See `policy`. Raises StorageRefused for a result that another node made."""
        if identity.sop_class_uid in MR_IMAGES:  # no result is one: nothing to look up
            return False
        if self._intake.catalog.is_result(identity.sop_instance_uid):
            log.event("receive.own_result", peer=self._request.peer)
            return True
        if made_by_a_node(identity.sop_class_uid, head):
            log.event("receive.foreign_result", peer=self._request.peer)
            raise StorageRefused("a result of an AI node is no input to this one")
        return False


def _identity(spool: Spool, transfer_syntax_uid: str) -> Identity:
    """From the first bytes; from the file where a long sequence stands before the last UID."""
    try:
        return identify(spool.head, transfer_syntax_uid)
    except UnreadableObject:
        if spool.size_bytes <= len(spool.head):
            raise
        return identify(spool.path, transfer_syntax_uid)
