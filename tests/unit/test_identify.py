"""The receiver learns which instance arrives from its first bytes, whatever those are."""

from __future__ import annotations

import struct
import time
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless

from dicom_node.dicom.header import Identity, identify
from dicom_node.domain.identity import UID
from dicom_node.errors import UnreadableObject

EXPECTED = Identity(UID("1.2.840.10008.5.1.4.1.1.4"), UID("1.2.3.4"), UID("1.2.3"), UID("1.2.3.1"), "P-7")


def data_set() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = EXPECTED.sop_class_uid
    ds.SOPInstanceUID = EXPECTED.sop_instance_uid
    ds.PatientID = EXPECTED.patient_id
    ds.StudyInstanceUID = EXPECTED.study_uid
    ds.SeriesInstanceUID = EXPECTED.series_uid
    ds.PatientName = "CANARY^NAME"
    inner = Dataset()
    inner.StudyInstanceUID = "9.9.9"  # not ours: inside a sequence
    ds.ReferencedStudySequence = [inner]
    ds.Rows = 1
    return ds


def encoded(ds: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == ImplicitVRLittleEndian
    buffer.is_little_endian = syntax != ExplicitVRBigEndian
    write_dataset(buffer, ds)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless]
)
def test_every_encoding_of_a_data_set_is_understood(syntax: str) -> None:
    """Implicit and explicit VR, both byte orders, and encapsulated (explicit little endian, PS3.5 A.4)."""
    assert EXPECTED == identify(encoded(data_set(), syntax), syntax)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_undefined_length_sequences_before_the_series_are_skipped(syntax: str) -> None:
    """A nested sequence of undefined length does not end the search, nor lends its UIDs."""
    ds = data_set()
    ds["ReferencedStudySequence"].is_undefined_length = True
    ds.ReferencedStudySequence[0].is_undefined_length_sequence_item = True

    assert EXPECTED == identify(encoded(ds, syntax), syntax)


def test_a_file_is_understood_by_path_and_by_bytes(tmp_path: Path) -> None:
    """The archive's PS3.10 files are identified as the bare data set is; their own syntax counts."""
    path = tmp_path / "object"
    ds = data_set()
    ds.ensure_file_meta()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    dcmwrite(path, ds, enforce_file_format=True)

    assert EXPECTED == identify(path, ImplicitVRLittleEndian)
    assert EXPECTED == identify(path.read_bytes(), ImplicitVRLittleEndian)


def test_what_follows_the_series_is_not_read() -> None:
    """The head may end anywhere behind (0020,000E)."""
    content = encoded(data_set(), ExplicitVRLittleEndian)
    end = content.index(b"1.2.3.1\0") + 8

    assert EXPECTED == identify(content[:end], ExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("keyword", "sentence"),
    [
        ("SOPInstanceUID", "SOP Instance UID (0008,0018) is missing"),
        ("StudyInstanceUID", "Study Instance UID (0020,000D) is missing"),
        ("SeriesInstanceUID", "Series Instance UID (0020,000E) is missing"),
    ],
)
def test_a_missing_uid_is_named(keyword: str, sentence: str) -> None:
    ds = data_set()
    delattr(ds, keyword)

    with pytest.raises(UnreadableObject) as refusal:
        identify(encoded(ds, ExplicitVRLittleEndian), ExplicitVRLittleEndian)

    assert sentence == str(refusal.value)


def test_a_path_in_place_of_a_uid_is_refused() -> None:
    """Nothing from the network becomes a path: `../../etc` is no UID."""
    content = encoded(data_set(), ExplicitVRLittleEndian).replace(b"1.2.3.4\0", b"../../et")

    with pytest.raises(UnreadableObject, match=r"SOP Instance UID .* not a UID"):
        identify(content, ExplicitVRLittleEndian)


def _nested(depth: int, item_length: int) -> bytes:
    head = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    return (head + struct.pack("<HHL", 0xFFFE, 0xE000, item_length)) * depth


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        bytes(65536),
        b"\xff" * 65536,
        _nested(3000, 0xFFFFFFFF),
        _nested(3000, 0x7FFFFFFF),
        struct.pack("<HH2sHL", 0x0008, 0x0016, b"UN", 0, 0xFFFFFFFE) + b"1.2",
        struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF) + b"junk" * 1000,
    ],
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_hostile_bytes_are_unreadable_and_nothing_worse(content: bytes, syntax: str) -> None:
    """Depth, lengths and noise raise UnreadableObject within a second."""
    started = time.perf_counter()

    with pytest.raises(UnreadableObject):
        identify(content, syntax)

    assert time.perf_counter() - started < 1.0


def test_what_is_no_deflate_is_unreadable() -> None:
    """Bytes with zlib's header, which raw deflate (PS3.5 A.5) does not have."""
    with pytest.raises(UnreadableObject, match="deflated"):
        identify(BytesIO(b"\x78\x9c" * 100).getvalue(), "1.2.840.10008.1.2.1.99")
