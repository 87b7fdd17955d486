"""What fuzzing found, each as a test that failed before it was mended. The bytes are made, not kept."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from dicom_node.assemble.stacks import stacks
from dicom_node.dicom.header import identify, read_header
from dicom_node.dicom.volume import read_volume
from dicom_node.errors import UnreadableObject
from dicom_node.receive.negotiation import proposal
from dicom_node.receive.policy import made_by_a_node
from support import mr, pdus
from support.stored import stored_file

EXPLICIT, REPORT = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.88.11"


def with_empty_value(content: bytes, tag: tuple[int, int], vr: bytes) -> bytes:
    """The file with one element's VR and value replaced: no value, of a VR that is none."""
    at = content.index(struct.pack("<HH", *tag), 132)
    length = struct.unpack_from("<H", content, at + 6)[0]
    return content[: at + 4] + vr + b"\0\0" + content[at + 8 + length :]


@pytest.mark.parametrize("vr", [b"U\0", b"ZZ"])
def test_an_empty_uid_of_no_known_vr_is_missing(vr: bytes) -> None:
    """pydicom converts empty values at once, and raises NotImplementedError where it does not know the VR."""
    content = with_empty_value(mr.file_bytes(mr.mr_instance()), (0x0020, 0x000D), vr)

    with pytest.raises(UnreadableObject, match=r"Study Instance UID \(0020,000D\) is missing"):
        identify(content, EXPLICIT)


def test_an_empty_number_of_no_known_vr_is_absent(tmp_path: Path) -> None:
    """Echo Time: the image is read without it."""
    path = tmp_path / "object"
    path.write_bytes(with_empty_value(mr.file_bytes(mr.mr_instance()), (0x0018, 0x0081), b"ZZ"))

    header = read_header(path)

    assert "echo_time" not in header["shared"]  # type: ignore[operator]


def test_an_empty_manufacturer_of_no_known_vr_is_nobodys() -> None:
    content = with_empty_value(mr.file_bytes(mr.report("x")), (0x0008, 0x0070), b"ZZ")

    assert not made_by_a_node(REPORT, content)


def test_items_of_unknown_types_are_skipped() -> None:
    """Of an A-ASSOCIATE-RQ, PS3.8 9.3.1; pynetdicom raises at them."""
    unknown = pdus.item(0x5F, b"unknown")
    request = pdus.associate_rq(user_items=unknown)
    plain = pdus.associate_rq()
    at_the_top = plain[:2] + struct.pack(">I", len(plain) - 6 + len(unknown)) + plain[6:] + unknown

    for pdu in (request, at_the_top):
        assert ("SCANNER", 2) == (proposal(pdu).calling, len(proposal(pdu).contexts))


def test_a_decoder_that_panics_is_a_refusal(tmp_path: Path) -> None:
    """RLE runs longer than their frame make the decoder, written in Rust, raise what is no Exception."""
    ds = mr.mr_instance(Rows=16, Columns=16, PixelData=bytes(512))
    mr.file_bytes(ds)  # gives it file meta
    ds.compress(RLELossless, generate_instance_uid=False)
    runs = b"\x81\x00" * 3  # each 128 times 0, for segments of 256
    ds.PixelData = encapsulate([struct.pack("<16L", 2, 64, 64 + len(runs), *(0,) * 13) + runs + runs])
    path = tmp_path / "object"
    path.write_bytes(mr.file_bytes(ds, RLELossless))
    ((stack,), _) = stacks([stored_file(path)])

    with pytest.raises(UnreadableObject, match=r"the pixels cannot be decoded \(PanicException\)"):
        read_volume(stack)
