"""Multipart bodies, however they are cut up; and the head of a file from the network."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dicom_node.errors import UnreadableObject
from dicom_node.web.file_meta import LONGEST_BYTES, FileMeta
from dicom_node.web.multipart import Malformed, MediaType, Parts, TooMany, boundary_of
from support.mr import MR_IMAGE, file_bytes, mr_instance

BOUNDARY = "b-b"


class Kept:
    """A sink that keeps what it gets; an unfinished part stands in `current`."""

    def __init__(self) -> None:
        self.parts: list[tuple[dict[str, str], bytes]] = []
        self.current: tuple[dict[str, str], bytearray] | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        self.current = (dict(headers), bytearray())

    def write(self, fragment: memoryview) -> None:
        assert self.current is not None
        self.current[1].extend(fragment)

    def end(self) -> None:
        if self.current is not None:
            self.parts.append((self.current[0], bytes(self.current[1])))
        self.current = None


def read(pieces: list[bytes], boundary: str = BOUNDARY, at_most: int = 100) -> Kept:
    sink = Kept()
    parts = Parts(boundary, sink, at_most=at_most)
    for piece in pieces:
        parts.feed(piece)
    parts.finish()
    return sink


def body(*contents: bytes) -> bytes:
    parts = b"".join(b"\r\n--b-b\r\nContent-Type: application/dicom\r\n\r\n" + one for one in contents)
    return parts + b"\r\n--b-b--\r\n"


LIKE_DELIMITERS = [b"\r\n--b-", b"\r\n", b"\r", b"\n", b"--", b"-", b"--b-b", b"x", b"\0"]


@settings(max_examples=300, deadline=None)
@given(
    contents=st.lists(st.lists(st.sampled_from(LIKE_DELIMITERS)).map(b"".join), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=30),
)
def test_cuts_change_nothing(contents: list[bytes], cuts: list[int]) -> None:
    """The parts are what was sent, bit for bit, wherever the chunks of the body begin and end."""
    assume(not any(b"\r\n--b-b" in one for one in contents))  # RFC 2046 5.1.1: not within a part
    whole = body(*contents)
    at = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]

    found = read([whole[begin:end] for begin, end in pairwise(at)])

    assert contents == [content for _, content in found.parts]
    assert {"content-type": "application/dicom"} == found.parts[0][0]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([b"\r\n--b-b", b"--b-b\r\n", b"--b-b--", b": "]))
    )
)
def test_garbage_is_malformed_or_read(pieces: list[bytes]) -> None:
    """Never another exception than Malformed, whatever comes."""
    try:
        read(pieces)
    except Malformed:
        return


def test_a_part_without_end_is_not_ended() -> None:
    """The sink never hears the end of a part whose delimiter has not come."""
    sink = Kept()
    parts = Parts(BOUNDARY, sink, at_most=9)

    parts.feed(body(b"whole", b"cut")[:-10])

    assert [b"whole"] == [content for _, content in sink.parts]
    with pytest.raises(Malformed, match="closing delimiter"):
        parts.finish()


def test_what_follows_the_end_is_no_part() -> None:
    """An epilogue (RFC 2046 5.1.1) is dropped."""
    assert [b"x"] == [content for _, content in read([body(b"x") + body(b"y")]).parts]


def test_parts_are_counted() -> None:
    """One more than may be raises before it begins."""
    assert 2 == len(read([body(b"x", b"y")], at_most=2).parts)
    with pytest.raises(TooMany, match="more than 1 parts"):
        read([body(b"x", b"y")], at_most=1)


def test_a_media_type_is_read() -> None:
    """Names of types and parameters in any case, values as they are, quoted or not."""
    read_ = MediaType.of('Multipart/Related; TYPE="application/dicom"; boundary="a b:c"')

    assert (read_.name, boundary_of(read_)) == ("multipart/related", "a b:c")
    assert read_.parameters["type"] == "application/dicom"


@pytest.mark.parametrize(
    "boundary", ["", "ends in a space ", "x" * 129, "ü", 'quo"te', "line\nbreak", "nul\0"]
)
def test_boundaries_that_are_none(boundary: str) -> None:
    """RFC 2046 5.1.1: a set of characters, not ending in a space; here up to 128 of them."""
    with pytest.raises(Malformed):
        boundary_of(MediaType("multipart/related", {"boundary": boundary}))


def test_file_meta_is_read_from_any_beginning() -> None:
    """Too little is answered with None, enough with the same; what follows does not matter."""
    ds = mr_instance()
    file = file_bytes(ds)
    size = 144 + int.from_bytes(file[140:144], "little")

    found = [FileMeta.read(file[:length]) for length in range(size + 2)]

    whole = FileMeta(MR_IMAGE, str(ds.SOPInstanceUID), "1.2.840.10008.1.2.1", size)
    assert found[-1] == whole == FileMeta.read(file)
    assert [None] * size == found[:size]


def test_file_meta_without_group_length() -> None:
    """PS3.10 asks for it, but the group ends where group 0002 ends."""
    file = file_bytes(mr_instance())
    without = file[:132] + file[144:]

    meta, usual = FileMeta.read(without), FileMeta.read(file)

    assert meta is not None and usual is not None
    assert meta.size_bytes == usual.size_bytes - 12


def test_a_wrong_group_length_misleads_nobody() -> None:
    """It counts where an element ends, and nowhere else."""
    file = bytearray(file_bytes(mr_instance()))
    usual = FileMeta.read(file)
    file[140:144] = struct.pack("<I", 7)

    assert usual == FileMeta.read(file)


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        (b"", "Media Storage SOP Class UID"),
        (b"\x02\0\x10\0UI\0\0" + b"\x08\0", "Media Storage SOP Class UID"),
        (b"\x02\0\x02\x01OB\0\0\xff\xff\xff\xff", "longer than any"),
        (b"\x02\0\x02\x01OB\0\0" + struct.pack("<I", LONGEST_BYTES), "longer than any"),
        (b"\x02\0\x02", "ends within"),
        (b"\x02\0\x10\0UI\x10\0" + b"1.2", "ends within"),
    ],
)
def test_file_meta_that_says_too_little(elements: bytes, sentence: str) -> None:
    """One sentence, and never more bytes asked for than LONGEST_BYTES."""
    with pytest.raises(UnreadableObject, match=sentence):
        FileMeta.read(bytes(128) + b"DICM" + elements, last=True)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_meta_is_unreadable_or_read(garbage: bytes) -> None:
    """Never another exception than UnreadableObject."""
    try:
        assert FileMeta.read(bytes(128) + b"DICM" + garbage, last=True) is not None
    except UnreadableObject:
        return
