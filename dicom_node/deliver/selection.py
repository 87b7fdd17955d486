"""Which results a destination gets, of those made for it: the richest set it takes.

With `outputs = "auto"` a form that the destination does not accept is withheld, as long as it
accepts another form of the same result; where it accepts none, the refusal is a failure that
somebody has to read. `takes` of a peer says it without asking. Nothing is withheld silently.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from dicom_node.config import Peer
from dicom_node.deliver.probe import CLASSES, Probe, class_name
from dicom_node.deliver.scu import Sent
from dicom_node.domain.job import Delivery
from dicom_node.errors import DeliveryError
from dicom_node.store.ledger import Ledger

_NOT_SUPPORTED = frozenset({0x0118, 0x0122, 0xA800})
"""Statuses that refuse the SOP class, not the object (PS3.7 Annex C)."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What to send, and what not, with the reason. `unreachable` where the peer could not be asked."""

    sendable: tuple[Delivery, ...]
    withheld: tuple[tuple[Delivery, str], ...] = ()
    unreachable: str | None = None


class Selection:
    def __init__(self, ledger: Ledger, probe: Probe) -> None:
        self._ledger, self._probe = ledger, probe

    def of(self, peer: Peer, claimed: Sequence[Delivery]) -> Selected:
        """Asks the peer at most once, and only where it matters."""
        unwanted = {delivery.id: why for delivery in claimed if (why := not_taken(peer, delivery))}
        accepted: frozenset[str] | None = None
        if any(delivery.optional and delivery.id not in unwanted for delivery in claimed):
            try:
                accepted = self._probe.accepted(peer)
            except DeliveryError as error:
                return Selected((), unreachable=str(error))
        reasons = {
            delivery.id: unwanted.get(delivery.id) or self._why(peer, delivery, accepted)
            for delivery in claimed
        }
        return Selected(
            tuple(delivery for delivery in claimed if not reasons[delivery.id]),
            tuple((delivery, reasons[delivery.id]) for delivery in claimed if reasons[delivery.id]),
        )

    def after(self, peer: Peer, delivery: Delivery, sent: Sent) -> str:
        """Why a refused object is withheld rather than failed; "" where it is not."""
        if not delivery.optional or not (sent.refused_context or sent.status in _NOT_SUPPORTED):
            return ""
        accepted = self._probe.refused(peer, str(delivery.result.sop_class_uid))
        return self._why(peer, delivery, accepted)

    def _why(self, peer: Peer, delivery: Delivery, accepted: frozenset[str] | None) -> str:
        if accepted is None or not delivery.optional or delivery.result.sop_class_uid in accepted:
            return ""
        forms = [uid for uid in self._ledger.forms(delivery) if takes(peer, uid)]
        return withheld(peer, delivery, forms, accepted)


def takes(peer: Peer, sop_class_uid: str) -> bool:
    """Whether `takes` of the peer allows objects of this class; one that has no word there is allowed."""
    return peer.takes == "ask" or sop_class_uid not in CLASSES or CLASSES[sop_class_uid][0] in peer.takes


def not_taken(peer: Peer, delivery: Delivery) -> str:
    """Why the configuration keeps a delivery from its destination; "" where it does not."""
    uid = str(delivery.result.sop_class_uid)
    return (
        "" if takes(peer, uid) else f"withheld: `takes` of peer {peer.name!r} does not list {CLASSES[uid][0]}"
    )


def withheld(peer: Peer, delivery: Delivery, forms: Iterable[str], accepted: Collection[str]) -> str:
    """Why the form is not sent; "" where the destination would see nothing of the result without it.

    `forms` are the SOP classes of all that the destination is to get of the same result.
    """
    instead = [uid for uid in forms if uid in accepted]
    if not instead:
        return ""
    kept = ", ".join(class_name(uid) for uid in dict.fromkeys(instead))
    missing = class_name(str(delivery.result.sop_class_uid))
    return f"withheld: PACS {peer.name!r} does not accept {missing}; it gets {kept}"
