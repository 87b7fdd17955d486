"""Small bundles for microscope images, made by code: random features, a head fitted to something visible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.infer import parity
from dicom_node.infer.manifest import WEIGHTS
from support.bundles import seal

HEADS = {
    "mobilenet_v2": {"layer": "features", "head": "classifier.1"},
    "mobilenet_v3_small": {"layer": "features", "head": "classifier"},
    "resnet18": {"layer": "layer4", "head": "fc"},
    "DenseNet121": {"layer": "class_layers.relu", "head": "class_layers.out"},
}
"""Networks of torchvision, the last one MONAI's, and where their Grad-CAM is."""


def image_bundle(models: Path, name: str = "cells", *, kind: str = "mobilenet_v2", size_px: int = 64,
                 um_per_px: float = 0.5, **more: Any) -> Path:  # fmt: skip
    """Four classes: how dark the middle of the image is. `more` goes into inference.json."""
    from safetensors.torch import save_file

    folder = models / name
    for inner in ("configs", "models"):
        (folder / inner).mkdir(parents=True)
    save_file(network(kind, size_px).state_dict(), folder / WEIGHTS)
    inference = {
        "network_def": {"_target_": f"torchvision.models.{kind}", "num_classes": 4},
        "image": {
            "size_px": size_px, "um_per_px": um_per_px, "mean": [0.5] * 3, "std": [0.5] * 3,
            "classes": ["pale", "light", "dark", "black"],
        },
        "gradcam": HEADS[kind], "batch_size": 16,
    }  # fmt: skip
    (folder / "configs" / "inference.json").write_text(json.dumps(inference | more))
    return seal(folder)


def clear_bundle(models: Path, name: str = "clear") -> Path:
    """Two classes, as far apart as day and night, with cases of its own: what bfloat16 cannot mix up."""
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    folder = models / name
    for inner in ("configs", "models"):
        (folder / inner).mkdir(parents=True)
    seen, grade = day_and_night(32)
    save_file(network("resnet18", 64, seen, grade).state_dict(), folder / WEIGHTS)
    save_arrays({"images": day_and_night(16, 9)[0]}, folder / parity.IMAGES)
    inference = {
        "network_def": {"_target_": "torchvision.models.resnet18", "num_classes": 4}, "batch_size": 16,
        "image": {
            "size_px": 64, "um_per_px": 0.5, "mean": [0.5] * 3, "std": [0.5] * 3, "classes": list("abcd"),
        },
    }  # fmt: skip
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    return seal(folder)


def day_and_night(count: int, seed: int = 5) -> tuple[Any, Any]:
    """(2 x count images of 64 px, their classes 0 and 3)."""
    drawn = parity.drawn(count, 64, seed) // 4
    return np.concatenate([drawn, 255 - drawn]), np.repeat([0, 3], count)


def network(kind: str, size_px: int, seen: Any = None, grade: Any = None) -> Any:
    """Random weights that carry a signal: batch norms measured, the last layer fitted by ridge regression."""
    import torch
    import torchvision.models
    from torch import nn

    torch.manual_seed(1)
    if kind == "DenseNet121":
        from monai.networks.nets import DenseNet121

        made = DenseNet121(spatial_dims=2, in_channels=3, out_channels=4)
    else:
        made = getattr(torchvision.models, kind)(num_classes=4)
    seen = parity.drawn(96, size_px, 5) if seen is None else seen
    images = torch.from_numpy(seen).permute(0, 3, 1, 2).float() / 127.5 - 1
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    if grade is None:
        third = size_px // 3
        dark = -images[:, :, third:-third, third:-third].mean((1, 2, 3))
        grade = (4 * dark.argsort().argsort()) // len(dark)
    wanted = 6.0 * nn.functional.one_hot(torch.as_tensor(grade), 4).float() - 3.0
    linear = [module for module in made.modules() if isinstance(module, nn.Linear)][-1]
    entered: list[Any] = []
    with torch.no_grad():
        made.train()
        for _ in range(6):
            made(images[torch.randperm(len(images))[:32]])
        made.eval()
        handle = linear.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0]))
        made(images)
        handle.remove()
        features = torch.cat([entered[0], torch.ones(len(images), 1)], 1)
        kernel = features @ features.T
        ridge = torch.linalg.solve(
            kernel + 1e-1 * kernel.trace() / len(kernel) * torch.eye(len(kernel)), wanted
        )
        fitted = (features.T @ ridge).T
        linear.weight.copy_(fitted[:, :-1])
        linear.bias.copy_(fitted[:, -1])
    return made
