"""Phantom slides: pixels the same in every layout, truth where the cells are, sharp on their own plane."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import simplejpeg
import wsidicom
from PIL import Image
from pydicom.encaps import generate_frames
from scipy import ndimage
from typer.testing import CliRunner

from dicom_node.errors import InvalidValue, UnreadableObject
from dicom_node.train.phantoms.command import app
from dicom_node.train.phantoms.orientation import marked_slide
from dicom_node.train.phantoms.slides import cytology as papanicolaou
from dicom_node.train.phantoms.slides import smear as blood
from dicom_node.train.phantoms.slides import stream
from dicom_node.train.phantoms.slides.build import Wish, build_slide
from dicom_node.train.phantoms.slides.crops import Crops, faded, read_labels
from dicom_node.train.phantoms.slides.material import drawn_cells, surroundings
from dicom_node.train.phantoms.slides.scene import CLEAR, Scene, defocus_um, turned
from dicom_node.train.phantoms.slides.spec import Kind, Layout, OffsetTable, SlideSpec
from dicom_node.train.phantoms.slides.truth import write_truth
from dicom_node.train.phantoms.slides.write import write_slide
from support.phantom_slides import GLASS, crop, crop_folder, slide_of

SPEC = SlideSpec("t", 300, 200, tile=64, levels=2, planes=3)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crop_folder(tmp_path_factory.mktemp("crops") / "cells")


def spec_with(**changes: object) -> SlideSpec:
    return replace(SPEC, **changes)  # type: ignore[arg-type]


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def frames_by_place(paths: list[Path]) -> dict[tuple[int, int, int, float], bytes]:
    """(total rows, tile row, tile column, height in um) -> JPEG stream, of all pyramid levels.

    By pydicom and by the text of PS3.3 C.7.6.17.3 alone: nothing of the project's own reader.
    """
    found = {}
    for path in paths:
        ds = pydicom.dcmread(path)
        if ds.ImageType[2] != "VOLUME":
            continue
        for number, frame in enumerate(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames)):
            found[ds.TotalPixelMatrixRows, *place_of(ds, number)] = frame
    return found


def place_of(ds: pydicom.Dataset, number: int) -> tuple[int, int, float]:
    if ds.DimensionOrganizationType == "TILED_SPARSE":
        position = ds.PerFrameFunctionalGroupsSequence[number].PlanePositionSlideSequence[0]
        row = (position.RowPositionInTotalImagePixelMatrix - 1) // ds.Rows
        column = (position.ColumnPositionInTotalImagePixelMatrix - 1) // ds.Columns
        return row, column, round(float(position.ZOffsetInSlideCoordinateSystem), 6)
    number += int(ds.get("ConcatenationFrameOffsetNumber", 0))
    columns = -(-ds.TotalPixelMatrixColumns // ds.Columns)
    rows = -(-ds.TotalPixelMatrixRows // ds.Rows)
    plane, in_plane = divmod(number, rows * columns)
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    bottom = float(ds.TotalPixelMatrixOriginSequence[0].ZOffsetInSlideCoordinateSystem)
    height = bottom + plane * float(measures.SpacingBetweenSlices) * 1000
    return in_plane // columns, in_plane % columns, round(height, 6)


def written(cells: Path, out: Path, wish: Wish, **changes: object) -> list[Path]:
    return write_slide(slide_of(cells, spec_with(**changes), wish), out)


@pytest.mark.parametrize("concatenate", [1, 3])
@pytest.mark.parametrize("table", OffsetTable)
def test_all_layouts_hold_the_same_frames(
    cells: Path, tmp_path: Path, table: OffsetTable, concatenate: int
) -> None:
    """Whatever the layout, offset table and concatenation: the same bytes at the same place and height."""
    wish, how = Wish(6, background=0.6), {"offset_table": table, "concatenate": concatenate}
    full, instances, sparse = (
        frames_by_place(written(cells, tmp_path / layout, wish, layout=layout, **how)) for layout in Layout
    )

    assert 3 * (4 * 5 + 2 * 3) == len(full)
    assert full == instances
    assert 0 < len(sparse) < len(full)
    assert sparse == {place: full[place] for place in sparse}


def test_a_sparse_slide_lacks_only_tiles_without_cells(cells: Path, tmp_path: Path) -> None:
    """What is left out is bare glass in the full slide: no pixel of it is darker than glass."""
    wish = Wish(5, background=0.6)
    full = frames_by_place(written(cells, tmp_path / "full", wish))
    sparse = frames_by_place(written(cells, tmp_path / "sparse", wish, layout=Layout.SPARSE))

    left_out = [simplejpeg.decode_jpeg(full[place]) for place in full.keys() - sparse.keys()]

    assert left_out
    assert min(int(tile.min()) for tile in left_out) > min(GLASS) - 25


@pytest.mark.parametrize("layout", Layout)
def test_wsidicom_reads_what_was_rendered(cells: Path, tmp_path: Path, layout: Layout) -> None:
    """A reader by others finds levels, planes, label, overview, and on every plane what the scene shows."""
    scene = slide_of(cells, spec_with(layout=layout, quality=98), Wish(12, background=0))
    write_slide(scene, tmp_path)

    with wsidicom.WsiDicom.open(tmp_path) as slide:
        heights = sorted(slide.levels[0].focal_planes)
        assert [99.0, 100.0, 101.0] == heights
        assert [(300, 200), (150, 100)] == [(one.size.width, one.size.height) for one in slide.levels]
        assert 1 == len(slide.labels) == len(slide.overviews)
        for plane, height in enumerate(heights):
            read = np.asarray(slide.read_region((10, 20), 0, (250, 150), z=height))[..., :3].astype(int)
            shown = scene.region(0, 20, 10, 150, 250, plane).astype(int)
            assert np.abs(read - shown).mean() < 4  # 4:2:2 blurs colour over two columns


def test_the_same_wish_gives_the_same_bytes_and_another_seed_other_uids(cells: Path, tmp_path: Path) -> None:
    first, again, other = (
        written(cells, tmp_path / name, Wish(5), seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )

    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    uids = [
        {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in paths}
        for paths in (first, other)
    ]
    assert len(uids[0]) == len(first)
    assert not uids[0] & uids[1]


def test_slides_with_other_cells_have_other_uids(cells: Path) -> None:
    """Same seed and size, other cells: two slides, not two versions of one."""
    one, other = (slide_of(cells, SPEC, Wish(n)).spec.contents for n in (4, 5))

    assert one != other


def test_truth_says_where_each_cell_lies(cells: Path, tmp_path: Path) -> None:
    """In every box of the truth there is the cell of its class, turned as said, and nothing outside boxes."""
    scene = slide_of(cells, spec_with(width=500, planes=1), Wish(8, background=0, mix={"NILM": 1, "HSIL": 1}))
    crops = read_labels(cells)
    table = write_truth(scene, tmp_path, [crop.path.name for crop in crops])
    image = scene.region(0, 0, 0, 200, 500, 0).astype(int)
    outside = np.ones(image.shape[:2], bool)

    rows = rows_of(table)

    assert 8 == len(rows)
    for row in rows:
        width, height = int(row["width"]), int(row["height"])
        left, top = round(float(row["x"]) - width / 2), round(float(row["y"]) - height / 2)
        shown = image[top : top + height, left : left + width]
        own = faded(np.asarray(Image.open(cells / row["source"])), scene.sprites.background, 0)
        middle = np.s_[height // 4 : -height // 4, width // 4 : -width // 4]
        expected = turned(own, int(row["turn"])).astype(float) / CLEAR * scene.sprites.background
        assert np.abs(shown[middle] - expected[middle]).mean() < 4
        assert row["source"].startswith(row["class"])
        outside[top : top + height, left : left + width] = False
    assert image[outside].min() > min(GLASS) - 25


def test_a_turn_is_counted_as_the_truth_says() -> None:
    """Quarter turns counter-clockwise, mirrored left to right before: an asymmetric patch, by hand."""
    patch = np.array([[1, 2], [3, 4]], np.uint8)[..., None]

    assert [[2, 4], [1, 3]] == turned(patch, 1)[..., 0].tolist()
    assert [[2, 1], [4, 3]] == turned(patch, 4)[..., 0].tolist()
    assert [[1, 3], [2, 4]] == turned(patch, 5)[..., 0].tolist()


def test_a_cell_is_sharp_on_its_own_plane_and_the_more_blurred_the_farther(cells: Path) -> None:
    """Detail of a cell falls with every plane away from the one that the truth names."""
    scene = slide_of(cells, spec_with(planes=5, width=200, um_per_px=0.1), Wish(1, background=0))
    own = int(np.argmin(np.abs(np.array(scene.spec.heights_um()) - scene.placed.z_um[0])))

    detail = [sharpness(scene, 0, plane) for plane in range(5)]

    assert own == int(np.argmax(detail))
    by_distance = [np.mean([detail[p] for p in range(5) if abs(p - own) == d] or [np.nan]) for d in range(5)]
    there = [value for value in by_distance if not np.isnan(value)]
    assert there == sorted(there, reverse=True)


def sharpness(scene: Scene, cell: int, plane: int) -> float:
    placed = scene.placed
    box = (int(placed.top[cell]), int(placed.left[cell]), int(placed.height[cell]), int(placed.width[cell]))
    grey = scene.region(0, *box, plane).astype(float).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def test_a_crop_keeps_its_middle_and_fades_into_the_glass() -> None:
    image = crop((90, 160, 160), 100, 100)
    sprite = faded(image, (231.0, 226.0, 229.0))
    shown = sprite.astype(float) / CLEAR * (231.0, 226.0, 229.0)

    assert np.abs(shown[35:65, 35:65] - image[35:65, 35:65]).max() <= 1.5
    border = np.concatenate([sprite[0], sprite[-1], sprite[:, 0], sprite[:, -1]])
    assert {CLEAR} == set(border.ravel().tolist())


def test_one_abnormal_cell_among_many_is_one(cells: Path) -> None:
    scene = slide_of(cells, spec_with(width=2000, height=2000), Wish(200, abnormal=1))
    labels = scene.sprites.labels[scene.placed.sprite]

    assert [199, 1] == [int((labels == scene.sprites.classes.index(name)).sum()) for name in ("NILM", "HSIL")]


def test_cells_do_not_overlap_and_stay_on_the_slide(cells: Path) -> None:
    placed = slide_of(cells, spec_with(width=900, height=700), Wish(120, background=0.2)).placed
    covered = np.zeros((700, 900), int)
    for top, left, tall, wide in zip(placed.top, placed.left, placed.height, placed.width, strict=True):
        assert top >= 0 and left >= 0 and top + tall <= 700 and left + wide <= 900
        covered[top : top + tall, left : left + wide] += 1

    assert 1 == covered.max()


def test_seventy_percent_background_leaves_seventy_percent_of_the_tiles_empty(cells: Path) -> None:
    spec = spec_with(width=6000, height=6000, planes=1)
    scene = slide_of(cells, spec, Wish(1500, background=0.7))

    assert scene.tiles_with_cells(0).mean() == pytest.approx(0.3, abs=0.08)


def test_more_cells_than_there_is_room_for_are_refused(cells: Path) -> None:
    with pytest.raises(InvalidValue, match="there is room for about"):
        slide_of(cells, SPEC, Wish(500))


@pytest.mark.parametrize("wrong", [{"tile": 100}, {"planes": 0}, {"levels": 17}, {"quality": 0}])
def test_a_slide_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(wrong))):
        spec_with(**wrong)


def test_only_the_rows_that_were_asked_for_are_laid(cells: Path) -> None:
    """A held-out split by a column of labels.csv."""
    held_out = read_labels(cells, {"block": frozenset({"2"}), "class": frozenset({"HSIL"})})

    assert [("HSIL-4.png", "2"), ("HSIL-5.png", "2")] == [
        (one.path.name, one.row["block"]) for one in held_out
    ]
    with pytest.raises(UnreadableObject, match="no column site"):
        read_labels(cells, {"site": frozenset({"1"})})


def test_lesions_differ_from_normal_cells_in_detail_alone_where_they_are_off_focus() -> None:
    """`--off-focus`: on its own plane a lesion's nucleus is rougher than any normal one; three micrometres
    away it is as dark as they are, and seven eighths of what made it rough are gone."""
    sprites = papanicolaou.cytology(um_per_px=0.25, seed=1, subtle=True)
    sharp = {name: nuclei(sprites, name, 0.0) for name in ("NILM", "HSIL")}
    blurred = {name: nuclei(sprites, name, 3.0) for name in ("NILM", "HSIL")}

    assert sharp["HSIL"][:, 0].min() > 2 * sharp["NILM"][:, 0].max()
    assert np.median(blurred["HSIL"][:, 0]) < 0.125 * np.median(sharp["HSIL"][:, 0])
    assert np.median(blurred["HSIL"][:, 1]) == pytest.approx(
        np.median(blurred["NILM"][:, 1]), abs=0.03 * CLEAR
    )


def nuclei(sprites: papanicolaou.Drawn, name: str, away_um: float) -> npt.NDArray[np.float64]:
    """(cells, 2): local contrast and mean brightness inside the nuclei of a class."""
    found = []
    for number in np.flatnonzero(sprites.labels == sprites.classes.index(name))[:15]:
        grey = sprites.sprite(int(number)).astype(float).mean(axis=2)
        seen = ndimage.gaussian_filter(grey, defocus_um(away_um) / 0.25, mode="nearest")
        nucleus = ndimage.binary_erosion(ndimage.gaussian_filter(grey, 3) < 0.45 * CLEAR, iterations=8)
        fine = seen - ndimage.gaussian_filter(seen, 3)
        found.append((float(fine[nucleus].std()), float(seen[nucleus].mean())))
    return np.array(found)


def test_abnormal_cells_lie_far_from_the_middle_plane_off_focus(cells: Path) -> None:
    scene = slide_of(cells, spec_with(width=3000, planes=11), Wish(60, abnormal=20, off_focus=True))
    abnormal = scene.sprites.labels[scene.placed.sprite] == scene.sprites.classes.index("HSIL")

    assert np.abs(scene.placed.z_um[abnormal]).min() >= 3.0
    assert np.abs(scene.placed.z_um[~abnormal]).min() < 3.0


def test_nuclei_grow_and_cells_shrink_with_the_grade() -> None:
    """LSIL has large nuclei in large cells, HSIL large ones in small cells, as in Bethesda's table."""
    sprites = papanicolaou.cytology(um_per_px=0.25, seed=1)
    nucleus, share = {}, {}
    for k, name in enumerate(sprites.classes):
        areas = [_areas(sprites.sprite(number)) for number in np.flatnonzero(sprites.labels == k)]
        nucleus[name] = float(np.median([n for n, _ in areas]))
        share[name] = float(np.median([n / cell for n, cell in areas]))

    assert nucleus["LSIL"] > 2.5 * nucleus["NILM"]
    assert share["HSIL"] > 2 * share["LSIL"] > 2 * share["NILM"]


def _areas(sprite: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Pixels of the nucleus (dark in red light, which cytoplasm lets through) and of the cell."""
    return int((sprite[..., 0] < 0.47 * CLEAR).sum()), int((sprite.min(axis=2) < 0.97 * CLEAR).sum())


def test_a_smear_has_red_cells_around_white_ones_and_counts_them_apart(tmp_path: Path) -> None:
    spec = spec_with(width=900, height=900, planes=1, stain="may-gruenwald-giemsa")
    material = drawn_cells(Kind.SMEAR, spec)
    wish = Wish(20, mix={"neutrophil": 1, "lymphocyte": 1}, background=0.1, overlap=material.overlap)
    scene = build_slide(spec, material.sprites, wish, surroundings(Kind.SMEAR, spec, material.sprites))
    table = write_truth(scene, tmp_path)
    facts = json.loads((tmp_path / "slide.json").read_text())

    classes = [row["class"] for row in rows_of(table)]

    assert 20 == len(classes)
    assert {"neutrophil", "lymphocyte"} == set(classes)
    assert facts["cells"][blood.RED_CELL] > 200


@pytest.mark.parametrize("kind", Kind)
def test_the_command_writes_a_slide_and_says_what_is_on_it(tmp_path: Path, kind: Kind) -> None:
    asked = ["--kind", kind, "--count", "10", "--tile", "128", "--levels", "2", "--json"]

    result = CliRunner().invoke(app, ["slide", "--out", str(tmp_path), *asked])

    assert 0 == result.exit_code, result.output
    said = json.loads(result.output)
    written = sorted(path.name for path in tmp_path.glob("*.dcm"))
    assert said["instances"] == len(written) == 5
    assert 10 == len(rows_of(tmp_path / "truth.csv"))
    assert (
        said["study_uid"] == pydicom.dcmread(tmp_path / written[0], stop_before_pixels=True).StudyInstanceUID
    )


def test_the_command_lays_real_cells_of_some_rows(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "blocks").write_text("1\n2\n")
    asked = ["--count", "8", "--abnormal", "1", "--where", f"block=@{tmp_path / 'blocks'}", "--planes", "3"]

    result = CliRunner().invoke(app, ["slide", "--out", str(tmp_path / "s"), "--cells", str(cells), *asked])

    assert 0 == result.exit_code, result.output
    rows = rows_of(tmp_path / "s" / "truth.csv")
    assert ["HSIL"] == [row["class"] for row in rows if row["class"] != "NILM"]
    assert {"2", "3", "4", "5"} >= {row["source"][-5] for row in rows}


def test_memory_does_not_grow_with_the_slide(tmp_path: Path) -> None:
    """A slide of 1.6 gigapixels with 5 planes, three gigabytes of pixels in its frames, in 600 MB."""
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from dicom_node.train.phantoms.command import app\n"
        f"app(['slide', '--out', {str(tmp_path)!r}, '--width', '40000', '--planes', '5', '--tile', '512',"
        " '--layout', 'sparse', '--levels', '1', '--count', '40', '--background', '0.9', '--json'],"
        " standalone_mode=False)\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    said, peak_mb = done.stdout.strip().splitlines()
    assert 40000 == json.loads(said)["width"]
    assert int(peak_mb) < 600


def test_crops_of_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableObject, match=r"labels\.csv"):
        read_labels(tmp_path)
    with pytest.raises(UnreadableObject, match="no cell"):
        Crops([])


def test_overview_and_pyramid_agree_where_a_mark_lies_on_the_glass(tmp_path: Path) -> None:
    """The red corner of the orientation slide, in slide coordinates by each picture's own geometry."""
    made = replace(marked_slide().spec, um_per_px=10.0)  # 11 x 7 mm, so that an overview shows it
    scene = Scene(made, marked_slide().sprites, marked_slide().placed)
    by_type = {}
    for path in write_slide(scene, tmp_path):
        ds = pydicom.dcmread(path)
        by_type.setdefault(ds.ImageType[2], ds)

    places = {kind: middle_of_red_mm(by_type[kind]) for kind in ("THUMBNAIL", "OVERVIEW")}

    marked = np.array([40 + 24, 90 + 24]) * 0.01  # mm along a row, along a column
    expected = np.array([22.0, 50.0]) - marked[::-1]
    assert places["THUMBNAIL"] == pytest.approx(expected, abs=0.02)
    assert places["OVERVIEW"] == pytest.approx(expected, abs=0.1)


def middle_of_red_mm(ds: pydicom.Dataset) -> npt.NDArray[np.float64]:
    """X and Y of the middle of all that is red in a single-frame picture (PS3.3 C.8.12.2.1.1)."""
    image = simplejpeg.decode_jpeg(next(generate_frames(ds.PixelData, number_of_frames=1))).astype(int)
    rows, columns = np.nonzero((image[..., 0] - image[..., 1] > 80) & (image[..., 0] - image[..., 2] > 80))
    first = ds.TotalPixelMatrixOriginSequence[0]
    along, down = np.array(ds.ImageOrientationSlide, float).reshape(2, 3)[:, :2]
    spacing = float(ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0])
    corner = np.array([first.XOffsetInSlideCoordinateSystem, first.YOffsetInSlideCoordinateSystem], float)
    return corner + spacing * (columns.mean() * along + rows.mean() * down)


def test_a_basic_table_that_cannot_reach_the_last_frame_is_refused(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its offsets have 32 bits; an extended table has 64 (PS3.3 C.7.6.3.1.8)."""
    monkeypatch.setattr(stream, "BASIC_REACHES", 10_000)

    with pytest.raises(InvalidValue, match="take an extended one"):
        written(cells, tmp_path / "basic", Wish(5))
    assert written(cells, tmp_path / "extended", Wish(5), offset_table=OffsetTable.EXTENDED)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--where", "block=@/nowhere"], "/nowhere"),
        (["--where", "block"], "COLUMN"),
        (["--mix", "a=b"], "SHARE"),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused_by_name(
    cells: Path, tmp_path: Path, asked: list[str], said: str
) -> None:
    result = CliRunner().invoke(app, ["slide", "--out", str(tmp_path / "s"), "--cells", str(cells), *asked])

    assert 2 == result.exit_code
    assert said in result.output
    assert not (tmp_path / "s").exists()
