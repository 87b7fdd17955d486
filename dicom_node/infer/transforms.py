"""Transforms that MONAI lacks, for use in a bundle's preprocessing. Arrays are (slices, rows, columns)."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import MetaTensor

__all__ = ["AdcUnits", "InPlaneSpacing"]


class InPlaneSpacing:
    """Resample every slice to square pixels of `spacing_mm`, smoothing before it shrinks.

    MONAI's Spacing interpolates without an anti-aliasing filter, which on 0.4 mm pixels brought to
    2 mm keeps one pixel in 25 and its noise. The field of view stays the same.
    """

    def __init__(self, spacing_mm: float) -> None:
        self.spacing_mm = float(spacing_mm)

    def __call__(self, image: Any) -> torch.Tensor:  # Any: MetaTensor, of a library without types
        """`image` is a MetaTensor (slices, rows, columns) whose affine holds the in-plane spacing."""
        row_mm, column_mm = (float(mm) for mm in image.pixdim[:2])
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        rows = max(1, round(plain.shape[1] * row_mm / self.spacing_mm))
        columns = max(1, round(plain.shape[2] * column_mm / self.spacing_mm))
        resampled: torch.Tensor = torch.nn.functional.interpolate(
            plain[:, None], size=(rows, columns), mode="bilinear", antialias=True, align_corners=False
        )
        return resampled[:, 0]


class AdcUnits:
    """Bring an ADC map to 1e-6 mm2/s, in which most scanners write it.

    Some write mm2/s or 1e-3 mm2/s. Water has 3000e-6 mm2/s, so the magnitude tells which.
    """

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        largest = float(image.max())
        return image * (1e6 if largest < 0.1 else 1e3 if largest < 100 else 1.0)
