"""The head of a PS3.10 file that comes from the network: preamble, DICM, group 0002 (PS3.10 7.1).

Read by a walk over its elements, since it is flat, always explicit VR little endian, and the first
thing a stranger's bytes reach. The preamble's content is dropped: it may be a program. Promises an
end: no more than LONGEST_BYTES are ever asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_node.errors import UnreadableObject

LONGEST_BYTES = 65536
"""Of preamble and group 0002; a usual one has 400 bytes."""

_PREAMBLE = 128
_START = _PREAMBLE + 4
_GROUP_LENGTH, _SOP_CLASS, _SOP_INSTANCE, _TRANSFER_SYNTAX = 0x0000, 0x0002, 0x0003, 0x0010
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs with a length of four bytes, PS3.5 7.1.2."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the file says of its data set. The UIDs are as sent, unchecked."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    size_bytes: int
    """Where the data set begins."""

    @staticmethod
    def read(head: bytes | bytearray, *, last: bool = False) -> FileMeta | None:
        """From the beginning of a file; None when more of it is needed. `last` says that there is no more.

        Raises UnreadableObject when it is no PS3.10 file, or one that says too little of itself.
        """
        if len(head) < _START:
            _check_more_may_come(last=last)
            return None
        if head[_PREAMBLE:_START] != b"DICM":
            raise UnreadableObject("a part without preamble and DICM: it is not a file of PS3.10")
        values: dict[int, bytes] = {}
        at, ends = _START, 0
        while at != ends:
            found = _element(head, at)
            if found is None:
                if last and at == len(head):
                    break
                _check_more_may_come(last=last)
                return None
            group, element, value, after = found
            if group != 2:
                break
            values[element], at = value, after
            if element == _GROUP_LENGTH and len(value) == 4:
                ends = at + int.from_bytes(value, "little")  # believed where an element ends there
        return _told(values, at)


def _check_more_may_come(*, last: bool) -> None:
    if last:
        raise UnreadableObject("the part ends within its file meta information")


def _element(head: bytes | bytearray, at: int) -> tuple[int, int, bytes, int] | None:
    """(group, element, value, where it ends); None where it is not whole yet."""
    if len(head) < at + 2:
        return None
    if head[at : at + 2] != b"\x02\x00":
        return 0, 0, b"", at
    if len(head) < at + 8:
        return None
    element = int.from_bytes(head[at + 2 : at + 4], "little")
    begins = at + 8
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    if bytes(head[at + 4 : at + 6]) in _LONG:
        begins += 4
        if len(head) < begins:
            return None
        (length,) = struct.unpack_from("<I", head, at + 8)
    if begins + length > LONGEST_BYTES:
        raise UnreadableObject("the file meta information is longer than any")
    if len(head) < begins + length:
        return None
    return 2, element, bytes(head[begins : begins + length]), begins + length


def _told(values: dict[int, bytes], at: int) -> FileMeta:
    return FileMeta(
        _uid(values, _SOP_CLASS, "Media Storage SOP Class UID (0002,0002)"),
        _uid(values, _SOP_INSTANCE, "Media Storage SOP Instance UID (0002,0003)"),
        _uid(values, _TRANSFER_SYNTAX, "Transfer Syntax UID (0002,0010)"),
        at,
    )


def _uid(values: dict[int, bytes], element: int, name: str) -> str:
    uid = values.get(element, b"").decode("ascii", "replace").strip("\0 ")
    if not uid:
        raise UnreadableObject(f"{name} is missing")
    return uid
