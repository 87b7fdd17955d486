"""What one association, request or retrieval brought, kept and told to the audit trail.

PS3.15 A.5.3.3 and A.5.3.7. The first instance of a study is recorded before it is answered, so that
a trail without the end of a transfer says that it broke off.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from dicom_node import audit, log
from dicom_node.dicom.identity import Identity
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError
from dicom_node.store.catalog import Recorded


@dataclass(slots=True)
class _Study:
    """What came of one study. Mutable."""

    patient_id: str
    classes: Counter[str] = field(default_factory=Counter)


class Arriving(Protocol):
    """An instance whose last byte has come."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def identity(self) -> Identity | None: ...
    def keep(self) -> Recorded: ...


class Account:
    """Mutable, one thread: studies with their instances, and refusals by their status."""

    def __init__(self, trail: audit.Trail, peer: str, address: str) -> None:
        self._trail, self._peer, self._address = trail, peer, address
        self._studies: dict[UID, _Study] = {}
        self._declined: Counter[int] = Counter()

    def keep(self, arriving: Arriving) -> Recorded | DicomNodeError:
        """T1 of one instance: what became of it, or the reason against it, told to log and trail.

        The edge: every error becomes an answer, and only a committed row becomes success.
        """
        try:
            recorded = arriving.keep()
        except DicomNodeError as error:
            log.problem(
                "instance.refused", peer=self._peer, status=f"0x{error.dimse_status:04X}",
                error=type(error).__name__, bytes=arriving.size_bytes,
            )  # fmt: skip
            reason = error
        except Exception as error:  # noqa: BLE001 - the edge: the sender must get an answer, and no success
            log.problem("instance.failed", peer=self._peer, error=type(error).__name__)
            reason = DicomNodeError("something failed inside the node; its log says what")
        else:
            if arriving.identity is not None:
                self._kept(arriving.identity)
            return recorded
        self.declined(reason.dimse_status)
        return reason

    def _kept(self, identity: Identity) -> None:
        """Before it is answered."""
        study = self._studies.get(identity.study_uid)
        if study is None:
            study = self._studies[identity.study_uid] = _Study(identity.patient_id)
            self._trail.record(
                audit.Begun(self._peer, self._address, identity.study_uid, identity.patient_id)
            )
        study.classes[identity.sop_class_uid] += 1

    def declined(self, status: int) -> None:
        """One instance that was answered with a failure status."""
        self._declined[status] += 1

    def close(self, *, whole: bool) -> None:
        """At the end; `whole` says that the peer came to its own end. Harmless to repeat."""
        studies, self._studies = self._studies, {}
        declined, self._declined = self._declined, Counter()
        for study_uid, study in studies.items():
            self._trail.record(
                audit.Transferred(
                    self._peer, self._address, True, study_uid, study.patient_id, study.classes, whole
                )
            )  # fmt: skip
        for status, count in declined.items():
            self._trail.record(audit.Declined(self._peer, self._address, status, count))
