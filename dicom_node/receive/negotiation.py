"""A-ASSOCIATE (PS3.8 9.3): what a peer proposes, and the answer to it.

The PDUs are pynetdicom's. Its decoder was not written for strangers: whatever it raises on
hostile bytes becomes UnreadableObject here, and the caller bounds their length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.errors import UnreadableObject

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
RELEASED = b"\x06\x00" + struct.pack(">II", 4, 0)
"""A-RELEASE-RP, PS3.8 9.3.7."""
UNRECOGNISED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER, NO_REASON = 1, 2, 6, 0
"""Reasons of an A-ABORT by the provider, PS3.8 9.3.8."""

_FIRST_ITEM_AT = 74  # of an A-ASSOCIATE-RQ, PS3.8 9.3.2
_USER_INFORMATION = 0x50
_ITEMS = frozenset({0x10, 0x20, _USER_INFORMATION})
_USER_ITEMS = range(0x51, 0x5A)


@dataclass(frozen=True, slots=True)
class Proposal:
    """An A-ASSOCIATE-RQ, not yet judged. The titles are without padding."""

    calling: str
    called: str
    speaks_dicom: bool
    """Whether protocol version 1 and the DICOM application context are among what it offers."""
    contexts: Sequence[Any]  # Any: pynetdicom ships no types
    roles: Mapping[str, tuple[bool, bool]] = field(default_factory=dict)
    """SOP class -> (SCU, SCP) role that it proposes for itself, PS3.7 D.3.3.4."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """One accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


def proposal(pdu: bytes) -> Proposal:
    """Read an A-ASSOCIATE-RQ. Raises UnreadableObject, whatever is wrong with it."""
    try:
        decoded = A_ASSOCIATE_RQ()
        decoded.decode(_without_unknown_items(pdu))
        asked = decoded.to_primitive()
        contexts = list(asked.presentation_context_definition_list)
        numbers = [context.context_id for context in contexts]
        if not contexts or len(numbers) != len(set(numbers)) or not all(number % 2 for number in numbers):
            raise UnreadableObject("presentation context ids are missing, even or repeated")
        if not all(context.transfer_syntax for context in contexts):
            raise UnreadableObject("a presentation context has no transfer syntax")
        return Proposal(
            calling=str(asked.calling_ae_title).strip(),
            called=str(asked.called_ae_title).strip(),
            speaks_dicom=bool(decoded.protocol_version & 1)
            and asked.application_context_name == APPLICATION_CONTEXT,
            contexts=contexts,
            roles={
                item.sop_class_uid: (bool(item.scu_role), bool(item.scp_role))
                for item in asked.user_information
                if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
            },
        )
    except UnreadableObject:
        raise
    except Exception as error:  # the edge to a decoder on hostile bytes, which raises anything
        raise UnreadableObject(f"no A-ASSOCIATE-RQ ({type(error).__name__})") from error


def _without_unknown_items(pdu: bytes) -> bytes:
    """Items of unrecognised types are ignored and skipped (PS3.8 9.3.1); pynetdicom raises at them."""
    body = b"".join(
        _item(kind, b"".join(_item(*inner) for inner in _items(value, _USER_ITEMS)))
        if kind == _USER_INFORMATION
        else _item(kind, value)
        for kind, value in _items(pdu[_FIRST_ITEM_AT:], _ITEMS)
    )
    head = pdu[6:_FIRST_ITEM_AT]
    return pdu[:2] + struct.pack(">I", len(head) + len(body)) + head + body


def _items(encoded: bytes, known: range | frozenset[int]) -> Iterator[tuple[int, bytes]]:
    """(type, value) of the items of known types. Raises UnreadableObject where they are cut off."""
    at = 0
    while at < len(encoded):
        if len(encoded) - at < 4:
            raise UnreadableObject("the A-ASSOCIATE-RQ ends within an item")
        kind, length = struct.unpack_from(">BxH", encoded, at)
        at += 4 + length
        if at > len(encoded):
            raise UnreadableObject("an item is longer than the A-ASSOCIATE-RQ")
        if kind in known:
            yield kind, encoded[at - length : at]


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def accepted(
    asked: Proposal, supported: Sequence[PresentationContext], max_pdu_bytes: int
) -> tuple[bytes, dict[int, Agreed]]:
    """The A-ASSOCIATE-AC, and what was agreed on, by presentation context id.

    Neither an asynchronous operations window nor identities are answered: then one operation at a
    time (PS3.7 D.3.3.3, D.3.3.7). Roles are answered where `supported` states them; for all other
    classes the requestor is SCU (D.3.3.4).
    """
    results, roles = negotiate_as_acceptor(asked.contexts, supported, dict(asked.roles))
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = asked.calling, asked.called
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    class_uid = ImplementationClassUIDNotification()
    class_uid.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION
    answer.user_information = [length, class_uid, version, *roles]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    agreed = {
        result.context_id: Agreed(str(result.abstract_syntax), str(result.transfer_syntax[0]))
        for result in results
        if result.result == 0
    }
    return bytes(pdu.encode()), agreed


def rejected(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ, PS3.8 9.3.4."""
    return b"\x03\x00" + struct.pack(">IBBBB", 4, 0, result, source, reason)


def aborted(reason: int) -> bytes:
    """A-ABORT by the service provider, PS3.8 9.3.8."""
    return b"\x07\x00" + struct.pack(">IBBBB", 4, 0, 0, 2, reason)
