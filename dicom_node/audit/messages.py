"""An event as AuditMessage of PS3.15 A.5.1; which parts it has is A.5.3's word."""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree

from dicom_node.audit.events import Event


def message(event: Event, ae_title: str, now: datetime) -> str:
    """The XML of one event, on one line."""
    root = ElementTree.Element(
        "AuditMessage", {"kind": type(event).__name__, "at": now.isoformat(), "of": ae_title}
    )
    return ElementTree.tostring(root, encoding="unicode")
