"""A network with what stands before and after it as one graph: uint8 images in, logits and Grad-CAM out.

Both runtimes run this one graph, so that standardising and Grad-CAM cannot differ between them.

Where a network pools its last feature map A over all places and ends in linear layers (with elementwise
functions between them), the gradient of a class score with respect to A is the same at every place: the
Jacobian of those layers at the pooled vector. Grad-CAM (Selvaraju et al., ICCV 2017) is then
ReLU(sum over channels of gradient x A), for all classes at once and without a backward pass through
the network; with one linear layer the gradient is its weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from dicom_node.errors import ModelError
from dicom_node.infer.image import ImageInput

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAME = 1e-4
"""Largest relative difference between the pooled map and what enters the head."""
_PASSED_OVER = (nn.Dropout, nn.Identity, nn.Flatten)


class Graph(nn.Module):
    """(n, rows, columns, 3) uint8 -> (logits (n, classes), maps (n, classes, r, c)), both float32.

    `gradcam` names the `layer` and the `head` as in inference.json; without it there are no maps.
    Raises ModelError where the head does not pool that layer: the closed form would be wrong.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, network: nn.Module, image: ImageInput, gradcam: Mapping[str, Any]
    ) -> None:  # Any: JSON
        super().__init__()
        self.network = network
        scale = [1.0 / (255.0 * std) for std in image.std]
        shift = [-mean / std for mean, std in zip(image.mean, image.std, strict=True)]
        like = next(network.parameters())
        self.register_buffer("scale", like.new_tensor(scale).view(1, 3, 1, 1))
        self.register_buffer("shift", like.new_tensor(shift).view(1, 3, 1, 1))
        self.head: list[nn.Module] = []
        self._seen: list[torch.Tensor] = []
        self._rectified = False
        if gradcam:
            self._listen(str(gradcam.get("layer")), str(gradcam.get("head")), image.size_px)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        standardised = images.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale + self.shift
        self._seen.clear()
        logits = self.network(standardised.contiguous(memory_format=torch.channels_last))
        if not self.head:
            return (logits,)
        features = torch.relu(self._seen[0]) if self._rectified else self._seen[0]
        self._seen.clear()
        return logits, torch.relu(weighted(self.head, features))

    def _listen(self, layer: str, head: str, size_px: int) -> None:
        modules = dict(self.network.named_modules())
        if layer not in modules or head not in modules:
            raise ModelError(f"Grad-CAM: the network has no layer {layer!r} or no {head!r}")
        self.head = _linear(modules[head], head)
        self._rectified = self._pools(modules[layer], modules[head], size_px)
        modules[layer].register_forward_hook(lambda _module, _inputs, output: self._keep(output))

    def _keep(self, features: torch.Tensor) -> None:
        self._seen[:] = [features]

    def _pools(self, layer: nn.Module, head: nn.Module, size_px: int) -> bool:
        """Whether the head takes the mean of the layer's map rectified, or as it is; neither: ModelError."""
        left: list[torch.Tensor] = []
        entered: list[torch.Tensor] = []
        handles = [
            layer.register_forward_hook(lambda _module, _inputs, output: left.append(output)),
            head.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0])),
        ]
        noise = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
        try:
            with torch.inference_mode():
                self.network((2 * noise - 1).to(self.scale))
        finally:
            for handle in handles:
                handle.remove()
        if len(left) != 1 or len(entered) != 1 or left[0].dim() != 4:
            raise ModelError("Grad-CAM in closed form needs a layer and a head that run once each")
        features, vector = left[0], entered[0].flatten(1)
        for rectified, one in ((True, torch.relu(features)), (False, features)):
            pooled = one.mean((2, 3))
            if pooled.shape == vector.shape and _near(pooled, vector):
                return rectified
        raise ModelError("Grad-CAM in closed form needs the feature map that the head pools")


def weighted(head: list[nn.Module], features: torch.Tensor) -> torch.Tensor:
    """(n, classes, r, c): the gradient of each class score, times the map, summed over channels."""
    if len(head) == 1:
        return nn.functional.conv2d(features, _weight(head[0])[:, :, None, None])
    vector, steps = features.mean((2, 3)), list[torch.Tensor]()
    for layer in head:
        steps.append(
            _weight(layer)[None] if isinstance(layer, nn.Linear) else _slope(layer, vector)[:, None, :]
        )
        vector = layer(vector)
    gradient = steps.pop()
    for layer, step in zip(reversed(head[:-1]), reversed(steps), strict=True):
        gradient = torch.matmul(gradient, step) if isinstance(layer, nn.Linear) else gradient * step
    flat = torch.matmul(gradient, features.flatten(2))
    return flat.reshape(flat.shape[0], flat.shape[1], features.shape[2], features.shape[3])


def _linear(head: nn.Module, name: str) -> list[nn.Module]:
    """The layers of a head that count, in order. Raises ModelError where one is not known here."""
    if isinstance(head, nn.Linear):
        return [head]
    layers = [one for one in head.children() if not isinstance(one, _PASSED_OVER)]
    known = all(isinstance(one, nn.Linear | nn.ReLU | nn.Hardswish) for one in layers)
    if (
        not isinstance(head, nn.Sequential)
        or not known
        or not layers
        or not isinstance(layers[-1], nn.Linear)
    ):
        raise ModelError(f"Grad-CAM in closed form needs a linear head, not {type(head).__name__} {name!r}")
    return layers


def _weight(layer: nn.Module) -> torch.Tensor:
    return cast("torch.Tensor", layer.weight)


def _slope(layer: nn.Module, at: torch.Tensor) -> torch.Tensor:
    """The derivative of an elementwise function."""
    if isinstance(layer, nn.ReLU):
        return (at > 0).to(at.dtype)
    return torch.where(
        at >= 3, torch.ones_like(at), torch.where(at <= -3, torch.zeros_like(at), at / 3 + 0.5)
    )


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= _SAME * other.abs().max().clamp_min(1e-12))
