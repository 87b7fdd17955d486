"""Storage commitment as SCU (PS3.4 Annex J): ask each destination to vouch for what it took.

The report (N-EVENT-REPORT) may come on the same association while it is held, or on one that
the peer opens to this node, now or tomorrow night (`receive/commitment.py`). Either is written
to the ledger before it is answered. No report is asked for again, with a new transaction.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any  # Any: pynetdicom ships no types

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from dicom_node import audit, log
from dicom_node.audit import Trail
from dicom_node.config import Config, Peer
from dicom_node.deliver.backoff import gives_up, pause_s
from dicom_node.dicom.commitment import (
    COMMITMENT,
    REQUEST,
    WELL_KNOWN_INSTANCE,
    read_report,
    refusal,
    request,
)
from dicom_node.errors import DeliveryError, DicomNodeError, PeerRefused, PeerUnreachable
from dicom_node.scu.association import associated, name
from dicom_node.store.commitments import Asked, Commitments

AT_A_TIME = 500
"""Objects in one transaction."""
HELD_S = 2.0
"""How long the association waits for the report; most PACS open one of their own for it."""
ASK_AGAIN_AFTER_S = 3600.0
"""Without a report for so long, doubled each time, the destination is asked again."""
AT_MOST_S = 24 * 3600.0

_SUCCESS, _UNKNOWN_TRANSACTION = 0x0000, 0x0115


@dataclass(frozen=True)
class Confirmation:
    """Asks. One thread per destination may use it at a time."""

    config: Config
    commitments: Commitments
    trail: Trail
    clock: Callable[[], datetime]

    def ask_due(self, peer: Peer) -> int:
        """Ask `peer` about all that is due there; returns how many objects. Never raises for what it does."""
        count = 0
        while asked := self._begin(peer, transaction := f"2.25.{uuid.uuid4().int}"):
            count += len(asked)
            if not self._ask(peer, transaction, asked):
                break
        return count

    def _begin(self, peer: Peer, transaction: str) -> list[Asked]:
        now = self.clock()

        def again(attempt: int) -> datetime:
            return now + timedelta(seconds=min(AT_MOST_S, ASK_AGAIN_AFTER_S * 2.0 ** min(attempt - 1, 10)))

        return self.commitments.begin(peer.name, transaction, AT_A_TIME, again)

    def _ask(self, peer: Peer, transaction: str, asked: list[Asked]) -> bool:
        """One N-ACTION; False where the peer did not take it, and it is put off."""
        tired = [one for one in asked if gives_up(one.since, self.clock(), self.config.deliver)]
        for one in tired:
            days = f"{self.config.deliver.give_up_after_days:g}"
            self.commitments.give_up(
                one.delivery_id, f"no report on storage commitment in {days} days: see the peer's log"
            )
        wanted = [(one.sop_class_uid, one.sop_instance_uid) for one in asked if one not in tired]
        if not wanted:
            return True
        try:
            self._request(peer, transaction, wanted)
        except DeliveryError as error:
            attempt = max(one.attempts for one in asked)
            wait_s = pause_s(attempt, self.config.deliver, 0.0)
            self.commitments.put_off(transaction, str(error), self.clock() + timedelta(seconds=wait_s))
            log.problem("commitment.later", destination=peer.name, objects=len(wanted), wait_s=wait_s)
            return False
        log.event("commitment.asked", destination=peer.name, objects=len(wanted))
        return True

    def _request(self, peer: Peer, transaction: str, wanted: list[tuple[str, str]]) -> None:
        """N-ACTION, PS3.4 J.3.2. Raises PeerUnreachable or PeerRefused."""
        timeout_s, heard = self.config.deliver.timeout_s, threading.Event()
        contexts = [(COMMITMENT, str(uid)) for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)]
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report, [peer, heard])]
        with associated(
            peer, str(self.config.node.ae_title), contexts, timeout_s,
            tls=self.config.tls, handlers=handlers,
        ) as association:  # fmt: skip
            if not association.accepted_contexts:
                raise PeerRefused(
                    f"{name(peer)} does not offer storage commitment (presentation context rejected): "
                    "allow it there, or set `commitment = false`"
                )
            association.dul.socket.arm(timeout_s)
            try:
                answer, _ = association.send_n_action(
                    request(transaction, wanted), REQUEST, COMMITMENT, WELL_KNOWN_INSTANCE
                )
            except (RuntimeError, ValueError, OSError) as error:  # it ended the association before
                raise PeerUnreachable(
                    f"{name(peer)} ended the association ({type(error).__name__})"
                ) from error
            finally:
                association.dul.socket.disarm()
            if "Status" not in answer:
                raise PeerUnreachable(f"{name(peer)} did not answer N-ACTION within {timeout_s:g} s")
            if why := refusal(int(answer.Status)):
                raise PeerRefused(f"{name(peer)} refused storage commitment. {why}")
            heard.wait(HELD_S)

    def _on_report(self, event: Any, peer: Peer, heard: threading.Event) -> tuple[int, None]:
        """The edge: what goes wrong becomes a status, and the peer may report again."""
        try:
            outcome = self.commitments.report(peer.name, read_report(event.event_information))
        except DicomNodeError as error:
            log.problem("commitment.unreadable", peer=peer.name, error=type(error).__name__)
            return error.dimse_status, None
        except Exception as error:  # noqa: BLE001 - the edge: pynetdicom decodes what the peer sent
            log.problem("commitment.unreadable", peer=peer.name, error=type(error).__name__)
            return 0x0110, None
        heard.set()
        if not outcome.known:
            self.trail.record(
                audit.Refused(peer.host, peer.ae_title, self.config.node.ae_title, "unknown transaction")
            )
            log.problem("commitment.unknown", peer=peer.name)
            return _UNKNOWN_TRANSACTION, None
        log.event(
            "commitment.reported", peer=peer.name, committed=outcome.committed,
            sent_again=outcome.sent_again, failed=outcome.failed,
        )  # fmt: skip
        return _SUCCESS, None
