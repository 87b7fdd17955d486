"""N-EVENT-REPORT of the Storage Commitment Push Model (PS3.4 J.3.3): what a destination vouches for.

The PACS is SCP of the service and opens the association, so the roles are turned round
(PS3.7 D.3.3.4). A report is held in memory up to a bound, and is in the ledger before it is
answered with success.
"""

from __future__ import annotations

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node import audit, log
from dicom_node.audit import Trail
from dicom_node.dicom import elements
from dicom_node.dicom.commitment import COMMITMENT, read_report
from dicom_node.errors import DicomNodeError, InvalidValue, OutOfStorage
from dicom_node.store.commitments import Commitments

LONGEST_REPORT_BYTES = 1 << 20
"""A report has some 150 bytes for each object: 7,000 objects."""


class UnknownTransaction(InvalidValue):
    """The report is on a transaction that this node did not ask of this peer."""

    dimse_status = 0x0115  # Invalid argument value, PS3.7 C.5.10


def context() -> PresentationContext:
    """Accepted whichever role the peer proposes; some propose none."""
    made = build_context(COMMITMENT, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    made.scu_role = made.scp_role = True
    return made


class Announcement:
    """One report on its way in. Mutable; written by one thread, then answered, then closed."""

    def __init__(
        self, commitments: Commitments, trail: Trail, peer: str, address: str, titles: tuple[str, str],
        transfer_syntax_uid: str,
    ) -> None:  # fmt: skip
        self._commitments, self._trail = commitments, trail
        self._peer, self._address, self._titles = peer, address, titles
        self._syntax = transfer_syntax_uid
        self._encoded = bytearray()
        self._too_long = False

    def write(self, *fragments: memoryview) -> None:
        """The next bytes; past the bound they are dropped, and the report is refused."""
        for fragment in fragments:
            self._too_long = self._too_long or len(self._encoded) + len(fragment) > LONGEST_REPORT_BYTES
            if not self._too_long:
                self._encoded += fragment

    def close(self) -> None:
        self._encoded.clear()

    def answer(self) -> tuple[int, str]:
        """Status and comment of the N-EVENT-REPORT-RSP; success only when the ledger has it."""
        try:
            self._note()
        except DicomNodeError as error:
            if isinstance(error, UnknownTransaction):
                self._trail.record(audit.Refused(self._address, *self._titles, "unknown transaction"))
                log.problem("commitment.unknown", peer=self._peer)
            else:
                log.problem("commitment.unreadable", peer=self._peer, error=type(error).__name__)
            return error.dimse_status, str(error)
        except Exception as error:  # noqa: BLE001 - the edge: the peer must get an answer, and no success
            log.problem("commitment.unreadable", peer=self._peer, error=type(error).__name__)
            return 0x0110, ""
        return 0x0000, ""

    def _note(self) -> None:
        if self._too_long:
            raise OutOfStorage("the report is longer than this node holds")
        report = read_report(elements.parse(bytes(self._encoded), self._syntax))
        outcome = self._commitments.report(self._peer, report)
        if not outcome.known:
            raise UnknownTransaction
        log.event(
            "commitment.reported", peer=self._peer, committed=outcome.committed,
            sent_again=outcome.sent_again, failed=outcome.failed,
        )  # fmt: skip
