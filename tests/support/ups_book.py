"""A worklist manager's book: Unified Procedure Steps and the state machine of PS3.4 Annex CC, strictly.

The tables are typed in from the Standard (CC.1.1-2, CC.2.1-2, CC.2.5-3, CC.2.6-1); nothing is the node's.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"
SUCCESS, NO_LONGER, WRONG_UID, ALREADY_RUNS, ONLY_BY_CREATE = 0x0000, 0xC300, 0xC301, 0xC302, 0xC303
NOT_MET, UNKNOWN, NOT_RUNNING, ALREADY_CANCELED, ALREADY_COMPLETED = 0xC304, 0xC307, 0xC310, 0xB304, 0xB306
FINAL = ("COMPLETED", "CANCELED")
FINAL_STATE: dict[str, tuple[str, tuple[str, ...]]] = {
    "COMPLETED": (
        "UnifiedProcedureStepPerformedProcedureSequence",
        ("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime",
         "PerformedWorkitemCodeSequence", "PerformedProcedureStepEndDateTime"),
    ),
    "CANCELED": (
        "ProcedureStepProgressInformationSequence",
        ("ProcedureStepCancellationDateTime", "ProcedureStepDiscontinuationReasonCodeSequence"),
    ),
}  # fmt: skip
"""Attributes with final state code P, or X, in Table CC.2.5-3, and the sequence they stand in."""


def coded(value: str, scheme: str, meaning: str = "meaning") -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def scheduled(
    uid: str, images: Sequence[Dataset] = (), *, code: tuple[str, str] = ("110004", "DCM"),
    station: tuple[str, str] | None = None, readiness: str = "READY", ae_title: str = "ORTHANC",
) -> Dataset:  # fmt: skip
    """A UPS as a scheduler creates it (N-CREATE, PS3.4 Table CC.2.5-3), with a patient in it."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = UPS_PUSH, uid
    ds.PatientName, ds.PatientID = "CANARY^UPS", "CANARY-UPS-ID"
    ds.ProcedureStepState, ds.InputReadinessState = "SCHEDULED", readiness
    ds.ScheduledProcedureStepPriority, ds.ProcedureStepLabel = "MEDIUM", "AI"
    ds.ScheduledProcedureStepStartDateTime = "20260301080000"
    ds.ScheduledWorkitemCodeSequence = [coded(*code)]
    ds.ScheduledStationNameCodeSequence = [coded(*station)] if station else []
    ds.TransactionUID = ""
    ds.ProcedureStepProgressInformationSequence = []
    ds.UnifiedProcedureStepPerformedProcedureSequence = []
    ds.InputInformationSequence = [
        _input([one for one in images if one.SeriesInstanceUID == series], ae_title)
        for series in dict.fromkeys(one.SeriesInstanceUID for one in images)
    ]
    return ds


def _input(images: Sequence[Dataset], ae_title: str) -> Dataset:
    ds, retrieval = Dataset(), Dataset()
    ds.TypeOfInstances, ds.StudyInstanceUID = "DICOM", images[0].StudyInstanceUID
    ds.SeriesInstanceUID = images[0].SeriesInstanceUID
    ds.ReferencedSOPSequence = []
    for image in images:
        reference = Dataset()
        reference.ReferencedSOPClassUID = image.SOPClassUID
        reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
        ds.ReferencedSOPSequence.append(reference)
    retrieval.RetrieveAETitle = ae_title
    ds.DICOMRetrievalSequence = [retrieval]
    return ds


@dataclass
class UpsBook:
    """Mutable, under the lock: the items, their locks, and all that was asked of them."""

    items: dict[str, Dataset] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    """(what, item, status) of each request that changes something."""
    claims: list[tuple[str, str]] = field(default_factory=list)
    """(item, Transaction UID) of each claim that was granted."""
    ends: list[tuple[str, str]] = field(default_factory=list)
    """(item, final state) of each end that was granted."""
    progress: list[str] = field(default_factory=list)
    """What performers said of their progress."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, ds: Dataset) -> str:
        self.items[str(ds.SOPInstanceUID)] = ds
        return str(ds.SOPInstanceUID)

    def state(self, uid: str) -> str:
        with self._lock:
            return str(self.items[uid].ProcedureStepState)

    def find(self, keys: Dataset) -> list[Dataset]:
        """Single value and sequence matching (PS3.4 CC.2.8); only what is asked for, never the lock."""
        with self._lock:
            return [_answer(keys, ds) for ds in self.items.values() if _matches(keys, ds)]

    def get(self, uid: str) -> Dataset | None:
        with self._lock:
            if uid not in self.items:
                return None
            ds = copy.deepcopy(self.items[uid])
        del ds.TransactionUID
        return ds

    def change_state(self, uid: str, transaction_uid: str, state: str) -> int:
        """N-ACTION, Table CC.1.1-2."""
        with self._lock:
            status = self._change_state(uid, transaction_uid, state)
            self.asked.append((f"N-ACTION {state}", uid, status))
            return status

    def _change_state(self, uid: str, transaction_uid: str, state: str) -> int:
        if uid not in self.items:
            return UNKNOWN
        if state == "SCHEDULED":
            return ONLY_BY_CREATE
        ds = self.items[uid]
        now, lock = str(ds.ProcedureStepState), str(ds.TransactionUID)
        if not transaction_uid or (lock and lock != transaction_uid):
            return WRONG_UID
        if state == "IN PROGRESS":
            if now == "SCHEDULED":
                ds.TransactionUID, ds.ProcedureStepState = transaction_uid, state
                self.claims.append((uid, transaction_uid))
                return SUCCESS
            return ALREADY_RUNS if now == "IN PROGRESS" else NO_LONGER
        if now == state:
            return ALREADY_COMPLETED if state == "COMPLETED" else ALREADY_CANCELED
        if now in FINAL:
            return NO_LONGER
        if now == "SCHEDULED":
            return NOT_RUNNING
        if unmet(ds, state):
            return NOT_MET
        ds.ProcedureStepState = state
        self.ends.append((uid, state))
        return SUCCESS

    def update(self, uid: str, changes: Dataset) -> int:
        """N-SET, Table CC.2.6-1: atomic, and under the lock."""
        with self._lock:
            status = self._update(uid, changes)
            self.asked.append(("N-SET", uid, status))
            return status

    def _update(self, uid: str, changes: Dataset) -> int:
        if uid not in self.items:
            return UNKNOWN
        ds = self.items[uid]
        if ds.ProcedureStepState in FINAL:
            return NO_LONGER
        if ds.ProcedureStepState == "SCHEDULED":
            return NOT_RUNNING if "TransactionUID" in changes else SUCCESS
        if changes.get("TransactionUID", "") != ds.TransactionUID:
            return WRONG_UID
        assert "ProcedureStepState" not in changes, "PS3.4 CC.2.6.2: never by N-SET"
        for element in changes:
            if element.keyword != "TransactionUID":
                ds[element.tag] = copy.deepcopy(element)
        for one in changes.get("ProcedureStepProgressInformationSequence") or ():
            words = one.get("ProcedureStepProgressDescription", "")
            if "ProcedureStepProgress" in one:
                self.progress.append(f"{float(one.ProcedureStepProgress):g} {words}")
        return SUCCESS

    def take_away(self, uid: str, transaction_uid: str = "1.2.3") -> None:
        """Somebody at the manager gives the item to another performer."""
        with self._lock:
            self.items[uid].ProcedureStepState = "IN PROGRESS"
            self.items[uid].TransactionUID = transaction_uid

    def ask_to_cancel(self, uid: str) -> None:
        """Request UPS Cancel, noted in the item."""
        with self._lock:
            one = Dataset()
            one.ProcedureStepCancellationDateTime = "20260301090000"
            self.items[uid].ProcedureStepProgressInformationSequence = [one]


def unmet(ds: Dataset, state: str) -> list[str]:
    """Attributes with final state code P (COMPLETED) or X (CANCELED) that have no value, Table CC.2.5-3."""
    sequence, needed = FINAL_STATE[state]
    items = ds.get(sequence) or ()
    missing = [sequence] if not items else [name for name in needed if not items[0].get(name)]
    if state == "COMPLETED" and items and "OutputInformationSequence" not in items[0]:
        missing.append("OutputInformationSequence")
    return missing


def _matches(keys: Dataset, ds: Dataset) -> bool:
    for element in keys:
        if element.VR == "SQ":
            wanted = element.value[0] if element.value else Dataset()
            pairs = [(one.keyword, one.value) for one in wanted if one.value]
            held = ds.get(element.keyword) or ()
            if pairs and not any(all(one.get(k) == v for k, v in pairs) for one in held):
                return False
        elif element.value and ds.get(element.keyword) != element.value:
            return False
    return True


def _answer(keys: Dataset, ds: Dataset) -> Dataset:
    found = Dataset()
    for element in keys:
        if element.tag in ds:
            found[element.tag] = copy.deepcopy(ds[element.tag])
    return found
