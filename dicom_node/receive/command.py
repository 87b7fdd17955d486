"""The command set of a request, PS3.7 6.3 and 9.3: implicit VR little endian, flat, a few elements.

Read here and not by pydicom, since it is the first thing a stranger's bytes reach: a value that
is no UID must become an answer, neither a warning nor an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from pynetdicom.dimse_primitives import C_ECHO, C_STORE

from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue, UnreadableObject

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
VERIFICATION = "1.2.840.10008.1.1"
NO_UID = "0"
"""Answered in place of an Affected SOP Instance UID that is none; the status says 0x0117."""

_SOP_CLASS, _FIELD, _MESSAGE_ID, _DATA_SET_TYPE, _SOP_INSTANCE = 0x0002, 0x0100, 0x0110, 0x0800, 0x1000
_NO_DATA_SET = 0x0101


@dataclass(frozen=True, slots=True)
class Command:
    """What a request asks for. The UIDs are as sent, unchecked."""

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str

    @staticmethod
    def decoded(encoded: bytes) -> Command:
        """Raises UnreadableObject when it is no command set, or one without what every request has."""
        values = dict(_elements(encoded))
        return Command(
            field=_number(values, _FIELD),
            message_id=_number(values, _MESSAGE_ID),
            has_data_set=_number(values, _DATA_SET_TYPE) != _NO_DATA_SET,
            sop_class_uid=_text(values, _SOP_CLASS),
            sop_instance_uid=_text(values, _SOP_INSTANCE),
        )

    def echo(self) -> C_ECHO:
        primitive = C_ECHO()
        primitive.MessageID = self.message_id
        primitive.AffectedSOPClassUID = VERIFICATION
        return primitive

    def store(self, agreed_class_uid: str) -> C_STORE:
        """The request for pynetdicom to answer. It finds the service by the class that was agreed on."""
        primitive = C_STORE()
        primitive.MessageID = self.message_id
        primitive.AffectedSOPClassUID = agreed_class_uid
        primitive.AffectedSOPInstanceUID = self.sop_instance_uid if _is_uid(self.sop_instance_uid) else NO_UID
        primitive.Priority = 0x0000
        primitive.DataSet = BytesIO()  # asked for by pynetdicom; the bytes are on their way to disk
        return primitive


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(encoded):
        if len(encoded) - at < 8:
            raise UnreadableObject("the command set ends within an element")
        group, element, length = struct.unpack_from("<HHI", encoded, at)
        at += 8 + length
        if group != 0 or at > len(encoded):
            raise UnreadableObject("the command set holds what is no command element")
        yield element, encoded[at - length : at]


def _number(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != 2:
        raise UnreadableObject(f"command element (0000,{element:04X}) is missing or no number")
    return int.from_bytes(value, "little")


def _text(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def _is_uid(text: str) -> bool:
    try:
        UID(text)
    except InvalidValue:
        return False
    return True
