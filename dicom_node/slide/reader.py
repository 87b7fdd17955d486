"""Reads a slide's pixels: any tile or region of any level, focal plane and optical path.

Frames are found by an index that is made when a file is first needed, read by position and decoded
where the caller asks, so that any number of threads may read one slide at once. Memory does not
grow with the slide, only its index does: some 20 bytes per frame. A file is compared with its
digest before its first frame is used.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from dicom_node.digest import is_digest_of
from dicom_node.domain.slide import Slide, SlideLevel, SlidePart
from dicom_node.errors import IntegrityError, InvalidValue, UnreadableObject
from dicom_node.slide.decode import READ, SCALES, Coding, Image, averaged, decode, reduced
from dicom_node.slide.file import SlideFile
from dicom_node.slide.index import Frames, find_frames
from dicom_node.slide.sparse import Places, read_places

MOST_REGION_PIXELS = 1 << 28
"""Of one region."""
MOST_TILES = 1 << 24
"""Of one focal plane of a level."""
MOST_TILE_PIXELS = 1 << 26
"""Of one frame: 8192 x 8192."""
_STRIP_PIXELS = 1 << 24
_WHITE = 255


@dataclass(frozen=True, slots=True)
class _Source:
    """One open instance: its frames, and where they lie if it says so."""

    file: SlideFile
    coding: Coding
    frames: Frames
    places: Places | None


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The frames of one focal plane and optical path of a level, by tile number (row by row)."""

    sources: tuple[_Source, ...]
    source: npt.NDArray[np.uint16]
    offsets: npt.NDArray[np.uint64]
    spans: npt.NDArray[np.uint32]
    """0 where there is no frame."""


class SlideReader:
    """An open slide. Safe to read from several threads; `close` when none reads any more."""

    def __init__(self, slide: Slide, *, verify: bool = True) -> None:
        self._slide, self._verify = slide, verify
        self._lock = threading.Lock()  # guards the three below
        self._sources: dict[Path, _Source] = {}
        self._sheets: dict[tuple[int, int, int], _Sheet] = {}
        self._closed = False

    @property
    def slide(self) -> Slide:
        return self._slide

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for source in self._sources.values():
                source.file.close()
            self._sources.clear()
            self._sheets.clear()

    def lengths(self, level: int, plane: int = 0, path: int = 0) -> npt.NDArray[np.uint32]:
        """(tile rows, tile columns) bytes of each compressed frame; 0 where there is none."""
        sheet = self._sheet(level, plane, path)
        heads = np.array([8 * source.frames.encapsulated for source in sheet.sources], np.uint32)
        found = np.where(sheet.spans > 0, sheet.spans - heads[sheet.source], 0)
        return found.astype(np.uint32).reshape(self._slide.levels[level].tile_grid)

    def tiles(
        self, level: int, rows: npt.ArrayLike, columns: npt.ArrayLike, plane: int = 0, path: int = 0, *,
        scale: int = 1, out: Image | None = None,
    ) -> Image:  # fmt: skip
        """(n, tile rows / scale, tile columns / scale, 3); what is not there, or outside the level, is white.

        A side that `scale` does not divide is rounded up.
        """
        if scale not in SCALES:
            raise InvalidValue(f"scale {scale} is none of 1, 2, 4, 8")
        sheet, at = self._sheet(level, plane, path), self._slide.levels[level]
        numbers = _tile_numbers(at, rows, columns)
        shape = (len(numbers), reduced(at.tile_rows, scale), reduced(at.tile_columns, scale), 3)
        if out is None:
            if shape[0] * shape[1] * shape[2] > MOST_REGION_PIXELS:
                raise InvalidValue(f"{shape[0]} tiles are more than are read at a time")
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise InvalidValue(f"tiles are written to contiguous uint8 of {shape}, not to {out.shape}")
        for k, number in enumerate(numbers.tolist()):
            self._tile(sheet, at, level, number, scale, out[k])
        return out

    def region(
        self, level: int, left: int, top: int, width: int, height: int, plane: int = 0, path: int = 0
    ) -> Image:
        """(height, width, 3) of a level's pixels; outside it, and where nothing was scanned, white."""
        return self._region(level, (left, top), (width, height), plane, path, scale=1)

    def thumbnail(self, longest: int = 1024) -> Image:
        """The whole slide on its middle focal plane, its longer side `longest` pixels or less."""
        if longest < 1:
            raise InvalidValue("a thumbnail has one pixel at least")
        sizes = [max(level.rows, level.columns) for level in self._slide.levels]
        level = max((k for k, size in enumerate(sizes) if size >= longest), default=len(sizes) - 1)
        return self._shrunk(level, _whole_factor(-(-sizes[level] // longest)))

    def _shrunk(self, number: int, factor: int) -> Image:
        """A level by an integer factor: frames reduced as they are decoded, then averaged, strip by strip."""
        level = self._slide.levels[number]
        scale = max(
            s for s in SCALES
            if factor % s == 0 and (s == 1 or not (level.tile_rows % s or level.tile_columns % s))
        )  # fmt: skip
        rest, width = factor // scale, reduced(level.columns, scale)
        rows, columns = reduced(level.rows, factor), reduced(level.columns, factor)
        out = np.empty((rows, columns, 3), np.uint8)
        per_strip = max(1, _STRIP_PIXELS // max(1, width * rest))
        for first in range(0, rows, per_strip):
            count = min(per_strip, rows - first)
            corner, size = (0, first * rest), (columns * rest, count * rest)
            strip = self._region(number, corner, size, len(level.planes_um) // 2, 0, scale=scale)
            out[first : first + count] = _mean(strip, rest)
        return out

    def _region(
        self, level: int, corner: tuple[int, int], size: tuple[int, int], plane: int, path: int, *, scale: int
    ) -> Image:
        """As `region`, in pixels of the level reduced by `scale`, which divides the tiles' sides."""
        (left, top), (width, height) = corner, size
        if width < 1 or height < 1 or width * height > MOST_REGION_PIXELS:
            raise InvalidValue(f"a region of {width} x {height} pixels is none that can be read")
        sheet = self._sheet(level, plane, path)
        at = self._slide.levels[level]
        tile_rows, tile_columns = at.tile_rows // scale, at.tile_columns // scale
        across = at.tile_grid[1]
        out = np.full((height, width, 3), _WHITE, np.uint8)
        tile = np.empty((tile_rows, tile_columns, 3), np.uint8)
        for row in _touched(top, height, tile_rows, at.tile_grid[0]):
            for column in _touched(left, width, tile_columns, across):
                number = row * across + column
                if not sheet.spans[number]:
                    continue
                self._tile(sheet, at, level, number, scale, tile)
                y, x = row * tile_rows - top, column * tile_columns - left
                (ys, from_y), (xs, from_x) = _overlap(y, tile_rows, height), _overlap(x, tile_columns, width)
                out[ys, xs] = tile[from_y, from_x]
        return out

    def _tile(self, sheet: _Sheet, at: SlideLevel, level: int, number: int, scale: int, out: Image) -> None:
        span = int(sheet.spans[number])
        if not span:
            out[:] = _WHITE
            return
        source = sheet.sources[int(sheet.source[number])]
        try:
            frame = _frame(source, int(sheet.offsets[number]), span)
            decode(frame, source.coding, scale, out)
        except UnreadableObject as error:
            row, column = divmod(number, at.tile_grid[1])
            raise UnreadableObject(f"level {level}, tile {row}, {column}: {error}") from error
        row, column = divmod(number, at.tile_grid[1])
        over_rows = (row + 1) * at.tile_rows - at.rows
        over_columns = (column + 1) * at.tile_columns - at.columns
        if over_rows > 0:
            out[reduced(at.tile_rows - over_rows, scale) :] = _WHITE
        if over_columns > 0:
            out[:, reduced(at.tile_columns - over_columns, scale) :] = _WHITE

    # ---- the index ------------------------------------------------------------------------------

    def _sheet(self, level: int, plane: int, path: int) -> _Sheet:
        found = self._sheets.get((level, plane, path))
        if found is not None:
            return found
        levels = self._slide.levels
        if not 0 <= level < len(levels):
            raise InvalidValue(f"the slide has no level {level}")
        at = levels[level]
        if not 0 <= plane < len(at.planes_um) or not 0 <= path < len(at.optical_paths):
            raise InvalidValue(f"level {level} has no focal plane {plane} or no optical path {path}")
        with self._lock:
            if self._closed:
                raise UnreadableObject("the slide was closed")
            if (level, plane, path) not in self._sheets:
                try:
                    self._sheets[level, plane, path] = self._made(at, plane, path)
                except UnreadableObject as error:
                    raise UnreadableObject(f"level {level}: {error}") from error
            return self._sheets[level, plane, path]

    def _made(self, level: SlideLevel, plane: int, path: int) -> _Sheet:
        rows, columns = level.tile_grid
        if rows * columns > MOST_TILES or level.tile_rows * level.tile_columns > MOST_TILE_PIXELS:
            raise UnreadableObject(
                f"{rows} x {columns} tiles, or their pixels, are more than this node reads"
            )
        parts = [part for part in level.parts if _holds(part, plane, path)]
        sources = tuple(self._source(part, level) for part in parts)
        if len(sources) == 1 and parts[0].tiled_full and parts[0].first_frame == 0:
            frames = sources[0].frames
            begin = _first_of(parts[0], plane, path) * rows * columns
            if begin + rows * columns <= len(frames.spans):
                cut = slice(begin, begin + rows * columns)
                which = np.broadcast_to(np.uint16(0), rows * columns)
                return _Sheet(sources, which, frames.offsets[cut], _without_empty(frames, cut))
        source = np.zeros(rows * columns, np.uint16)
        offsets, spans = np.zeros(rows * columns, np.uint64), np.zeros(rows * columns, np.uint32)
        heights = _heights(parts, sources)
        for k, (part, one) in enumerate(zip(parts, sources, strict=True)):
            tiles, numbers = _tiles_of(part, one, level, plane, path, heights)
            source[tiles] = k
            offsets[tiles] = one.frames.offsets[numbers]
            spans[tiles] = _without_empty(one.frames, numbers)
        return _Sheet(sources, source, offsets, spans)

    def _source(self, part: SlidePart, level: SlideLevel) -> _Source:
        if part.path in self._sources:
            return self._sources[part.path]
        if self._verify:
            _check_digest(part)
        file = SlideFile(part.path)
        try:
            coding = _coding(file, part, level)
            frames = find_frames(file, part.frames, coding.native_bytes)
            places = None if part.tiled_full else read_places(file, part.frames)
        except BaseException:
            file.close()
            raise
        found = self._sources[part.path] = _Source(file, coding, frames, places)
        return found


def open_slide(slide: Slide, *, verify: bool = True) -> SlideReader:
    """A reader of `slide`; files are opened, and compared with their digests, when first needed.

    Its methods raise UnreadableObject where a frame cannot be had, IntegrityError where a file is not
    what was received, InvalidValue for a level, plane, path, tile or region that cannot be.
    """
    return SlideReader(slide, verify=verify)


def _check_digest(part: SlidePart) -> None:
    try:
        same = is_digest_of(part.digest, part.path)
    except OSError as error:
        raise UnreadableObject(f"the file cannot be read ({type(error).__name__})") from error
    if not same:
        raise IntegrityError


def _coding(file: SlideFile, part: SlidePart, level: SlideLevel) -> Coding:
    """What the file itself says, which must be what the level says."""
    if file.syntax not in READ or file.syntax != part.transfer_syntax_uid:
        raise UnreadableObject(f"transfer syntax {file.syntax[:64]} is not read")
    stated = {
        "rows": (file.number(0x00280010), level.tile_rows),
        "columns": (file.number(0x00280011), level.tile_columns),
        "frames": (file.number(0x00280008, 1), part.frames),
        "samples per pixel": (file.number(0x00280002, 1), level.samples_per_pixel),
        "bits": (file.number(0x00280100, 8), 8),
    }
    for name, (said, expected) in stated.items():
        if said != expected or said < 1:
            raise UnreadableObject(f"the file has {said} {name}, not {expected}")
    photometric = file.text(0x00280004)
    rows, columns, samples = level.tile_rows, level.tile_columns, level.samples_per_pixel
    return Coding(file.syntax, rows, columns, samples, photometric, planar=file.number(0x00280006))


def _frame(source: _Source, at: int, span: int) -> bytes:
    """The bytes of one frame, out of its items where it is encapsulated."""
    found = source.file.read(at, span)
    if not source.frames.encapsulated:
        return found
    pieces, begin = [], 0
    while begin + 8 <= span:
        length = int.from_bytes(found[begin + 4 : begin + 8], "little")
        if found[begin : begin + 4] != b"\xfe\xff\x00\xe0" or begin + 8 + length > span:
            break
        pieces.append(found[begin + 8 : begin + 8 + length])
        begin += 8 + length
    if not pieces:
        raise UnreadableObject("no frame is where the offset table says")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _without_empty(frames: Frames, which: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Spans, 0 where a frame has no bytes: some writers leave glass out so."""
    spans = frames.spans[which]
    return np.where(spans > 8, spans, 0).astype(np.uint32) if frames.encapsulated else spans


def _holds(part: SlidePart, plane: int, path: int) -> bool:
    return 0 <= plane - part.first_plane < part.planes and 0 <= path - part.first_path < part.paths


def _first_of(part: SlidePart, plane: int, path: int) -> int:
    """How many planes of tiles stand before this one: planes within paths (PS3.3 C.7.6.17.3)."""
    return (path - part.first_path) * part.planes + plane - part.first_plane


def _heights(parts: Sequence[SlidePart], sources: Sequence[_Source]) -> dict[int, npt.NDArray[np.float64]]:
    """The different z offsets, ascending, among the parts that begin with each plane."""
    heights: dict[int, npt.NDArray[np.float64]] = {}
    for part, source in zip(parts, sources, strict=True):
        if source.places is not None and source.places.z is not None:
            known = heights.get(part.first_plane, np.zeros(0))
            heights[part.first_plane] = np.union1d(known, source.places.z)
    return heights


def _tiles_of(
    part: SlidePart, source: _Source, level: SlideLevel, plane: int, path: int,
    heights: dict[int, npt.NDArray[np.float64]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:  # fmt: skip
    """(numbers of tiles, numbers of the frames of this part that show them)."""
    rows, columns = level.tile_grid
    if part.tiled_full:
        begin = _first_of(part, plane, path) * rows * columns - part.first_frame
        frames = np.arange(max(begin, 0), min(begin + rows * columns, part.frames), dtype=np.int64)
        return frames - begin, frames
    places = source.places
    if places is None:
        if (part.frames, rows, columns) != (1, 1, 1):
            raise UnreadableObject("its frames say no place")
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    row, column = np.divmod(places.row, level.tile_rows), np.divmod(places.column, level.tile_columns)
    if row[1].any() or column[1].any():
        raise UnreadableObject("its frames do not lie on a grid of tiles")
    ours = (row[0] >= 0) & (row[0] < rows) & (column[0] >= 0) & (column[0] < columns)
    if not ours.all():
        raise UnreadableObject("a frame lies outside the slide")
    if places.z is not None and part.first_plane in heights:
        ours &= np.searchsorted(heights[part.first_plane], places.z) == plane - part.first_plane
    if places.path is not None and len(level.optical_paths) > 1:
        ours &= places.path == level.optical_paths[path].encode().replace(b" ", b"\0")
    frames = np.flatnonzero(ours)
    return row[0][frames] * columns + column[0][frames], frames


def _tile_numbers(level: SlideLevel, rows: npt.ArrayLike, columns: npt.ArrayLike) -> npt.NDArray[np.int64]:
    row, column = np.broadcast_arrays(np.atleast_1d(rows), np.atleast_1d(columns))
    down, across = level.tile_grid
    inside = (row >= 0) & (row < down) & (column >= 0) & (column < across)
    if row.ndim != 1 or not inside.all():
        raise InvalidValue(f"a tile outside the {down} x {across} of the level")
    return np.asarray(row, np.int64) * across + np.asarray(column, np.int64)


def _touched(begin: int, length: int, tile: int, count: int) -> range:
    """Tiles of one direction that `length` pixels from `begin` on touch."""
    return range(max(0, begin // tile), min(count, -(-(begin + length) // tile)))


def _overlap(at: int, tile: int, length: int) -> tuple[slice, slice]:
    """(where in the region, where in the tile) for a tile that begins at `at` of the region."""
    begin, end = max(at, 0), min(at + tile, length)
    return slice(begin, end), slice(begin - at, end - at)


def _whole_factor(factor: int) -> int:
    """The next integer that decoders can do a good part of."""
    step = max(scale for scale in SCALES if scale == 1 or 4 * scale <= factor)
    return -(-factor // step) * step


def _mean(image: Image, factor: int) -> Image:
    if factor in SCALES:
        return averaged(image, factor)
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    sums = image.reshape(rows, factor, columns, factor, 3).sum(axis=(1, 3), dtype=np.uint32)
    return np.asarray((sums + factor * factor // 2) // (factor * factor), np.uint8)
