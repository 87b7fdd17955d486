"""Labelled pictures of single cells in memory: squares of one size, all around the middle of the source.

A folder holds `labels.csv` (`path`, `class`, and where known `subtype` and `block`) beside its pictures.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.errors import InvalidValue

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Crops:
    """n pictures, one row each; `label` counts into `names`."""

    images: Bytes
    """(n, size, size, 3) sRGB."""
    label: Ints
    names: tuple[str, ...]
    """The labels as the source gives them."""
    group: Ints
    """Rows of one group stay on one side of every split."""
    um_per_px: float

    def __len__(self) -> int:
        return len(self.label)

    def of(self, *names: str) -> npt.NDArray[np.bool_]:
        """Which rows carry one of these labels."""
        return np.isin(self.label, [at for at, name in enumerate(self.names) if name in names])

    def counts(self) -> dict[str, int]:
        return {name: int(n) for name, n in zip(self.names, self.counted(), strict=True) if n}

    def counted(self) -> Ints:
        return np.bincount(self.label, minlength=len(self.names))

    def joined(self, other: Crops) -> Crops:
        """Both, with groups kept apart. Raises InvalidValue where they do not fit."""
        if self.names != other.names or self.images.shape[1:] != other.images.shape[1:]:
            raise InvalidValue("crops of other labels or another size cannot be joined")
        offset = int(self.group.max(initial=-1)) + 1
        return Crops(
            np.concatenate([self.images, other.images]), np.concatenate([self.label, other.label]),
            self.names, np.concatenate([self.group, other.group + offset]), self.um_per_px,
        )  # fmt: skip


def read_crops(
    folder: Path, names: Sequence[str], *, column: str, source_px: int, size: int, um_per_px: float
) -> Crops:
    """The pictures of a folder whose `column` of labels.csv is one of `names`, sorted by path.

    Of each the middle `source_px` pixels, resized to `size`; what is smaller is continued at its edges.
    `um_per_px` is that of the source. Where there is no `block`, exact and near copies make a group.
    Raises InvalidValue where the folder is none such.
    """
    rows = sorted(_rows(folder, column), key=lambda row: row["path"])
    rows = [row for row in rows if row[column] in names]
    if not rows:
        raise InvalidValue(f"{folder} holds no picture labelled as one of {', '.join(names)}")
    images = np.stack([_square(folder / row["path"], source_px, size) for row in rows])
    label = np.array([list(names).index(row[column]) for row in rows], np.int64)
    if "block" in rows[0]:
        blocks = sorted({row["block"] for row in rows}, key=lambda block: (len(block), block))
        group = np.array([blocks.index(row["block"]) for row in rows], np.int64)
    else:
        group = copies(images)
    return Crops(images, label, tuple(names), group, um_per_px * source_px / size)


def _rows(folder: Path, column: str) -> list[dict[str, str]]:
    try:
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidValue(f"{folder} has no readable labels.csv") from error
    if not rows or not {"path", column} <= set(rows[0]):
        raise InvalidValue(f"{folder / 'labels.csv'} needs the columns path and {column}")
    return rows


def _square(path: Path, source_px: int, size: int) -> Bytes:
    from PIL import Image

    try:
        with Image.open(path) as opened:
            picture = np.asarray(opened.convert("RGB"))
    except OSError as error:
        raise InvalidValue(f"{path.name} is no readable picture") from error
    short = [max(0, source_px - length) for length in picture.shape[:2]]
    picture = np.pad(picture, [(lack // 2, lack - lack // 2) for lack in short] + [(0, 0)], mode="edge")
    top, left = ((length - source_px) // 2 for length in picture.shape[:2])
    middle = picture[top : top + source_px, left : left + source_px]
    if source_px == size:
        return np.ascontiguousarray(middle)
    return np.asarray(Image.fromarray(middle).resize((size, size), Image.Resampling.LANCZOS))


NEAR = 3
"""Pictures whose hashes differ in at most so many of 256 bits are taken for copies."""


def copies(images: Bytes) -> Ints:
    """A number for each picture, the same for exact copies and for near ones: equal bytes, or difference
    hashes (Krawetz 2013; 16 x 16 signs of horizontal gradients) at most NEAR apart."""
    exact: dict[str, int] = {}
    first = [exact.setdefault(hashlib.sha256(image.tobytes()).hexdigest(), at)
             for at, image in enumerate(images)]  # fmt: skip
    parent = np.array(first, np.int64)
    words = _hashes(images)
    order = np.unique(parent)
    for place, at in enumerate(order):
        later = order[place + 1 :]
        apart = np.bitwise_count(words[later] ^ words[at]).sum(axis=1)
        for other in later[apart <= NEAR]:
            parent[parent == parent[other]] = parent[at]
    return np.unique(parent, return_inverse=True)[1].astype(np.int64)


def _hashes(images: Bytes) -> npt.NDArray[np.uint64]:
    """(n, 4) words of 64 bits."""
    from PIL import Image

    bits = np.empty((len(images), 256), bool)
    for at, image in enumerate(images):
        small = Image.fromarray(image).convert("L").resize((17, 16), Image.Resampling.BOX)
        grey = np.asarray(small, np.int16)
        bits[at] = (grey[:, 1:] > grey[:, :-1]).ravel()
    return np.packbits(bits, axis=1).view(np.uint64)
