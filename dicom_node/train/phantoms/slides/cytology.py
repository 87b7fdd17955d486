"""Cervical cells in the colours of Papanicolaou, drawn: NILM, LSIL, HSIL and SCC (Bethesda 2014).

What tells them apart is what cytology goes by: size of the nucleus, its share of the cell, how dark and
how coarse its chromatin is, and how irregular its outline. With `subtle`, size, share and darkness are
the same for all, and only chromatin and outline differ: fine detail that a blur takes away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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

CLASSES = ("NILM", "LSIL", "HSIL", "SCC")
BACKGROUND = (232.0, 231.0, 236.0)
_CYANOPHILIC, _GREEN, _BLUE, _LILAC = (
    dye(148, 196, 202),
    dye(158, 196, 178),
    dye(132, 172, 204),
    dye(196, 184, 212),
)
_PINK, _SALMON, _ORANGE, _BROWN = (
    dye(236, 182, 178),
    dye(238, 178, 150),
    dye(240, 168, 92),
    dye(206, 150, 104),
)
_HAEMATOXYLIN = dye(92, 74, 128)


@dataclass(frozen=True, slots=True)
class Look:
    """One kind of cell; pairs are ranges that a cell draws from, lengths in um."""

    cell_um: tuple[float, float]
    """Radius."""
    nucleus_um: tuple[float, float]
    darkness: tuple[float, float]
    """Absorbance of the nucleus over that of thin haematoxylin."""
    grain_um: float
    """Size of chromatin clumps."""
    clumping: float
    """Standard deviation of chromatin around its mean."""
    irregular: float
    """Waves of the nuclear outline, share of its radius."""
    dyes: tuple[Array, ...]
    thickness: tuple[float, float] = (0.5, 0.9)
    """Of the cytoplasm, over that of its dye."""
    angular: float = 0.12
    stretch: tuple[float, float] = (1.0, 1.35)
    halo: float = 0.0
    """Share of cells with a cleared zone around the nucleus, as koilocytes have."""
    two_nuclei: float = 0.0
    nucleolus: float = 0.0
    balanced: bool = False
    """A nucleus lets through as much light as if it were even, so that a blurred one looks even."""


_SUPERFICIAL = Look((19, 26), (2.6, 3.3), (1.1, 1.5), 0.5, 0.10, 0.04, (_PINK, _SALMON, _ORANGE))
_INTERMEDIATE = Look((17, 24), (3.6, 4.5), (0.65, 0.9), 0.6, 0.16, 0.04, (_CYANOPHILIC, _LILAC, _GREEN))
_PARABASAL = Look(
    (8, 12), (3.6, 4.4), (0.7, 1.0), 0.6, 0.16, 0.05, (_CYANOPHILIC,), (0.9, 1.3), 0.04, nucleolus=0.1
)
_LSIL = Look(
    (17, 24),
    (6.3, 8.2),
    (0.85, 1.25),
    0.8,
    0.17,
    0.06,
    (_CYANOPHILIC, _GREEN, _SALMON, _LILAC),
    halo=0.5,
    two_nuclei=0.25,
)
_HSIL = Look(
    (8, 11.5), (5.6, 7.4), (1.1, 1.6), 1.0, 0.24, 0.08, (_CYANOPHILIC, _BLUE, _BROWN), (0.9, 1.5), 0.06
)
_SCC = Look(
    (9, 17), (5.0, 8.5), (1.3, 2.0), 1.3, 0.32, 0.13, (_ORANGE, _BROWN, _BLUE), (0.8, 1.5), 0.13, (1.2, 2.8),
    nucleolus=0.5,
)  # fmt: skip
_NILM = (_SUPERFICIAL, _INTERMEDIATE, _INTERMEDIATE, _PARABASAL)
_PLAIN = Look((14, 18), (5.0, 5.8), (1.1, 1.3), 0.5, 0.08, 0.02, (_CYANOPHILIC, _PINK), balanced=True)
"""What all cells look like from afar where differences are subtle."""
_SUBTLE = {
    "NILM": _PLAIN,
    "LSIL": replace(_PLAIN, grain_um=0.7, clumping=0.3, irregular=0.04),
    "HSIL": replace(_PLAIN, grain_um=0.9, clumping=0.42, irregular=0.06),
    "SCC": replace(_PLAIN, grain_um=1.0, clumping=0.55, irregular=0.08, nucleolus=1.0),
}
_LOOKS = {"NILM": _NILM, "LSIL": (_LSIL,), "HSIL": (_HSIL,), "SCC": (_SCC,)}


def cytology(*, um_per_px: float, seed: int, subtle: bool = False) -> Drawn:
    """Sprites of the four classes."""
    looks = {name: (look,) for name, look in _SUBTLE.items()} if subtle else _LOOKS
    draws = {name: partial(_any_of, looks[name]) for name in CLASSES}
    name = "subtle cytology" if subtle else "cytology"
    return Drawn(name, draws, um_per_px=um_per_px, background=BACKGROUND, seed=seed)


def _any_of(looks: tuple[Look, ...], rng: np.random.Generator, um_per_px: float) -> Sprite:
    return draw(looks[int(rng.integers(len(looks)))], rng, um_per_px)


def draw(look: Look, rng: np.random.Generator, um_per_px: float) -> Sprite:
    """One cell. What a look leaves to chance is drawn in the same order for every look."""
    cell_um, nucleus_um = rng.uniform(*look.cell_um), rng.uniform(*look.nucleus_um)
    cell_um = max(cell_um, nucleus_um * 1.12)
    stretch, angle = rng.uniform(*look.stretch), rng.uniform(0, np.pi)
    on = paper(cell_um * stretch**0.5 * 1.5, um_per_px)
    outline = Outline(0, 0, cell_um, stretch, angle, waves(rng, look.angular, range(3, 8)))
    nuclei = _nuclei(look, rng, cell_um, nucleus_um, stretch, angle)
    stain = look.dyes[int(rng.integers(len(look.dyes)))]
    cytoplasm = _cytoplasm(look, rng, on, outline, nuclei)
    density = cytoplasm[..., None] * stain
    darkness = rng.uniform(*look.darkness)
    for nucleus in nuclei:
        density = density + _nucleus(look, rng, on, nucleus, darkness)[..., None] * _HAEMATOXYLIN
    return sprite(np.asarray(density, np.float32), um_per_px)


def _nuclei(
    look: Look, rng: np.random.Generator, cell_um: float, nucleus_um: float, stretch: float, angle: float
) -> list[Outline]:
    two = rng.random() < look.two_nuclei
    room = max(cell_um - nucleus_um * 1.1, 0) * 0.35
    x, y = rng.uniform(-room, room, 2)
    own_stretch = 1 + (stretch - 1) * 0.6 + rng.uniform(0, 0.25)
    first = Outline(
        float(x), float(y), nucleus_um, own_stretch, angle + rng.normal(0, 0.2),
        waves(rng, look.irregular, range(2, 9)),
    )  # fmt: skip
    if not two:
        return [first]
    apart = nucleus_um * 0.85
    dx, dy = apart * np.cos(angle), apart * np.sin(angle)
    return [
        replace(first, x=first.x - dx, y=first.y - dy, radius_um=nucleus_um * 0.8),
        replace(first, x=first.x + dx, y=first.y + dy, radius_um=nucleus_um * 0.75, angle=angle + 0.6),
    ]


def _cytoplasm(
    look: Look, rng: np.random.Generator, on: Paper, outline: Outline, nuclei: list[Outline]
) -> Array:
    """Thickness: thin at the border, a denser rim where the cell folds, grain and creases inside."""
    depth = outline.inside_um(on)
    body = smooth_step(depth / 0.5) * (0.72 + 0.28 * (1 - np.exp(-np.maximum(depth, 0) / 4)))
    rim = 0.12 * np.exp(-(((depth - 0.7) / 0.6) ** 2))
    folds = np.zeros_like(on.x)
    for _ in range(int(rng.integers(0, 4))):
        direction, place = rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6) * outline.radius_um
        bend = rng.normal(0, 0.02)
        along = on.x * np.cos(direction) + on.y * np.sin(direction)
        aside = on.y * np.cos(direction) - on.x * np.sin(direction) - place - bend * along**2
        folds += np.asarray(0.25 * np.exp(-((aside / 0.6) ** 2)), np.float32)
    texture = 1 + 0.05 * grain(rng, on, 0.8) + 0.10 * grain(rng, on, 6.0)
    thickness = rng.uniform(*look.thickness)
    whole = (body * (1 + folds) + rim) * texture * smooth_step(depth / 0.5)
    if rng.random() < look.halo:
        whole = _with_halo(rng, on, whole, nuclei) * smooth_step(depth / 0.5)
    return np.asarray(thickness * np.clip(whole, 0, None), np.float32)


def _with_halo(rng: np.random.Generator, on: Paper, whole: Array, nuclei: list[Outline]) -> Array:
    """Cytoplasm cleared around the nuclei, unevenly, with a condensed border (koilocytosis)."""
    wide = rng.uniform(2.0, 4.5)
    zones = [
        replace(one, radius_um=one.radius_um + wide, waves=waves(rng, 0.09, range(2, 8))).inside_um(on)
        for one in nuclei
    ]
    near = np.max(zones, axis=0)
    cleared = 1 - rng.uniform(0.45, 0.75) * smooth_step(near / 1.6)
    return np.asarray(whole * cleared + 0.3 * np.exp(-(((near + 0.9) / 1.1) ** 2)), np.float32)


def _nucleus(look: Look, rng: np.random.Generator, on: Paper, outline: Outline, darkness: float) -> Array:
    """Absorbance: chromatin around a mean, a membrane, and sometimes a nucleolus."""
    depth = outline.inside_um(on)
    inside = smooth_step(depth / 0.3)
    clumps = 0.75 * grain(rng, on, look.grain_um) + 0.5 * grain(rng, on, 0.45 * look.grain_um)
    clumps -= float((clumps * inside).sum() / max(float(inside.sum()), 1))
    chromatin = 1 + look.clumping * np.clip(clumps, -1.8, 1.8)
    membrane = 0.35 * np.exp(-(((depth - 0.35) / 0.35) ** 2))
    dots = np.zeros_like(on.x)
    x, y = rng.uniform(-0.35, 0.35, 2) * outline.radius_um
    if rng.random() < look.nucleolus:
        spot = Outline(outline.x + float(x), outline.y + float(y), 0.9)
        dots += np.float32(0.9) * spot.mask(on, 0.3)
    uneven = np.asarray(np.clip(chromatin, 0.15, None) + membrane + dots, np.float32)
    if look.balanced:
        uneven *= np.float32(_balance(darkness * uneven[inside > 0.5], darkness))
    return np.asarray(darkness * inside * uneven, np.float32)


def _balance(density: Array, darkness: float) -> float:
    """By how much to multiply `density` for its mean transmission of red light to be that of `darkness`."""
    red = float(_HAEMATOXYLIN[0])
    low, high = 0.5, 4.0
    for _ in range(20):
        middle = (low + high) / 2
        if float(np.exp(-red * middle * density).mean()) > np.exp(-red * darkness):
            low = middle
        else:
            high = middle
    return low
