"""Slides and photographs through a microscope, and what a pipeline found on them.

A *slide* is levels x focal planes x optical paths on one frame of reference. Pixels of a level count
from 0, columns to the right and rows down; a place given in pixels is a place on the edges between
them, so that the first pixel's centre is (0.5, 0.5) (PS3.3 C.10.5.1.2, C.18.6.1.1). Lengths are in
micrometres where a name says `um`, in millimetres where it says `mm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicom_node.domain.codes import Code
from dicom_node.domain.geometry import Vector
from dicom_node.domain.identity import UID, Digest
from dicom_node.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class SlidePart:
    """One stored instance of a level: all of it, one of its focal planes, or part of a concatenation."""

    sop_class_uid: UID
    sop_instance_uid: UID
    series_uid: UID
    transfer_syntax_uid: UID
    path: Path
    digest: Digest
    size_bytes: int
    frames: int
    tiled_full: bool
    """Frames stand in the order of PS3.3 C.7.6.17.3; else each frame says its own place."""
    first_frame: int = 0
    """Frames of the concatenation before this part (0020,9228), counted over all planes and paths."""
    first_plane: int = 0
    """Index into the level's `planes_um` of this part's first plane."""
    planes: int = 1
    """Focal planes whose frames this part, with the rest of its concatenation, holds."""
    first_path: int = 0
    """Index into the level's `optical_paths` of this part's first path."""
    paths: int = 1
    """Optical paths whose frames this part, with the rest of its concatenation, holds."""


@dataclass(frozen=True, slots=True)
class SlideLevel:
    """One resolution of a slide."""

    rows: int
    columns: int
    """Of the total pixel matrix."""
    tile_rows: int
    tile_columns: int
    um_per_px: tuple[float, float]
    """Between rows, between columns."""
    origin_mm: Vector
    """Centre of the first pixel in the slide coordinate system (0048,0008), z of the first plane."""
    planes_um: tuple[float, ...]
    """Height of each focal plane above the first one of the slide, ascending or as stored; (0.0,) for one."""
    optical_paths: tuple[str, ...]
    photometric: str
    samples_per_pixel: int
    bits_allocated: int
    parts: tuple[SlidePart, ...]
    """By first frame and plane."""
    extended_depth_of_field: bool = False
    """One plane that was computed from several."""

    @property
    def tile_grid(self) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        return -(-self.rows // self.tile_rows), -(-self.columns // self.tile_columns)


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide (one container), its pyramid whole and its labels left out."""

    study_uid: UID
    series_uid: UID
    """Of the finest level."""
    frame_of_reference_uid: UID | None
    series_number: int
    container: str
    """Digest of Container Identifier (0040,0512): tells slides apart and names none."""
    row_cosine: Vector
    column_cosine: Vector
    """Image Orientation (Slide) (0048,0102)."""
    levels: tuple[SlideLevel, ...]
    """Finest first."""
    stain: str = ""
    """Meaning of the staining substance, where the specimen description has one. Never logged."""
    modality: str = "SM"

    @property
    def base(self) -> SlideLevel:
        return self.levels[0]

    @property
    def size_mm(self) -> tuple[float, float]:
        """(height, width)."""
        base = self.base
        return base.rows * base.um_per_px[0] / 1000, base.columns * base.um_per_px[1] / 1000

    @property
    def label(self) -> str:
        """A short name without free text: `3: 2967 x 2220 px, 0.499 um/px, 12 levels, 1 plane`."""
        base = self.base
        planes = len(base.planes_um)
        return (
            f"{self.series_number}: {base.rows} x {base.columns} px, {base.um_per_px[0]:.3g} um/px, "
            f"{len(self.levels)} level{'s' * (len(self.levels) > 1)}, {planes} plane{'s' * (planes > 1)}"
        )


class OpenSlide(Protocol):
    """A slide whose pixels can be read, from several threads at once; `dicom_node/slide` has the one.

    Levels, planes and paths count from 0. What was not scanned is white. Pixels are sRGB as stored.
    Raises UnreadableObject where a frame cannot be decoded.
    """

    @property
    def slide(self) -> Slide: ...

    def lengths(self, level: int, plane: int = 0, path: int = 0) -> npt.NDArray[np.uint32]:
        """(tile rows, tile columns): bytes of each compressed frame; 0 where there is none."""

    def tiles(
        self, level: int, rows: npt.ArrayLike, columns: npt.ArrayLike, plane: int = 0, path: int = 0, *,
        scale: int = 1, out: npt.NDArray[np.uint8] | None = None,
    ) -> npt.NDArray[np.uint8]:  # fmt: skip
        """(n, tile rows / scale, tile columns / scale, 3); `scale` is 1, 2, 4 or 8."""

    def region(
        self, level: int, left: int, top: int, width: int, height: int, plane: int = 0, path: int = 0
    ) -> npt.NDArray[np.uint8]:
        """(height, width, 3) of a level's pixels."""

    def thumbnail(self, longest: int = 1024) -> npt.NDArray[np.uint8]:
        """The whole slide, its longer side at most `longest` pixels."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """One frame of a VL Microscopic, VL Photographic or Secondary Capture image: a field seen through
    the microscope, with no place on a slide."""

    study_uid: UID
    series_uid: UID
    sop_class_uid: UID
    sop_instance_uid: UID
    frame: int
    """From 1."""
    path: Path
    digest: Digest
    rows: int
    columns: int
    series_number: int
    instance_number: int
    um_per_px: tuple[float, float] | None = None
    """Between rows, between columns; None where the object does not say."""

    @property
    def label(self) -> str:
        return f"{self.series_number}: photograph {self.instance_number}, {self.rows} x {self.columns} px"


Picture = Slide | Photograph


@dataclass(frozen=True, slots=True)
class CellClass:
    """One class that a pipeline sorts cells into."""

    code: Code
    label: str
    """Short, as a technologist says it: `HSIL`, `band`."""
    grade: int = 0
    """0 normal; the higher the worse, and the worst grade present names the slide."""
    colour: tuple[int, int, int] = (255, 255, 0)
    """sRGB, the same in annotations, maps, gallery and report."""
    count_code: Code | None = None
    """Concept of its share in a differential, e.g. LOINC 737-7."""


@dataclass(frozen=True, slots=True)
class Cells:
    """n cells as arrays of n rows, so that a million of them stay cheap.

    Places and sizes are (column, row) and (width, height) in pixels of the finest level, or of the
    photograph; `plane` is the index of the focal plane on which the cell decided.
    """

    classes: tuple[CellClass, ...]
    centre_px: npt.NDArray[np.float32]
    """(n, 2)"""
    size_px: npt.NDArray[np.float32]
    """(n, 2)"""
    label: npt.NDArray[np.uint8]
    """(n,) index into `classes`."""
    probability: npt.NDArray[np.float32]
    """(n, classes), rows sum to 1."""
    plane: npt.NDArray[np.uint16]
    """(n,)"""
    attention_in_cell: npt.NDArray[np.float32] | None = None
    """(n,) share of the Grad-CAM inside the cell, 0 to 1; low where the network looked elsewhere."""

    def __post_init__(self) -> None:
        n, k = len(self.label), len(self.classes)
        shapes = (self.centre_px.shape, self.size_px.shape, self.probability.shape, self.plane.shape)
        if shapes != ((n, 2), (n, 2), (n, k), (n,)) or (n and int(self.label.max()) >= k):
            raise InvalidValue(f"cells out of shape: {shapes} for {n} cells of {k} classes")

    def __len__(self) -> int:
        return len(self.label)

    def counts(self) -> tuple[int, ...]:
        """How many of each class."""
        return tuple(int(n) for n in np.bincount(self.label, minlength=len(self.classes)))


@dataclass(frozen=True, slots=True)
class TileMap:
    """A coarse map: `values` is (channels, rows, columns) float32 in 0 to 1, one value per square of
    `step_px` pixels of the finest level, the first square's corner at `origin_px` (column, row)."""

    values: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    """One per channel."""
    codes: tuple[Code, ...]
    """What each channel shows: the class, or the finding."""
    quantity: Code
    """What its values are, e.g. (122157, DCM, "Probability")."""
    step_px: float
    origin_px: tuple[float, float] = (0.0, 0.0)
    colours: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class GalleryCell:
    """One cell to look at first."""

    cell: int
    """Row in `Cells`."""
    image: npt.NDArray[np.uint8]
    """(rows, columns, 3) sRGB, the sharpest plane."""
    heat: npt.NDArray[np.float32] | None = None
    """(rows, columns) Grad-CAM of the cell's class, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Share:
    """One line of a differential: `count` of `total`, with the binomial 95 % interval of the share."""

    cell_class: CellClass
    count: int
    total: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Adequacy:
    """Whether there was enough to look at."""

    cells: int
    needed: int
    code: Code
    """E.g. (125152006, SCT) satisfactory, or (125154007, SCT) unsatisfactory, for evaluation."""
    statement: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pipeline found on one slide or photograph."""

    picture: Picture
    cells: Cells
    maps: tuple[TileMap, ...] = ()
    gallery: tuple[GalleryCell, ...] = ()
    """Most suspicious first."""
    differential: tuple[Share, ...] = ()
    adequacy: Adequacy | None = None
    triage: str = ""
    """What to do with the slide, in words: `review`, `priority`, ..."""
    thumbnail: npt.NDArray[np.uint8] | None = None
    """(rows, columns, 3) sRGB of the whole picture, longest side at most 2048."""
    planes_read: int = 1


def worst(readings: Sequence[Reading]) -> CellClass | None:
    """The worst class present on any of them; None where there is no cell at all."""
    present = (r.cells.classes[k] for r in readings for k, n in enumerate(r.cells.counts()) if n)
    return max(present, key=lambda one: one.grade, default=None)
