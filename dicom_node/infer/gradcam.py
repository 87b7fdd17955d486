"""Grad-CAM in closed form, and maps back on the grid of the source images.

Where a network ends in global average pooling and one linear layer, the gradient of a class
score with respect to the last feature map is that layer's weight, the same everywhere. So
Grad-CAM (Selvaraju et al., ICCV 2017) equals ReLU(sum over channels of weight x activation):
no backward pass, and every image of a batch gets its own map.
"""

from __future__ import annotations

from collections.abc import Callable
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


def onto_grid(
    maps: Any, *, size: int, pixel_mm: float, rows: int, columns: int, spacing_mm: tuple[float, float]
) -> Maps:  # Any: numpy array or tensor
    """Maps of a network's input, `size` pixels of `pixel_mm` around the centre, on the source grid.

    `maps` is (slices, r, c); the result (slices, rows, columns) float32, linear between the
    centres of the map's cells and zero outside the field. `spacing_mm` is the source's (rows, columns).

    Convolutions of odd width, padded by half of it on both sides, centre cell i on input pixel
    i x stride, not on the middle of a block of pixels: taken for the latter, every map would lie
    half a cell (18 mm at 36 mm) to the right and below of what it shows.
    """
    import torch

    values = torch.as_tensor(maps, dtype=torch.float32)
    if values.shape[0] == 0:
        return np.zeros((0, rows, columns), np.float32)
    y, x = (
        _cells(count, step_mm, size, pixel_mm, cells)
        for count, step_mm, cells in zip((rows, columns), spacing_mm, values.shape[1:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(x[0], y[0], indexing="xy"), dim=-1)[None]
    sampled = torch.nn.functional.grid_sample(
        values[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    outside = y[1][:, None] | x[1][None, :]
    result: Maps = sampled.masked_fill_(outside, 0.0).numpy()
    return result


def _cells(
    count: int, step_mm: float, size: int, pixel_mm: float, cells: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each source pixel of a centred axis: its place among the cells, -1 the first and 1 the last
    one's centre; and whether it lies outside the network's field."""
    import torch

    from_centre_mm = (torch.arange(count, dtype=torch.float32) + 0.5 - count / 2) * step_mm
    input_pixel = from_centre_mm / pixel_mm + (size - 1) / 2
    cell = input_pixel / (size / cells)
    place = 2 * cell / (cells - 1) - 1 if cells > 1 else torch.zeros(count)
    return place, from_centre_mm.abs() > size * pixel_mm / 2
