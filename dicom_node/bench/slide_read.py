"""Reading slides: every frame decoded, and the index of very many frames, beside those who do the same.

Time is the processor's (of all threads of this process), so that other work on the machine does not
count: figures are per core. Peers that are not installed are left out. Readers take turns, and a ratio is
made within a turn; printed are the median and the range over the turns.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from dicom_node.assemble.slides import read_slides
from dicom_node.domain.slide import Slide
from dicom_node.errors import DicomNodeError
from dicom_node.node.offline import stored
from dicom_node.slide import open_slide
from dicom_node.slide.file import SlideFile
from dicom_node.slide.index import find_frames
from dicom_node.slide.sparse import read_places
from dicom_node.train.phantoms.slides.elements import Instance, data_set, origin
from dicom_node.train.phantoms.slides.spec import Layout, OffsetTable, SlideSpec
from dicom_node.train.phantoms.slides.stream import Places, write_frames
from dicom_node.train.phantoms.slides.write import encoded

GOALS = {"openslide": 4.0, "wsidicom": 1.0, "pydicom index, sparse": 100.0}
"""Least ratios: how many times the processor time of this reader a peer needs."""
ROUNDS = 5
_TILE = 256
_PICTURES = 48
"""Different frames, repeated."""
_BATCH = 64
_BLANK_BYTES = 2000
"""Of a frame of the large files, whose pixels are not read."""

Task = Callable[[], object]


def measure(tiles: int = 2048, frames: int = 180_000, rounds: int = ROUNDS) -> dict[str, object]:
    """`tiles` frames of 256 x 256 decoded, `frames` frames indexed. Raises DicomNodeError."""
    with tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as folder:
        decoding = _decoding(Path(folder) / "tiles.dcm", tiles, rounds)
        indexing = _indexing(Path(folder), frames, rounds)
    return {
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "time": "processor seconds of one process",
        "decoding": decoding,
        "indexing": indexing,
        "goals": GOALS,
    }


# ---- every frame decoded ------------------------------------------------------------------------------


def _decoding(path: Path, tiles: int, rounds: int) -> dict[str, object]:
    side = int(np.ceil(np.sqrt(tiles)))
    spec = SlideSpec("bench", side * _TILE, side * _TILE, tile=_TILE, levels=1, quality=80)
    pictures = [encoded(picture, spec) for picture in _cells(_PICTURES)]
    _write(path, spec, side * side, cycle(pictures))
    slide = _slide(path)
    runs = _in_turn(dict(_decoders(slide, path, side)), rounds)
    return {
        "frames": side * side,
        "bytes per frame": round(float(np.mean([len(one) for one in pictures]))),
        "frames per second": {name: round(side * side / median(times)) for name, times in runs.items()},
        "times the processor time of this reader": _ratios(runs, "dicom-node"),
    }


def _decoders(slide: Slide, path: Path, side: int) -> Iterator[tuple[str, Task]]:
    rows, columns = np.divmod(np.arange(side * side), side)

    def ours(scale: int) -> Task:
        batch = np.empty((_BATCH, _TILE // scale, _TILE // scale, 3), np.uint8)

        def run() -> None:
            with open_slide(slide, verify=False) as reader:
                for begin in range(0, len(rows), _BATCH):
                    some = slice(begin, begin + _BATCH)
                    out = batch[: len(rows[some])]
                    reader.tiles(0, rows[some], columns[some], scale=scale, out=out)

        return run

    yield "dicom-node", ours(1)
    yield "dicom-node, half size", ours(2)
    yield "dicom-node, an eighth", ours(8)
    if find_spec("wsidicom"):
        yield "wsidicom", lambda: _by_wsidicom(path, rows, columns)
    if find_spec("openslide"):
        yield "openslide", lambda: _by_openslide(path, rows, columns)


def _by_wsidicom(path: Path, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> None:
    from wsidicom import WsiDicom

    with WsiDicom.open(path) as theirs:
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            theirs.read_tile(0, (column, row), as_array=True)


def _by_openslide(path: Path, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> None:
    import openslide

    with openslide.OpenSlide(str(path)) as theirs:
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            np.asarray(theirs.read_region((column * _TILE, row * _TILE), 0, (_TILE, _TILE)).convert("RGB"))


# ---- the index ----------------------------------------------------------------------------------------


def _indexing(folder: Path, frames: int, rounds: int) -> dict[str, object]:
    found: dict[str, object] = {"frames": frames}
    blank = b"\xff\xd8" + bytes(_BLANK_BYTES - 2)
    side = int(np.ceil(np.sqrt(frames)))
    for name, table, sparse in (
        ("extended offset table", OffsetTable.EXTENDED, False),
        ("basic offset table", OffsetTable.BASIC, False),
        ("no offset table", OffsetTable.NONE, False),
        ("no offset table, sparse", OffsetTable.NONE, True),
    ):
        path = folder / "large.dcm"
        layout = Layout.SPARSE if sparse else Layout.FULL
        rows = -(-frames // side)
        spec = SlideSpec("bench", side * _TILE, rows * _TILE, layout=layout, levels=1, offset_table=table)
        count = frames if sparse else rows * side
        _write(path, spec, count, cycle([blank]), sparse=sparse)
        runs = _in_turn(dict(_indexers(path, count, sparse=sparse)), rounds)
        found[name] = {
            "milliseconds": {reader: round(1000 * median(times), 1) for reader, times in runs.items()},
            "times the processor time of this reader": _ratios(runs, "dicom-node"),
        }
        path.unlink()
    return found


def _indexers(path: Path, frames: int, *, sparse: bool) -> Iterator[tuple[str, Task]]:
    def ours() -> None:
        with closing(SlideFile(path)) as file:
            find_frames(file, frames, 0)
            if sparse:
                read_places(file, frames)

    def by_pydicom() -> None:
        from pydicom import dcmread
        from pydicom.encaps import parse_basic_offsets, parse_fragments

        with path.open("rb") as file:
            ds = dcmread(file, stop_before_pixels=True)
            if sparse:
                for group in ds.PerFrameFunctionalGroupsSequence:
                    place = group.PlanePositionSlideSequence[0]
                    _ = place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix
            file.seek(12, 1)
            if not parse_basic_offsets(file) and "ExtendedOffsetTable" not in ds:
                parse_fragments(file)

    yield "dicom-node", ours
    yield "pydicom", by_pydicom
    if find_spec("wsidicom"):
        yield "wsidicom, with the first frame's bytes", lambda: _first_tile_by_wsidicom(path)


def _first_tile_by_wsidicom(path: Path) -> None:
    from wsidicom import WsiDicom

    with WsiDicom.open(path) as theirs, suppress(Exception):  # the frame is blank, and no image
        theirs.read_encoded_tile(0, (0, 0))


# ---- parts --------------------------------------------------------------------------------------------


def _in_turn(tasks: Mapping[str, Task], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each task in each round; a first round warms up and does not count."""
    runs: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, task in tasks.items():
            begun = time.process_time()
            task()
            if number:
                runs[name].append(time.process_time() - begun)
    return runs


def _ratios(runs: Mapping[str, list[float]], reference: str) -> dict[str, str]:
    """`median (least to most)` over the rounds."""
    found = {}
    for name, times in runs.items():
        if name == reference:
            continue
        ratios = [one / other for one, other in zip(times, runs[reference], strict=True)]
        found[name] = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, n={len(ratios)})"
    return found


def _write(path: Path, spec: SlideSpec, count: int, frames: Iterator[bytes], *, sparse: bool = False) -> None:
    rows, columns = spec.size(0)
    instance = Instance(
        "VOLUME", 1, 0, rows, columns, spec.tile, spec.tile, (0,), spec.spacing_mm(0), count, sparse=sparse
    )
    places = _places(spec, count) if sparse else None
    write_frames(
        path, data_set(spec, instance), islice(frames, count), table=spec.offset_table, places=places
    )


def _places(spec: SlideSpec, count: int) -> Places:
    row, column = np.divmod(np.arange(count, dtype=np.int32), np.int32(spec.grid(0)[1]))
    offsets = np.tile(np.array(origin(spec, spec.spacing_mm(0), 0)), (count, 1))
    offsets[:, 0] -= row * (spec.tile * spec.spacing_mm(0))
    offsets[:, 1] -= column * (spec.tile * spec.spacing_mm(0))
    return Places(column, row, np.zeros(count, np.int32), offsets, (spec.tile, spec.tile))


def _slide(path: Path) -> Slide:
    slides, _, refusals = read_slides([stored(path)])
    if not slides:
        raise DicomNodeError(f"the benchmark's slide is refused: {refusals}")
    return slides[0]


def _cells(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames that compress as a stained smear does: cells with nuclei on pale ground, and grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_TILE, :_TILE].astype(np.float32)
    for _ in range(count):
        image = np.full((_TILE, _TILE, 3), (235, 232, 238), np.float32)
        for _ in range(18):
            away = np.hypot(x - rng.uniform(0, _TILE), (y - rng.uniform(0, _TILE)) * rng.uniform(0.7, 1.3))
            stain = rng.choice(np.array([[200, 160, 190], [150, 190, 205], [225, 170, 160]], np.float32))
            for reach, soft, weight, colour in (
                (rng.uniform(18, 45), 2.0, 0.55, stain),
                (rng.uniform(4, 11), 0.8, 0.9, np.array([70, 50, 110], np.float32)),
            ):
                share = weight / (1 + np.exp(np.clip((away - reach) / soft, -30, 30)))[..., None]
                image = image * (1 - share) + colour * share
        image += rng.normal(0, 2.5, image.shape)
        yield np.clip(image, 0, 255).astype(np.uint8)
