"""Where frames lie is found as pydicom finds it, from any table or none, and for very many frames."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import generate_frames

from dicom_node.dicom.header import read_header
from dicom_node.errors import UnreadableObject
from dicom_node.slide.codestream import size
from dicom_node.slide.file import PER_FRAME, SlideFile
from dicom_node.slide.index import find_frames
from dicom_node.slide.sparse import read_places
from support import slides
from support.slides import Scan


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_frames_are_where_pydicom_finds_them(tmp_path: Path, table: str) -> None:
    """Byte for byte, padding included."""
    (path,) = slides.write(Scan(syntax=slides.JPEG_LS, table=table), tmp_path)

    with closing(SlideFile(path)) as file:
        found = find_frames(file, 12, 0)
        frames = [
            file.read(int(at) + 8, int(span) - 8)
            for at, span in zip(found.offsets, found.spans, strict=True)
        ]  # fmt: skip

    expected = list(generate_frames(dcmread(path).PixelData, number_of_frames=12))
    assert [frame.rstrip(b"\0") for frame in expected] == [frame.rstrip(b"\0") for frame in frames]
    assert [len(frame) for frame in frames] == found.lengths().tolist()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    syntax=st.sampled_from([slides.EXPLICIT, slides.IMPLICIT]), undefined=st.booleans(),
    planes=st.integers(1, 3),
    step=st.sampled_from([0.25, 1.0, 1 / 3, 12.5]), paths=st.sampled_from([("1",), ("path 1", "2")]),
    shuffled=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_places_are_those_that_pydicom_parses(
    tmp_path: Path, syntax: str, undefined: bool, planes: int, step: float, paths: tuple[str, ...],
    shuffled: bool, seed: int,
) -> None:  # fmt: skip
    """Found by the bytes of their headers, whichever way lengths are written."""
    scan = Scan(
        planes=planes, paths=paths, layout="sparse", syntax=syntax, undefined_lengths=undefined,
        step_um=round(step, 6), shuffled=shuffled, seed=seed,
    )  # fmt: skip
    (path,) = slides.write(scan, tmp_path)

    groups = dcmread(path).PerFrameFunctionalGroupsSequence
    with closing(SlideFile(path)) as file:
        found = read_places(file, len(groups))

    expected = [group.PlanePositionSlideSequence[0] for group in groups]
    assert found is not None and found.z is not None
    assert [one.ColumnPositionInTotalImagePixelMatrix - 1 for one in expected] == found.column.tolist()
    assert [one.RowPositionInTotalImagePixelMatrix - 1 for one in expected] == found.row.tolist()
    assert [float(one.ZOffsetInSlideCoordinateSystem) for one in expected] == found.z.tolist()
    if len(paths) > 1:
        names = [group.OpticalPathIdentificationSequence[0].OpticalPathIdentifier for group in groups]
        assert found.path is not None
        assert [name.replace(" ", "\0") for name in names] == [name.decode() for name in found.path.tolist()]


@pytest.mark.parametrize(("table", "sparse"), [("basic", False), ("extended", False), ("none", True)])
def test_twenty_thousand_frames_are_indexed(tmp_path: Path, table: str, sparse: bool) -> None:
    """The header of a sparse one holds what its frames say, but not once per frame."""
    path = slides.large_index(tmp_path / "large.dcm", 20_000, 1000, table=table, sparse=sparse)

    with closing(SlideFile(path)) as file:
        frames = find_frames(file, 20_000, 0)
        places = read_places(file, 20_000) if sparse else None

    assert (1008 == frames.spans).all() and (1008 == np.diff(frames.offsets)).all()
    assert (places is not None) == sparse
    if places is not None:
        assert (142 * 256 - 256, 19_999 // 142 * 256) == (int(places.column.max()), int(places.row[-1]))
    assert len(str(read_header(path))) < 4000


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_an_index_takes_little_memory_and_does_not_read_the_pixels(tmp_path: Path, table: str) -> None:
    """Some bytes for a frame, however long the frames are."""
    path = slides.large_index(tmp_path / "large.dcm", 20_000, 20_000, table=table)

    tracemalloc.start()
    with closing(SlideFile(path)) as file:
        find_frames(file, 20_000, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert path.stat().st_size > 400_000_000
    assert peak < 20_000 * 80


def test_pixels_are_found_behind_elements_that_look_like_them(tmp_path: Path) -> None:
    """The end of the frames' description is its own, though a value in it looks like pixel data."""
    (path,) = slides.write(Scan(layout="sparse", undefined_lengths=True), tmp_path)
    ds = dcmread(path)
    ds.PerFrameFunctionalGroupsSequence[0].add_new(0x00091010, "LO", "e")
    ds.PerFrameFunctionalGroupsSequence[0].add_new(0x00091011, "OB", b"\xe0\x7f\x10\x00OB\0\0\0\0\0\0")
    ds.save_as(path)

    with closing(SlideFile(path)) as file:
        described = file.elements[PER_FRAME]
        assert 12 * 32 * 32 * 3 == len(ds.PixelData) == find_frames(file, 12, 3072).spans.sum()
        assert b"\xe0\x7f" == file.read(described.at + described.length + 8, 2)


@pytest.mark.parametrize(
    ("frames", "why"),
    [(13, "12 of 13 frames are there"), (0, "not a number from 1"), (1 << 25, "not a number from 1"),
     (1 << 20, "more than the file has room for"), (5, "5 frames are in 12 fragments")],
)  # fmt: skip
def test_another_number_of_frames_than_there_are_is_unreadable(tmp_path: Path, frames: int, why: str) -> None:
    (path,) = slides.write(Scan(syntax=slides.JPEG_LS, table="none"), tmp_path)

    with closing(SlideFile(path)) as file, pytest.raises(UnreadableObject, match=why):
        find_frames(file, frames, 0)


@pytest.mark.parametrize("syntax", [slides.JPEG, *slides.LOSSLESS[-4:]])
@pytest.mark.parametrize("sides", [(32, 32), (24, 56), (128, 200), (256, 255), (1, 3)])
def test_the_size_of_a_stream_is_read_from_its_head(syntax: str, sides: tuple[int, int]) -> None:
    """The first bytes are enough, so that no decoder is asked for an image of another size."""
    scan = replace(Scan(rows=sides[0], columns=sides[1], tile=sides), syntax=syntax)
    frame = slides.frame_of(scan)

    assert sides == size(frame)
