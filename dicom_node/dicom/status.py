"""What a peer's answer to C-STORE means, and what the node does about it.

One row per code or range of PS3.4 B.2.3 (storage) and PS3.7 Annex C (all DIMSE services).
`classify` answers for every number from 0x0000 to 0xFFFF. A code that no row names falls to
its class (PS3.7 Annex C): a warning was stored; an unknown failure is tried again, since
trying again loses nothing, while giving up would.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.errors import InvalidValue


class Kind(StrEnum):
    """What follows from a status."""

    SUCCESS = "success"
    WARNING = "warning"
    """The peer stored the object, and says something about it: delivered."""
    RETRY_LATER = "retry later"
    """Not stored; the same object may be taken another time."""
    REFUSED = "refused"
    """Not stored, and sending it again changes nothing until somebody changes the peer."""


@dataclass(frozen=True, slots=True)
class StatusMeaning:
    """What to do, and the sentence for the operator: what it means and what to change."""

    kind: Kind
    sentence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the Standard's table, from `first` to `last` inclusive."""

    first: int
    last: int
    kind: Kind
    name: str
    section: str
    advice: str


_DISK = "the peer has no room or no other resource for the object now: free space on it"
_KEEPS = "stored, but not as sent"
_OURS = "the peer finds this object wrong: keep it, and report it with the peer's log"
_ALLOW = "then send again with `dicom-node retry --deliveries`"

TABLE: tuple[Row, ...] = (
    Row(0x0000, 0x0000, Kind.SUCCESS, "Success", "PS3.4 B.2.3", "stored"),
    # warnings: the object *was* stored
    Row(0x0001, 0x0001, Kind.WARNING, "Requested optional attributes not supported", "PS3.7 C.4",
        f"{_KEEPS}: optional attributes are ignored by the peer"),
    Row(0x0107, 0x0107, Kind.WARNING, "Attribute list error", "PS3.7 C.4",
        f"{_KEEPS}: the peer did not recognise some attributes"),
    Row(0x0116, 0x0116, Kind.WARNING, "Attribute value out of range", "PS3.7 C.4",
        f"{_KEEPS}: the peer finds a value out of its range"),
    Row(0xB000, 0xB000, Kind.WARNING, "Coercion of data elements", "PS3.4 B.2.3",
        f"{_KEEPS}: the peer changed elements, for example the patient's id, to its own"),
    Row(0xB006, 0xB006, Kind.WARNING, "Elements discarded", "PS3.4 B.2.3",
        f"{_KEEPS}: the peer dropped elements; check that its viewer still shows the result"),
    Row(0xB007, 0xB007, Kind.WARNING, "Data set does not match SOP class", "PS3.4 B.2.3",
        f"{_KEEPS}: the peer misses something in the object; check that its viewer shows the result"),
    # A name of PS3.7 that its C-STORE table does not list, yet archives answer it. A result's UID derives
    # from all that made it and stands for one file for ever, so what the peer has under it is this object,
    # most likely from an attempt whose answer was lost: delivered, with the reason kept. Repeating would
    # get the same answer; calling it FAILED would have somebody look for a result that is there.
    Row(0x0111, 0x0111, Kind.WARNING, "Duplicate SOP instance", "PS3.7 C.5",
        "the peer says it has this object already; if it cannot be seen there, look for it among the"
        " peer's deleted or quarantined objects"),
    # failures that may pass
    Row(0xA700, 0xA7FF, Kind.RETRY_LATER, "Refused: out of resources", "PS3.4 B.2.3", _DISK),
    Row(0x0213, 0x0213, Kind.RETRY_LATER, "Resource limitation", "PS3.7 C.5", _DISK),
    Row(0x0110, 0x0110, Kind.RETRY_LATER, "Processing failure", "PS3.7 C.5",
        "something failed inside the peer: see its log"),
    Row(0x0210, 0x0210, Kind.RETRY_LATER, "Duplicate invocation", "PS3.7 C.5",
        "the peer mistook the message for one still in progress; a new association ends that"),
    Row(0xFE00, 0xFE00, Kind.RETRY_LATER, "Cancel", "PS3.7 C.3", "the peer cancelled the operation"),
    # failures that stay
    Row(0xA900, 0xA9FF, Kind.REFUSED, "Error: data set does not match SOP class", "PS3.4 B.2.3", _OURS),
    Row(0xC000, 0xCFFF, Kind.REFUSED, "Error: cannot understand", "PS3.4 B.2.3", _OURS),
    Row(0xA800, 0xA800, Kind.REFUSED, "Refused: SOP class not supported", "PS3.7 C.5 (retired code)",
        f"the peer does not store objects of this kind: allow the SOP class there, {_ALLOW}"),
    Row(0x0122, 0x0122, Kind.REFUSED, "Refused: SOP class not supported", "PS3.7 C.5",
        f"the peer does not store objects of this kind: allow the SOP class there, {_ALLOW}"),
    Row(0x0124, 0x0124, Kind.REFUSED, "Refused: not authorised", "PS3.7 C.5",
        f"the peer lets this node in but not store: allow this node's AE title to store there, {_ALLOW}"),
    Row(0x0105, 0x0105, Kind.REFUSED, "No such attribute", "PS3.7 C.5", _OURS),
    Row(0x0106, 0x0106, Kind.REFUSED, "Invalid attribute value", "PS3.7 C.5", _OURS),
    Row(0x0112, 0x0112, Kind.REFUSED, "No such SOP instance", "PS3.7 C.5", _OURS),
    Row(0x0113, 0x0113, Kind.REFUSED, "No such event type", "PS3.7 C.5", _OURS),
    Row(0x0114, 0x0114, Kind.REFUSED, "No such argument", "PS3.7 C.5", _OURS),
    Row(0x0115, 0x0115, Kind.REFUSED, "Invalid argument value", "PS3.7 C.5", _OURS),
    Row(0x0117, 0x0117, Kind.REFUSED, "Invalid SOP instance", "PS3.7 C.5", _OURS),
    Row(0x0118, 0x0118, Kind.REFUSED, "No such SOP class", "PS3.7 C.5",
        f"the peer does not know this kind of object: allow the SOP class there, {_ALLOW}"),
    Row(0x0119, 0x0119, Kind.REFUSED, "Class-instance conflict", "PS3.7 C.5", _OURS),
    Row(0x0120, 0x0120, Kind.REFUSED, "Missing attribute", "PS3.7 C.5", _OURS),
    Row(0x0121, 0x0121, Kind.REFUSED, "Missing attribute value", "PS3.7 C.5", _OURS),
    Row(0x0123, 0x0123, Kind.REFUSED, "No such action type", "PS3.7 C.5", _OURS),
    Row(0x0211, 0x0211, Kind.REFUSED, "Unrecognised operation", "PS3.7 C.5",
        f"the peer does not do C-STORE here: check that host and port are those of its archive, {_ALLOW}"),
    Row(0x0212, 0x0212, Kind.REFUSED, "Mistyped argument", "PS3.7 C.5", _OURS),
)  # fmt: skip


def classify(status: int) -> StatusMeaning:
    """What `status`, a C-STORE response status, means.

    Raises InvalidValue for what is no 16-bit number.
    """
    if not 0 <= status <= 0xFFFF:
        raise InvalidValue(f"not a DIMSE status: {status}")
    for row in TABLE:
        if row.first <= status <= row.last:
            return StatusMeaning(row.kind, f"{row.name} (0x{status:04X}): {row.advice}")
    if 0xB000 <= status <= 0xBFFF:  # PS3.7 C.4: the class of warnings
        return StatusMeaning(Kind.WARNING, f"Warning 0x{status:04X}: stored; the peer's manual says why")
    return StatusMeaning(Kind.RETRY_LATER, f"Unknown status 0x{status:04X}: see the peer's manual and log")
