"""The pictures beside the pyramid: thumbnail, overview of the glass, and its label."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dicom_node.train.phantoms.slides.elements import GLASS_MM, ON_GLASS, UPRIGHT, Flavour, Stands
from dicom_node.train.phantoms.slides.scene import Scene

_LONGEST = 1024
_OVERVIEW_MM_PER_PX = 0.1
_LABEL_MM = 20
Picture = npt.NDArray[np.uint8]


def pictures(scene: Scene) -> Iterator[tuple[Flavour, Picture, float, Stands]]:
    """Each picture with its pixel spacing in mm and how it lies on the glass."""
    small, level = thumbnail(scene)
    yield "THUMBNAIL", small, scene.spec.spacing_mm(level), ON_GLASS
    yield "OVERVIEW", overview(scene, small), _OVERVIEW_MM_PER_PX, UPRIGHT
    yield "LABEL", label(), _OVERVIEW_MM_PER_PX, UPRIGHT


def thumbnail(scene: Scene) -> tuple[Picture, int]:
    """The whole slide with at most 1024 pixels a side, middle plane; and the level of that resolution."""
    spec, level = scene.spec, 0
    while max(spec.size(level)) > _LONGEST:
        level += 1
    rows, columns = spec.size(level)
    return scene.region(level, 0, 0, rows, columns, spec.planes // 2), level


def overview(scene: Scene, small: Picture) -> Picture:
    """The glass as a camera sees it: label above, specimen where the slide coordinates put it.

    Columns of the specimen run down the glass, its rows to the left.
    """
    spec, px = scene.spec, 1 / _OVERVIEW_MM_PER_PX
    across, down = (round(side * px) for side in GLASS_MM)
    image = Image.new("RGB", (across, down), (228, 230, 228))
    image.paste(Image.fromarray(label()), (0, 0))
    wide, tall = (max(1, round(n * spec.spacing_mm(0) * px)) for n in (spec.height, spec.width))
    x, y = ON_GLASS.corner_mm
    seen = Image.fromarray(np.ascontiguousarray(np.rot90(small, -1)))
    place = round(x * px) - wide, round((GLASS_MM[1] - y) * px)
    image.paste(seen.resize((wide, tall), Image.Resampling.BOX), place)
    return np.asarray(image)


def label() -> Picture:
    """What is written on the glass: that nobody's cells are on it."""
    wide, tall = round(GLASS_MM[0] / _OVERVIEW_MM_PER_PX), round(_LABEL_MM / _OVERVIEW_MM_PER_PX)
    image = Image.new("RGB", (wide, tall), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((4, 4, wide - 5, tall - 5), outline=(40, 40, 40), width=2)
    for line, text in enumerate(("PHANTOM", "generated slide", "not a person")):
        draw.text((20, 40 + 40 * line), text, fill=(20, 20, 20), font_size=24)
    return np.asarray(image)
