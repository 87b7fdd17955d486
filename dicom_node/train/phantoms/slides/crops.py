"""Real cells: photographs of single cells that are laid on a generated slide.

A folder with `labels.csv` (`path`, `class`, and any other columns) and the images it names. The middle of
a crop keeps its pixels; towards the border its background is brought to that of the slide and the
crop fades into it, so that no edge shows where it was cut out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicom_node.errors import UnreadableObject
from dicom_node.train.phantoms.slides.scene import CLEAR, Sprite

_FADE = 0.16
"""Share of a crop's side over which it fades into the slide."""
_OWN = 0.3
"""Share of its side from the border at which a crop has its own white balance."""
_BRIGHT = 90
"""Percentile of brightness that is taken for the background of a crop."""
_LOOKED_AT = 200
"""Crops that the slide's background colour is taken from."""


@dataclass(frozen=True, slots=True)
class Crop:
    """One row of `labels.csv`."""

    path: Path
    label: str
    row: Mapping[str, str]


def read_labels(folder: Path, where: Mapping[str, frozenset[str]] | None = None) -> list[Crop]:
    """The crops of a folder whose columns have one of the wanted values.

    Raises UnreadableObject where there is no `labels.csv`, or it lacks a column that is asked for.
    """
    table = folder / "labels.csv"
    wanted = where or {}
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"path", "class", *wanted} - set(reader.fieldnames or ())
            if missing:
                raise UnreadableObject(f"{table} has no column {', '.join(sorted(missing))}")
            rows = [row for row in reader if all(row[column] in wanted[column] for column in wanted)]
    except OSError as error:
        raise UnreadableObject(f"cannot read {table}: {error.strerror}") from error
    return [Crop(folder / row["path"], row["class"], row) for row in rows]


class Crops:
    """`Sprites` of real crops, loaded when they are looked at."""

    def __init__(self, crops: Sequence[Crop]) -> None:
        """Raises UnreadableObject where there is none, or an image cannot be opened."""
        if not crops:
            raise UnreadableObject("no cell is left to lay on the slide")
        self.crops = tuple(crops)
        self.name = "crops " + " ".join(f"{crop.path.parent.name}/{crop.path.name}" for crop in crops)
        self.classes = tuple(sorted({crop.label for crop in crops}))
        self.labels = np.array([self.classes.index(crop.label) for crop in crops], np.int32)
        self.sizes = np.array([_size(crop.path) for crop in crops], np.int32)
        step = max(1, len(crops) // _LOOKED_AT)
        self.background = slide_colour([photograph(crop.path) for crop in crops[::step]])
        self.sprite = lru_cache(maxsize=512)(self._make)

    def _make(self, number: int) -> Sprite:
        return faded(photograph(self.crops[number].path), self.background, number)


def photograph(path: Path) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3) sRGB. Raises UnreadableObject."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UnreadableObject(f"cannot read {path}: {error}") from error


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise UnreadableObject(f"cannot read {path}: {error}") from error


def background_of(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
    """Colour of the glass in a crop; None where cytoplasm fills it and no glass is seen."""
    grey = crop.astype(np.float32).min(axis=2)
    level = np.percentile(grey, _BRIGHT)
    bright = crop[grey >= level - 8].astype(np.float32)
    colour = np.asarray(np.median(bright, axis=0), np.float32)
    return colour if colour.min() > _GLASS else None


_GLASS = 165.0
"""Grey value of the darkest channel above which a crop's brightest tenth is glass, not cytoplasm."""


def slide_colour(crops: Sequence[npt.NDArray[np.uint8]]) -> tuple[float, float, float]:
    """The background that most crops have: the median of theirs."""
    seen = [colour for crop in crops if (colour := background_of(crop)) is not None]
    red, green, blue = np.median(seen, axis=0) if seen else (235.0, 235.0, 238.0)
    return float(red), float(green), float(blue)


def faded(crop: npt.NDArray[np.uint8], background: tuple[float, float, float], seed: int = 0) -> Sprite:
    """A crop as transmission over that background: its pixels kept in the middle, clear along the border.

    `seed` draws the outline along which it ends.
    """
    image, glass = crop.astype(np.float32), np.asarray(background, np.float32)
    edge = _edge_distance(crop.shape[0], crop.shape[1], np.random.default_rng([seed, 41]))
    own = background_of(crop)
    if own is not None:  # from the middle out, from its own white to the slide's
        image = image * (glass / own) ** (1 - _smooth(edge / _OWN))[..., None]
    kept = _smooth(edge / _FADE)[..., None]
    light = 1 - kept * (1 - image / glass)
    return np.asarray(np.clip(np.rint(light * CLEAR), 0, 255), np.uint8)


def _edge_distance(rows: int, columns: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(rows, columns): distance from an uneven round outline as a share of the side; 0.5 in the middle."""
    down = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    angle = np.arctan2(down, across)
    wobble = sum(rng.normal(0, 0.05 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 9))
    radius = (np.abs(down) ** 4 + np.abs(across) ** 4) ** 0.25 * (1 + np.clip(wobble, 0, 0.18))
    border = np.minimum(1 - np.abs(down), 1 - np.abs(across)) * 4  # whatever the outline, clear at the border
    return np.asarray(np.clip(np.minimum(1 - radius, border), 0, 1) / 2, np.float32)


def _smooth(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """0 at and below 0, 1 at and above 1, without a corner between."""
    t = np.clip(value, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)
