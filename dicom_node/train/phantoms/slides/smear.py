"""Blood on glass after May-Gruenwald and Giemsa, drawn: white cells, erythroblasts, platelets, red cells.

White cells differ as a technologist tells them: shape and lobes of the nucleus, chromatin, colour of the
cytoplasm, and the granules in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from dicom_node.train.phantoms.slides.drawn import Drawn
from dicom_node.train.phantoms.slides.scene import Sprite
from dicom_node.train.phantoms.slides.strokes import (
    Array,
    Outline,
    Paper,
    dye,
    grain,
    paper,
    smooth_step,
    sprite,
    waves,
)

BACKGROUND = (254.0, 227.0, 203.0)
RED_CELL = "red cell"
_NUCLEUS, _DENSE = (100, 68, 148), (84, 54, 120)
_PINK, _GREY_BLUE, _BLUE, _LILAC = (228, 190, 205), (176, 170, 200), (150, 150, 200), (190, 160, 200)
_HAEMOGLOBIN = (208, 190, 198)
Colour = tuple[int, int, int]
"""sRGB, on white."""


@dataclass(frozen=True, slots=True)
class Look:
    """One kind of white cell; lengths in um, pairs are ranges that a cell draws from."""

    cell_um: tuple[float, float]
    lobes: tuple[int, int]
    """Least and most."""
    lobe_um: tuple[float, float]
    apart_um: float
    """From the cell's middle to the lobes' middles; lobes lie on an arc."""
    arc: float
    """Angle that the lobes span, radians."""
    cytoplasm: Colour
    thickness: float
    granules: tuple[float, float, Colour]
    """Share of the cytoplasm they cover, their size in um, and their colour."""
    clumping: float = 0.18
    indented: float = 0.0
    """Waves of the lobes' outline."""
    nucleus: Colour = _NUCLEUS


_NONE = (0.0, 0.3, (0, 0, 0))
_DUST = (0.1, 0.3, (190, 165, 205))
_PURPLE = (0.5, 0.35, (120, 70, 150))
_FINE = (0.25, 0.35, (222, 178, 204))
_LOOKS = {
    "neutrophil": Look((6.0, 7.2), (3, 5), (1.7, 2.1), 2.9, 4.6, _PINK, 0.75, _FINE),
    "band": Look((6.2, 7.2), (7, 9), (1.35, 1.6), 3.0, 3.4, _PINK, 0.75, _FINE),
    "lymphocyte": Look((4.6, 6.0), (1, 1), (4.0, 4.8), 0.3, 0, _BLUE, 0.8, _NONE, 0.2, 0.04),
    "monocyte": Look((7.4, 9.0), (3, 3), (3.2, 3.9), 2.0, 2.6, _GREY_BLUE, 0.9, _DUST, 0.12, 0.06),
    "eosinophil": Look((6.4, 7.6), (2, 2), (2.5, 2.9), 2.9, 2.3, _PINK, 0.7, (0.8, 0.65, (236, 158, 146))),
    "basophil": Look((5.8, 6.8), (2, 3), (2.3, 2.8), 2.0, 3.4, _PINK, 0.7, (0.75, 0.7, (70, 40, 120)), 0.15),
    "ig": Look((7.0, 8.6), (1, 1), (4.4, 5.4), 1.2, 0, _BLUE, 0.7, (0.4, 0.4, (190, 130, 185)), 0.14, 0.10),
    "erythroblast": Look((4.4, 5.6), (1, 1), (2.6, 3.3), 0.6, 0, _GREY_BLUE, 1.3, _NONE, nucleus=_DENSE),
    "platelet": Look((1.2, 1.9), (1, 1), (0.7, 1.0), 0.1, 0, _LILAC, 0.9, _PURPLE, 0.2, 0.2),
}  # fmt: skip
CLASSES = tuple(_LOOKS)
SHARES = {
    "neutrophil": 58.0, "band": 3.0, "lymphocyte": 28.0, "monocyte": 6.0, "eosinophil": 2.5, "basophil": 0.5,
    "ig": 0.5, "erythroblast": 0.5, "platelet": 20.0,
}  # fmt: skip
"""Of an adult's blood, platelets kept few so that white cells are counted."""


def smear(*, um_per_px: float, seed: int) -> Drawn:
    """Sprites of white cells, erythroblasts and platelets."""
    draws = {name: partial(draw, look) for name, look in _LOOKS.items()}
    return Drawn("smear", draws, um_per_px=um_per_px, background=BACKGROUND, seed=seed)


def red_cells(*, um_per_px: float, seed: int, background: tuple[float, float, float]) -> Drawn:
    """Sprites of red cells, over whatever glass the cells between them have."""
    return Drawn(
        "red cells", {RED_CELL: _red_cell}, um_per_px=um_per_px, background=background, seed=seed, variants=24
    )


def draw(look: Look, rng: np.random.Generator, um_per_px: float) -> Sprite:
    """One nucleated cell, or a platelet."""
    cell_um = rng.uniform(*look.cell_um)
    on = paper(cell_um * 1.35, um_per_px)
    body = Outline(
        0, 0, cell_um, 1 + rng.uniform(0, 0.12), rng.uniform(0, np.pi), waves(rng, 0.03, range(2, 7))
    )
    inside = body.mask(on)
    nucleus = _lobes(look, rng, on) * inside
    cytoplasm = look.thickness * inside * (1 + 0.10 * grain(rng, on, 1.5)) * (1 - 0.6 * nucleus)
    clumps = 1 + look.clumping * grain(rng, on, 0.8) + 0.5 * look.clumping * grain(rng, on, 0.4)
    rim = 0.25 * np.exp(-(((nucleus - 0.5) / 0.25) ** 2))
    chromatin = nucleus * np.clip(clumps + rim, 0.3, None) * rng.uniform(0.95, 1.2)
    density = cytoplasm[..., None] * dye(*look.cytoplasm) + chromatin[..., None] * dye(*look.nucleus)
    share, size, colour = look.granules
    if share:
        cover = 0.35 if colour[2] > colour[0] and share > 0.6 else 0.95  # a basophil's lie on its nucleus too
        dots = _granules(rng, on, share, size) * inside * (1 - cover * nucleus)
        density = density + dots[..., None] * dye(*colour)
    return sprite(np.asarray(density, np.float32), um_per_px)


def _lobes(look: Look, rng: np.random.Generator, on: Paper) -> Array:
    """The nucleus: lobes along an arc, joined where they touch; thin threads between those that do not."""
    count = int(rng.integers(look.lobes[0], look.lobes[1] + 1))
    turn, arc = rng.uniform(0, 2 * np.pi), look.arc * rng.uniform(0.85, 1.05)
    angles = turn + (np.linspace(-arc / 2, arc / 2, count) if count > 1 else np.zeros(1))
    mask = np.zeros_like(on.x)
    for angle in angles:
        apart = look.apart_um * rng.uniform(0.85, 1.1)
        lobe = Outline(
            float(apart * np.cos(angle)), float(apart * np.sin(angle)), rng.uniform(*look.lobe_um),
            1 + rng.uniform(0, 0.25), float(angle + np.pi / 2), waves(rng, look.indented, range(2, 6)),
        )  # fmt: skip
        mask = np.maximum(mask, lobe.mask(on, 0.3))
    thread = np.abs(np.hypot(on.x, on.y) - look.apart_um) < 0.3
    between = np.cos(np.arctan2(on.y, on.x) - turn) > np.cos(arc / 2)
    if count > 1:
        mask = np.maximum(mask, np.asarray(0.8 * (thread & between), np.float32))
    return np.asarray(mask, np.float32)


def _granules(rng: np.random.Generator, on: Paper, share: float, size_um: float) -> Array:
    """(rows, columns) from 0 to 1: dots of that size over that share of everything."""
    field = grain(rng, on, size_um)
    return smooth_step((field - np.float32(np.quantile(field, 1 - share))) / np.float32(0.5))


def _red_cell(rng: np.random.Generator, um_per_px: float) -> Sprite:
    """A disc of haemoglobin, thin in the middle."""
    radius = rng.normal(3.6, 0.2)
    on = paper(radius * 1.4, um_per_px)
    outline = Outline(
        0, 0, radius, 1 + abs(rng.normal(0, 0.08)), rng.uniform(0, np.pi), waves(rng, 0.02, range(2, 6))
    )
    depth = outline.inside_um(on)
    pallor = rng.uniform(0.35, 0.85) * smooth_step((depth - rng.uniform(1.7, 2.3)) / 1.2)
    thick = smooth_step(depth / 0.4) * (1.0 - pallor) * (1 + 0.03 * grain(rng, on, 1.0))
    return sprite(
        np.asarray(thick[..., None] * dye(*_HAEMOGLOBIN) * rng.uniform(0.85, 1.15), np.float32), um_per_px
    )
