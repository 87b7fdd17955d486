"""What lies where on a generated slide: `truth.csv` has a row for each cell, `slide.json` the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dicom_node.train.phantoms.slides.elements import (
    ON_GLASS,
    SURFACE_UM,
    series_uid,
    study_uid,
)
from dicom_node.train.phantoms.slides.scene import Scene

COLUMNS = ("cell", "class", "x", "y", "width", "height", "z_um", "plane", "turn", "source")
"""`x`, `y`: centre in pixels of the finest level, columns and rows, the first pixel's centre at 0.5;
`width`, `height`: of its box; `z_um`: over the middle of the stack; `plane`: index of the focal plane
nearest to it, 0 the lowest; `turn`: quarter turns counter-clockwise, 4 and more mirrored before;
`source`: file of a real cell."""


def write_truth(scene: Scene, out: Path, sources: Sequence[str] | None = None) -> Path:
    """`truth.csv` and `slide.json` in `out`; returns the table. `sources` names each sprite's file."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / "truth.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for cell in range(scene.counted):
            writer.writerow(_row(scene, cell, sources))
    (out / "slide.json").write_text(json.dumps(facts(scene), indent=2) + "\n", encoding="utf-8")
    return table


def _row(scene: Scene, cell: int, sources: Sequence[str] | None) -> tuple[object, ...]:
    placed, sprites = scene.placed, scene.sprites
    sprite, z_um = int(placed.sprite[cell]), float(placed.z_um[cell])
    width, height = int(placed.width[cell]), int(placed.height[cell])
    return (
        cell, sprites.classes[int(sprites.labels[sprite])],
        int(placed.left[cell]) + width / 2, int(placed.top[cell]) + height / 2, width, height,
        round(z_um, 3), nearest_plane(scene, z_um), int(placed.turn[cell]),
        sources[sprite] if sources is not None else "",
    )  # fmt: skip


def nearest_plane(scene: Scene, z_um: float) -> int:
    heights = scene.spec.heights_um()
    return min(range(len(heights)), key=lambda plane: abs(heights[plane] - z_um))


def facts(scene: Scene) -> dict[str, Any]:  # Any: JSON values
    """The slide itself, and how many cells of each class are on it."""
    labels = scene.sprites.labels[scene.placed.sprite]
    return {
        **asdict(scene.spec),
        "study_uid": study_uid(scene.spec),
        "series_uid": series_uid(scene.spec),
        "orientation": list(ON_GLASS.orientation),
        "corner_mm": list(ON_GLASS.corner_mm),
        "middle_plane_um": SURFACE_UM,
        "heights_um": list(scene.spec.heights_um()),
        "cells": {name: int((labels == k).sum()) for k, name in enumerate(scene.sprites.classes)},
    }
