"""Write a generated slide as VL Whole Slide Microscopy Images (PS3.3 A.32.8), and say what was written.

Pyramid levels, thumbnail, overview and label of one slide are one series. UIDs are derived and dates
fixed, so the same slide gives the same bytes. Memory does not grow with the slide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

from dicom_node.train.phantoms.slides import pictures
from dicom_node.train.phantoms.slides.elements import Flavour, Instance, Stands, data_set, origin, planes_of
from dicom_node.train.phantoms.slides.scene import Scene
from dicom_node.train.phantoms.slides.spec import Layout, SlideSpec
from dicom_node.train.phantoms.slides.stream import Places, write_frames

_KEPT = 4096
"""Encoded tiles without cells that are kept to be written again."""


def write_slide(scene: Scene, out: Path) -> list[Path]:
    """All instances of a slide in `out`, which is made: levels, finest first, then the pictures beside."""
    out.mkdir(parents=True, exist_ok=True)
    writer = _Writer(scene, out)
    for level in range(scene.spec.levels):
        for planes in planes_of(scene.spec):
            writer.level(level, planes)
    for flavour, picture, spacing_mm, stands in pictures.pictures(scene):
        writer.picture(flavour, picture, spacing_mm, stands)
    return writer.paths


class _Writer:
    """Numbers instances, and keeps encoded tiles that come again."""

    def __init__(self, scene: Scene, out: Path) -> None:
        self.scene, self.spec, self.out = scene, scene.spec, out
        self.paths: list[Path] = []
        self._empty: dict[tuple[int, int, int, int], bytes] = {}

    def level(self, level: int, planes: tuple[int, ...]) -> None:
        """One level, or one plane of it, in one instance or cut into a concatenation."""
        spec, sparse = self.spec, self.spec.layout is Layout.SPARSE
        rows, columns = spec.size(level)
        tiles = self._tiles(level, sparse=sparse)
        order = _sparse_order(tiles, planes) if sparse else _full_order(tiles, planes)
        whole = Instance(
            "VOLUME", 0, level, rows, columns, spec.tile, spec.tile, planes,
            spacing_mm=spec.spacing_mm(level), frames=len(order), sparse=sparse,
        )  # fmt: skip
        parts = min(spec.concatenate if level == 0 else 1, max(len(order), 1))
        cuts = np.linspace(0, len(order), parts + 1).round().astype(int)
        for number, (start, stop) in enumerate(pairwise(cuts), start=1):
            part = replace(whole, frames=int(stop - start), part=(number, parts, int(start)))
            self._write(part, self._frames(level, order[start:stop]), order[start:stop])

    def picture(
        self, flavour: Flavour, picture: npt.NDArray[np.uint8], spacing_mm: float, stands: Stands
    ) -> None:
        """A single-frame picture of the series: thumbnail, overview or label."""
        rows, columns = picture.shape[:2]
        middle = (self.spec.planes // 2,)
        instance = Instance(flavour, 0, 0, rows, columns, rows, columns, middle, spacing_mm, 1, stands=stands)
        self._write(instance, iter([encoded(picture, self.spec)]), None)

    def _write(
        self, instance: Instance, frames: Iterator[bytes], order: npt.NDArray[np.int32] | None
    ) -> None:
        instance = replace(instance, number=len(self.paths) + 1)
        path = self.out / f"{instance.number:04d}-{instance.flavour.lower()}-{instance.level}.dcm"
        places = self._places(instance, order) if instance.sparse and order is not None else None
        write_frames(path, data_set(self.spec, instance), frames, table=self.spec.offset_table, places=places)
        self.paths.append(path)

    def _tiles(self, level: int, *, sparse: bool) -> npt.NDArray[np.int32]:
        """(n, 2) row and column of the tiles of a level, row by row; those with cells only where sparse."""
        rows, columns = self.spec.grid(level)
        grid = np.indices((rows, columns), np.int32).reshape(2, -1).T
        if not sparse:
            return grid
        held = self.scene.tiles_with_cells(level)
        return grid[held.ravel()] if held.any() else grid[:1]

    def _frames(self, level: int, order: npt.NDArray[np.int32]) -> Iterator[bytes]:
        for plane, row, column in order:
            yield self._frame(level, int(row), int(column), int(plane))

    def _frame(self, level: int, row: int, column: int, plane: int) -> bytes:
        if not self.scene.empty(level, row, column):
            return encoded(self.scene.tile(level, row, column, plane), self.spec)
        side = self.spec.tile
        key = (level, plane, *self.scene.glass.phase(row * side, column * side))
        if key not in self._empty:
            if len(self._empty) >= _KEPT:
                self._empty.clear()
            self._empty[key] = encoded(self.scene.tile(level, row, column, plane), self.spec)
        return self._empty[key]

    def _places(self, instance: Instance, order: npt.NDArray[np.int32]) -> Places:
        """Row direction is -Y and column direction is -X; see `elements`."""
        spec, side = self.spec, self.spec.tile
        plane, row, column = order[:, 0], order[:, 1], order[:, 2]
        origins = np.array([origin(spec, instance.spacing_mm, one) for one in range(spec.planes)])
        offsets = origins[plane]
        offsets[:, 0] -= row * (side * instance.spacing_mm)
        offsets[:, 1] -= column * (side * instance.spacing_mm)
        return Places(column, row, plane, offsets, (side, side))


def _full_order(tiles: npt.NDArray[np.int32], planes: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """(n, 3) plane, row, column of the frames: columns first, then rows, then planes (PS3.3 C.7.6.17.3)."""
    return _joined(np.repeat(np.array(planes, np.int32), len(tiles)), np.tile(tiles, (len(planes), 1)))


def _sparse_order(tiles: npt.NDArray[np.int32], planes: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """(n, 3): all planes of a tile together, as a stage that stops at each field of view takes them."""
    return _joined(np.tile(np.array(planes, np.int32), len(tiles)), np.repeat(tiles, len(planes), axis=0))


def _joined(plane: npt.NDArray[np.int32], tiles: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return np.concatenate([plane[:, None], tiles], axis=1)


def encoded(image: npt.NDArray[np.uint8], spec: SlideSpec) -> bytes:
    """JPEG baseline, YCbCr 4:2:2."""
    image = np.ascontiguousarray(image)
    return bytes(
        simplejpeg.encode_jpeg(image, quality=spec.quality, colorspace="RGB", colorsubsampling="422")
    )
