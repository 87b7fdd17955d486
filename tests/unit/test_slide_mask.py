"""Where there may be something on a slide: no cell is left out, glass is."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node.bench.slide_run import slide_in
from dicom_node.slide import open_slide
from dicom_node.slide.plan import Mask, find, focus, grown, longer, stained, view_of
from dicom_node.train.phantoms.slides.command import slide as phantom
from support import slides
from support.slides import Scan

UM = 0.5


def centres(folder: Path) -> Any:
    with (folder / "truth.csv").open(newline="") as file:
        return np.array([(float(row["x"]), float(row["y"])) for row in csv.DictReader(file)])


@pytest.mark.parametrize("planes", [1, 3])
def test_no_cell_of_a_phantom_is_left_out(tmp_path: Path, planes: int) -> None:
    """The frame of every cell's middle is kept, on whatever plane it is sharp; most of the glass is not."""
    phantom(out=tmp_path, width=3072, count=40, planes=planes, background=0.8, seed=planes)
    slide = slide_in(tmp_path)

    with open_slide(slide) as reader:
        mask = find(reader)

    kept, places = mask.tiles(view_of(slide, 0)), centres(tmp_path)
    assert len(places) == 40
    assert kept[(places[:, 1] // 256).astype(int), (places[:, 0] // 256).astype(int)].all()
    assert mask.touches(*places.T, 1, 1).all()
    assert kept.mean() < 0.5


def test_pale_cells_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that take away one part in twenty-five of the light, on glass with the camera's noise."""
    draw = np.random.default_rng(7)
    scan = Scan(rows=2048, columns=2048, tile=(128, 128), levels=2, syntax=slides.JPEG)
    middles = draw.uniform(100, 1948, (14, 2))
    y, x = np.mgrid[:2048, :2048]
    paper = np.full((2048, 2048, 3), (236.0, 233.0, 240.0))
    for column, row in middles:
        paper[np.hypot(x - column, y - row) < 40, 1] *= 0.96
    paper += draw.normal(0, 2.0, paper.shape)
    pages = [np.clip(paper, 0, 254).astype(np.uint8)]
    pages.append(pages[0].reshape(1024, 2, 1024, 2, 3).mean((1, 3)).astype(np.uint8))
    monkeypatch.setattr(slides, "picture", lambda _scan, level=0, plane=0, path=0: pages[level])
    slide = slides.slide_of(slides.write(scan, tmp_path))

    with open_slide(slide) as reader:
        mask = find(reader)

    assert mask.touches(*middles.T, 1, 1).all()
    assert mask.share < 0.3


def test_a_slide_full_of_tissue_is_kept_whole() -> None:
    """What is commonest is not taken for glass: the lightest there is some of is."""
    draw = np.random.default_rng(1)
    seen = np.clip(draw.normal((190, 120, 170), 6, (400, 400, 3)), 0, 255).astype(np.uint8)
    seen[:40, :40] = 235

    found = stained(seen)

    assert found[60:].mean() > 0.999
    assert found[:40, :40].mean() < 0.01


def test_glass_that_was_not_scanned_is_not_stained() -> None:
    """White around a scanned field of glass says nothing about the glass."""
    seen = np.full((100, 100, 3), 255, np.uint8)
    seen[30:70, 30:70] = 228
    seen[45:55, 45:55] = 190

    found = stained(seen)

    assert found.sum() == 100 and found[45:55, 45:55].all()


def test_longer_frames_than_those_of_glass_are_kept() -> None:
    """Texture that has no colour: its frame does not compress like glass."""
    lengths = np.full((6, 6), 2900, np.uint32) + np.random.default_rng(2).integers(0, 40, (6, 6)).astype(
        np.uint32
    )
    marked = np.zeros((6, 6), np.bool_)
    lengths[2, 3], lengths[4, 4], lengths[0, 0] = 4500, 9000, 0
    marked[4, 4] = True

    assert np.argwhere(longer(lengths, marked)).tolist() == [[2, 3]]


def test_masks_are_looked_up_by_rectangle() -> None:
    """A rectangle touches what any square under it holds, also at the slide's edge and beyond."""
    kept = np.zeros((4, 5), np.bool_)
    kept[1, 2] = kept[3, 4] = True
    mask = Mask(kept, (10.0, 20.0))
    left, top = np.array([0.0, 30.0, 41.0, 60.0, 95.0, 300.0]), np.array([0.0, 5.0, 15.0, 20.0, 35.0, 0.0])

    assert mask.touches(left, top, 15.0, 8.0).tolist() == [False, True, True, False, True, False]


def test_a_mask_grows_to_all_sides() -> None:
    kept = np.zeros((7, 7), np.bool_)
    kept[3, 3] = kept[0, 6] = True

    found = grown(kept, 1.2)

    assert found[1:6, 1:6].all() and found[0:3, 4:7].all()
    assert found.sum() == 25 + 9 - 4


def test_focus_tells_sharp_from_blurred() -> None:
    """Per image, of any leading shape."""
    draw = np.random.default_rng(3)
    sharp = draw.integers(0, 255, (2, 3, 32, 32, 3)).astype(np.uint8)
    blurred = sharp.reshape(2, 3, 16, 2, 16, 2, 3).mean((3, 5)).repeat(2, 2).repeat(2, 3).astype(np.uint8)

    assert focus(sharp).shape == (2, 3)
    assert (focus(sharp) > 2 * focus(blurred)).all()
