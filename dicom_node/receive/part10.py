"""The head of a stored file: preamble, DICM and File Meta Information (PS3.10 7.1).

Written by this node and from the instance alone: no AE title, no time, no version. The same
data set in the same transfer syntax is the same file, whoever sends it and whenever.
"""

from __future__ import annotations

import struct

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID
from dicom_node.domain.identity import UID


def file_head(sop_class_uid: UID, sop_instance_uid: UID, transfer_syntax_uid: UID) -> bytes:
    """Everything of a PS3.10 file that stands before its data set."""
    group = b"".join((
        struct.pack("<HH2sHI", 2, 0x0001, b"OB", 0, 2) + b"\x00\x01",  # File Meta Information Version
        _uid(0x0002, sop_class_uid),
        _uid(0x0003, sop_instance_uid),
        _uid(0x0010, transfer_syntax_uid),
        _uid(0x0012, IMPLEMENTATION_CLASS_UID),
    ))  # fmt: skip
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0x0000, b"UL", 4, len(group)) + group


def _uid(element: int, uid: UID) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value
