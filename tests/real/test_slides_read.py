"""Slides that others wrote, read as wsidicom, OpenSlide and pydicom read them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import openslide
import pytest
from PIL import Image
from pydicom import dcmread
from wsidicom import WsiDicom

from dicom_node.assemble.slides import slide_doubts
from dicom_node.slide import open_slide
from support import slides
from support.slides import Scan

pytestmark = pytest.mark.real

PYRAMID = "wsi_jcupitt/cmu-1-small-region"
ENCODED = "wsi_wsidicom_data/data/encoded"
LOSSLESS = {
    "Explicit_VR_Little_Endian-RGB-8.raw": ("1.2.840.10008.1.2.1", "RGB"),
    "Implicit_VR_Little_Endian-GRAYSCALE-8.raw": ("1.2.840.10008.1.2", "MONOCHROME2"),
    "RLE_Lossless-RGB-8.rle": ("1.2.840.10008.1.2.5", "RGB"),
    "RLE_Lossless-GRAYSCALE-8.rle": ("1.2.840.10008.1.2.5", "MONOCHROME2"),
    "JPEG_Lossless,_Non-Hierarchical_(Process_14)-RGB-8.jpg": ("1.2.840.10008.1.2.4.57", "RGB"),
    "JPEG_Lossless,_Non-Hierarchical_(Process_14)-GRAYSCALE-8.jpg": ("1.2.840.10008.1.2.4.57", "MONOCHROME2"),
    "JPEG-LS_Lossless_Image_Compression-RGB-8.jls": ("1.2.840.10008.1.2.4.80", "RGB"),
    "JPEG-LS_Lossless_Image_Compression-GRAYSCALE-8.jls": ("1.2.840.10008.1.2.4.80", "MONOCHROME2"),
    "JPEG_2000_Image_Compression_(Lossless_Only)-RGB-8.jp2": ("1.2.840.10008.1.2.4.90", "RGB"),
    "JPEG_2000_Image_Compression_(Lossless_Only)-YBR-8.jp2": ("1.2.840.10008.1.2.4.90", "YBR_RCT"),
    "JPEG_2000_Image_Compression_(Lossless_Only)-GRAYSCALE-8.jp2": ("1.2.840.10008.1.2.4.90", "MONOCHROME2"),
}  # fmt: skip
LOSSY = {
    "JPEG_Baseline_(Process_1)-RGB-8.jpg": ("1.2.840.10008.1.2.4.50", "RGB"),
    "JPEG_Baseline_(Process_1)-YBR-8.jpg": ("1.2.840.10008.1.2.4.50", "YBR_FULL_422"),
    "JPEG_Baseline_(Process_1)-GRAYSCALE-8.jpg": ("1.2.840.10008.1.2.4.50", "MONOCHROME2"),
    "JPEG-LS_Lossy_(Near-Lossless)_Image_Compression-RGB-8.jls": ("1.2.840.10008.1.2.4.81", "RGB"),
    "JPEG_2000_Image_Compression-RGB-8.jp2": ("1.2.840.10008.1.2.4.91", "RGB"),
    "JPEG_2000_Image_Compression-YBR-8.jp2": ("1.2.840.10008.1.2.4.91", "YBR_ICT"),
}


def pyramid(folder: Path) -> list[Path]:
    return sorted((folder / PYRAMID).glob("*.dcm"))


def labelled_as_it_is(paths: list[Path], folder: Path) -> list[Path]:
    """Copies whose header says YCbCr, as their streams do, and that share a frame of reference."""
    copies = []
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its Implementation Class UID is none
            ds = dcmread(path)
            ds.PhotometricInterpretation, ds.FrameOfReferenceUID = "YBR_FULL_422", "2.25.88"
            ds.save_as(folder / path.name)
        copies.append(folder / path.name)
    return copies


def test_a_pyramid_of_twelve_levels_is_one_slide(real_data: Path) -> None:
    """Written with neither container nor origin, and with a frame of reference for each level."""
    paths = pyramid(real_data)

    slide = slides.slide_of(paths)

    assert "0: 2967 x 2220 px, 0.499 um/px, 12 levels, 1 plane" == slide.label
    assert "" == slide_doubts(slides.read(paths))


def test_its_glass_is_white_though_its_header_misstates_the_colours(real_data: Path) -> None:
    """The streams are JFIF, so Y, Cb and Cr; the header says RGB, and who believes it sees red glass."""
    with open_slide(slides.slide_of(pyramid(real_data))) as reader:
        glass = reader.region(0, 150, 150, 200, 200).mean(axis=(0, 1))

    assert (glass > 235).all()
    assert float(np.ptp(glass)) < 6


def test_regions_are_those_of_wsidicom_and_openslide(real_data: Path, tmp_path: Path) -> None:
    """Exactly; OpenSlide on the finest level, since it shifts coarser ones by parts of a pixel."""
    paths = labelled_as_it_is(pyramid(real_data), tmp_path)
    corners = [(0, 0, 0), (0, 977, 1203), (0, 1800, 2500), (1, 300, 200), (2, 10, 20)]

    with (
        open_slide(slides.slide_of(paths)) as reader,
        WsiDicom.open(tmp_path) as theirs,
        openslide.OpenSlide(str(paths[0])) as others,
    ):
        for number, left, top in corners:
            level = reader.slide.levels[number]
            size = min(300, level.columns - left), min(280, level.rows - top)
            mine = reader.region(number, left, top, *size)

            assert np.array_equal(np.asarray(theirs.read_region((left, top), number, size)), mine)
            if number == 0:
                image = others.read_region((left, top), 0, size).convert("RGB")
                assert np.array_equal(np.asarray(image), mine)


def test_frames_are_those_of_pydicom(real_data: Path, tmp_path: Path) -> None:
    """Every whole frame of three levels; nearly, since its decoder spreads colours in another way."""
    paths = labelled_as_it_is(pyramid(real_data), tmp_path)
    with open_slide(slides.slide_of(paths)) as reader:
        for number, level in enumerate(reader.slide.levels[:3]):
            rows, columns = level.rows // level.tile_rows, level.columns // level.tile_columns
            at = np.divmod(np.arange(rows * columns), max(columns, 1))
            tiles = reader.tiles(number, *at)
            expected = dcmread(level.parts[0].path).pixel_array.reshape(
                -1, level.tile_rows, level.tile_columns, 3
            )
            wanted = expected[at[0] * level.tile_grid[1] + at[1]]

            difference = np.abs(wanted.astype(int) - tiles)

            assert len(tiles) and int(difference.max()) <= 8 and float(difference.mean()) < 0.5


def one_frame(folder: Path, name: str, syntax: str, photometric: str, target: Path) -> Path:
    """A slide of one tile, 240 x 240, from a frame of a codec."""
    scan = Scan(rows=240, columns=240, tile=(240, 240), syntax=syntax)
    ds = slides.data_set(scan, 0, (0,), [(0, 0, 0, 0)])
    ds.SOPInstanceUID, ds.PhotometricInterpretation = "2.25.9", photometric
    if photometric == "MONOCHROME2":
        ds.SamplesPerPixel = 1
        del ds.PlanarConfiguration
    frame = (folder / ENCODED / name).read_bytes()
    path = target / "one.dcm"
    path.write_bytes(slides.file_of(scan, ds, [frame + b"\0" * (len(frame) % 2)]))
    return path


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_one_tile_in_every_codec(real_data: Path, tmp_path: Path, name: str) -> None:
    """Exactly the picture it was made of, or nearly where the codec loses something."""
    path = one_frame(real_data, name, *(LOSSLESS | LOSSY)[name], tmp_path)
    original = Image.open(real_data / "wsi_wsidicom_data/data/test_tile.png").convert("RGB")
    grey = "GRAYSCALE" in name
    expected = np.asarray(original.convert("L").convert("RGB") if grey else original).astype(int)

    with open_slide(slides.slide_of([path])) as reader:
        tile = reader.tiles(0, 0, 0)[0]

    difference = np.abs(expected - tile)
    assert int(difference.max()) <= (1 if grey else 0) or name in LOSSY
    assert float(difference.mean()) < 6


@pytest.mark.parametrize("name", ["sm_image", "sm_image_jpegls", "sm_image_jpegls_nobot", "sm_image_dots"])
def test_slides_of_highdicom_are_read_as_pydicom_reads_them(real_data: Path, name: str) -> None:
    path = real_data / "dcm_highdicom" / f"{name}.dcm"

    with open_slide(slides.slide_of([path])) as reader:
        rows, columns = np.divmod(np.arange(25), 5)
        tiles = reader.tiles(0, rows, columns)

    assert np.array_equal(dcmread(path).pixel_array, tiles)
