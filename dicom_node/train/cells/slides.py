"""One abnormal cell among thousands on whole slides, through the pipeline as it ships.

Slides are made of cells that the shipped network never saw: real ones of the fold that was kept from it,
or drawn ones of a seed that was. They are rendered as `dicom-node phantom slide` does, without going
through JPEG and DICOM; finding, classifying, weighing planes and the gallery are the pipeline's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicom_node.domain.identity import UID
from dicom_node.domain.pipeline import Case
from dicom_node.domain.series import Patient, Study
from dicom_node.domain.slide import Reading, Slide, SlideLevel
from dicom_node.errors import InvalidValue
from dicom_node.infer.runtime import Runtime, use
from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.drawn import HELD_OUT_SEED
from dicom_node.train.cells.folds import by_group
from dicom_node.train.cells.judge import as_share, share_line
from dicom_node.train.cells.learn import Report, read_recipe
from dicom_node.train.cells.tasks import CERVICAL, CERVICAL_CELLS
from dicom_node.train.phantoms.slides.build import Wish, build_slide
from dicom_node.train.phantoms.slides.crops import faded, slide_colour
from dicom_node.train.phantoms.slides.cytology import cytology
from dicom_node.train.phantoms.slides.scene import Scene, Sprite
from dicom_node.train.phantoms.slides.spec import SlideSpec

NEAR_UM = 8.0
"""A cell of the gallery is the abnormal one where it lies within this of it."""
Pixels = npt.NDArray[np.uint8]


class InMemory:
    """`Sprites` of pictures that are in memory already."""

    def __init__(self, crops: Crops, rows: npt.NDArray[np.int64], classes: tuple[str, ...]) -> None:
        self.name = f"kept cells {len(rows)}"
        self.classes = classes
        self._images = crops.images[rows]
        self.labels = np.array([classes.index(crops.names[k]) for k in crops.label[rows]], np.int32)
        self.sizes = np.full((len(rows), 2), crops.images.shape[1], np.int32)
        self.background = slide_colour(list(self._images[:: max(1, len(rows) // 200)]))

    def sprite(self, number: int) -> Sprite:
        return faded(self._images[number], self.background)


class SceneReader:
    """A scene as an open slide; see `domain.slide.OpenSlide`."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        spec = scene.spec
        levels = tuple(
            SlideLevel(
                *spec.size(level), spec.tile, spec.tile,
                (spec.um_per_px * 2**level, spec.um_per_px * 2**level), (0.0, 0.0, 0.0),
                tuple(plane * spec.pitch_um for plane in range(spec.planes)), ("1",), "YBR_FULL_422",
                3, 8, (),
            )
            for level in range(spec.levels)
        )  # fmt: skip
        self.slide = Slide(
            UID("2.25.1"), UID("2.25.2"), None, 1, "made", (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), levels
        )

    def lengths(self, level: int, plane: int = 0, path: int = 0) -> npt.NDArray[np.uint32]:
        return self.scene.tiles_with_cells(level).astype(np.uint32) * 4096

    def tiles(
        self, level: int, rows: npt.ArrayLike, columns: npt.ArrayLike, plane: int = 0, path: int = 0, *,
        scale: int = 1, out: Pixels | None = None,
    ) -> Pixels:  # fmt: skip
        places = zip(np.ravel(rows).tolist(), np.ravel(columns).tolist(), strict=True)
        made = [Image.fromarray(self.scene.tile(level, row, column, plane)) for row, column in places]
        side = self.scene.spec.tile // scale
        found = np.stack([np.asarray(one.reduce(scale) if scale > 1 else one) for one in made])
        if out is None:
            return found.reshape(-1, side, side, 3)
        out[:] = found
        return out

    def region(
        self, level: int, left: int, top: int, width: int, height: int, plane: int = 0, path: int = 0
    ) -> Pixels:
        return self.scene.region(level, top, left, height, width, plane)

    def thumbnail(self, longest: int = 1024) -> Pixels:
        spec, level = self.scene.spec, 0
        while max(spec.size(level)) > longest:
            level += 1
        rows, columns = spec.size(level)
        return self.scene.region(level, 0, 0, rows, columns, spec.planes // 2)


@dataclass(frozen=True, slots=True)
class Tried:
    """One slide: what was looked for, and where it stood."""

    wanted: str
    rank: int | None
    """Of the abnormal cell in the gallery, from 1; None where it is not in it."""
    found: bool
    """Whether the finder found it at all."""
    cells: int
    probability: float


def run_slides(
    models: Path, data: Path | None, count: int, normals: int, planes: int, report: Report
) -> dict[str, Any]:  # Any: JSON-able
    """`count` slides, each with one HSIL or SCC cell among `normals` NILM; JSON-able, with `lines`."""
    from pipelines.cervical_cytology import CervicalCytology

    use(Runtime(models))
    pipeline = CervicalCytology()
    tried: list[Tried] = []
    for number in range(count):
        scene = one_among(models, data, number, normals, planes)
        tried.append(_try(pipeline, scene, normals))
        report(f"slide {number + 1} of {count}: {tried[-1]}")
    kind = "drawn" if data is None else "real"
    in_gallery = as_share(sum(one.rank is not None for one in tried), count).to_json()
    found = as_share(sum(one.found for one in tried), count).to_json()
    return {
        "slides": count, "normals": normals, "planes": planes, "cells": kind, "gallery": in_gallery,
        "found": found, "ranks": [one.rank for one in tried], "finder_cells": [one.cells for one in tried],
        "probabilities": [one.probability for one in tried],
        "lines": [
            share_line(f"Whole slides of {kind} cells: 1 among {normals} is in the gallery", in_gallery),
            share_line(f"Whole slides of {kind} cells: it is found at all", found),
        ],
    }  # fmt: skip


def one_among(models: Path, data: Path | None, seed: int, normals: int, planes: int) -> Scene:
    """A slide of NILM cells and one HSIL or SCC cell, none of which the shipped network saw."""
    classes = ("NILM", "HSIL", "SCC")
    um = CERVICAL_CELLS.um_per_px
    spec = SlideSpec(f"one among {normals}", 1, 1, um_per_px=um, planes=planes, levels=3, seed=9000 + seed)
    wish = Wish(normals + 1, 1, classes=classes, background=0.1)
    if data is None:
        return build_slide(spec, cytology(um_per_px=um, seed=HELD_OUT_SEED), wish)
    crops, rows = held_out(models, data)
    keep = rows[crops.of(*classes)[rows]]
    if not len(keep):
        raise InvalidValue(f"{data} has no cells that were kept from the shipped network")
    return build_slide(spec, InMemory(crops, keep, classes), wish)


_KEPT: dict[tuple[Path, Path], tuple[Crops, npt.NDArray[np.int64]]] = {}


def held_out(models: Path, data: Path) -> tuple[Crops, npt.NDArray[np.int64]]:
    """(all real cells, rows of the fold that the shipped network never saw)."""
    from dicom_node.train.cells.cervical import FOLDS
    from dicom_node.train.cells.screening import SHIPPED

    if (models, data) not in _KEPT:
        crops = CERVICAL_CELLS.read(data)
        seed = read_recipe(models / CERVICAL, None).seed
        rows = np.flatnonzero(by_group(crops.label, crops.group, FOLDS, seed) == SHIPPED)
        _KEPT[(models, data)] = (crops, rows)
    return _KEPT[(models, data)]


def _try(pipeline: Any, scene: Scene, normals: int) -> Tried:  # Any: the pipeline's class
    reader = SceneReader(scene)
    findings = pipeline.run(case_of({"slide": reader}))
    placed, sprites = scene.placed, scene.sprites
    kinds = sprites.labels[placed.sprite]
    (at,) = np.flatnonzero(kinds != sprites.classes.index("NILM"))
    place = np.array([placed.left[at] + placed.width[at] / 2, placed.top[at] + placed.height[at] / 2])
    wanted = sprites.classes[int(kinds[at])]
    if not findings.readings:
        return Tried(wanted, None, False, 0, 0.0)
    reading: Reading = findings.readings[0]
    near = NEAR_UM / scene.spec.um_per_px
    apart = np.hypot(*(reading.cells.centre_px - place).T)
    ranks = [rank for rank, cell in enumerate(reading.gallery, start=1) if apart[cell.cell] <= near]
    return Tried(
        wanted, min(ranks, default=None), bool((apart <= near).any()), len(reading.cells),
        findings.verdict.probability if findings.verdict else 0.0,
    )  # fmt: skip


def case_of(slides: Mapping[str, Any]) -> Case:  # Any: open slides
    """A case of slides and nothing else."""
    study = Study(
        uid=UID("2.25.1"), revision=1, patient=Patient("F", 40.0), modalities=frozenset({"SM"}),
        body_parts=frozenset(), stacks=(), refusals=(),
    )  # fmt: skip
    return Case(study=study, volumes={}, choices=(), slides=slides)
