"""The command set of a request, from bytes that anybody may have sent."""

from __future__ import annotations

import struct

import pytest

from dicom_node.dicom.command import C_STORE_RQ, Command
from dicom_node.errors import UnreadableObject
from support.mr import MR_IMAGE
from support.scu import command_set

STORE = command_set(MR_IMAGE, "1.2.3")


def test_a_store_request_is_read() -> None:
    """PS3.7 9.3.1.1: command field, message id, and the UIDs as they were sent, without padding."""
    expected = Command(
        field=C_STORE_RQ, message_id=7, has_data_set=True, sop_class_uid=MR_IMAGE, sop_instance_uid="1.2.3"
    )

    assert expected == Command.decoded(STORE)


def test_what_is_no_uid_is_only_text() -> None:
    """It is judged, and answered, elsewhere; here it neither warns nor raises."""
    asked = Command.decoded(command_set(MR_IMAGE, "../../etc/x"))

    assert "../../etc/x" == asked.sop_instance_uid
    assert b"etc" not in asked.store_response(0x0117)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0",
        STORE[:-1],
        STORE[:20],
        STORE + bytes(7),
        struct.pack("<HHI", 0, 0x0100, 0xFFFFFFFF),
        struct.pack("<HHI2s", 0, 0x0100, 2, b"\x01\0"),  # no message id
        struct.pack("<HHI4s", 0, 0x0100, 4, bytes(4)),  # no number of 16 bits
        struct.pack("<HHI", 8, 0x0016, 0),  # no command element
        bytes(range(64)),
    ],
)
def test_what_is_no_command_set_is_unreadable(encoded: bytes) -> None:
    """Cut, empty, foreign or lying about its lengths: one error, which ends the association."""
    with pytest.raises(UnreadableObject):
        Command.decoded(encoded)
