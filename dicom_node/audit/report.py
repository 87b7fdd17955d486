"""The trail for people: what happened when, who asked, from where, of which study."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from dicom_node.audit.chain import Line, lines
from dicom_node.audit.messages import DESTINATION, PATIENT_NUMBER, SOURCE, STUDY_UID
from dicom_node.errors import AuditError, InvalidValue

Row = dict[str, object]


def since(text: str | None) -> datetime | None:
    """`2026-11-20` or `2026-11-20T08:30`, UTC unless it says otherwise. Raises InvalidValue."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidValue(f"{text!r} is no date or time, as 2026-11-20 or 2026-11-20T08:30") from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def rows(folder: Path, after: datetime | None = None) -> list[Row]:
    """One row per record, oldest first. Whether the chain holds is `chain.verify`'s to say.

    Raises AuditError where a file cannot be read.
    """
    read = (_row(line) for line in lines(folder) if line.record is not None)
    return [row for row in read if after is None or _when(row) >= after]


def sentence(row: Row) -> str:
    """One row on one line, without the patient."""
    at = str(row["time"]).partition(".")[0].replace("T", " ")
    who = str(row["from"]) + (f" to {row['to']}" if row["to"] else "")
    facts = (
        f"({row['address']})" if row["address"] else "",
        f"study {row['study']}" if row["study"] else "",
        f"{row['instances']} instance{'s' * (row['instances'] != 1)}" if row["instances"] else "",
        "" if row["ok"] or row["detail"] else "not taken over",
        str(row["detail"]),
    )
    return "  ".join(part for part in (at, f"{row['what']:<35}", who, *facts) if part)


def _when(row: Row) -> datetime:
    try:
        return datetime.fromisoformat(str(row["time"]))
    except ValueError as error:
        raise AuditError(f"record {row['record']} has no time: verify the trail") from error


def _row(line: Line) -> Row:
    if (
        line.record is None or "<!" in line.record.message
    ):  # ours declare nothing; foreign ones are not parsed
        raise AuditError(f"{line.where}: is not one of our messages: verify the trail")
    try:
        root = fromstring(line.record.message)  # noqa: S314 - declares no entities, see above
    except ParseError as error:
        raise AuditError(f"{line.where}: is no XML: verify the trail") from error
    event = root.find("EventIdentification")
    if event is None:
        raise AuditError(f"{line.where}: names no event: verify the trail")
    people = root.findall("ActiveParticipant")
    if not any(who.find("RoleIDCode") is not None for who in people):
        people.reverse()  # an alert names first who reports it, then who was not let in
    return {
        "record": line.record.seq,
        "time": event.get("EventDateTime", ""),
        "what": _what(event),
        "ok": event.get("EventOutcomeIndicator") == "0",
        "from": _named(people, SOURCE) or _name(people[0] if people else None),
        "to": _named(people, DESTINATION) or _name(people[1] if len(people) > 1 else None),
        "address": next(
            (who.get("NetworkAccessPointID", "") for who in people if "NetworkAccessPointID" in who.attrib),
            "",
        ),
        "study": _object(root, STUDY_UID),
        "patient": _object(root, PATIENT_NUMBER),
        "instances": sum(int(c.get("NumberOfInstances", "0")) for c in root.iter("SOPClass")),
        "detail": _details(root, event),
    }


def _what(event: Element) -> str:
    kind, type_ = event.find("EventID"), event.find("EventTypeCode")
    words = [found.get("originalText", "") for found in (kind, type_) if found is not None]
    return ": ".join(words)


def _named(people: list[Element], role: tuple[str, str, str]) -> str:
    for who in people:
        code = who.find("RoleIDCode")
        if code is not None and code.get("csd-code") == role[0]:
            return _name(who)
    return ""


def _name(who: Element | None) -> str:
    """AE titles for a process of this node, whose ID is a number; what it was called for anybody else."""
    if who is None:
        return ""
    ours = who.get("AlternativeUserID", "").removeprefix("AETITLES=")
    return " ".join(part for part in (ours or who.get("UserID", ""), who.get("UserName", "")) if part)


def _object(root: Element, code: tuple[str, str, str]) -> str:
    for thing in root.iter("ParticipantObjectIdentification"):
        kind = thing.find("ParticipantObjectIDTypeCode")
        if kind is not None and kind.get("csd-code") == code[0]:
            return thing.get("ParticipantObjectID", "")
    return ""


def _details(root: Element, event: Element) -> str:
    said = [event.findtext("EventOutcomeDescription", "")]
    for detail in root.iter("ParticipantObjectDetail"):
        name, value = detail.get("type", ""), b64decode(detail.get("value", "")).decode(errors="replace")
        said += {"Alert Description": [value], "Found": [f"{value} found"]}.get(name, [])
    return "; ".join(part for part in said if part)
