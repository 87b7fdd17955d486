"""Whatever the bytes of a slide are: pixels, or one family of errors, within bounds of memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from pydicom import dcmread

from dicom_node.assemble.slides import read_slides, slide_doubts
from dicom_node.errors import DicomNodeError, UnreadableObject
from dicom_node.node.offline import stored
from dicom_node.slide import open_slide
from support import slides
from support.mutate import (
    change_vr,
    delete_element,
    double_element,
    flip,
    lie_about_length,
    lie_about_size,
    mutated_data_set,
)  # fmt: skip
from support.nested import Encoding
from support.slides import Scan

MUTATORS = (lie_about_length, delete_element, lie_about_size, flip, double_element, change_vr)
SMALL = Scan(rows=60, columns=60, planes=2, syntax=slides.JPEG)
MOST_BYTES = 48 << 20
"""Of memory for a file of some kilobytes; the largest tile that a header of these can announce is bounded."""


@cache
def seeds() -> tuple[bytes, ...]:
    scans = [
        replace(SMALL, syntax=syntax, layout=layout, table=table)
        for syntax, layout, table in [
            (slides.JPEG, "full", "basic"), (slides.JPEG, "full", "extended"), (slides.JPEG, "full", "none"),
            (slides.JPEG, "sparse", "none"), (slides.EXPLICIT, "full", "none"),
            (slides.IMPLICIT, "sparse", "none"), (slides.DEFLATED, "full", "none"),
            (slides.RLE, "full", "basic"), (slides.JPEG_LS, "planes", "basic"),
            (slides.JPEG_2000, "full", "none"), (slides.HTJ2K, "full", "none"),
            (slides.JPEG_XL, "full", "none"),
        ]
    ]  # fmt: skip
    undefined = replace(SMALL, layout="sparse", undefined_lengths=True)
    return tuple(content for scan in [*scans, undefined] for content in slides.files(scan))


def attempt(path: Path) -> str:
    """Everything that may be asked of a stored file; how it ended. Anything but our errors comes through."""
    try:
        instance = stored(path)
    except DicomNodeError:
        return "no object"
    slide_doubts([instance])
    found, _, refusals = read_slides([instance])
    if not found:
        return "refused" if refusals else "nothing"
    ended = "read"
    with open_slide(found[0]) as reader:
        for number, level in enumerate(found[0].levels):
            for plane in range(len(level.planes_um)):
                try:
                    reader.lengths(number, plane)
                    reader.region(number, 0, 0, min(level.columns, 64), min(level.rows, 64), plane)
                    reader.tiles(number, 0, 0, plane, scale=8)
                except DicomNodeError:
                    ended = "unreadable"
    return ended


@pytest.mark.parametrize("seed", range(8))
def test_mutated_slides_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    """A hundred mutations each, in the tags, lengths, tables and streams."""
    rng, path, ended = random.Random(seed), tmp_path / "one.dcm", Counter[str]()
    attempt_all = [mutated_data_set(rng, seeds()) for _ in range(100)]

    for content in attempt_all:
        path.write_bytes(content)
        tracemalloc.start()
        try:
            ended[attempt(path)] += 1
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MOST_BYTES, peak

    assert ended["read"] > 0 and ended["no object"] + ended["refused"] + ended["unreadable"] > 0, ended


@pytest.mark.parametrize("layout", ["full", "planes", "sparse"])
def test_slides_with_mutated_parts_are_read_or_refused(tmp_path: Path, layout: str) -> None:
    """Parts that contradict each other, are here twice or not at all, in any order."""
    scan = Scan(rows=60, columns=60, planes=2, levels=2, layout=layout, parts=3)
    whole, rng, ended = slides.files(scan), random.Random(layout), Counter[str]()
    for _ in range(60):
        contents = list(whole)
        for k in rng.choices(range(len(contents)), k=2):
            contents[k] = rng.choice(MUTATORS)(rng, contents[k])
        rng.shuffle(contents)
        instances = []
        for k, content in enumerate(contents[: rng.choice((len(contents), len(contents) - 1))]):
            path = tmp_path / f"{k}.dcm"
            path.write_bytes(content)
            with suppress(DicomNodeError):
                instances.append(stored(path))
        found, _, refusals = read_slides(instances)
        slide_doubts(instances)
        ended["refused"] += len(refusals)
        for slide in found:
            with open_slide(slide) as reader, suppress(UnreadableObject):
                reader.region(0, 0, 0, 60, 60)
                ended["read"] += 1

    assert min(ended["read"], ended["refused"]) > 0, ended


def test_a_file_that_ends_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    rng = random.Random(3)
    for content in seeds():
        for end in sorted(rng.sample(range(len(content)), 12)):
            path.write_bytes(content[:end])
            assert attempt(path) in ("no object", "refused", "unreadable", "read", "nothing")


def written(scan: Scan, folder: Path) -> tuple[Path, bytes]:
    (path,) = slides.write(scan, folder)
    return path, path.read_bytes()


def whole(path: Path) -> slides.Image:
    slide = slides.slide_of([path])
    with open_slide(slide) as reader:
        return reader.region(0, 0, 0, slide.base.columns, slide.base.rows)


def lying_tables(content: bytes, table: str) -> Iterator[bytes]:
    """The file with offsets that point elsewhere: shifted, all alike, backwards, past the end, at random."""
    form, size = ("<L", 4) if table == "basic" else ("<Q", 8)
    if table == "basic":
        at = content.index(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 20
        count = int.from_bytes(content[at - 4 : at], "little") // 4
    else:
        at = content.index(b"\xe0\x7f\x01\x00OV") + 12
        count = int.from_bytes(content[at - 4 : at], "little") // 8
    true = [struct.unpack_from(form, content, at + size * k)[0] for k in range(count)]
    for lies in (
        [offset + 2 for offset in true], [0] * count, true[::-1], [offset + len(content) for offset in true],
        [(1 << (8 * size)) - 1] * count, [8 * k for k in range(count)], [*true[:-1], true[-2]],
    ):  # fmt: skip
        yield content[:at] + b"".join(struct.pack(form, lie) for lie in lies) + content[at + size * count :]


@pytest.mark.parametrize("table", ["basic", "extended"])
def test_a_lying_offset_table_is_not_believed(tmp_path: Path, table: str) -> None:
    """The items themselves are walked, and the pixels are right."""
    scan = Scan(syntax=slides.JPEG_LS, table=table)
    path, content = written(scan, tmp_path)

    for lie in lying_tables(content, table):
        path.write_bytes(lie)
        assert np.array_equal(slides.picture(scan), whole(path))


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20])
def test_a_frame_that_is_longer_than_the_file_is_unreadable(tmp_path: Path, length: int) -> None:
    path, content = written(Scan(syntax=slides.JPEG_LS, table="none"), tmp_path)
    at = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xff\xd8") - 8) + 4
    path.write_bytes(content[:at] + struct.pack("<L", length) + content[at + 4 :])

    with pytest.raises(
        UnreadableObject, match=r"frames are there|ends within a frame|has no end|longer than"
    ):
        whole(path)


@pytest.mark.parametrize("syntax", [slides.JPEG, *slides.LOSSLESS[3:]])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_frame_that_is_cut_off_is_unreadable(tmp_path: Path, syntax: str, kept: float) -> None:
    """Never half a picture: some decoders fill what is missing and say nothing."""
    scan = Scan(rows=64, columns=64, tile=(64, 64), syntax=syntax)
    frame = slides.frame_of(scan)
    ds = slides.data_set(scan, 0, (0,), [(0, 0, 0, 0)])
    ds.SOPInstanceUID = "2.25.9"
    cut = frame[: 2 * int(len(frame) * kept / 2)]
    path = tmp_path / "cut.dcm"
    path.write_bytes(slides.file_of(scan, ds, [cut]))

    with (
        open_slide(slides.slide_of([path])) as reader,
        pytest.raises(UnreadableObject, match="tile 0, 0: it"),
    ):
        reader.tiles(0, 0, 0)


def test_a_frame_that_unfolds_to_a_giant_takes_no_memory(tmp_path: Path) -> None:
    """The size in its stream is compared before it is decoded."""
    giant = bytearray(simplejpeg.encode_jpeg(np.zeros((32, 32, 3), np.uint8), colorspace="RGB"))
    at = giant.index(b"\xff\xc0") + 5
    giant[at : at + 4] = struct.pack(">HH", 65500, 65500)
    scan = Scan(rows=32, columns=32, syntax=slides.JPEG)
    ds = slides.data_set(scan, 0, (0,), [(0, 0, 0, 0)])
    ds.SOPInstanceUID = "2.25.9"
    path = tmp_path / "giant.dcm"
    path.write_bytes(slides.file_of(scan, ds, [bytes(giant) + b"\0" * (len(giant) % 2)]))
    slide = slides.slide_of([path])

    tracemalloc.start()
    with open_slide(slide) as reader, pytest.raises(UnreadableObject, match="level 0, tile 0, 0: it"):
        reader.tiles(0, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("keyword", "value", "why"),
    [
        ("ColumnPositionInTotalImagePixelMatrix", 5, "do not lie on a grid"),
        ("ColumnPositionInTotalImagePixelMatrix", 100 * 32 + 1, "outside the slide"),
        ("RowPositionInTotalImagePixelMatrix", -31, "outside the slide"),
    ],
)
def test_sparse_frames_in_impossible_places_are_unreadable(
    tmp_path: Path, keyword: str, value: int, why: str
) -> None:
    path, _ = written(Scan(layout="sparse"), tmp_path)
    ds = dcmread(path)
    setattr(ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSlideSequence[0], keyword, value)
    ds.save_as(path)

    with open_slide(slides.slide_of([path])) as reader, pytest.raises(UnreadableObject, match=why):
        reader.tiles(0, 0, 0)


def test_frames_without_a_place_among_frames_with_one_make_it_unreadable(tmp_path: Path) -> None:
    path, _ = written(Scan(layout="sparse"), tmp_path)
    ds = dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSlideSequence
    ds.save_as(path)

    with pytest.raises(UnreadableObject, match="12 frames are announced but 11 have a place"):
        stored(path)


def test_an_empty_frame_is_white(tmp_path: Path) -> None:
    """Some writers leave glass out so."""
    scan = Scan(rows=32, columns=64, syntax=slides.JPEG)
    ds = slides.data_set(scan, 0, (0,), [(0, 0, 0, 0), (0, 0, 0, 1)])
    ds.SOPInstanceUID = "2.25.9"
    frame = simplejpeg.encode_jpeg(np.zeros((32, 32, 3), np.uint8), colorspace="RGB")
    path = tmp_path / "one.dcm"
    content = slides.file_of(replace(scan, table="none"), ds, [frame + b"\0" * (len(frame) % 2)])
    path.write_bytes(content[:-8] + b"\xfe\xff\x00\xe0\0\0\0\0" + content[-8:])

    with open_slide(slides.slide_of([path])) as reader:
        assert [True, False] == (reader.lengths(0)[0] > 0).tolist()
        assert (255 == reader.tiles(0, 0, 1)).all() and (5 > reader.tiles(0, 0, 0)).all()


def test_deep_nesting_is_refused_and_not_fallen_into(tmp_path: Path) -> None:
    path, content = written(Scan(), tmp_path)
    at = content.index(b"\x28\x00\x02\x00US")
    path.write_bytes(content[:at] + Encoding().tower(1000, 0x00271010, "SQ") + content[at:])

    assert "no object" == attempt(path)
