"""Slides for tests: crops that look like nothing in nature but tell their corners apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from dicom_node.train.phantoms.slides.build import Wish, build_slide
from dicom_node.train.phantoms.slides.crops import Crops, read_labels
from dicom_node.train.phantoms.slides.scene import Scene
from dicom_node.train.phantoms.slides.spec import SlideSpec

GLASS = (230, 228, 232)


def crop(colour: tuple[int, int, int], rows: int = 40, columns: int = 40) -> np.ndarray:
    """(rows, columns, 3): a disc of `colour` on glass, and a black corner mark inside it, upper left."""
    down, across = np.ogrid[:rows, :columns]
    image = np.full((rows, columns, 3), GLASS, np.uint8)
    image[(down - rows / 2) ** 2 + (across - columns / 2) ** 2 < (min(rows, columns) * 0.28) ** 2] = colour
    image[rows * 3 // 8 : rows // 2, columns * 3 // 8 : columns // 2] = (20, 20, 20)
    return image


def crop_folder(folder: Path) -> Path:
    """Two classes of six cells with a column `block`: NILM is teal, HSIL is purple."""
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "class", "block"])
        for label, colour in (("NILM", (90, 160, 160)), ("HSIL", (120, 60, 150))):
            for number in range(6):
                name = f"{label}-{number}.png"
                shade = tuple(part + number for part in colour)
                Image.fromarray(crop(shade, 40, 40 + 8 * (number % 2))).save(folder / name)
                writer.writerow([name, label, number // 2])
    return folder


def slide_of(folder: Path, spec: SlideSpec, wish: Wish) -> Scene:
    """A scene of the crops in `folder`."""
    return build_slide(spec, Crops(read_labels(folder)), wish)
