"""What a peer's answer to C-FIND, C-GET or C-MOVE means, and what the node does about it.

One row per code or range of PS3.4 C.4.1.1.4, C.4.2.1.5 and C.4.3.1.4, and those of PS3.7 Annex C
that any DIMSE service may answer. A code that no row names falls to its class (PS3.7 Annex C):
an unknown warning ended the operation with something left out, an unknown failure is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.errors import InvalidValue


class Service(StrEnum):
    """The request that was answered, by its name in PS3.7 9.1."""

    FIND = "C-FIND"
    GET = "C-GET"
    MOVE = "C-MOVE"


class Outcome(StrEnum):
    """What follows from a status."""

    PENDING = "pending"
    """More answers come."""
    SUCCESS = "success"
    INCOMPLETE = "incomplete"
    """It is over, and not everything that was asked for came."""
    RETRY_LATER = "retry later"
    """It did not work; the same request may work another time."""
    REFUSED = "refused"
    """Asking again changes nothing until somebody changes the peer, or this node's configuration."""


@dataclass(frozen=True, slots=True)
class QueryStatus:
    """What to do, and the sentence for the operator."""

    outcome: Outcome
    sentence: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the Standard's tables, from `first` to `last` inclusive, for the services it stands in."""

    services: frozenset[Service]
    first: int
    last: int
    outcome: Outcome
    name: str
    advice: str


_FIND, _MOVE = frozenset({Service.FIND}), frozenset({Service.MOVE})
_RETRIEVE = frozenset({Service.GET, Service.MOVE})
_ALL = _FIND | _RETRIEVE

TABLE: tuple[Row, ...] = (
    Row(_ALL, 0x0000, 0x0000, Outcome.SUCCESS, "Success", "done"),
    Row(_ALL, 0xFF00, 0xFF00, Outcome.PENDING, "Pending", "more answers come"),
    Row(_FIND, 0xFF01, 0xFF01, Outcome.PENDING, "Pending, optional keys not supported", "more answers come"),
    Row(_RETRIEVE, 0xB000, 0xB000, Outcome.INCOMPLETE, "Sub-operations complete, with failures or warnings",
        "some images did not come: see the peer's log"),
    Row(_ALL, 0xFE00, 0xFE00, Outcome.RETRY_LATER, "Cancel", "the peer ended the operation"),
    Row(_FIND, 0xA700, 0xA700, Outcome.RETRY_LATER, "Refused: out of resources",
        "the peer cannot search now"),
    Row(_RETRIEVE, 0xA701, 0xA701, Outcome.RETRY_LATER, "Refused: out of resources",
        "the peer cannot count what it would send"),
    Row(_RETRIEVE, 0xA702, 0xA702, Outcome.RETRY_LATER, "Refused: out of resources",
        "the peer cannot send now; for C-MOVE: can it reach this node's port?"),
    Row(_MOVE, 0xA801, 0xA801, Outcome.REFUSED, "Refused: move destination unknown",
        "enter this node's AE title with its host and port at the peer"),
    Row(_ALL, 0xA900, 0xA900, Outcome.REFUSED, "Identifier does not match SOP class",
        "the peer does not search in the way of Study Root: see its conformance statement"),
    Row(_RETRIEVE, 0xAA00, 0xAA04, Outcome.REFUSED, "Frames cannot be given",
        "the peer took the request for one of single frames: see its log"),
    Row(_ALL, 0xC000, 0xCFFF, Outcome.RETRY_LATER, "Unable to process",
        "something failed inside the peer: see its log"),
    Row(_ALL, 0x0110, 0x0110, Outcome.RETRY_LATER, "Processing failure",
        "something failed inside the peer: see its log"),
    Row(_ALL, 0x0122, 0x0122, Outcome.REFUSED, "Refused: SOP class not supported",
        "the peer does not offer this service: allow it there, or change `retrieve` of this peer"),
    Row(_ALL, 0x0124, 0x0124, Outcome.REFUSED, "Refused: not authorised",
        "allow this node's AE title to query and retrieve at the peer"),
    Row(_ALL, 0x0210, 0x0210, Outcome.RETRY_LATER, "Duplicate invocation",
        "the peer mistook the message for one still in progress"),
    Row(_ALL, 0x0211, 0x0211, Outcome.REFUSED, "Unrecognised operation",
        "the peer does not do this: check that host and port are those of its archive"),
    Row(_ALL, 0x0212, 0x0212, Outcome.REFUSED, "Mistyped argument",
        "the peer does not understand the request: see its log"),
    Row(_ALL, 0x0213, 0x0213, Outcome.RETRY_LATER, "Resource limitation", "the peer is busy"),
)  # fmt: skip


def classify(service: Service, status: int) -> QueryStatus:
    """What `status`, answered to a request for `service`, means.

    Raises InvalidValue for what is no 16-bit number.
    """
    if not 0 <= status <= 0xFFFF:
        raise InvalidValue(f"not a DIMSE status: {status}")
    for row in TABLE:
        if service in row.services and row.first <= status <= row.last:
            return QueryStatus(row.outcome, f"{row.name} (0x{status:04X}): {row.advice}")
    if 0xB000 <= status <= 0xBFFF or status in (0x0001, 0x0107, 0x0116):  # PS3.7 C.4: warnings
        return QueryStatus(Outcome.INCOMPLETE, f"Warning 0x{status:04X}: the peer's manual says why")
    return QueryStatus(Outcome.RETRY_LATER, f"Unknown status 0x{status:04X}: see the peer's manual and log")
