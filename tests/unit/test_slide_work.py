"""The order of work on a slide: the same pixels as `region`, each frame once, in little memory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.errors import UnreadableObject
from dicom_node.slide import SlideReader, open_slide
from dicom_node.slide import work as work_module
from dicom_node.slide.plan import choose, everything, planes_at, sharpest, view_of
from dicom_node.slide.work import bands, bands_of, crops, crops_at, patches
from support import slides
from support.slides import Scan

SCAN = Scan(rows=230, columns=310, tile=(32, 32), levels=3, planes=3)
JPEG = Scan(rows=230, columns=310, tile=(32, 48), syntax=slides.JPEG)


class Counting:
    """A reader that counts which frames were asked for."""

    def __init__(self, reader: SlideReader) -> None:
        self._reader = reader
        self.frames: Counter[tuple[int, int, int, int]] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def tiles(self, level: int, rows: Any, columns: Any, plane: int = 0, path: int = 0, **more: Any) -> Any:
        self.frames.update(
            (level, plane, int(row), int(column)) for row, column in zip(rows, columns, strict=True)
        )
        return self._reader.tiles(level, rows, columns, plane, path, **more)

    @property
    def at_most_once(self) -> bool:
        return bool(self.frames) and set(self.frames.values()) == {1}


def opened(scan: Scan, folder: Path) -> SlideReader:
    return open_slide(slides.slide_of(slides.write(scan, folder)))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with opened(SCAN, tmp_path_factory.mktemp("full")) as found:
        yield found


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Any:
    scan = Scan(rows=230, columns=310, tile=(32, 32), layout="sparse", left_out=(3, 4, 17, 40, 41, 42))
    with opened(scan, tmp_path_factory.mktemp("sparse")) as found:
        yield found


places = st.lists(st.tuples(st.floats(-30, 340), st.floats(-30, 260)), max_size=40)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    centres=places, size=st.integers(1, 90), batch=st.integers(1, 9), planes=st.sampled_from([(1,), (2, 0)])
)
def test_crops_are_the_regions_around_their_places(
    reader: SlideReader, centres: list[tuple[float, float]], size: int, batch: int, planes: tuple[int, ...]
) -> None:
    """All of them, once each, whatever straddles; outside the slide they are white; frames are read once."""
    counted = Counting(reader)

    found: dict[int, Any] = {}
    for indices, images in crops(counted, 0, centres, planes, size, size, batch=batch, threads=2):
        assert len(indices) == len(images) <= batch
        found.update(zip(indices.tolist(), images, strict=True))

    assert sorted(found) == list(range(len(centres)))
    for at, (x, y) in enumerate(centres):
        left, top = int(np.floor(x - size / 2 + 0.5)), int(np.floor(y - size / 2 + 0.5))
        for k, plane in enumerate(planes):
            assert np.array_equal(found[at][k], reader.region(0, left, top, size, size, plane))
    assert not counted.frames or counted.at_most_once


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patch=st.integers(5, 70), step=st.integers(5, 70))
def test_patches_are_the_regions_on_a_grid(sparse: SlideReader, patch: int, step: int) -> None:
    """They cover the slide; a frame that was not scanned is white; each that was is read once."""
    counted, um = Counting(sparse), sparse.slide.base.um_per_px[0]

    found = [
        (place, image)
        for corners, images in patches(counted, um, patch, step, threads=2)
        for place, image in zip(corners, images, strict=True)
    ]

    assert {(int(x), int(y)) for (x, y), _ in found} == {
        (x, y) for x in range(0, 310, step) for y in range(0, 230, step)
    }
    for (x, y), image in found[:: max(1, len(found) // 20)]:
        assert np.array_equal(image, sparse.region(0, int(x), int(y), patch, patch))
    assert counted.at_most_once


def test_patches_of_another_resolution_are_resampled(reader: SlideReader) -> None:
    """1.5 times the finest pixels: patches of 20 px show 30 of them."""
    um = reader.slide.base.um_per_px[0] * 1.5

    (corners, images), *_ = patches(reader, um, 20, 20)

    x, y = corners[0].astype(int)
    shown = reader.region(0, x, y, 30, 30, 1).astype(float)
    assert images[0].shape == (20, 20, 3)
    assert abs(images[0].mean() - shown.mean()) < 1.0


def test_the_coarsest_view_that_will_do_is_chosen(reader: SlideReader) -> None:
    """Levels of 1, 2 and 4 times the finest pixel, frames at halves: no more bytes than needed."""
    um = reader.slide.base.um_per_px[0]

    chosen = {factor: choose(reader.slide, factor * um) for factor in (0.5, 1.0, 1.02, 1.9, 2.0, 8.0, 100.0)}

    assert {factor: (view.level, view.scale) for factor, view in chosen.items()} == {
        0.5: (0, 1), 1.0: (0, 1), 1.02: (0, 1), 1.9: (0, 1), 2.0: (1, 1), 8.0: (2, 2), 100.0: (2, 8),
    }  # fmt: skip
    assert np.allclose(chosen[8.0].base_px, (8.0, 8.0), rtol=0.05)


def test_bands_overlap_and_share_out_every_row(reader: SlideReader) -> None:
    """Side by side their own rows are the slide; every pixel is that of `region`; frames are read once."""
    counted, um = Counting(reader), reader.slide.base.um_per_px[0]

    found = list(bands(counted, um, overlap_px=12, plane=2, threads=2))

    assert counted.at_most_once
    assert len(found) == bands_of(choose(reader.slide, um))
    owned = [band.top + row for band in found for row in range(*band.own)]
    assert owned == list(range(230))
    for band in found:
        assert np.array_equal(band.image, reader.region(0, 0, band.top, 310, len(band.image), 2))
        assert np.array_equal(band.onto_base([(3.0, 5.0)]), [(3.0, band.top + 5.0)])


def test_bands_can_be_resumed(reader: SlideReader) -> None:
    """From any band on they are what they would have been."""
    um = reader.slide.base.um_per_px[0]
    whole = list(bands(reader, um, overlap_px=12))

    for first in range(len(whole)):
        rest = list(bands(reader, um, overlap_px=12, first=first))
        assert [(one.number, one.top, one.own) for one in rest] == [
            (one.number, one.top, one.own) for one in whole[first:]
        ]
        assert all(np.array_equal(a.image, b.image) for a, b in zip(rest, whole[first:], strict=True))


def test_crops_can_be_resumed(reader: SlideReader) -> None:
    """From any batch on, with the same places in the same batches."""
    draw = np.random.default_rng(2)
    centres = draw.uniform((0, 0), (310, 230), (50, 2))
    whole = list(crops(reader, 0, centres, (0, 1), 24, 16, batch=8))

    for first in range(len(whole)):
        rest = list(crops(reader, 0, centres, (0, 1), 24, 16, batch=8, first=first))
        assert len(rest) == len(whole) - first
        for ours, theirs in zip(rest, whole[first:], strict=True):
            assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])


def test_a_slide_swept_in_strips_gives_the_same_squares(
    reader: SlideReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the squares begun in one row would fill the memory, fewer columns are swept at a time."""
    draw = np.random.default_rng(3)
    centres = draw.uniform((0, 0), (310, 230), (200, 2))
    expected = {int(i): image for indices, images in crops(reader, 0, centres, (0,), 40, 40)
                for i, image in zip(indices, images, strict=True)}  # fmt: skip
    monkeypatch.setattr(work_module, "_PENDING_BYTES", 40 * 40 * 3 * 16)
    counted = Counting(reader)

    found = {int(i): image for indices, images in crops(counted, 0, centres, (0,), 40, 40)
             for i, image in zip(indices, images, strict=True)}  # fmt: skip

    assert sorted(found) == sorted(expected)
    assert all(np.array_equal(found[at], expected[at]) for at in expected)
    assert max(counted.frames.values()) == 2


def test_decoding_at_a_half_reads_every_frame_once(tmp_path: Path) -> None:
    """Crops of twice the wanted size come from frames decoded at 1/2."""
    with opened(JPEG, tmp_path) as reader:
        counted = Counting(reader)
        centres = np.random.default_rng(4).uniform((40, 40), (270, 190), (30, 2))

        ((indices, images),) = crops(counted, 0, centres, (0,), 64, 32, batch=30)

        assert counted.at_most_once
        for at, image in zip(indices, images, strict=True):
            x, y = np.floor(centres[at] / 2 - 16 + 0.5).astype(int) * 2
            shown = reader.region(0, int(x), int(y), 64, 64).astype(float)
            halved = shown.reshape(32, 2, 32, 2, 3).mean((1, 3))
            assert np.abs(image[0] - halved).mean() < 6.0


def test_the_sharpest_plane_is_the_one_with_most_detail(tmp_path: Path) -> None:
    """By the lengths of JPEG frames: bands take each tile from its own plane."""
    scan = Scan(rows=96, columns=96, tile=(32, 32), planes=3, syntax=slides.JPEG)
    with opened(scan, tmp_path) as reader:
        found = sharpest(reader)
        lengths = np.stack([reader.lengths(0, plane) for plane in range(3)])
        (first, *_) = bands(reader, reader.slide.base.um_per_px[0], plane="sharpest")

        best = lengths.argmax(axis=0)
        clear = lengths.max(axis=0) > 1.01 * lengths[1]
        assert np.array_equal(found, np.where(clear, best, 1))
        for column in range(3):
            tile = reader.tiles(0, [0], [column], int(found[0, column]))[0]
            assert np.array_equal(first.image[:, column * 32 : column * 32 + 32], tile)


def test_squares_on_planes_of_their_own(reader: SlideReader) -> None:
    """Each once, on the plane asked for; a frame is read once on each plane that is wanted of it."""
    counted, draw = Counting(reader), np.random.default_rng(6)
    centres, planes = draw.uniform((0, 0), (310, 230), (60, 2)), draw.integers(0, 3, 60)

    found = {
        int(at): image
        for indices, images in crops_at(counted, 0, centres, planes, 24, 24, batch=7)
        for at, image in zip(indices, images, strict=True)
    }

    assert sorted(found) == list(range(60))
    for at, (x, y) in enumerate(np.floor(centres - 12 + 0.5).astype(int).tolist()):
        assert np.array_equal(found[at], reader.region(0, x, y, 24, 24, int(planes[at])))
    assert counted.at_most_once
    assert np.array_equal(
        planes_at(reader, 0, centres), sharpest(reader)[tuple((centres // 32).astype(int).T[::-1])]
    )


def test_a_frame_that_cannot_be_decoded_is_told(reader: SlideReader) -> None:
    """The error of a decoding thread reaches whoever asked."""

    class Broken(Counting):
        def tiles(self, level: int, rows: Any, columns: Any, *rest: Any, **more: Any) -> Any:
            raise UnreadableObject("level 0, tile 1, 2: not a JPEG")

    with pytest.raises(UnreadableObject, match="tile 1, 2"):
        list(bands(Broken(reader), 1.0))
    with pytest.raises(UnreadableObject, match="tile 1, 2"):
        list(crops(Broken(reader), 0, [(50, 50)], (0,), 32, 32))


def test_everything_is_everywhere(reader: SlideReader) -> None:
    mask = everything(reader.slide)

    assert mask.share == 1.0
    assert mask.tiles(view_of(reader.slide, 1)).all()
