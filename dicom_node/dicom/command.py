"""Command sets, PS3.7 6.3 and 9.3: implicit VR little endian, flat, a few elements. Requests and answers.

Read here and not by pydicom, since it is the first thing a stranger's bytes reach: a value that
is no UID must become an answer, neither a warning nor an exception.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue, UnreadableObject

LONGEST_COMMAND_BYTES = 16384
"""A C-STORE or C-ECHO command set has some 200 bytes."""
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
        values = elements(encoded)
        return Command(
            field=number(values, _FIELD),
            message_id=number(values, _MESSAGE_ID),
            has_data_set=number(values, _DATA_SET_TYPE) != _NO_DATA_SET,
            sop_class_uid=text(values, _SOP_CLASS),
            sop_instance_uid=text(values, _SOP_INSTANCE),
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
    values = {
        _SOP_CLASS: _uid_value(sop_class_uid), _FIELD: struct.pack("<H", field),
        _RESPONDED_TO: struct.pack("<H", message_id), _DATA_SET_TYPE: struct.pack("<H", _NO_DATA_SET),
        _STATUS: struct.pack("<H", status), _ERROR_COMMENT: _comment_value(comment),
        _SOP_INSTANCE: _uid_value(sop_instance_uid),
    }  # fmt: skip
    return command_set({element: value for element, value in values.items() if value})


def command_set(values: Mapping[int, bytes]) -> bytes:
    """A command set, PS3.7 6.3.1, of element number -> value: group length first, then in order."""
    body = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value for element, value in sorted(values.items())
    )
    return struct.pack("<HHII", 0, _GROUP_LENGTH, 4, len(body)) + body


def _uid_value(text: str) -> bytes:
    """As it was sent, padded; nothing for what is no UID."""
    return text.encode("ascii") + b"\0" * (len(text) % 2) if _is_uid(text) else b""


def _comment_value(text: str) -> bytes:
    """LO: 64 characters, no backslash (PS3.5 6.2)."""
    value = text.encode("ascii", "replace").replace(b"\\", b"/")[:64]
    return value + b" " * (len(value) % 2)


def elements(encoded: bytes) -> dict[int, bytes]:
    """Element number -> value of a command set. Raises UnreadableObject."""
    at, found = 0, {}
    while at < len(encoded):
        if len(encoded) - at < 8:
            raise UnreadableObject("a command set that ends within an element")
        group, element, length = struct.unpack_from("<HHI", encoded, at)
        at += 8 + length
        if group != 0 or at > len(encoded):
            raise UnreadableObject("a command set with what is no command element")
        found[element] = encoded[at - length : at]
    return found


def number(values: Mapping[int, bytes], element: int) -> int:
    """Raises UnreadableObject where there is none."""
    if len(value := values.get(element, b"")) != 2:
        raise UnreadableObject(f"a command set without a number in (0000,{element:04X})")
    return int.from_bytes(value, "little")


def text(values: Mapping[int, bytes], element: int) -> str:
    """Without padding; "" where it is absent."""
    return values.get(element, b"").decode("ascii", "replace").rstrip("\0 ")


def _is_uid(text: str) -> bool:
    try:
        UID(text)
    except InvalidValue:
        return False
    return True
