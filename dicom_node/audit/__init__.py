"""The audit trail: who sent, got and asked for what, and who was not let in (PS3.15 A.5).

`Trail(folder, ae_title).record(Begun(...))` appends one message to a chain of hashes. The trail names
patients by their ID; it is no part of the operational log, which names nobody.
"""

from dicom_node.audit.events import (
    Admitted,
    Begun,
    Declined,
    Event,
    Queried,
    Refused,
    Retrieved,
    Started,
    Stopped,
    Transferred,
    Used,
)
from dicom_node.audit.trail import Trail

__all__ = [
    "Admitted",
    "Begun",
    "Declined",
    "Event",
    "Queried",
    "Refused",
    "Retrieved",
    "Started",
    "Stopped",
    "Trail",
    "Transferred",
    "Used",
]
