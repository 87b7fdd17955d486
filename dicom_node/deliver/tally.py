"""What one association brought to a destination, for the audit trail (PS3.15 A.5.3.7)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.audit import Trail, Transferred
from dicom_node.config import Peer
from dicom_node.deliver.scu import Sent
from dicom_node.dicom.identity import identify
from dicom_node.dicom.status import Kind
from dicom_node.errors import DicomNodeError

_TAKEN = (Kind.SUCCESS, Kind.WARNING)  # a warning says that it was stored, PS3.4 B.2.3


@dataclass
class Tally:
    """Mutable: counts by (study, patient, taken or not) and SOP class; one thread writes them."""

    peer: Peer
    _counts: dict[tuple[str, str, bool], Counter[str]] = field(default_factory=dict)

    def add(self, sent: Sent) -> None:
        """An object that never left is no transfer."""
        if not sent.tried:
            return
        study_uid, patient_id, sop_class_uid = _whose(sent.path)
        key = (study_uid, patient_id, sent.kind in _TAKEN)
        self._counts.setdefault(key, Counter())[sop_class_uid] += 1

    def record(self, trail: Trail) -> None:
        """One message per study and outcome."""
        for (study_uid, patient_id, ok), classes in self._counts.items():
            trail.record(
                Transferred(self.peer.name, self.peer.host, False, study_uid, patient_id, classes, ok)
            )


def _whose(path: Path) -> tuple[str, str, str]:
    """Study, patient and class from the file's header; empty where it cannot be read, never an error."""
    try:
        found = identify(path, ExplicitVRLittleEndian)
    except (DicomNodeError, OSError):
        return "", "", ""
    return str(found.study_uid), found.patient_id, str(found.sop_class_uid)
