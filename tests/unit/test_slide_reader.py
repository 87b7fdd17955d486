"""A slide's pixels are the same whichever way it is stored, and nothing is read that is not there."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from dicom_node.errors import IntegrityError, InvalidValue, UnreadableObject
from dicom_node.slide import SlideReader, open_slide
from dicom_node.slide.decode import averaged
from support import slides
from support.slides import Scan

STACK = Scan(planes=3, levels=2, syntax=slides.JPEG_LS)


def opened(scan: Scan, folder: Path) -> SlideReader:
    return open_slide(slides.slide_of(slides.write(scan, folder)))


def whole(reader: SlideReader, level: int = 0, plane: int = 0, path: int = 0) -> slides.Image:
    found = reader.slide.levels[level]
    return reader.region(level, 0, 0, found.columns, found.rows, plane, path)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
@pytest.mark.parametrize("layout", ["full", "planes", "sparse"])
def test_every_layout_gives_the_same_pixels(tmp_path: Path, layout: str, table: str) -> None:
    """All planes in one instance, one each, or frames that say their places; any offset table or none."""
    scan = replace(STACK, layout=layout, table=table, shuffled=layout == "sparse")

    with opened(scan, tmp_path) as reader:
        found = {(level, z): whole(reader, level, z) for level in range(2) for z in range(3)}

    assert (0.0, 1.0, 2.0) == reader.slide.levels[1].planes_um
    for (level, z), image in found.items():
        assert np.array_equal(slides.picture(scan, level, z), image), (level, z)


@pytest.mark.parametrize("syntax", slides.LOSSLESS)
def test_every_lossless_codec_gives_the_stored_pixels(tmp_path: Path, syntax: str) -> None:
    scan = Scan(syntax=syntax)

    with opened(scan, tmp_path) as reader:
        assert np.array_equal(slides.picture(scan), whole(reader))


@pytest.mark.parametrize("syntax", [slides.JPEG, *sorted({*slides.LOSSLESS} - {slides.JPEG_XL})])
def test_frames_are_those_that_pydicom_decodes(tmp_path: Path, syntax: str) -> None:
    """JPEG to rounding: pydicom has its own colour matrix. It reads no JPEG XL."""
    (path,) = slides.write(Scan(rows=64, columns=96, syntax=syntax), tmp_path)

    with open_slide(slides.slide_of([path])) as reader:
        rows, columns = np.divmod(np.arange(6), 3)
        tiles = reader.tiles(0, rows, columns)

    expected = dcmread(path).pixel_array.reshape(6, 32, 32, 3).astype(int)
    assert int(np.abs(expected - tiles).max()) <= (3 if syntax == slides.JPEG else 0)


def test_frames_in_fragments_are_found_with_and_without_a_table(tmp_path: Path) -> None:
    """Without one, the first bytes of a compressed image tell where a frame begins."""
    for table in ("basic", "none"):
        scan = Scan(syntax=slides.JPEG_LS, table=table, fragments=3)

        with opened(scan, tmp_path / table) as reader:
            assert np.array_equal(slides.picture(scan), whole(reader))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layout=st.sampled_from(["full", "planes", "sparse"]),
    sizes=st.tuples(st.integers(1, 80), st.integers(1, 80), st.sampled_from([(16, 16), (24, 40), (64, 32)])),
    planes=st.integers(1, 4),
    parts=st.integers(1, 4),
    paths=st.sampled_from([("1",), ("a", "b c")]),
    syntax=st.sampled_from([slides.EXPLICIT, slides.IMPLICIT, slides.JPEG_LS]),
    table=st.sampled_from(["basic", "extended", "none"]),
    shuffled=st.booleans(),
    undefined=st.booleans(),
    millimetres=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_any_order_of_any_parts_gives_the_same_slide(
    layout: str, sizes: tuple[int, int, tuple[int, int]], planes: int, parts: int, paths: tuple[str, ...],
    syntax: str, table: str, shuffled: bool, undefined: bool, millimetres: bool, seed: int,
) -> None:  # fmt: skip
    """Concatenations that come out of order, sparse frames in disorder, heights in either unit."""
    rows, columns, tile = sizes
    scan = Scan(
        rows, columns, tile, planes=planes, parts=parts, paths=paths, layout=layout, syntax=syntax,
        table=table, shuffled=shuffled, undefined_lengths=undefined, heights_in_mm=millimetres,
        step_um=0.5, seed=seed,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        paths_of = slides.write(scan, Path(folder))
        random.Random(seed).shuffle(paths_of)
        slide = slides.slide_of(paths_of)
        with open_slide(slide) as reader:
            for z in range(planes):
                for path in range(len(paths)):
                    assert np.array_equal(slides.picture(scan, 0, z, path), whole(reader, 0, z, path))

    assert tuple(0.5 * z for z in range(planes)) == slide.base.planes_um
    assert paths == slide.base.optical_paths


def test_what_was_not_scanned_is_white(tmp_path: Path) -> None:
    """A frame that a sparse slide lacks, what lies beyond the edge in the last tiles, and beyond it."""
    scan = Scan(layout="sparse", left_out=(1, 4))

    with opened(scan, tmp_path) as reader:
        lengths = reader.lengths(0)
        image = reader.region(0, -5, -7, 120, 90)
        tile = reader.tiles(0, [0, 2], [1, 3])

    expected = slides.picture(scan).copy()
    expected[:32, 32:64] = 255
    expected[32:64, :32] = 255
    assert [[True, False, True, True], [False, True, True, True], [True] * 4] == (lengths > 0).tolist()
    assert np.array_equal(expected, image[7:77, 5:105])
    assert (image[:7] == 255).all() and (image[:, 105:] == 255).all() and (image[77:] == 255).all()
    assert (tile[0] == 255).all()
    assert (tile[1, 6:] == 255).all() and (tile[1, :, 4:] == 255).all()
    assert np.array_equal(slides.picture(scan)[64:70, 96:100], tile[1, :6, :4])


@settings(max_examples=40, deadline=None)
@given(
    left=st.integers(-50, 120), top=st.integers(-50, 120),
    width=st.integers(1, 150), height=st.integers(1, 150),
)  # fmt: skip
def test_a_region_is_cut_out_of_the_picture(left: int, top: int, width: int, height: int) -> None:
    with TemporaryDirectory() as folder, opened(Scan(), Path(folder)) as reader:
        found = reader.region(0, left, top, width, height)

    framed = np.full((500, 500, 3), 255, np.uint8)
    framed[150 : 150 + 70, 150 : 150 + 100] = slides.picture(Scan())
    assert np.array_equal(framed[150 + top :, 150 + left :][:height, :width], found)


@pytest.mark.parametrize("syntax", [slides.EXPLICIT, slides.JPEG])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_reduced_tiles_look_like_averaged_ones(tmp_path: Path, syntax: str, scale: int) -> None:
    """Exactly for codecs that are decoded whole; nearly where JPEG reduces in the cosine domain."""
    with opened(Scan(rows=256, columns=256, tile=(128, 128), syntax=syntax), tmp_path) as reader:
        full, small = reader.tiles(0, 1, 1), reader.tiles(0, 1, 1, scale=scale)

    expected = averaged(full[0], scale)
    alike = np.corrcoef(expected.ravel(), small.ravel())[0, 1]
    assert (1, *expected.shape) == small.shape
    assert alike > (0.9 if syntax == slides.JPEG else 1 - 1e-9)


def test_tiles_are_written_where_the_caller_says(tmp_path: Path) -> None:
    """Straight into a batch that is used again; one of another shape is refused."""
    with opened(Scan(syntax=slides.JPEG), tmp_path) as reader:
        batch = np.zeros((2, 32, 32, 3), np.uint8)
        found = reader.tiles(0, [0, 1], [1, 1], out=batch)

        assert found is batch
        assert np.array_equal(batch, reader.tiles(0, [0, 1], [1, 1]))
        with pytest.raises(InvalidValue, match=r"contiguous uint8 of \(1, 32, 32, 3\)"):
            reader.tiles(0, 0, 0, out=batch)


def test_a_thumbnail_shows_the_whole_slide_within_its_size(tmp_path: Path) -> None:
    with opened(Scan(rows=700, columns=1000, tile=(64, 64)), tmp_path) as reader:
        small = reader.thumbnail(100)

    assert (70, 100, 3) == small.shape
    expected = slides.picture(Scan(rows=700, columns=1000, tile=(64, 64))).reshape(70, 10, 100, 10, 3)
    assert float(np.abs(expected.mean(axis=(1, 3)) - small).max()) <= 1.0


@pytest.mark.parametrize(
    ("marks", "photometric", "rgb"),
    [
        (b"", "RGB", True),
        (b"", "YBR_FULL_422", False),
        (b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0", "RGB", True),
        (b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0", "YBR_FULL_422", True),
        (b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1", "RGB", False),
        (b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0", "RGB", False),
    ],
)
def test_the_colours_of_a_jpeg_are_its_own_word_then_the_header_s(
    tmp_path: Path, marks: bytes, photometric: str, rgb: bool
) -> None:
    """Without APP14 and JFIF the header says if it is RGB; libjpeg would take every such one for YCbCr."""
    import imagecodecs

    tile = slides.picture(Scan(rows=32, columns=32))
    space = {"colorspace": "RGB", "outcolorspace": "RGB"} if rgb else {"colorspace": "RGB"}
    stream = bytes(imagecodecs.jpeg8_encode(tile, level=95, subsampling="444", **space))
    bare = without_marks(stream)
    scan = Scan(rows=32, columns=32, syntax=slides.JPEG)
    ds = slides.data_set(scan, 0, (0,), [(0, 0, 0, 0)])
    ds.SOPInstanceUID, ds.PhotometricInterpretation = "2.25.9", photometric
    path = tmp_path / "one.dcm"
    path.write_bytes(slides.file_of(scan, ds, [bare[:2] + marks + bare[2:]]))

    with open_slide(slides.slide_of([path])) as reader:
        found = reader.tiles(0, 0, 0)[0]

    assert float(np.abs(tile.astype(int) - found).mean()) < 4


def without_marks(stream: bytes) -> bytes:
    """A JPEG stream without its APP segments."""
    out, at = stream[:2], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        out += b"" if 0xE0 <= stream[at + 1] <= 0xEF else stream[at:end]
        at = end
    return out + stream[at:]


def test_many_threads_read_one_slide(tmp_path: Path) -> None:
    """No lock, no shared position: what each of them gets is right."""
    scan = replace(STACK, rows=200, columns=200, planes=2, syntax=slides.JPEG_LS, parts=3)
    with opened(scan, tmp_path) as reader, ThreadPoolExecutor(8) as pool:
        places = [(z, row, column) for z in range(2) for row in range(6) for column in range(6)] * 3
        found = pool.map(lambda place: reader.tiles(0, place[1], place[2], place[0])[0], places)

        for (z, row, column), tile in zip(places, found, strict=True):
            expected = slides.picture(scan, 0, z)[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            assert np.array_equal(expected, tile)


def test_a_file_that_is_not_what_was_received_is_not_read(tmp_path: Path) -> None:
    (path,) = slides.write(Scan(), tmp_path)
    slide = slides.slide_of([path])
    path.write_bytes(path.read_bytes()[:-1] + b"\1")

    with open_slide(slide) as reader, pytest.raises(IntegrityError):
        reader.tiles(0, 0, 0)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_closed_slide_holds_no_file_open(tmp_path: Path) -> None:
    before = open_files()
    reader = opened(replace(STACK, layout="planes"), tmp_path)
    whole(reader, 0, 2)
    while_open = open_files()

    reader.close()

    assert before + 1 == while_open
    assert before == open_files()
    with pytest.raises(UnreadableObject, match="closed"):
        reader.tiles(0, 0, 0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda reader: reader.tiles(9, 0, 0),
        lambda reader: reader.tiles(0, 3, 0),
        lambda reader: reader.tiles(0, 0, -1),
        lambda reader: reader.tiles(0, 0, 0, plane=1),
        lambda reader: reader.tiles(0, 0, 0, path=1),
        lambda reader: reader.tiles(0, 0, 0, scale=3),
        lambda reader: reader.region(0, 0, 0, 0, 5),
        lambda reader: reader.region(0, 0, 0, 1 << 20, 1 << 20),
        lambda reader: reader.thumbnail(0),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, ask: object) -> None:
    with opened(Scan(), tmp_path) as reader, pytest.raises(InvalidValue):
        ask(reader)  # type: ignore[operator]
