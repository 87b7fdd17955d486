"""Audit messages against PS3.15 A.5: the schema's rules and the tables of A.5.3, typed in by hand."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from io import BytesIO
from xml.etree.ElementTree import Element, fromstring

import pytest
from pydicom.filereader import read_dataset

from dicom_node.audit import (
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
from dicom_node.audit.messages import message

NOW = datetime(2026, 11, 20, 23, 59, 58, 123456, tzinfo=timezone(timedelta(hours=1)))
MR, SR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.34"

STARTED, STOPPED = Started("receive"), Stopped("receive")
USED = Used("root", "file:///var/audit")
ADMITTED = Admitted("pacs", "192.0.2.7", "PACS1", "certificate")
BEGUN = Begun("pacs", "192.0.2.7", "1.2.3", "P1")
RETRIEVED = Retrieved("pacs", "pacs.hospital", "1.2.3", True)
CAME = Transferred("pacs", "192.0.2.7", True, "1.2.3", "P1", {MR: 24, SR: 1}, True)
WENT = Transferred("pacs", "2001:db8::7", False, "1.2.3", "P1", {SR: 1}, False)
DECLINED = Declined("pacs", "192.0.2.7", 0xA700, 12)
QUERIED = Queried("pacs", "192.0.2.7", "STUDY", "1.2.3", 7)
REFUSED = Refused("192.0.2.9", "STRANGER", "DICOMNODE", "not a listed peer")
EVENTS: tuple[Event, ...] = (
    STARTED, STOPPED, USED, BEGUN, RETRIEVED, CAME, WENT, DECLINED, QUERIED, REFUSED, ADMITTED
)  # fmt: skip

# A.5.1.1: element -> (attributes that must be, attributes that may be, children in order: name, least, most)
CODED = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, ())
MANY = 1000
SCHEMA = {
    "AuditMessage": (set(), set(), (
        ("EventIdentification", 1, 1), ("ActiveParticipant", 1, MANY), ("AuditSourceIdentification", 1, 1),
        ("ParticipantObjectIdentification", 0, MANY))),
    "EventIdentification": ({"EventDateTime", "EventOutcomeIndicator"}, {"EventActionCode"}, (
        ("EventID", 1, 1), ("EventTypeCode", 0, MANY), ("EventOutcomeDescription", 0, 1))),
    "EventOutcomeDescription": (set(), set(), ()),
    "ActiveParticipant": ({"UserID", "UserIsRequestor"}, {
        "AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"}, (
        ("RoleIDCode", 0, MANY), ("MediaIdentifier", 0, 1))),
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, (
        ("AuditSourceTypeCode", 0, MANY),)),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "displayName", "originalText"}, ()),
    "ParticipantObjectIdentification": ({"ParticipantObjectID"}, {
        "ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole", "ParticipantObjectDataLifeCycle",
        "ParticipantObjectSensitivity"}, (
        ("ParticipantObjectIDTypeCode", 1, 1), ("ParticipantObjectName|ParticipantObjectQuery", 1, 1),
        ("ParticipantObjectDetail", 0, MANY), ("ParticipantObjectDescription", 0, MANY))),
    "ParticipantObjectName": (set(), set(), ()),
    "ParticipantObjectQuery": (set(), set(), ()),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ()),
    "ParticipantObjectDescription": (set(), set(), (
        ("MPPS", 0, MANY), ("Accession", 0, MANY), ("SOPClass", 0, MANY),
        ("ParticipantObjectContainsStudy", 0, 1), ("Encrypted", 0, 1), ("Anonymized", 0, 1))),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, (("Instance", 0, MANY),)),
    "EventID": CODED, "EventTypeCode": CODED, "RoleIDCode": CODED, "ParticipantObjectIDTypeCode": CODED,
}  # fmt: skip
VALUES = {
    "EventActionCode": r"[CRUDE]", "EventOutcomeIndicator": r"0|4|8|12",
    "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "UserIsRequestor": r"true|false",
    "NetworkAccessPointTypeCode": r"[1-5]", "ParticipantObjectTypeCode": r"[1-4]",
    "ParticipantObjectTypeCodeRole": r"[1-9]|1\d|2[0-6]", "NumberOfInstances": r"\d+",
}  # fmt: skip

# A.5.3.x: EventID, EventActionCode, EventTypeCode, RoleIDCode of each participant,
# (type, role, type of identifier) of each object
STUDY, PATIENT = ("2", "3", "110180"), ("1", "1", "2")
TABLES: list[tuple[Event, str, str, str, list[str], list[tuple[str, str, str]]]] = [
    (STARTED, "110100", "E", "110120", ["110150"], []),
    (STOPPED, "110100", "E", "110121", ["110150"], []),
    (USED, "110101", "R", "", [""], [("2", "13", "12")]),
    (BEGUN, "110102", "E", "", ["110153", "110152"], [STUDY, PATIENT]),
    (RETRIEVED, "110102", "E", "", ["110153", "110152"], [STUDY, PATIENT]),
    (CAME, "110104", "C", "", ["110153", "110152"], [STUDY, PATIENT]),
    (WENT, "110104", "R", "", ["110153", "110152"], [STUDY, PATIENT]),
    (DECLINED, "110104", "R", "", ["110153", "110152"], [STUDY, PATIENT]),
    (QUERIED, "110112", "E", "", ["110153", "110152"], [("2", "3", "110181")]),
    (REFUSED, "110113", "E", "110126", ["", ""], [("2", "13", "110182")]),
    (ADMITTED, "110114", "E", "110122", ["", ""], []),
]


def made(event: Event) -> Element:
    return parsed(message(event, "DICOMNODE", NOW))


def parsed(text: str) -> Element:
    return fromstring(text)  # noqa: S314 - our own message


def name_of(event: Event) -> str:
    return f"{type(event).__name__}-{EVENTS.index(event)}"


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_each_message_obeys_the_schema(event: Event) -> None:
    """A.5.1.1: elements in order, attributes that must be and may be, values that are allowed."""
    root = made(event)

    assert "AuditMessage" == root.tag
    assert [] == [wrong for element in root.iter() for wrong in broken_rules(element)]


def broken_rules(element: Element) -> list[str]:
    must, may, children = SCHEMA[element.tag]
    found = set(element.attrib)
    wrong = [f"{element.tag} lacks {name}" for name in must - found]
    wrong += [f"{element.tag} has {name}" for name in found - must - may]
    wrong += [
        f"{name}={value}" for name, value in element.attrib.items()
        if name in VALUES and not re.fullmatch(VALUES[name], value)
    ]  # fmt: skip
    order = "".join(f"({name} ){{{least},{most}}}" for name, least, most in children)
    held = "".join(f"{child.tag} " for child in element)
    return wrong if re.fullmatch(order.replace("|", " |"), held) else [*wrong, f"{element.tag} holds {held}"]


def test_the_schema_of_this_test_refuses() -> None:
    """The check itself: a missing attribute, a foreign one, a wrong value, a wrong order."""
    for spoilt in (
        "<AuditSourceIdentification />",
        '<AuditSourceIdentification AuditSourceID="A" other="b" />',
        '<ActiveParticipant UserID="1" UserIsRequestor="maybe" />',
        '<EventIdentification EventDateTime="2026-11-20T00:00:00Z" EventOutcomeIndicator="0" />',
        "<ParticipantObjectDescription><SOPClass /><Accession /></ParticipantObjectDescription>",
    ):
        assert broken_rules(parsed(spoilt)), spoilt


@pytest.mark.parametrize(("event", "id_", "action", "kind", "roles", "objects"), TABLES)
def test_each_message_is_what_its_table_asks(
    event: Event, id_: str, action: str, kind: str, roles: list[str], objects: list[tuple[str, str, str]]
) -> None:
    """A.5.3.1-3, 7, 10-12: event, action, type, participants in their roles, objects with their codes."""
    root = made(event)

    assert (id_, action, kind) == (
        code(root, "EventIdentification/EventID"),
        root.find("EventIdentification").attrib["EventActionCode"],  # type: ignore[union-attr]
        code(root, "EventIdentification/EventTypeCode"),
    )
    assert roles == [code(who, "RoleIDCode") for who in root.iter("ActiveParticipant")]
    assert objects == [
        (
            thing.attrib["ParticipantObjectTypeCode"], thing.attrib["ParticipantObjectTypeCodeRole"],
            code(thing, "ParticipantObjectIDTypeCode"),
        )
        for thing in root.iter("ParticipantObjectIdentification")
    ]  # fmt: skip


def code(element: Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else found.attrib["csd-code"]


def test_every_event_has_a_table() -> None:
    """No kind of event without a row above."""
    assert [name_of(event) for event in EVENTS] == [name_of(row[0]) for row in TABLES]
    assert {type(event) for event in EVENTS} == set(Event.__args__)


def test_the_time_is_utc() -> None:
    """A.5.2: unambiguous as to local time zones."""
    assert "2026-11-20T22:59:58.123+00:00" == made(STARTED)[0].attrib["EventDateTime"]


def test_who_asked_and_who_answered() -> None:
    """Exactly one participant is the requestor: the one who opened the association."""
    requestors = {
        name_of(event): [who.attrib["UserIsRequestor"] for who in made(event).iter("ActiveParticipant")]
        for event in (BEGUN, RETRIEVED, CAME, WENT, QUERIED, REFUSED)
    }

    assert {
        "Begun-3": ["true", "false"], "Retrieved-4": ["false", "true"], "Transferred-5": ["true", "false"],
        "Transferred-6": ["true", "false"], "Queried-8": ["true", "false"], "Refused-9": ["true", "false"],
    } == requestors  # fmt: skip


def test_instances_are_counted_by_class() -> None:
    """A.5.2: SOPClass with UID and NumberOfInstances, of the study's object."""
    counts = [(c.attrib["UID"], c.attrib["NumberOfInstances"]) for c in made(CAME).iter("SOPClass")]

    assert [(MR, "24"), (SR, "1")] == counts


def test_a_query_carries_its_keys() -> None:
    """A.5.3.10: the identifier as DICOM, with its transfer syntax."""
    root = made(QUERIED)
    details = {d.attrib["type"]: b64decode(d.attrib["value"]) for d in root.iter("ParticipantObjectDetail")}
    keys = b64decode(next(root.iter("ParticipantObjectQuery")).text or "")

    data_set = read_dataset(BytesIO(keys), is_implicit_VR=False, is_little_endian=True)

    assert b"1.2.840.10008.1.2.1" == details["TransferSyntax"]
    assert ("STUDY", "1.2.3") == (data_set.QueryRetrieveLevel, data_set.StudyInstanceUID)


def test_an_alert_is_described() -> None:
    """A.5.3.11: Alert Description is mandatory, base64 like every value."""
    (detail,) = made(REFUSED).iter("ParticipantObjectDetail")

    assert "Alert Description" == detail.attrib["type"]
    assert b"not a listed peer (called DICOMNODE)" == b64decode(detail.attrib["value"])


@pytest.mark.parametrize("hostile", [
    "\x00\x1b[31mP\n<&\">'", "\ud800\ufffe", "\u202eP", "x" * 100_000, "\u85ac" * 5000, "]]><!--",
    "\x85\u2028",
])  # fmt: skip
def test_text_from_outside_breaks_nothing(hostile: str) -> None:
    """Control characters, markup, lone surrogates, endless values: one line of XML, and bounded."""
    events: tuple[Event, ...] = (
        Begun("pacs", hostile, hostile, hostile), Refused(hostile, hostile, hostile, hostile),
        Queried("pacs", hostile, hostile, hostile, 0),
    )  # fmt: skip
    for event in events:
        text = message(event, "DICOMNODE", NOW)

        assert [] == [w for element in parsed(text).iter() for w in broken_rules(element)]
        assert not re.search("[\x00-\x1f\x7f-\x9f]", text)
        assert len(text.encode()) < 8000
        for encoded in re.findall(r'value="([^"]*)"', text):
            b64decode(encoded, validate=True).decode()
