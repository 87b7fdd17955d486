"""Grad-CAM in closed form, and maps back on the grid of the source images.

Where a network ends in global average pooling and one linear layer, the gradient of a class
score with respect to the last feature map is that layer's weight, the same everywhere. So
Grad-CAM (Selvaraju et al., ICCV 2017) equals ReLU(sum over channels of weight x activation):
no backward pass, and every image of a batch gets its own map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError

if TYPE_CHECKING:
    import torch

Maps = npt.NDArray[np.float32]


class GradCam:
    """Listens to `layer` of a network during a forward pass; `head` is the linear layer after pooling."""

    def __init__(self, network: torch.nn.Module, layer: str, head: str) -> None:
        from torch import nn

        modules = dict(network.named_modules())
        if layer not in modules or head not in modules:
            raise ModelError(f"Grad-CAM: the network has no layer {layer!r} or no {head!r}")
        linear = modules[head]
        if not isinstance(linear, nn.Linear):
            raise ModelError(f"Grad-CAM in closed form needs a linear head, not {type(linear).__name__}")
        self._layer = modules[layer]
        self._head = linear

    def __call__(
        self, forward: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, of_class: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, maps): maps are (images, rows, columns) of the feature map, at least 0.

        A map's mean before the ReLU, plus the head's bias, is the class score: the values are each
        place's share in it and can be compared between images.
        """
        import torch

        seen: list[torch.Tensor] = []
        handle = self._layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            outputs = forward(batch)
        finally:
            handle.remove()
        if len(seen) != 1 or seen[0].shape[1] != self._head.in_features:
            raise ModelError("Grad-CAM in closed form needs the feature map that the head pools")
        weights = self._head.weight[of_class]
        return outputs, torch.relu(torch.einsum("nchw,c->nhw", seen[0], weights))


@dataclass(frozen=True, slots=True)
class Lattice:
    """Where the cells of a feature map are: in a square, centred field of view of `size` pixels.

    Cell i is centred on input pixel `first_px + i * step_px` (both count from 0). With stride-2
    convolutions padded by one on either side that is i * 2^n, not the middle of the i-th of equal
    parts: taking it for the latter moves a map by half a cell, here 17 mm, to the lower right.
    """

    size: int
    spacing_mm: float
    first_px: float
    step_px: float


def onto_grid(
    maps: Any, lattice: Lattice, *, rows: int, columns: int, spacing_mm: tuple[float, float]
) -> Maps:  # Any: numpy array or tensor
    """Maps of a lattice, brought onto the source grid, whose centre is the centre of the field of view.

    `maps` is (slices, r, c); the result (slices, rows, columns) float32, linear between the
    centres of cells, and zero outside the field or more than half a cell beyond the outermost
    centres: no cell is placed there. `spacing_mm` is the source's (rows, columns).
    """
    import torch

    values = torch.as_tensor(maps, dtype=torch.float32)
    if values.shape[0] == 0:
        return np.zeros((0, rows, columns), np.float32)
    y, x = _field_px(rows, spacing_mm[0], lattice), _field_px(columns, spacing_mm[1], lattice)
    places = [_normalised(at, lattice, cells) for at, cells in ((x, values.shape[2]), (y, values.shape[1]))]
    grid = torch.stack(torch.meshgrid(*places, indexing="xy"), dim=-1)[None]
    sampled = torch.nn.functional.grid_sample(
        values[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )[0]
    outside = [_outside(at, lattice, cells) for at, cells in ((y, values.shape[1]), (x, values.shape[2]))]
    result: Maps = sampled.masked_fill_(outside[0][:, None] | outside[1][None, :], 0.0).numpy()
    return result


def _field_px(count: int, step_mm: float, lattice: Lattice) -> torch.Tensor:
    """The source's pixel centres along one axis, as pixel numbers of the network's input."""
    import torch

    from_centre_mm = (torch.arange(count, dtype=torch.float32) + 0.5 - count / 2) * step_mm
    return from_centre_mm / lattice.spacing_mm + lattice.size / 2 - 0.5


def _normalised(field_px: torch.Tensor, lattice: Lattice, cells: int) -> torch.Tensor:
    """Pixel numbers as `grid_sample` wants them: -1 and 1 are the outer edges of the first and last cell."""
    cell = (field_px - lattice.first_px) / lattice.step_px
    return (2 * cell + 1) / cells - 1


def _outside(field_px: torch.Tensor, lattice: Lattice, cells: int) -> torch.Tensor:
    """Where the network saw nothing, or no cell is placed."""
    half = lattice.step_px / 2
    first = max(-0.5, lattice.first_px - half)
    last = min(lattice.size - 0.5, lattice.first_px + (cells - 1) * lattice.step_px + half)
    return (field_px < first) | (field_px > last)
