"""What is worth a record in the audit trail: one frozen dataclass per kind of event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Started:
    """A part of the node (its `role`, or `node` for all of it) began to work."""

    role: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The same part ended in order; one that was killed leaves no such record."""

    role: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody was not let in: an association, a TLS handshake or an HTTP request."""

    address: str
    calling: str
    called: str
    reason: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A listed peer was let in: its association accepted, `by` what ("certificate", "AE title and address").

    Recorded once an hour for each; a monitor that sends C-ECHO all day would be all there is in the trail.
    """

    peer: str
    address: str
    calling: str
    by: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The first instance of a study came on an association or request."""

    peer: str
    address: str
    study_uid: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class Transferred:
    """What was taken over of one study on an association or request, at its end.

    `classes` counts instances by SOP Class UID. `incoming` is seen from this node; `ok` is false
    where the association broke off or the other side refused.
    """

    peer: str
    address: str
    incoming: bool
    study_uid: str
    patient_id: str
    classes: Mapping[str, int]
    ok: bool


@dataclass(frozen=True, slots=True)
class Declined:
    """So many instances of one association or request were answered with this failure status."""

    peer: str
    address: str
    status: int
    count: int


@dataclass(frozen=True, slots=True)
class Queried:
    """This node asked a peer by C-FIND, and got `found` answers."""

    peer: str
    address: str
    level: str
    study_uid: str
    found: int


@dataclass(frozen=True, slots=True)
class Retrieved:
    """This node asked a peer by C-GET or C-MOVE for images of a study."""

    peer: str
    address: str
    study_uid: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Used:
    """Somebody, an account of this machine, read the audit trail at `uri`."""

    user: str
    uri: str


Event = Started | Stopped | Admitted | Refused | Begun | Transferred | Declined | Queried | Retrieved | Used
