"""Pictures of drawn cervical cells, and of real ones as they look on a generated slide."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.infer.cells import CERVICAL, cut, find_nuclei
from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.tasks import BETHESDA
from dicom_node.train.phantoms.slides.crops import faded, slide_colour
from dicom_node.train.phantoms.slides.cytology import cytology
from dicom_node.train.phantoms.slides.scene import CLEAR, Sprite

Bytes = npt.NDArray[np.uint8]
LEARNT_SEEDS, CALIBRATION_SEED, HELD_OUT_SEED = (301, 302), 303, 304
"""Of drawn cells: to learn from, to choose numbers on, never seen."""


def on_glass(sprite: Sprite, background: tuple[float, float, float]) -> Bytes:
    """(rows, columns, 3) uint8 of a sprite over that colour."""
    light = sprite.astype(np.float32) / CLEAR
    seen = np.rint(light * np.asarray(background, np.float32))
    return np.asarray(np.clip(seen, 0, 255), np.uint8)


def alone(crops: Crops) -> Crops:
    """The same cells as `phantom slide` lays them on glass: surroundings fade into the slide's colour."""
    step = max(1, len(crops) // 200)
    colour = slide_colour(list(crops.images[::step]))
    images = np.stack([on_glass(faded(image, colour), colour) for image in crops.images])
    return Crops(images, crops.label, crops.names, crops.group, crops.um_per_px)


def drawn_crops(
    seed: int, size: int, um_per_px: float, names: tuple[str, ...], work: Path,
    report: Callable[[str], None], *, subtle: bool = False, each: int = 40,
) -> Crops:  # fmt: skip
    """`each` drawn cells of every class, nucleus in the middle, kept in `work`; labels count into `names`."""
    key = hashlib.sha256(repr((seed, size, um_per_px, subtle, each, 1)).encode()).hexdigest()[:12]
    path = work / f"drawn-{seed}-{key}.npz"
    label = np.repeat([names.index(name) for name in BETHESDA], each).astype(np.int64)
    if not path.is_file():
        report(f"drawing {len(label)} {'subtle ' * subtle}cells of seed {seed}")
        cells = cytology(um_per_px=um_per_px, seed=seed, subtle=subtle)
        first = [int(np.flatnonzero(cells.labels == cells.classes.index(name))[0]) for name in BETHESDA]
        numbers = [at + variant for at in first for variant in range(each)]
        images = np.stack([
            _centred(on_glass(cells.sprite(number), cells.background), size, um_per_px, cells.background)
            for number in numbers
        ])  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(file, images=images)
        partial.replace(path)
    with np.load(path) as file:
        return Crops(file["images"], label, names, np.arange(len(label)), um_per_px)


def _centred(picture: Bytes, size: int, um_per_px: float, background: tuple[float, float, float]) -> Bytes:
    """A square around the nucleus that the finder finds, or around the middle."""
    white = np.asarray(background, np.float32)
    wide = np.pad(picture, [(40, 40), (40, 40), (0, 0)], mode="edge")
    nuclei = find_nuclei(wide, um_per_px, CERVICAL, white)
    middle = np.array([wide.shape[1] / 2, wide.shape[0] / 2], np.float32)
    place = nuclei.centre_px[0] if len(nuclei) else middle
    return np.asarray(cut(wide, place[None], size, size, white)[0])
