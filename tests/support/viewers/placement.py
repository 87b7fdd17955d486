"""Does what is coloured on a photograph lie where a mask in patient space says?

The mask is projected by patient millimetres alone onto the plane that the viewer shows; what a
viewer mirrors, shifts or lays on another slice no longer overlaps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from dicom_node.dicom.volume import affine_of
from dicom_node.domain.series import Stack
from support.viewers.browser import Photograph
from support.viewers.ohif import View

Mask = npt.NDArray[np.bool_]


def projected(view: View, stack: Stack, mask: Mask) -> Mask:
    """A (slices, rows, columns) mask of a stack as it lies on the viewport: (height, width)."""
    down, right = np.mgrid[0 : view.height, 0 : view.width]
    world = view.origin_mm + right[..., None] * view.right_mm + down[..., None] * view.down_mm
    inverse = np.linalg.inv(affine_of(stack))
    index = np.rint(world @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.intp)
    within = np.all((index >= 0) & (index < mask.shape), axis=-1)
    seen = np.zeros((view.height, view.width), bool)
    seen[within] = mask[tuple(index[within].T)]
    return seen


def coloured(picture: Photograph) -> Mask:
    """Where a photograph is anything but grey."""
    channels = picture.astype(np.int16)
    apart: Mask = channels.max(axis=-1) - channels.min(axis=-1) > 45
    return apart


def inside(outline: npt.NDArray[np.float64], view: View) -> Mask:
    """The inside of a closed outline in pixels of the viewport."""
    canvas = Image.new("1", (view.width, view.height))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.asarray(canvas, dtype=bool)


def overlap(one: Mask, other: Mask) -> float:
    """Jaccard: 1 where both are the same, 0 where they have nothing in common or are empty."""
    together = int((one | other).sum())
    return int((one & other).sum()) / together if together else 0.0


def laid_out(view: View, pixels: Photograph) -> tuple[Photograph, Mask]:
    """An image without a place in the patient as it lies on the viewport, and which part of it that is."""
    down, right = np.mgrid[0 : view.height, 0 : view.width]
    world = view.origin_mm + right[..., None] * view.right_mm + down[..., None] * view.down_mm
    column, row = np.rint(world[..., 0]).astype(np.intp), np.rint(world[..., 1]).astype(np.intp)
    covered = (row >= 0) & (row < pixels.shape[0]) & (column >= 0) & (column < pixels.shape[1])
    shown = np.zeros((view.height, view.width, 3), np.uint8)
    shown[covered] = pixels[row[covered], column[covered]]
    return shown, covered


def likeness(one: Photograph, other: Photograph) -> float:
    """Correlation of two photographs, both made soft: 1 where they are the same but for their sharpness."""
    soft = []
    for picture in (one, other):
        grey = Image.fromarray(picture).convert("L")
        soft.append(np.asarray(grey.filter(ImageFilter.BoxBlur(2)), dtype=np.float64).ravel())
    return float(np.corrcoef(soft[0], soft[1])[0, 1])
