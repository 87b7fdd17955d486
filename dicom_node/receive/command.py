"""Command sets, PS3.7 6.3 and 9.3: implicit VR little endian, flat, a few elements. Requests and answers.

Read here and not by pydicom, since it is the first thing a stranger's bytes reach: a value that
is no UID must become an answer, neither a warning nor an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue, UnreadableObject

C_STORE_RQ = 0x0001
C_ECHO_RQ = 0x0030
N_EVENT_REPORT_RQ = 0x0100
VERIFICATION = "1.2.840.10008.1.1"

_GROUP_LENGTH, _SOP_CLASS, _FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0000, 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _ERROR_COMMENT, _SOP_INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000
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

    def echo_response(self) -> bytes:
        """C-ECHO-RSP, PS3.7 9.3.5.2."""
        return _response(0x8000 | self.field, self.message_id, 0x0000, VERIFICATION)

    def store_response(self, status: int, comment: str = "") -> bytes:
        """C-STORE-RSP, N-EVENT-REPORT-RSP (PS3.7 9.3.1.2, 10.3.1.2). UIDs that are none are not repeated."""
        return _response(
            0x8000 | self.field, self.message_id, status, self.sop_class_uid, self.sop_instance_uid, comment
        )


def _response(
    field: int,
    message_id: int,
    status: int,
    sop_class_uid: str,
    sop_instance_uid: str = "",
    comment: str = "",
) -> bytes:
    elements = b"".join((
        _element(_SOP_CLASS, _uid_value(sop_class_uid)),
        _element(_FIELD, struct.pack("<H", field)),
        _element(_RESPONDED_TO, struct.pack("<H", message_id)),
        _element(_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
        _element(_STATUS, struct.pack("<H", status)),
        _element(_ERROR_COMMENT, _comment_value(comment)),
        _element(_SOP_INSTANCE, _uid_value(sop_instance_uid)),
    ))  # fmt: skip
    return _element(_GROUP_LENGTH, struct.pack("<I", len(elements))) + elements


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value if value else b""


def _uid_value(text: str) -> bytes:
    """As it was sent, padded; nothing for what is no UID."""
    return text.encode("ascii") + b"\0" * (len(text) % 2) if _is_uid(text) else b""


def _comment_value(text: str) -> bytes:
    """LO: 64 characters, no backslash (PS3.5 6.2)."""
    value = text.encode("ascii", "replace").replace(b"\\", b"/")[:64]
    return value + b" " * (len(value) % 2)


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
