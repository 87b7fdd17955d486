"""The cells that a slide can be made of, real or drawn, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.train.phantoms.slides.crops import Crops, read_labels
from dicom_node.train.phantoms.slides.cytology import cytology
from dicom_node.train.phantoms.slides.scene import Sprites
from dicom_node.train.phantoms.slides.smear import SHARES, red_cells, smear
from dicom_node.train.phantoms.slides.spec import Kind, SlideSpec


@dataclass(frozen=True, slots=True)
class Material:
    """Cells, and how they lie where nothing else is asked for."""

    sprites: Sprites
    sources: Sequence[str] | None = None
    """File of each sprite, where it is a photograph."""
    mix: Mapping[str, float] = field(default_factory=dict)
    overlap: float = 0.0


def real_cells(folder: Path, where: Mapping[str, frozenset[str]]) -> Material:
    """Crops of a folder with `labels.csv`. Raises UnreadableObject."""
    crops = read_labels(folder, where)
    return Material(Crops(crops), [crop.path.relative_to(folder).as_posix() for crop in crops])


def drawn_cells(kind: Kind, spec: SlideSpec, *, subtle: bool = False) -> Material:
    """Cells of that kind, drawn at the slide's resolution."""
    if kind is Kind.SMEAR:
        return Material(smear(um_per_px=spec.um_per_px, seed=spec.seed), mix=SHARES, overlap=-0.5)
    sprites = cytology(um_per_px=spec.um_per_px, seed=spec.seed, subtle=subtle)
    return Material(sprites, mix={"NILM": 9.4, "LSIL": 0.3, "HSIL": 0.2, "SCC": 0.1}, overlap=0.3)


def surroundings(kind: Kind, spec: SlideSpec, cells: Sprites) -> Sprites | None:
    """Red cells in a blood smear; nothing between cervical cells."""
    if kind is not Kind.SMEAR:
        return None
    return red_cells(um_per_px=spec.um_per_px, seed=spec.seed, background=cells.background)
