"""Before a parser sees a data set it is known to be within bounds: depth, lengths, number of elements."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dicom_node.dicom import bounds, elements
from dicom_node.dicom.bounds import Walk
from dicom_node.dicom.header import read_header
from dicom_node.errors import UnreadableObject
from support import mr
from support.nested import ENCODINGS, UNDEFINED, Element, Encoding, Item, chain, depth_of

PRIVATE, UNKNOWN = 0x00091010, 0x00081115


def never(tag: int, vr: str | None, length: int) -> bool:
    return False


def walked(content: bytes, encoding: Encoding, **bound: int) -> int | None:
    return Walk(content, implicit=encoding.implicit, big=encoding.big, **bound).to(never)


@pytest.mark.parametrize("syntax", ENCODINGS)
@pytest.mark.parametrize("defined", [True, False], ids=["defined", "undefined"])
@pytest.mark.parametrize(
    ("tag", "vr"), [(0x00081115, "SQ"), (PRIVATE, "SQ"), (PRIVATE, "UN"), (UNKNOWN, "UN")]
)
def test_sixty_four_levels_are_read_and_no_more(syntax: str, defined: bool, tag: int, vr: str) -> None:
    """Explicit and implicit VR, both byte orders, either kind of length, standard, private and UN."""
    encoding = ENCODINGS[syntax]
    within = encoding.data_set(chain(64, tag=tag, vr=vr, defined=defined))
    beyond = encoding.data_set(chain(65, tag=tag, vr=vr, defined=defined))

    assert walked(within, encoding) is None
    with pytest.raises(UnreadableObject, match="sequences are nested more than 64 deep"):
        walked(beyond, encoding)


@pytest.mark.parametrize("depth", [250, 3000, 20_000, 200_000])
def test_no_depth_takes_long_or_the_stack(tmp_path: Path, depth: int) -> None:
    """Within a tenth of a second of the processor's time, however deep."""
    head = struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, UNDEFINED) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, UNDEFINED
    )
    path = tmp_path / "object"
    path.write_bytes(head * depth)
    started = time.process_time()

    with pytest.raises(UnreadableObject, match="nested more than 64 deep"):
        read_header(path)

    assert time.process_time() - started < 0.1


def test_the_whole_header_is_walked_wanted_or_not(tmp_path: Path) -> None:
    """A deep private sequence that nobody asks for stops the object, since other programs would read it."""
    content = mr.file_bytes(mr.mr_instance())
    at = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    path = tmp_path / "object"
    path.write_bytes(content[:at] + Encoding().data_set(chain(65, tag=PRIVATE)) + content[at:])

    with pytest.raises(UnreadableObject, match="nested more than 64 deep"):
        read_header(path)


def test_pixel_data_end_the_walk(tmp_path: Path) -> None:
    """What looks like a sequence inside pixels is none."""
    deep = Encoding().data_set(chain(80))
    rows = len(deep) // 2 + 1
    path = tmp_path / "object"
    path.write_bytes(
        mr.file_bytes(mr.mr_instance(Rows=rows, Columns=1, PixelData=deep.ljust(2 * rows, b"\0")))
    )

    assert rows == read_header(path)["rows"]


# ---- what was built is what is found ------------------------------------------------------------

TAGS = st.sampled_from([0x00081115, 0x00400275, PRIVATE, 0x00111020])
VALUES = st.binary(max_size=40).map(lambda value: value + b"\0" * (len(value) % 2))


@st.composite
def sequences(draw: st.DrawFn, inner: st.SearchStrategy[tuple[Element, ...]]) -> Element:
    items = draw(st.lists(st.builds(Item, inner, st.booleans()), max_size=3))
    tag = draw(TAGS)
    vr = draw(st.sampled_from(["SQ", "UN"]))
    # a private or UN sequence of defined length is told by its first item: an empty one is no sequence
    defined = draw(st.booleans()) and (bool(items) or (vr == "SQ" and not tag >> 16 & 1))
    return Element(tag, vr, tuple(items), defined)


PLAIN = st.one_of(
    st.builds(Element, st.just(0x00080018), st.just("UI"), VALUES),
    st.builds(Element, st.just(0x00091001), st.just("OB"), VALUES.map(lambda value: b"\1\0" + value)),
)
DATA_SETS = st.recursive(
    st.lists(PLAIN, min_size=1, max_size=2).map(tuple),
    lambda inner: st.lists(st.one_of(PLAIN, sequences(inner)), min_size=1, max_size=3).map(tuple),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DATA_SETS, st.sampled_from(sorted(ENCODINGS)), st.integers(0, 6))
@example(chain(5), "1.2.840.10008.1.2.1", 4)
@example((Element(PRIVATE, "SQ", (), False),), "1.2.840.10008.1.2", 0)
def test_the_walk_finds_the_depth_that_was_built(built: tuple[Element, ...], syntax: str, most: int) -> None:
    """For any nesting in any encoding: refused if, and only if, it is deeper than the bound."""
    encoding = ENCODINGS[syntax]
    content = encoding.data_set(built)
    too_deep = _depth_as_encoded(built, encoding) > most

    try:
        walked(content, encoding, most_levels=most)
        refused = False
    except UnreadableObject:
        refused = True

    assert too_deep == refused


def _depth_as_encoded(built: tuple[Element, ...], encoding: Encoding) -> int:
    """Implicit VR does not say what a sequence is: an empty one, of no known name, is no level there."""

    def visible(element: Element) -> bool:
        if isinstance(element.value, bytes):
            return False
        if element.value or (element.vr == "SQ" and not encoding.implicit):
            return True
        return not element.defined and (not encoding.implicit or not element.tag >> 16 & 1)

    kept = tuple(element for element in built if visible(element))
    return max(
        (1 + max((_depth_as_encoded(item.elements, encoding) for item in element.value), default=0)
         for element in kept if not isinstance(element.value, bytes)),
        default=0,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(sorted(ENCODINGS)), st.booleans())
def test_any_bytes_end_the_walk_in_time(content: bytes, syntax: str, whole: bool) -> None:
    """It always ends, with an answer or UnreadableObject."""
    encoding = ENCODINGS[syntax]
    try:
        Walk(content, implicit=encoding.implicit, big=encoding.big, whole=whole).to(never)
    except UnreadableObject as refusal:
        assert str(refusal)


# ---- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vr", "length", "name"),
    [("UN", 0x7FFFFFF0, "(0009,1010)"), ("OB", 0xFFFFFFFE, "(0009,1010)"), ("LO", 0xFFFE, "(0009,1010)")],
)
def test_a_length_beyond_the_file_is_named(tmp_path: Path, vr: str, length: int, name: str) -> None:
    content = mr.file_bytes(mr.mr_instance())
    at = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    path = tmp_path / "object"
    path.write_bytes(content[:at] + Encoding().head(PRIVATE, vr, length) + content[at:])

    with pytest.raises(UnreadableObject) as refusal:
        read_header(path)

    assert f"element {name} is longer than the file" == str(refusal.value)


def test_a_value_without_an_end_is_named(tmp_path: Path) -> None:
    """Undefined length, and no delimiter follows."""
    content = mr.file_bytes(mr.mr_instance())
    at = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    path = tmp_path / "object"
    path.write_bytes(content[:at] + Encoding().head(PRIVATE, "OB", UNDEFINED) + content[at:])

    with pytest.raises(UnreadableObject, match=r"element \(0009,1010\) has no end"):
        read_header(path)


def test_the_beginning_of_a_data_set_may_be_cut_anywhere() -> None:
    """A head is no whole file: an element that goes beyond it is no lie."""
    content = Encoding().data_set(
        (Element(0x00080018, "UI", b"1.2\0"), *chain(3), Element(PRIVATE, "OB", bytes(99)))
    )

    for end in range(8, len(content)):
        try:
            elements.parse(content[:end], "1.2.840.10008.1.2.1", wanted=(0x00080018,))
        except UnreadableObject as refusal:  # cut within the header of an element, which pydicom minds
            assert "not a DICOM data set" in str(refusal)


def test_a_value_too_long_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it would be read: what nobody wants is stepped over."""
    monkeypatch.setattr(bounds, "LONGEST_VALUE_BYTES", 1 << 20)
    path = tmp_path / "object"
    content = mr.file_bytes(mr.mr_instance())
    at = content.index(struct.pack("<HH2s", 0x0018, 0x0015, b"CS"))
    comments = Encoding().element(Element(0x00104000, "UT", b"x" * (2 << 20)))
    path.write_bytes(content[:at] + comments + content[at:])
    with pytest.raises(UnreadableObject, match=r"element \(0010,4000\) is longer than 1 MiB"):
        read_header(path)

    ds = mr.mr_instance()
    ds.add_new(PRIVATE, "OB", bytes(2 << 20))
    path.write_bytes(mr.file_bytes(ds))
    assert 32 == read_header(path)["rows"]


def test_the_number_of_elements_is_bounded(tmp_path: Path) -> None:
    """A file of nothing but empty elements ends in a refusal within seconds."""
    path = tmp_path / "object"
    path.write_bytes(Encoding().head(0x00080018, "UI", 0) * (bounds.MOST_ELEMENTS + 1))
    started = time.process_time()

    with pytest.raises(UnreadableObject, match="more than 2000000 elements"):
        read_header(path)

    assert time.process_time() - started < 20.0


def test_the_depth_of_a_tree_is_counted_as_one_expects() -> None:
    """Of the builder these tests use."""
    assert [0, 1, 7] == [depth_of(chain(depth)) for depth in (0, 1, 7)]
