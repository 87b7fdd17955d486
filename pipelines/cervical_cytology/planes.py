"""One answer per cell from its pictures on all focal planes.

A cell is sharp on a few planes, and a lesion may show on one of them only. Each plane has its say with
a weight: softmax over planes of `focus` x log sharpness + `abnormality` x log-odds of abnormal. With
`abnormality` 0 the sharpest planes decide; the larger it is, the more the most suspicious one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import ModelError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Attention:
    """The fitted numbers, from the bundle's `configs/planes.json`."""

    focus: float
    abnormality: float
    temperature: float
    """Logits are divided by it before anything else."""

    def weights(self, logits: Floats, sharpness: Floats) -> npt.NDArray[np.float64]:
        """(n, planes) that sum to 1, of logits (n, planes, classes), class 0 normal, and sharpness
        (n, planes)."""
        scaled = logits.astype(np.float64) / self.temperature
        abnormal = log_sum(scaled[..., 1:]) - scaled[..., 0]
        sharp = np.log(np.maximum(sharpness.astype(np.float64), 1e-3))
        score = self.focus * sharp + self.abnormality * abnormal
        powers = np.exp(score - score.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def fuse(self, logits: Floats, sharpness: Floats) -> tuple[Floats, npt.NDArray[np.uint16]]:
        """(probability (n, classes), the plane that weighs most (n,))."""
        weights = self.weights(logits, sharpness)
        scaled = logits.astype(np.float64) / self.temperature
        shares = np.exp(scaled - log_sum(scaled)[..., None])
        mixed = (weights[..., None] * shares).sum(axis=1)
        mixed /= mixed.sum(axis=1, keepdims=True)
        return mixed.astype(np.float32), weights.argmax(axis=1).astype(np.uint16)


def log_sum(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """log of the sum of exponentials over the last axis."""
    largest = values.max(axis=-1, keepdims=True)
    return np.asarray(np.log(np.exp(values - largest).sum(axis=-1)) + largest[..., 0])


def read_attention(config: Mapping[str, Any]) -> Attention:  # Any: parsed JSON
    """Raises ModelError where the bundle's file lacks something."""
    try:
        read = Attention(float(config["focus"]), float(config["abnormality"]), float(config["temperature"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"planes.json is not usable: {error!r}") from error
    if not read.temperature > 0:
        raise ModelError("planes.json: temperature must be above 0")
    return read
