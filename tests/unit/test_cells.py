"""Finding nuclei, judging focus and attention: on pictures drawn here, whose truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dicom_node.infer.cells import (
    CERVICAL,
    WHITE_CELLS,
    attention_in_cell,
    cell_mask,
    cut,
    find_nuclei,
    red_cell_scale,
    sharpness,
    spread,
    white_of,
)
from dicom_node.infer.looking import exact_interval

GLASS = (236, 234, 238)
NUCLEUS, RED_CELL = (90, 70, 140), (214, 150, 140)
Picture = npt.NDArray[np.uint8]


def glass(rows: int, columns: int) -> Picture:
    return np.full((rows, columns, 3), GLASS, np.uint8)


def disc(picture: Picture, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    """Blend a disc in, its middle at (x, y)."""
    row, column = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]] + 0.5
    inside = np.clip(radius - np.hypot(column - x, row - y) + 0.5, 0, 1)[..., None]
    picture[:] = np.rint(picture * (1 - inside) + np.array(colour) * inside).astype(np.uint8)


@pytest.mark.parametrize("um_per_px", [0.25, 0.5, 1.0])
def test_each_nucleus_is_found_once_where_it_lies(um_per_px: float) -> None:
    """Within 1.5 um of its middle, at any resolution, in pixels of the picture that was given."""
    places_um = [(30.0, 30.0), (70.0, 34.0), (50.0, 90.0)]
    picture = glass(round(120 / um_per_px), round(110 / um_per_px))
    for x, y in places_um:
        disc(picture, x / um_per_px, y / um_per_px, 4.5 / um_per_px, NUCLEUS)

    found = find_nuclei(picture, um_per_px, CERVICAL).centre_px * um_per_px

    assert len(found) == len(places_um)
    apart = np.hypot(*(found[:, None] - np.array(places_um)[None]).transpose(2, 0, 1))
    assert apart.min(axis=0).max() < 1.5


def test_a_white_cell_of_three_lobes_is_one_and_red_cells_and_platelets_are_none() -> None:
    picture = glass(400, 400)
    for x, y in ((100, 300), (140, 310), (300, 100), (320, 250), (60, 60)):
        disc(picture, x, y, 3.6 / 0.2, RED_CELL)
    disc(picture, 250, 330, 1.2 / 0.2, NUCLEUS)
    for x, y in ((190, 190), (215, 195), (200, 215)):
        disc(picture, x, y, 2.4 / 0.2, NUCLEUS)

    found = find_nuclei(picture, 0.2, WHITE_CELLS)

    assert len(found) == 1
    assert np.hypot(*(found.centre_px[0] - (202, 200))) < 15


def test_an_empty_picture_holds_nothing() -> None:
    assert len(find_nuclei(glass(200, 200), 0.5, CERVICAL)) == 0


def test_glass_is_told_from_clipped_highlights() -> None:
    picture = glass(100, 100)
    picture[:20] = 255

    assert np.abs(white_of(picture) - np.array(GLASS)).max() <= 5


def test_a_smear_says_its_scale_by_its_red_cells() -> None:
    """A red cell has 7.3 um; overlapping ones and those at the edge do not count."""
    picture = glass(480, 640)
    for x, y in ((60, 60), (200, 80), (330, 60), (480, 90), (100, 250), (260, 260), (300, 270), (638, 300)):
        disc(picture, x, y, 36.5, RED_CELL)

    scale = red_cell_scale(picture)

    assert scale is not None
    assert scale == pytest.approx(0.1, rel=0.08)


def test_a_picture_without_red_cells_says_no_scale() -> None:
    assert red_cell_scale(glass(200, 200)) is None


def test_what_is_in_focus_is_sharper() -> None:
    from scipy import ndimage

    crop = glass(64, 64)
    disc(crop, 32, 32, 12, NUCLEUS)
    blurred = ndimage.gaussian_filter(crop.astype(float), (3, 3, 0)).astype(np.uint8)

    sharp, soft = sharpness(np.stack([crop, blurred]))

    assert sharp > 4 * soft


def test_attention_on_the_cell_counts_and_beside_it_does_not() -> None:
    crop = glass(96, 96)
    disc(crop, 48, 48, 16, NUCLEUS)
    mask = cell_mask(crop, 0.28)
    inside, beside = np.zeros((96, 96), np.float32), np.zeros((96, 96), np.float32)
    inside[40:56, 40:56] = 1
    beside[:10, :10] = 1

    assert attention_in_cell(inside, mask) == 1
    assert attention_in_cell(beside, mask) == 0
    assert np.isnan(attention_in_cell(np.zeros((96, 96), np.float32), mask))


def test_the_mask_leaves_a_neighbour_out() -> None:
    crop = glass(96, 96)
    disc(crop, 48, 48, 14, NUCLEUS)
    disc(crop, 86, 86, 9, NUCLEUS)

    mask = cell_mask(crop, 0.28)

    assert mask[48, 48]
    assert not mask[86, 86]


def test_a_crop_is_centred_and_white_beyond_the_picture() -> None:
    picture = glass(100, 100)
    disc(picture, 5, 50, 4, NUCLEUS)

    (crop,) = cut(picture, np.array([[5.0, 50.0]], np.float32), 40, 80, np.array([255, 255, 255], np.float32))

    assert crop.shape == (80, 80, 3)
    assert np.abs(crop[38:42, 38:42].astype(int) - NUCLEUS).max() < 40
    assert (crop[:, :25] == 255).all()


def test_a_map_is_laid_where_its_values_are() -> None:
    """Values of a network with stride 16 stand at pixels 0, 16, 32 ..."""
    heat = np.zeros((1, 6, 6), np.float32)
    heat[0, 2, 4] = 0.3

    laid = spread(heat, 96, 0.0, 16.0)[0]

    assert [int(at) for at in np.unravel_index(int(laid.argmax()), laid.shape)] == [32, 64]
    assert laid.max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (1, 100, 0.0003, 0.0545)],
)
def test_intervals_are_those_of_the_tables(hits: int, n: int, low: float, high: float) -> None:
    """Clopper and Pearson's, as printed in tables of the binomial distribution."""
    assert exact_interval(hits, n) == pytest.approx((low, high), abs=5e-5)
