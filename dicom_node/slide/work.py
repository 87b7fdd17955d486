"""The pixels of a slide in the order of the work: bands for a finder, windows for a classifier.

Each frame is decoded once, by threads, a few ahead of who uses them; what straddles frames is put
together as they come. Memory grows neither with the slide nor with what is found on it: where the squares
begun at a time would be too many, a slide is swept in strips, and frames between strips are decoded twice.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from dicom_node.domain.slide import OpenSlide
from dicom_node.slide.plan import Grid, Mask, Places, View, choose, everything, sharpest, view_of

Image = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

BATCH = 64
"""Windows in a batch."""
_WHITE = 255
_CHUNK_BYTES = 12 << 20
_PER_TASK = 16
_PENDING_BYTES = 96 << 20
_RESAMPLED_BEYOND = 0.05


@dataclass(frozen=True, slots=True)
class Band:
    """Rows of a view over its whole width, for a finder: what is centred in `own` is this band's."""

    number: int
    view: View
    top: int
    """Row of the view that is the image's first."""
    image: Image
    """(rows, columns, 3); white where nothing was decoded."""
    own: tuple[int, int]
    """First row of the image and the one behind the last whose centres no other band has."""
    runs: tuple[tuple[int, int], ...]
    """(first column, the one behind the last) of the view where something was decoded."""

    def onto_base(self, places: npt.ArrayLike) -> Places:
        """(n, 2) places (column, row) on the image, in pixels of the finest level."""
        return self.view.onto_base(np.add(np.reshape(places, (-1, 2)), (0.0, self.top)))


def bands_of(view: View) -> int:
    """How many bands a view has."""
    return view.grid[0]


def bands(
    reader: OpenSlide, um_per_px: float, *, overlap_px: int = 64, plane: int | str | None = None,
    mask: Mask | None = None, first: int = 0, threads: int | None = None,
) -> Iterator[Band]:  # fmt: skip
    """Bands of one row of tiles each, from top to bottom, each overlapping the one above it.

    `plane` is a focal plane, `"sharpest"` that of each tile which has most detail, or the middle one.
    `first` is the band to begin with, as if those before it had been done: it is the same band.
    """
    view = choose(reader.slide, um_per_px)
    kept = (mask or everything(reader.slide)).tiles(view)
    planes = _planes(reader, view, plane)
    above = min(overlap_px, view.tile_rows)
    before = np.zeros((0, view.columns, 3), np.uint8)
    start = max(0, first - 1)  # for what the first band sees of the row above it
    rows = [np.flatnonzero(kept[row]) for row in range(start, view.grid[0])]
    chunks = _row_chunks(view, rows, planes, start)
    decoded = _decoded(reader, view, (chunk for row in chunks for chunk in row), threads)
    for row, parts in enumerate(chunks, start):
        top = row * view.tile_rows
        height = min(view.tile_rows, view.rows - top)
        image = np.full((len(before) + height, view.columns, 3), _WHITE, np.uint8)
        image[: len(before)] = before
        for chunk in parts:
            _lay(image[len(before) :], view, chunk, next(decoded))
        if row >= first:
            last = row == view.grid[0] - 1
            own = (0 if row == 0 else len(before) - above // 2, len(image) - (0 if last else above // 2))
            runs = _runs(kept[row] | (kept[row - 1] if row else False), view)
            yield Band(row, view, top - len(before), image, own, runs)
        before = image[-above:].copy() if above else image[:0]


def crops(
    reader: OpenSlide, level: int, centres_px: npt.ArrayLike, planes: Sequence[int], size_px: int,
    out_px: int, *, first: int = 0, batch: int = BATCH, threads: int | None = None,
) -> Iterator[tuple[Ints, Image]]:  # fmt: skip
    """(indices into `centres_px`, (k, planes, out_px, out_px, 3)) of squares around places, batch by batch.

    `centres_px` is (n, 2) (column, row) pixels of the level, `size_px` the square's side on it. A square
    begins at the whole pixel nearest to where it should. The order is that of the frames, and depends on
    the places alone: with `first`, batches from that number on are those that there would have been.
    """
    scale = next(
        (
            one for one in (8, 4, 2)
            if size_px >= one * out_px and not (reader.slide.levels[level].tile_rows % one)
            and not reader.slide.levels[level].tile_columns % one
        ),
        1,
    )  # fmt: skip
    view = view_of(reader.slide, level, scale)
    side = max(1, round(size_px / scale))
    centres = np.asarray(centres_px, np.float64).reshape(-1, 2) / scale
    corners = np.floor(centres - side / 2 + 0.5).astype(np.int64)
    sweep = _Sweep(reader, view, corners, tuple(planes), side, out_px, batch)
    return sweep.batches(first, threads)


def crops_at(
    reader: OpenSlide, level: int, centres_px: npt.ArrayLike, plane_of: npt.ArrayLike, size_px: int,
    out_px: int, *, batch: int = BATCH, threads: int | None = None,
) -> Iterator[tuple[Ints, Image]]:  # fmt: skip
    """As `crops`, each square on a focal plane of its own, (n,): (indices, (k, out_px, out_px, 3)).

    With `plan.planes_at` that is the sharpest there, for what one plane costs.
    """
    centres, planes = np.asarray(centres_px, np.float64).reshape(-1, 2), np.asarray(plane_of, np.int64)
    for plane in np.unique(planes).tolist():
        these = np.flatnonzero(planes == plane)
        some = crops(reader, level, centres[these], (plane,), size_px, out_px, batch=batch, threads=threads)
        for indices, images in some:
            yield these[indices], images[:, 0]


def patches(
    reader: OpenSlide, um_per_px: float, patch_px: int, step_px: int, mask: Mask | None = None, *,
    plane: int | None = None, first: int = 0, batch: int = BATCH, threads: int | None = None,
) -> Iterator[tuple[Places, Image]]:  # fmt: skip
    """(places (k, 2), (k, patch_px, patch_px, 3)): squares on a grid over the slide, where the mask is.

    A place is a patch's upper left corner, (column, row) in pixels of the finest level. `um_per_px` is met
    within a twentieth, else patches are resampled.
    """
    view = choose(reader.slide, um_per_px)
    corners, side = grid_of(reader, view, um_per_px, patch_px, step_px, mask)
    planes = reader.slide.levels[view.level].planes_um
    sweep = _Sweep(
        reader, view, corners, (len(planes) // 2 if plane is None else plane,), side, patch_px, batch
    )  # fmt: skip
    for indices, images in sweep.batches(first, threads):
        yield view.onto_base(corners[indices]), images[:, 0]


def grid_of(
    reader: OpenSlide, view: View, um_per_px: float, patch_px: int, step_px: int, mask: Mask | None
) -> tuple[Ints, int]:
    """The upper left corners of `patches`, in pixels of the view; and a patch's side there."""
    factor = um_per_px / (sum(view.um_per_px) / 2)
    if abs(factor - 1) <= _RESAMPLED_BEYOND:
        factor = 1.0
    side, step = max(1, round(patch_px * factor)), max(1, round(step_px * factor))
    top, left = np.meshgrid(np.arange(0, view.rows, step), np.arange(0, view.columns, step), indexing="ij")
    corners = np.stack([left.ravel(), top.ravel()], axis=1).astype(np.int64)
    if mask is None:
        return corners, side
    x, y = view.onto_base(corners).T
    return corners[mask.touches(x, y, side * view.base_px[1], side * view.base_px[0])], side


class _Sweep:
    """Squares of one size on a view, put together while its frames come by in order.

    Mutable while `batches` runs: what of each square is still missing, and the squares begun.
    """

    def __init__(
        self, reader: OpenSlide, view: View, corners: Ints, planes: tuple[int, ...], side: int, out_px: int,
        batch: int,
    ) -> None:  # fmt: skip
        self._reader, self._view, self._planes = reader, view, planes
        self._corners, self._side, self._out, self._batch = corners, side, out_px, batch
        there = np.zeros(view.grid, np.bool_)
        for plane in planes:
            there |= reader.lengths(view.level, plane) > 0
        self._there = there
        self._strip_columns = self._strips()
        self._windows, self._keys = self._pairs()
        last = np.full(len(corners), -1, np.int64)
        np.maximum.at(last, self._windows, self._keys)
        self.order: Ints = np.lexsort((np.arange(len(corners)), last))

    def batches(self, first: int, threads: int | None) -> Iterator[tuple[Ints, Image]]:
        order = self.order[first * self._batch :]
        wanted = np.zeros(len(self._corners), np.bool_)
        wanted[order] = True
        chosen = wanted[self._windows]
        windows, keys = self._windows[chosen], self._keys[chosen]
        missing = np.bincount(windows, minlength=len(self._corners))
        tiles, begins = np.unique(keys, return_index=True)
        ends = np.append(begins[1:], len(keys))
        chunks = list(self._chunks(tiles))
        begun: dict[int, Image] = {}
        ready, at, tile = 0, 0, 0
        out = self._fresh(len(order))
        for chunk, images in zip(
            chunks, _decoded(self._reader, self._view, chunks, threads), strict=True
        ):  # fmt: skip
            count = len(chunk.rows) // len(self._planes)
            stacked = images.reshape(len(self._planes), count, *images.shape[1:])
            for k in range(count):
                for window in windows[begins[tile] : ends[tile]].tolist():
                    self._paste(begun, window, chunk.rows[k], chunk.columns[k], stacked[:, k])
                    missing[window] -= 1
                tile += 1
                while at < len(order) and not missing[order[at]]:
                    self._put(out[ready], begun.pop(int(order[at]), None))
                    at, ready = at + 1, ready + 1
                    if ready == len(out):
                        yield order[at - ready : at], out
                        ready, out = 0, self._fresh(len(order) - at)
        while at < len(order):  # no frame at all under them: white
            self._put(out[ready], None)
            at, ready = at + 1, ready + 1
            if ready == len(out):
                yield order[at - ready : at], out
                ready, out = 0, self._fresh(len(order) - at)

    def _fresh(self, left: int) -> Image:
        return np.empty((min(self._batch, left), len(self._planes), self._out, self._out, 3), np.uint8)

    def _strips(self) -> int:
        """Tile columns swept at a time: fewer where the squares begun in one row would fill the memory."""
        each = len(self._planes) * self._side**2 * 3
        rows = self._corners[:, 1] // self._view.tile_rows
        most = int(np.bincount(rows - rows.min()).max()) if len(rows) else 0
        deep = 1 + -(-self._side // self._view.tile_rows)
        strips = max(1, -(-deep * most * each // _PENDING_BYTES))
        return max(2, -(-self._view.grid[1] // strips))

    def _pairs(self) -> tuple[Ints, Ints]:
        """(square, key of a frame under it) for all of them, by key; keys are in the order of the sweep."""
        view, corners = self._view, self._corners
        ends = corners + self._side - 1
        first = np.clip(corners // (view.tile_columns, view.tile_rows), 0, None)
        last = np.minimum(ends // (view.tile_columns, view.tile_rows), (view.grid[1] - 1, view.grid[0] - 1))
        most = (last - first).max(axis=0, initial=-1) + 1
        windows, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        strip = first[:, 0] // self._strip_columns
        for down in range(int(most[1])):
            for across in range(int(most[0])):
                row, column = first[:, 1] + down, first[:, 0] + across
                inside = np.flatnonzero((row <= last[:, 1]) & (column <= last[:, 0]))
                there = inside[self._there[row[inside], column[inside]]]
                windows.append(there)
                keys.append((strip[there] * view.grid[0] + row[there]) * view.grid[1] + column[there])
        every, key = np.concatenate(windows), np.concatenate(keys)
        order = np.lexsort((every, key))
        return every[order], key[order]

    def _chunks(self, tiles: Ints) -> Iterator[_Chunk]:
        view, planes = self._view, np.asarray(self._planes, np.int64)
        each = view.tile_rows * view.tile_columns * 3 * len(planes)
        per_chunk = max(1, _CHUNK_BYTES // each)
        for start in range(0, len(tiles), per_chunk):
            row, column = np.divmod(tiles[start : start + per_chunk], view.grid[1])
            row %= view.grid[0]
            yield _Chunk(np.tile(row, len(planes)), np.tile(column, len(planes)), np.repeat(planes, len(row)))

    def _paste(self, begun: dict[int, Image], window: int, row: int, column: int, tiles: Image) -> None:
        """`tiles` is (planes, tile rows, tile columns, 3)."""
        square = begun.get(window)
        if square is None:
            square = np.full((len(self._planes), self._side, self._side, 3), _WHITE, np.uint8)
            begun[window] = square
        x, y = self._corners[window].tolist()
        top, left = int(row) * self._view.tile_rows - y, int(column) * self._view.tile_columns - x
        ys, from_y = _overlap(top, tiles.shape[1], self._side)
        xs, from_x = _overlap(left, tiles.shape[2], self._side)
        square[:, ys, xs] = tiles[:, from_y, from_x]

    def _put(self, out: Image, square: Image | None) -> None:
        if square is None:
            out[:] = _WHITE
        elif self._side == self._out:
            out[:] = square
        else:
            for plane, one in enumerate(square):
                size = (self._out, self._out)
                out[plane] = np.asarray(Pillow.fromarray(one).resize(size, Pillow.Resampling.BILINEAR))


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Frames decoded together: three arrays of one length."""

    rows: Ints
    columns: Ints
    planes: Ints


def _decoded(reader: OpenSlide, view: View, chunks: Iterable[_Chunk], threads: int | None) -> Iterator[Image]:
    """(frames, tile rows, tile columns, 3) of each chunk, valid until the next is asked for.

    The next chunk is decoded while this one is used. Raises what the reader raises.
    """
    ring: list[Image] = []
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "decode") as pool:
        under_way: deque[tuple[Image, list[Future[None]]]] = deque()
        try:
            for number, chunk in enumerate(chunks):
                if len(ring) < 2 or len(ring[number % 2]) < len(chunk.rows):
                    fresh = np.empty((len(chunk.rows), view.tile_rows, view.tile_columns, 3), np.uint8)
                    ring[number % 2 : number % 2 + 1] = [fresh]
                buffer = ring[number % 2][: len(chunk.rows)]
                tasks = [pool.submit(_decode, reader, view, chunk, cut, buffer) for cut in _cuts(len(buffer))]
                under_way.append((buffer, tasks))
                if len(under_way) == 2:
                    yield _whole(*under_way.popleft())
            while under_way:
                yield _whole(*under_way.popleft())
        finally:
            for _, tasks in under_way:
                for task in tasks:
                    task.cancel()


def _cuts(count: int) -> Iterator[slice]:
    return (slice(start, min(count, start + _PER_TASK)) for start in range(0, count, _PER_TASK))


def _whole(buffer: Image, tasks: Sequence[Future[None]]) -> Image:
    for task in tasks:
        task.result()
    return buffer


def _decode(reader: OpenSlide, view: View, chunk: _Chunk, cut: slice, buffer: Image) -> None:
    """A few frames into their place; those of one focal plane by one call."""
    planes = chunk.planes[cut]
    edges = [0, *(np.flatnonzero(np.diff(planes)) + 1).tolist(), len(planes)]
    for begin, end in pairwise(edges):
        some = slice(cut.start + begin, cut.start + end)
        reader.tiles(
            view.level, chunk.rows[some], chunk.columns[some], int(planes[begin]), scale=view.scale,
            out=buffer[some],
        )  # fmt: skip


def _row_chunks(view: View, rows: Sequence[Ints], planes: Ints, start: int) -> list[list[_Chunk]]:
    """For each row of tiles the chunks of its kept columns."""
    per_chunk = max(1, _CHUNK_BYTES // (view.tile_rows * view.tile_columns * 3))
    found = []
    for row, columns in enumerate(rows, start):
        parts = [columns[at : at + per_chunk] for at in range(0, len(columns), per_chunk)]
        found.append([_Chunk(np.full(len(some), row), some, planes[row, some]) for some in parts])
    return found


def _lay(image: Image, view: View, chunk: _Chunk, tiles: Image) -> None:
    for column, tile in zip(chunk.columns.tolist(), tiles, strict=True):
        left = column * view.tile_columns
        place = image[:, left : left + view.tile_columns]
        place[:] = tile[: place.shape[0], : place.shape[1]]


def _planes(reader: OpenSlide, view: View, plane: int | str | None) -> Ints:
    if plane == "sharpest":
        return sharpest(reader, view.level).astype(np.int64)
    middle = len(reader.slide.levels[view.level].planes_um) // 2
    return np.full(view.grid, middle if plane is None else int(plane), np.int64)


def _runs(kept: Grid, view: View) -> tuple[tuple[int, int], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    return tuple(
        (int(begin) * view.tile_columns, min(view.columns, int(end) * view.tile_columns))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    )


def _overlap(at: int, length: int, room: int) -> tuple[slice, slice]:
    """Where `length` pixels that begin at `at` lie in `room` pixels: (there, of them)."""
    begin, end = max(0, at), min(room, at + length)
    return slice(begin, end), slice(begin - at, end - at)
