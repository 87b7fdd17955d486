"""What deciding needs is read from every header, in one shape for classic and Enhanced MR."""

from __future__ import annotations

import json
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_node.dicom.header import read_header
from dicom_node.errors import UnreadableObject
from support import mr


def header_of(ds: Dataset, folder: Path, **syntax: str) -> dict[str, Any]:
    path = folder / "object"
    path.write_bytes(mr.file_bytes(ds, **syntax))
    return read_header(path)


def test_a_classic_image_is_one_frame_with_its_facts(tmp_path: Path) -> None:
    """Geometry in mm, times in ms, words upper case; absent facts have no key."""
    header = header_of(mr.mr_instance(mr.T2, 3), tmp_path)

    shared = header["shared"]
    assert [{}] == header["frames"]
    assert [-20.0, -30.0, -28.0] == shared["position"]
    assert [1.0, 0.0, 0.0, 0.0, 1.0, 0.0] == shared["orientation"]
    assert [2.0, 1.5] == shared["pixel_spacing"]
    assert (100.0, 5000.0, 160.0) == (shared["echo_time"], shared["repetition_time"], shared["flip_angle"])
    assert ["SE"] == shared["scanning_sequence"]
    assert "b_value" not in shared
    assert (4, 1, "MR", ["PELVIS"]) == (
        header["instance_number"], header["series_number"], header["modality"], header["body_parts"],
    )  # fmt: skip


def test_enhanced_facts_stand_under_the_classic_names(tmp_path: Path) -> None:
    """Functional groups, shared and per frame, end in the same facts; only what differs is per frame."""
    header = header_of(mr.enhanced_mr(mr.DWI, 2, b_values=(0.0, 800.0)), tmp_path)

    assert ["SE", "EP"] == header["shared"]["scanning_sequence"]
    assert (70.0, ["FS"]) == (header["shared"]["echo_time"], header["shared"]["scan_options"])
    assert [0.0, 0.0, 800.0, 800.0] == [frame["b_value"] for frame in header["frames"]]
    assert [-40.0, -36.0, -40.0, -36.0] == [frame["position"][2] for frame in header["frames"]]


def test_the_extract_is_json_and_names_nobody(tmp_path: Path) -> None:
    """It is kept in the ledger: patients are told apart by digests, never named."""
    header = header_of(mr.mr_instance(mr.DWI, SequenceName="*ep_b50_800"), tmp_path)

    text = json.dumps(header, allow_nan=False)

    assert "CANARY" not in text
    assert header == json.loads(text)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_give_the_same_facts(tmp_path: Path, syntax: str) -> None:
    expected = header_of(mr.mr_instance(mr.DWI), tmp_path)
    ds = mr.mr_instance(mr.DWI)
    if syntax == ExplicitVRBigEndian:
        del ds.PixelData

    header = header_of(ds, tmp_path, transfer_syntax=syntax)

    assert {**expected, "transfer_syntax_uid": str(syntax)} == header


@pytest.mark.parametrize(
    ("age", "born", "expected"),
    [("063Y", "", 63.0), ("018M", "", 1.5), ("", "19760103", 49.0), ("", "19760102", 50.0), ("", "", None),
     ("abcY", "unknown", None), ("", "20270101", None)],
)  # fmt: skip
def test_age_comes_from_the_stated_age_or_the_birth_date(
    tmp_path: Path, age: str, born: str, expected: float | None
) -> None:
    """(0010,1010) first, else whole years between birth date and study date (2026-01-02)."""
    ds = mr.mr_instance()
    ds["PatientAge"]._value = age  # as a scanner wrote it, valid or not
    ds["PatientBirthDate"]._value = born

    assert expected == header_of(ds, tmp_path)["patient"].get("age_years")


@pytest.mark.parametrize(("written", "expected"), [("F", "F"), ("m", "M"), ("0000", None), ("", None)])
def test_only_a_defined_sex_counts(tmp_path: Path, written: str, expected: str | None) -> None:
    ds = mr.mr_instance()
    ds["PatientSex"]._value = written

    assert expected == header_of(ds, tmp_path)["patient"].get("sex")


def private(ds: Dataset, group: int, creator: str, element: int, vr: str, value: object) -> None:
    ds.private_block(group, creator, create=True).add_new(element, vr, value)


@pytest.mark.parametrize(
    ("group", "creator", "element", "vr", "value", "expected"),
    [
        (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", 800, 800.0),
        (0x0019, "SIEMENS MR HEADER", 0x0C, "OB", b"50", 50.0),
        (0x0043, "GEMS_PARM_01", 0x39, "IS", [1000, 8, 0, 0], 1000.0),
        (0x0043, "GEMS_PARM_01", 0x39, "IS", [1000000700, 8, 0, 0], 700.0),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL", 400.0, 400.0),
        (0x0019, "SOMEBODY ELSE", 0x0C, "IS", 800, None),
    ],
)
def test_vendors_private_b_values_are_read(
    tmp_path: Path, group: int, creator: str, element: int, vr: str, value: object, expected: float | None
) -> None:
    """A private element counts only under its creator (PS3.5 7.8.1)."""
    ds = mr.mr_instance(mr.BOLD)
    private(ds, group, creator, element, vr, value)

    assert expected == header_of(ds, tmp_path)["shared"].get("b_value")


def csa(name: bytes, value: bytes) -> bytes:
    """A Siemens CSA2 header with one element of one item."""
    element = struct.pack("<64si4siii", name, 1, b"IS\0\0", 6, 1, 77)
    padded = value.ljust((len(value) + 3) // 4 * 4, b"\0")
    item = struct.pack("<4i", len(value), len(value), 77, len(value)) + padded
    return b"SV10\4\3\2\1" + struct.pack("<II", 1, 77) + element + item


def test_a_b_value_only_in_the_csa_header_is_found(tmp_path: Path) -> None:
    ds = mr.mr_instance(mr.BOLD)
    private(ds, 0x0029, "SIEMENS CSA HEADER", 0x10, "OB", csa(b"B_value", b"800\0"))

    assert 800.0 == header_of(ds, tmp_path)["shared"]["b_value"]


def test_a_sequence_name_that_names_one_b_value_is_the_last_hint(tmp_path: Path) -> None:
    """`*ep_b800t` is one b value; `*ep_b50_800` is a range, which says what was measured."""
    single = header_of(mr.mr_instance(mr.DWI, SequenceName="*ep_b800t", DiffusionBValue=None), tmp_path)
    spanned = header_of(mr.mr_instance(mr.DWI, SequenceName="*ep_b50_800", DiffusionBValue=None), tmp_path)

    assert (800.0, None) == (single["shared"]["b_value"], single["shared"].get("measured_b"))
    assert (None, [50.0, 800.0]) == (spanned["shared"].get("b_value"), spanned["shared"]["measured_b"])


def test_the_referral_is_gathered_from_wherever_it_is_written(tmp_path: Path) -> None:
    """Text and codes, at the top and in the request, once each."""
    request = Dataset()
    request.ReasonForTheRequestedProcedure = "Rapidly growing mass"
    ds = mr.mr_instance(
        AdmittingDiagnosesDescription="Leiomyoma of uterus", RequestAttributesSequence=[request],
        ReasonForRequestedProcedureCodeSequence=[mr.code("95315005", "SCT", "Uterine leiomyoma")],
        RequestedProcedureDescription="Leiomyoma of uterus",
    )  # fmt: skip

    expected = "Leiomyoma of uterus\nUterine leiomyoma\nRapidly growing mass"
    assert expected == header_of(ds, tmp_path)["referral"]


def test_a_report_gives_its_text(tmp_path: Path) -> None:
    """Every text of an SR's content tree, in order, with its concept's name."""
    assert "Finding: Known leiomyoma" == header_of(mr.report("Known leiomyoma"), tmp_path)["report"]


def test_text_in_another_character_set_is_decoded(tmp_path: Path) -> None:
    ds = mr.mr_instance(SeriesDescription="гистерия", SpecificCharacterSet="ISO_IR 144")

    assert "гистерия" == header_of(ds, tmp_path)["series_description"]


@pytest.mark.parametrize("value", ["1.5\\abc", "NaN", "1e999", "--", "0x10"])
def test_numbers_that_are_none_are_absent(tmp_path: Path, value: str) -> None:
    """A value nobody can compute with must not stop the image, nor JSON."""
    ds = mr.mr_instance()
    path = tmp_path / "object"
    content = mr.file_bytes(ds)
    start = content.index(struct.pack("<HH2s", 0x0018, 0x0081, b"DS"))
    length = struct.unpack_from("<H", content, start + 6)[0]
    new = value.encode() + b" " * (len(value) % 2)
    head = struct.pack("<HH2sH", 0x0018, 0x0081, b"DS", len(new))
    path.write_bytes(content[:start] + head + new + content[start + 8 + length :])

    assert "echo_time" not in read_header(path)["shared"]  # type: ignore[operator]


@pytest.mark.filterwarnings("ignore")  # as in production, where pydicom's warnings are only counted
@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"\0" * 200, b"DICM" * 100, b"\x89PNG\r\n" + b"\0" * 500, b"{" * 4096,
     bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\x02\0\x10\0UI" + b"\xff\xff" + b"1.2"],
)  # fmt: skip
def test_what_is_no_dicom_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "object"
    path.write_bytes(content)

    with pytest.raises(UnreadableObject):
        read_header(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cut", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_truncated_file_is_unreadable_or_readable_but_nothing_else(tmp_path: Path, cut: float) -> None:
    content = mr.file_bytes(mr.enhanced_mr(mr.DWI, 4, b_values=(0.0, 800.0)))
    path = tmp_path / "object"
    path.write_bytes(content[: int(len(content) * cut)])

    with suppress(UnreadableObject):
        assert isinstance(read_header(path), dict)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFF0])
def test_a_bottomless_report_is_read_or_refused_in_time(tmp_path: Path, length: int) -> None:
    """Three thousand levels of content items: no RecursionError, no hang."""
    content = mr.file_bytes(mr.report("Leiomyoma"))
    start = content.index(struct.pack("<HH2s", 0x0040, 0xA730, b"SQ"))
    level = struct.pack("<HH2sHLHHL", 0x0040, 0xA730, b"SQ", 0, length, 0xFFFE, 0xE000, length)
    path = tmp_path / "object"
    path.write_bytes(content[:start] + level * 3000)
    started = time.process_time()

    with suppress(UnreadableObject):
        assert isinstance(read_header(path), dict)

    assert time.process_time() - started < 2.0


def test_frames_announced_but_not_described_are_unreadable(tmp_path: Path) -> None:
    """A frame without its functional group has no place; the object is not used in part."""
    ds = mr.enhanced_mr(mr.T2, 4, NumberOfFrames=5)

    with pytest.raises(UnreadableObject, match="5 frames are announced but 4 described"):
        header_of(ds, tmp_path)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableObject, match="FileNotFoundError"):
        read_header(tmp_path / "absent")


ABSURD = [2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, -1, -(2**31), 65536 * 65536]


def with_number(ds: Dataset, keyword: str, written: str) -> bytes:
    """The object's file with the element in text, as IS, whatever it should be."""
    content = mr.file_bytes(ds)
    tag = Tag(tag_for_keyword(keyword))
    element = struct.pack("<HH", tag.group, tag.element)
    value = written.encode() + b" " * (len(written) % 2)
    replaced = element + struct.pack("<2sH", b"IS", len(value)) + value
    at = content.find(element + VR[keyword], 132)
    if at < 0:  # absent: at its place, before Rows
        at = content.index(struct.pack("<HH2s", 0x0028, 0x0010, b"US"))
        return content[:at] + replaced + content[at:]
    length = struct.unpack_from("<H", content, at + 6)[0]
    return content[:at] + replaced + content[at + 8 + length :]


VR = {"NumberOfFrames": b"IS", "Rows": b"US", "Columns": b"US"}


@pytest.mark.parametrize("keyword", sorted(VR))
@pytest.mark.parametrize("written", [*map(str, ABSURD), "many", "1e400", "NaN", "3.5", "1\\2x"])
def test_absurd_sizes_are_refused(tmp_path: Path, keyword: str, written: str) -> None:
    """2^31 to 2^63, negative, or no number: refused with the element's name, before memory is taken."""
    path = tmp_path / "object"
    path.write_bytes(with_number(mr.mr_instance(), keyword, written))

    with pytest.raises(UnreadableObject, match=r"\(0028,00(08|10|11)\) is no number from 1 to"):
        read_header(path)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(VR)),
    st.one_of(st.integers(-(2**70), 2**70), st.text("0123456789.-+eE \\", max_size=20)),
)
def test_a_size_is_sane_or_the_object_is_refused(
    tmp_path_factory: pytest.TempPathFactory, keyword: str, written: object
) -> None:
    """Whatever is written, what is read of it can be allocated."""
    path = tmp_path_factory.mktemp("any", numbered=True) / "object"
    path.write_bytes(with_number(mr.mr_instance(), keyword, str(written)))

    try:
        header: dict[str, Any] = read_header(path)
    except UnreadableObject:
        return
    assert 1 <= len(header.get("frames", [0])) <= 100_000
    assert 0 <= header.get("rows", 0) <= 65535 and 0 <= header.get("columns", 0) <= 65535
