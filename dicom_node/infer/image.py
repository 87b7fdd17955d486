"""What a network on microscope images wants to see, as its bundle says. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.errors import ModelError


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Square sRGB images of `size_px`, at `um_per_px`, standardised by channel: (x / 255 - mean) / std."""

    size_px: int
    um_per_px: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    """In the order of the network's outputs."""


def image_input(raw: Mapping[str, Any], bundle: str) -> ImageInput | None:  # Any: parsed JSON
    """The `image` of a bundle's inference.json; None where it has none. Raises ModelError."""
    said = raw.get("image")
    if said is None:
        return None
    try:
        found = ImageInput(
            size_px=int(said["size_px"]), um_per_px=float(said["um_per_px"]),
            mean=_three(said.get("mean", (0.0, 0.0, 0.0))), std=_three(said.get("std", (1.0, 1.0, 1.0))),
            classes=tuple(str(word) for word in said["classes"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"bundle {bundle}: `image` is not usable ({type(error).__name__}: {error})"
        ) from error
    if found.size_px < 1 or found.um_per_px <= 0 or min(found.std) <= 0 or not found.classes:
        raise ModelError(f"bundle {bundle}: `image` is out of range: {found}")
    return found


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
