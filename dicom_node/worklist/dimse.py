"""A worklist manager by DICOM: UPS Pull as SCU (PS3.4 CC.2, CC.3).

One association for each question: a manager that restarts, or ends silent associations, loses none. In the
messages stands UPS Push, whatever was negotiated (PS3.4 CC.3.1); only C-FIND names UPS Pull.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any  # Any: pynetdicom ships no types

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node import log
from dicom_node.config import Peer, Tls
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import Item
from dicom_node.errors import PeerRefused, PeerUnreachable, UnreadableObject
from dicom_node.scu.association import associated, name
from dicom_node.worklist.item import ASKED, change, keys, read
from dicom_node.worklist.manager import MOST_ITEMS, Reply, Said, Sought

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
CHANGE_STATE = 1
"""Action Type ID, PS3.4 Table CC.2.1-1."""

_TAGS = [Tag(tag) for tag in map(tag_for_keyword, ASKED) if tag is not None]
_PENDING = (0xFF00, 0xFF01)
_NOT_AUTHORIZED, _NO_SUCH_INSTANCE = 0x0124, 0x0112

# PS3.4 Tables CC.2.1-2, CC.2.6-1, CC.2.7-1
_MEANINGS = {
    0x0000: Said.DONE, 0x0001: Said.DONE, 0xB304: Said.DONE, 0xB305: Said.DONE, 0xB306: Said.DONE,
    0xC300: Said.CONFLICT, 0xC301: Said.NOT_OURS, 0xC302: Said.CONFLICT, 0xC310: Said.CONFLICT,
    0xC307: Said.GONE, _NO_SUCH_INSTANCE: Said.GONE,
}  # fmt: skip
_SENTENCES = {
    0xC300: "the item is COMPLETED or CANCELED", 0xC301: "another performer has the item",
    0xC302: "the item is IN PROGRESS", 0xC304: "it misses attributes of a final state",
    0xC307: "it has no such item", 0xC310: "the item is not IN PROGRESS",
}  # fmt: skip


@dataclass(frozen=True)
class DimseManager:
    """Raises PeerUnreachable, or PeerRefused with what to change there."""

    peer: Peer
    ae_title: str
    timeout_s: float
    tls: Tls

    def search(self, sought: Sought) -> Sequence[Item]:
        with self._asking() as association:
            return list(self._found(association, sought))

    def _found(self, association: Any, sought: Sought) -> Iterator[Item]:
        ends = time.monotonic() + self.timeout_s
        answers = association.send_c_find(keys(sought), UPS_PULL)
        for number, (status, identifier) in enumerate(answers):
            if "Status" not in status:
                raise PeerUnreachable(f"{name(self.peer)} did not answer C-FIND within {self.timeout_s:g} s")
            if status.Status not in _PENDING:
                self._check_let_in(status.Status)
                if status.Status:
                    raise PeerRefused(f"{name(self.peer)} answers C-FIND with 0x{status.Status:04X}")
                return
            if number >= MOST_ITEMS or time.monotonic() > ends:
                return
            try:
                yield read(_whole(identifier))
            except UnreadableObject as error:
                log.problem("worklist.unreadable", peer=self.peer.name, why=str(error))

    def get(self, uid: UID) -> Item | None:
        with self._asking() as association:
            answer, ds = association.send_n_get(_TAGS, UPS_PUSH, uid, meta_uid=UPS_PULL)
            status = self._status(answer, "N-GET")
        if _MEANINGS.get(status) is Said.GONE:
            return None
        if _MEANINGS.get(status) is not Said.DONE:
            raise PeerRefused(f"{name(self.peer)} answers N-GET with 0x{status:04X}")
        return read(_whole(ds), uid)

    def update(self, uid: UID, transaction_uid: UID, changes: Dataset) -> Reply:
        ds = Dataset()
        ds.update(changes)
        ds.TransactionUID = transaction_uid
        with self._asking() as association:
            answer, _ = association.send_n_set(ds, UPS_PUSH, uid, meta_uid=UPS_PULL)
            return self._reply(self._status(answer, "N-SET"))

    def change_state(self, uid: UID, transaction_uid: UID, state: str) -> Reply:
        with self._asking() as association:
            answer, _ = association.send_n_action(
                change(state, transaction_uid), CHANGE_STATE, UPS_PUSH, uid, meta_uid=UPS_PULL
            )
            return self._reply(self._status(answer, "N-ACTION"))

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        """An association with UPS Pull, ended by a deadline whatever the manager does."""
        contexts = [(UPS_PULL, str(uid)) for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
        with associated(self.peer, self.ae_title, contexts, self.timeout_s, tls=self.tls) as association:
            if not association.accepted_contexts:
                raise PeerRefused(
                    f"{name(self.peer)} does not offer UPS Pull (presentation context rejected): "
                    "allow it there"
                )
            association.dul.socket.arm(self.timeout_s)
            try:
                yield association
            except (RuntimeError, ValueError, OSError) as error:  # it ended the association before
                raise PeerUnreachable(
                    f"{name(self.peer)} ended the association ({type(error).__name__})"
                ) from error
            finally:
                association.dul.socket.disarm()

    def _status(self, answer: Dataset, message: str) -> int:
        if "Status" not in answer:
            raise PeerUnreachable(f"{name(self.peer)} did not answer {message} within {self.timeout_s:g} s")
        self._check_let_in(answer.Status)
        return int(answer.Status)

    def _check_let_in(self, status: int) -> None:
        if status == _NOT_AUTHORIZED:
            raise PeerRefused(f"{name(self.peer)} does not let this node do that (0x0124): allow it there")

    def _reply(self, status: int) -> Reply:
        said = _MEANINGS.get(status, Said.REFUSED)
        if said is Said.DONE:
            return Reply(said)
        what = _SENTENCES.get(status, "it refuses the request")
        return Reply(said, f"{name(self.peer)}: {what} (0x{status:04X})")


def _whole(ds: Dataset | None) -> Dataset:
    """pynetdicom gives None for what it could not decode."""
    return Dataset() if ds is None else ds
