"""Whether a faster runtime says what the reference says: the gate at load.

The cases are uint8 images that every machine makes alike: those a bundle stores as `images` in
models/parity.safetensors, else stained cells drawn by `drawn`. `configs/parity.json` holds what the network
said of them when it was released:

    seed, cases    of the drawn images; left out where images are stored
    logits         one row per case, float32, of the reference

The reference itself must still say that here (`released`), or the bundle is not used at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError

CONFIG = "configs/parity.json"
IMAGES = "models/parity.safetensors"
CASES, SEED = 32, 20261121
RELEASED_WITHIN = 1e-3
"""Largest difference of a probability between this machine's reference and the released one."""

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a runtime may be from the reference."""

    probability: float
    """Largest difference of any class's probability in any case."""
    same_class: float
    """Least share of cases in which both name the same class."""
    heat: float
    """Largest share of any case's heat, in the Grad-CAM map of the class it is named, that lies elsewhere."""


LIMITS = {"f32": Limits(1e-4, 1.0, 1e-2), "bf16": Limits(1e-2, 0.999, 0.2)}


@dataclass(frozen=True, slots=True)
class Parity:
    """How a runtime compares with the reference over the cases."""

    cases: int
    probability: float
    same_class: float
    heat: float

    def objection(self, limits: Limits) -> str:
        """Why it must not be used, in words; "" where it may."""
        if not self.same_class >= limits.same_class:
            return (
                f"it names another class in {round((1 - self.same_class) * self.cases)} of {self.cases} cases"
            )
        if not self.probability <= limits.probability:  # a NaN is no agreement
            return f"its probabilities differ by more than {limits.probability:g}"
        if not self.heat <= limits.heat:
            return f"its Grad-CAM maps differ in more than {limits.heat:.0%} of the heat"
        return ""


def compare(reference: tuple[Floats, ...], other: tuple[Floats, ...]) -> Parity:
    """Both are (logits (n, k),) or (logits, maps (n, k, r, c)) of the same n cases."""
    ours, theirs = reference[0], other[0]
    if ours.shape != theirs.shape:
        return Parity(len(ours), 1.0, 0.0, 1.0)
    apart = np.abs(probabilities(ours) - probabilities(theirs))
    heat = 0.0
    if len(reference) > 1 and len(reference[1]):
        named = np.arange(len(ours)), classes(ours) if ours.shape[1] > 1 else 0
        map_, moved = reference[1][named], np.abs(reference[1][named] - other[1][named])
        whole = map_.sum(axis=(1, 2))
        floor = 1e-2 * float(whole.max()) + 1e-12  # a map of nothing but rounding has no shape to keep
        heat = float((moved.sum(axis=(1, 2)) / np.maximum(whole, floor)).max())
    same = classes(ours) == classes(theirs)
    return Parity(len(ours), float(apart.max(initial=0.0)), float(same.mean()) if len(same) else 1.0, heat)


def probabilities(logits: Floats) -> npt.NDArray[np.float64]:
    """Softmax over classes; of a single logit its sigmoid."""
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        wide = np.concatenate([wide, np.zeros_like(wide)], axis=1)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares[:, : logits.shape[1]]


def classes(logits: Floats) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = (
        logits.argmax(axis=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(int)
    )
    return found


def cases(said: Mapping[str, Any], stored: Path | None, size_px: int) -> Images:  # Any: parsed JSON
    """The images of a bundle's gate: (n, size, size, 3). Raises ModelError."""
    if stored is None:
        return drawn(int(said.get("cases", CASES)), size_px, int(said.get("seed", SEED)))
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        images: Images = load_file(stored)["images"]
    except (SafetensorError, OSError, KeyError) as error:
        raise ModelError(f"{IMAGES} holds no `images`") from error
    if images.dtype != np.uint8 or images.shape[1:] != (size_px, size_px, 3):
        raise ModelError(f"{IMAGES}: images are {images.dtype} {images.shape}, not of {size_px} px")
    return images


def check_released(said: Mapping[str, Any], reference: Floats, bundle: str) -> None:  # Any: parsed JSON
    """Raises ModelError where the reference no longer says what was released."""
    if "logits" not in said:
        return
    released = np.asarray(said["logits"], np.float32)
    if released.shape != reference.shape:
        raise ModelError(f"bundle {bundle}: {CONFIG} holds logits {released.shape}, not {reference.shape}")
    apart = float(np.abs(probabilities(released) - probabilities(reference)).max(initial=0.0))
    if not apart <= RELEASED_WITHIN:
        raise ModelError(
            f"bundle {bundle}: its network says other things here than when it was released "
            f"(probabilities differ by {apart:.2g}); it is not used"
        )


def drawn(count: int, size_px: int, seed: int = SEED) -> Images:
    """(count, size, size, 3): a stained cell each on a pale ground, of all sizes and shades, with noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px - 0.5
    images = np.empty((count, size_px, size_px, 3), np.uint8)
    for image in images:
        ground = np.broadcast_to(draw.uniform(215, 250, 3), (size_px, size_px, 3)).copy()
        body = draw.uniform(0.15, 0.5)
        for radius, shade in (
            (body, draw.uniform(110, 235, 3)),
            (body * draw.uniform(0.2, 0.9), draw.uniform(30, 170, 3)),
        ):
            angle, squeeze = draw.uniform(0, np.pi), draw.uniform(0.6, 1.0)
            along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            edge = (radius - np.hypot(along, across / squeeze)) * size_px / 3
            inside = (np.clip(edge, -1, 1)[..., None] + 1) / 2
            ground += inside * (shade - ground)
        image[:] = np.clip(ground + draw.normal(0, draw.uniform(1, 12), ground.shape), 0, 255)
    return images
