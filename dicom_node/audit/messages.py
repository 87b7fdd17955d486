"""An event as AuditMessage: the schema of PS3.15 A.5.1, filled as the tables of A.5.3 ask.

What is unknown where the tables ask for it is of zero length, never made up. Text from outside is
cut to a length and stripped of what XML cannot hold, so that a stranger's AE title breaks no line.
"""

from __future__ import annotations

import ipaddress
import os
import re
import struct
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any  # Any: one function per event's type
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

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

LONGEST_TEXT = 256
"""Characters kept of one value; the longest a table asks for is a UID or a patient ID, 64."""

# PS3.16 CID 400, 401, 402, 404: event, its type, participant's role, object's identifier
APPLICATION_ACTIVITY = ("110100", "DCM", "Application Activity")
AUDIT_LOG_USED = ("110101", "DCM", "Audit Log Used")
BEGIN_TRANSFERRING = ("110102", "DCM", "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED = ("110104", "DCM", "DICOM Instances Transferred")
QUERY = ("110112", "DCM", "Query")
USER_AUTHENTICATION = ("110114", "DCM", "User Authentication")
LOGIN = ("110122", "DCM", "Login")
SECURITY_ALERT = ("110113", "DCM", "Security Alert")
APPLICATION_START = ("110120", "DCM", "Application Start")
APPLICATION_STOP = ("110121", "DCM", "Application Stop")
NODE_AUTHENTICATION = ("110126", "DCM", "Node Authentication")
APPLICATION = ("110150", "DCM", "Application")
DESTINATION = ("110152", "DCM", "Destination Role ID")
SOURCE = ("110153", "DCM", "Source Role ID")
STUDY_UID = ("110180", "DCM", "Study Instance UID")
SOP_CLASS_UID = ("110181", "DCM", "SOP Class UID")
NODE_ID = ("110182", "DCM", "Node ID")
PATIENT_NUMBER = ("2", "RFC-3881", "Patient Number")
URI = ("12", "RFC-3881", "URI")

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_SUCCESS, _MINOR_FAILURE = "0", "4"  # A.5.2: a failure that was answered, and may be repeated
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""XML 1.0 cannot hold some of these; the others would break a line, colour a terminal or turn its text."""

Code = tuple[str, str, str]


@dataclass(frozen=True)
class _Part:
    """An element to be: its name, attributes, text and children."""

    name: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[_Part, ...] = ()
    text: str | None = None

    def under(self, parent: Element) -> None:
        made = SubElement(parent, self.name, {key: text(value) for key, value in self.attributes.items()})
        made.text = self.text if self.text is None else text(self.text)
        for child in self.children:
            child.under(made)


def message(event: Event, ae_title: str, now: datetime) -> str:
    """The XML of one event, on one line."""
    root = Element("AuditMessage")
    what, *rest = _MAKERS[type(event)](event, ae_title)
    at = {"EventDateTime": now.astimezone(UTC).isoformat(timespec="milliseconds")}
    _Part(what.name, {**what.attributes, **at}, what.children).under(root)
    people = [part for part in rest if part.name == "ActiveParticipant"]
    source = _Part(
        "AuditSourceIdentification",
        {"AuditSourceID": ae_title},
        (_Part("AuditSourceTypeCode", {"csd-code": "4"}),),  # application server process
    )
    for part in (*people, source, *(part for part in rest if part not in people)):
        part.under(root)
    return ElementTree.tostring(root, encoding="unicode")


def text(value: str) -> str:
    """`value` as it may stand in a message: on one line, in XML's characters, not without end."""
    fit = _UNFIT.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return fit if len(fit) <= LONGEST_TEXT else fit[: LONGEST_TEXT - 3] + "..."


def _application(event: Started | Stopped, ae_title: str) -> list[_Part]:  # A.5.3.1
    kind = APPLICATION_START if isinstance(event, Started) else APPLICATION_STOP
    who = _us(ae_title, APPLICATION, asks=False, name=event.role)
    return [_event(APPLICATION_ACTIVITY, "E", kind=kind), who]


def _used(event: Used, ae_title: str) -> list[_Part]:  # A.5.3.2
    who = _Part("ActiveParticipant", {"UserID": event.user, "UserIsRequestor": "true"})
    log = _object("2", "13", event.uri, URI, name="Security Audit Log")
    return [_event(AUDIT_LOG_USED, "R"), who, log]


def _begun(event: Begun, ae_title: str) -> list[_Part]:  # A.5.3.3
    return [
        _event(BEGIN_TRANSFERRING, "E"),
        _them(event.peer, event.address, SOURCE, asks=True),
        _us(ae_title, DESTINATION, asks=False),
        _study(event.study_uid),
        _patient(event.patient_id),
    ]


def _retrieved(event: Retrieved, ae_title: str) -> list[_Part]:  # A.5.3.3: the receiving side asked for it
    return [
        _event(BEGIN_TRANSFERRING, "E", ok=event.ok),
        _them(event.peer, event.address, SOURCE, asks=False),
        _us(ae_title, DESTINATION, asks=True),
        _study(event.study_uid),
        _patient(""),
    ]


def _transferred(event: Transferred, ae_title: str) -> list[_Part]:  # A.5.3.7
    if event.incoming:
        people = [
            _them(event.peer, event.address, SOURCE, asks=True),
            _us(ae_title, DESTINATION, asks=False),
        ]
    else:
        people = [
            _us(ae_title, SOURCE, asks=True),
            _them(event.peer, event.address, DESTINATION, asks=False),
        ]
    # C: the receiver did not hold them; R: this side does not know whether the receiver did
    what = _event(INSTANCES_TRANSFERRED, "C" if event.incoming else "R", ok=event.ok)
    return [what, *people, _study(event.study_uid, event.classes), _patient(event.patient_id)]


def _declined(event: Declined, ae_title: str) -> list[_Part]:  # A.5.3.7, of which nothing was taken over
    said = f"{event.count} instance{'s' * (event.count != 1)} refused with status 0x{event.status:04X}"
    return [
        _event(INSTANCES_TRANSFERRED, "R", ok=False, said=said),
        _them(event.peer, event.address, SOURCE, asks=True),
        _us(ae_title, DESTINATION, asks=False),
        _study(""),
        _patient(""),
    ]


def _queried(event: Queried, ae_title: str) -> list[_Part]:  # A.5.3.10
    query = b64encode(_identifier(event.level, event.study_uid)).decode()
    details = (
        _detail("TransferSyntax", EXPLICIT_LITTLE_ENDIAN),
        _detail("Found", str(event.found)),
    )
    return [
        _event(QUERY, "E"),
        _us(ae_title, SOURCE, asks=True),
        _them(event.peer, event.address, DESTINATION, asks=False),
        _object("2", "3", STUDY_ROOT_FIND, SOP_CLASS_UID, query=query, more=details),
    ]


def _admitted(event: Admitted, ae_title: str) -> list[_Part]:  # A.5.3.12, of a node
    known = {
        "UserID": event.peer,
        "AlternativeUserID": f"AETITLES={event.calling}",
        "UserIsRequestor": "true",
    }
    where = {"NetworkAccessPointID": event.address, "NetworkAccessPointTypeCode": _kind_of(event.address)}
    return [
        _event(USER_AUTHENTICATION, "E", kind=LOGIN, said=f"by {event.by}"),
        _Part("ActiveParticipant", {**known, **where}),
        _us(ae_title, None, asks=False),
    ]


def _refused(event: Refused, ae_title: str) -> list[_Part]:  # A.5.3.11; "minor": what was tried had no effect
    said = f"{event.reason} (called {event.called})" if event.called else event.reason
    return [
        _event(SECURITY_ALERT, "E", kind=NODE_AUTHENTICATION, ok=False),
        _us(ae_title, None, asks=True),
        _them(event.calling, event.address, None, asks=False),
        _object("2", "13", event.address, NODE_ID, more=(_detail("Alert Description", said),)),
    ]


_MAKERS: Mapping[type, Callable[[Any, str], list[_Part]]] = {
    Started: _application, Stopped: _application, Used: _used, Admitted: _admitted, Begun: _begun,
    Retrieved: _retrieved, Transferred: _transferred, Declined: _declined, Queried: _queried,
    Refused: _refused,
}  # fmt: skip


def _event(code: Code, action: str, *, kind: Code | None = None, ok: bool = True, said: str = "") -> _Part:
    children = [_coded("EventID", code)]
    children += [_coded("EventTypeCode", kind)] if kind else []
    children += [_Part("EventOutcomeDescription", text=said)] if said else []
    outcome = _SUCCESS if ok else _MINOR_FAILURE
    return _Part(
        "EventIdentification",
        {"EventActionCode": action, "EventOutcomeIndicator": outcome},
        tuple(children),
    )


def _us(ae_title: str, role: Code | None, *, asks: bool, name: str = "") -> _Part:
    """This process: its number (A.5.2.1) and AE title (A.5.2.2)."""
    known = {"UserID": str(os.getpid()), "AlternativeUserID": f"AETITLES={ae_title}"}
    named = {"UserName": name} if name else {}
    return _Part("ActiveParticipant", {**known, **named, "UserIsRequestor": _boolean(asks)}, _roles(role))


def _them(name: str, address: str, role: Code | None, *, asks: bool) -> _Part:
    """The other side: the peer's name, or the AE title it claims, and where it calls from."""
    where = {"NetworkAccessPointID": address, "NetworkAccessPointTypeCode": _kind_of(address)}
    known = {"UserID": name, "UserIsRequestor": _boolean(asks)}
    return _Part("ActiveParticipant", {**known, **(where if address else {})}, _roles(role))


def _roles(role: Code | None) -> tuple[_Part, ...]:
    return (_coded("RoleIDCode", role),) if role else ()


def _kind_of(address: str) -> str:
    """1: a machine's name, 2: an IP address (A.5.1)."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return "1"
    return "2"


def _study(uid: str, classes: Mapping[str, int] | None = None) -> _Part:
    counts = tuple(
        _Part("SOPClass", {"UID": sop_class, "NumberOfInstances": str(count)})
        for sop_class, count in sorted((classes or {}).items())
    )
    described = (_Part("ParticipantObjectDescription", children=counts),) if counts else ()
    return _object("2", "3", uid, STUDY_UID, more=described)


def _patient(patient_id: str) -> _Part:
    return _object("1", "1", patient_id, PATIENT_NUMBER)


def _object(
    type_: str, role: str, id_: str, code: Code, *, name: str = "", query: str = "",
    more: tuple[_Part, ...] = (),
) -> _Part:  # fmt: skip
    """The schema asks for a name or a query; a name that is not recorded is of zero length."""
    named = (
        _Part("ParticipantObjectQuery", text=query) if query else _Part("ParticipantObjectName", text=name)
    )
    known = {
        "ParticipantObjectID": id_,
        "ParticipantObjectTypeCode": type_,
        "ParticipantObjectTypeCodeRole": role,
    }
    children = (_coded("ParticipantObjectIDTypeCode", code), named, *more)
    return _Part("ParticipantObjectIdentification", known, children)


def _detail(type_: str, value: str) -> _Part:
    whole = text(value).encode()[:180].decode(errors="ignore")  # within LONGEST_TEXT once encoded
    encoded = b64encode(whole.encode()).decode()
    return _Part("ParticipantObjectDetail", {"type": type_, "value": encoded})


def _coded(name: str, code: Code) -> _Part:
    value, system, meaning = code
    return _Part(name, {"csd-code": value, "codeSystemName": system, "originalText": meaning})


def _identifier(level: str, study_uid: str) -> bytes:
    """The matching keys as a data set in Explicit VR Little Endian (PS3.5 7.1.2)."""
    keys = ((0x0008, 0x0052, b"CS", level, b" "), (0x0020, 0x000D, b"UI", study_uid, b"\x00"))
    made = b""
    for group, element, vr, value, padding in keys:
        held = text(value).encode("ascii", "replace")[:64]
        held += padding * (len(held) % 2)
        made += struct.pack("<HH2sH", group, element, vr, len(held)) + held
    return made


def _boolean(value: bool) -> str:
    return "true" if value else "false"
