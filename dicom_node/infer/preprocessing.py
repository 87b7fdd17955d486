"""From a stack's pixels to a network's input, as a bundle's `preprocessing` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.domain.series import Contrast
from dicom_node.errors import ModelError

if TYPE_CHECKING:
    import torch

Transform = Callable[[Any], Any]  # Any: MONAI's MetaTensor, of a library without types


class Preprocessing:
    """MONAI transforms on (slices, rows, columns), all slices at a time.

    `transforms` are those of a bundle by key: `preprocessing`, and `preprocessing_<contrast>`, which
    goes before it for stacks of that contrast (an ADC map is quantitative, a T2 image is not).
    Training and inference both go through here, so that they cannot differ.
    """

    def __init__(self, transforms: Mapping[str, Transform]) -> None:
        if "preprocessing" not in transforms:
            raise ModelError("a bundle has no `preprocessing`")
        self._transforms = transforms

    def __call__(
        self, array: npt.NDArray[np.float32], spacing_mm: tuple[float, float], contrast: Contrast | None
    ) -> torch.Tensor:
        """(slices, rows, columns) float32 in the network's field of view; `spacing_mm` is (row, column)."""
        import torch
        from monai.data import MetaTensor

        key = f"preprocessing_{contrast.value}" if contrast else ""
        transform = self._transforms.get(key) or self._transforms["preprocessing"]
        affine = torch.diag(torch.tensor([*spacing_mm, 1.0, 1.0], dtype=torch.float64))
        tensor = torch.as_tensor(np.ascontiguousarray(array, dtype=np.float32))
        with torch.inference_mode():
            prepared = transform(MetaTensor(tensor, affine=affine))
            plain: torch.Tensor = prepared.as_tensor() if isinstance(prepared, MetaTensor) else prepared
            return plain.float()
