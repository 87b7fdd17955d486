"""What a destination accepts: asked by negotiation (nothing is sent), kept, and asked again after a day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from dicom_node import log
from dicom_node.config import Config, Peer
from dicom_node.deliver.scu import accepted_classes
from dicom_node.store.capabilities import Capabilities

ASK_AGAIN_AFTER = timedelta(days=1)
"""A PACS that was taught a class gets it a day later by itself; `dicom-node check` asks at once."""

CLASSES: dict[str, tuple[str, str]] = {
    "1.2.840.10008.5.1.4.1.1.88.34": ("sr", "Comprehensive 3D SR"),
    "1.2.840.10008.5.1.4.1.1.88.33": ("sr", "Comprehensive SR"),
    "1.2.840.10008.5.1.4.1.1.88.22": ("sr", "Enhanced SR"),
    "1.2.840.10008.5.1.4.1.1.88.11": ("sr", "Basic Text SR"),
    "1.2.840.10008.5.1.4.1.1.66.4": ("seg", "Segmentation"),
    "1.2.840.10008.5.1.4.1.1.30": ("pm", "Parametric Map"),
    "1.2.840.10008.5.1.4.1.1.91.1": ("ann", "Microscopy Bulk Simple Annotations"),
    "1.2.840.10008.5.1.4.1.1.7": ("sc", "Secondary Capture"),
    "1.2.840.10008.5.1.4.1.1.11.1": ("gsps", "Grayscale Softcopy Presentation State"),
    "1.2.840.10008.5.1.4.1.1.88.59": ("kos", "Key Object Selection"),
    "1.2.840.10008.5.1.4.1.1.77.1.6": ("wsi", "VL Whole Slide Microscopy Image"),
}
"""SOP class -> word of `peer.takes` and name: the forms a result can have (PS3.4 Annex B.5)."""


def class_name(sop_class_uid: str) -> str:
    """The name for people; the UID where the class is none of the forms above."""
    return CLASSES[sop_class_uid][1] if sop_class_uid in CLASSES else sop_class_uid


class Probe:
    def __init__(self, config: Config, capabilities: Capabilities, clock: Callable[[], datetime]) -> None:
        self._config, self._capabilities, self._clock = config, capabilities, clock

    def ask(self, peer: Peer) -> frozenset[str]:
        """Ask now, and keep the answer. Raises PeerUnreachable or PeerRefused; then nothing is changed."""
        node, timeout_s = self._config.node, self._config.deliver.timeout_s
        accepted = accepted_classes(peer, str(node.ae_title), list(CLASSES), timeout_s, tls=self._config.tls)
        self._capabilities.keep(peer.name, {uid: uid in accepted for uid in CLASSES})
        log.event("deliver.asked", destination=peer.name, accepted=len(accepted), asked=len(CLASSES))
        return accepted

    def accepted(self, peer: Peer) -> frozenset[str]:
        """As it answered within the last day, else as it answers now. Raises as `ask` does."""
        known = self._capabilities.of(peer.name)
        fresh = known is not None and self._clock() - known.asked_at < ASK_AGAIN_AFTER
        if known is None or not fresh or known.asked != frozenset(CLASSES):
            return self._assumed(peer) if peer.url else self.ask(peer)
        return known.accepted

    def _assumed(self, peer: Peer) -> frozenset[str]:
        """STOW-RS negotiates nothing: it takes everything, until it refuses something."""
        self._capabilities.keep(peer.name, dict.fromkeys(CLASSES, True))
        return frozenset(CLASSES)

    def refused(self, peer: Peer, sop_class_uid: str) -> frozenset[str]:
        """The peer refused an object of a class; what is left of those it accepts."""
        self._capabilities.refused(peer.name, sop_class_uid)
        known = self._capabilities.of(peer.name)
        return known.accepted if known else frozenset()
