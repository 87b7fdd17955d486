"""A PACS with storage commitment by script: it stores, is asked to vouch, and reports as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from dicom_node.dicom.commitment import COMMITMENT, WELL_KNOWN_INSTANCE
from support.scripted_scp import RESULT_CLASSES

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
NO_SUCH_OBJECT = 0x0112


def references(uids: Iterable[str], reason: int | None = None) -> list[Dataset]:
    made = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = RESULT_CLASSES["sr"], uid
        if reason is not None:
            item.FailureReason = reason
        made.append(item)
    return made


def event_information(transaction: str, kept: Iterable[str] = (), failed: Iterable[str] = ()) -> Dataset:
    """PS3.4 Table J.3-2."""
    ds = Dataset()
    ds.TransactionUID = transaction
    ds.ReferencedSOPSequence = references(kept)
    if failed := list(failed):
        ds.FailedSOPSequence = references(failed, NO_SUCH_OBJECT)
    return ds


def announce(
    port: int, ds: Dataset, *, calling: str = "PACS", roles: bool = True, called: str = "DICOMNODE"
) -> int | None:
    """Open an association to the node's front door and report; the node's status, None without one."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(COMMITMENT, SYNTAXES)
    asked = [build_role(COMMITMENT, scp_role=True)] if roles else []
    association = ae.associate("127.0.0.1", port, ae_title=called, ext_neg=asked)
    try:
        if not association.is_established:
            return None
        if roles:  # agreed on, PS3.7 D.3.3.4
            (agreed,) = association.accepted_contexts
            assert agreed.as_scp
        event = 2 if "FailedSOPSequence" in ds else 1
        answer, _ = association.send_n_event_report(ds, event, COMMITMENT, WELL_KNOWN_INSTANCE)
        return int(answer.Status) if "Status" in answer else None
    finally:
        association.release()


@dataclass
class Vouching:
    """Stores everything. `asked` are the transactions; with `at_once` it reports on the same association."""

    at_once: bool = False
    status: int = 0x0000
    offers: bool = True
    aborts: bool = False
    """Ends the association in place of an answer to N-ACTION."""
    port: int = 0
    asked: list[tuple[str, list[str]]] = field(default_factory=list)
    """(transaction, SOP instances)."""
    stored: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """The node's answers to reports on the same association."""
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Vouching:
        ae = AE(ae_title="PACS")
        for uid in RESULT_CLASSES.values():
            ae.add_supported_context(uid, SYNTAXES)
        if self.offers:
            ae.add_supported_context(COMMITMENT, SYNTAXES)
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_N_ACTION, self._on_action)]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(10)
        self._server.shutdown()

    def _on_store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _on_action(self, event: Any) -> tuple[int, None]:
        ds = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in ds.ReferencedSOPSequence]
        self.asked.append((str(ds.TransactionUID), uids))
        if self.aborts:
            event.assoc.abort()
        if self.at_once and self.status == 0:
            report = event_information(str(ds.TransactionUID), uids)
            thread = threading.Thread(target=self._report, args=(event.assoc, report))
            self._threads.append(thread)
            thread.start()
        return self.status, None

    def _report(self, association: Any, ds: Dataset) -> None:
        answer, _ = association.send_n_event_report(ds, 1, COMMITMENT, WELL_KNOWN_INSTANCE)
        self.answers.append(int(answer.get("Status", -1)))
