"""The networks of a bundle while they learn: start, augmentation, steps, scores.

Kept small enough for two cores: the first blocks stay as ImageNet left them, batches are
balanced over classes and cases, and all augmentation is done on the batch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError

if TYPE_CHECKING:
    import torch

    from dicom_node.train.dataset import Slices

Ints = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
CHANNELS = 3
SETTLING = 12
"""Batches on which the batch norms are measured at the end."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One bundle's train.json."""

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    frozen_blocks: int
    """First blocks of `features` whose weights and batch-norm statistics stay as they are."""
    warm_up: float
    """Share of the steps in which the learning rate rises; it falls as a cosine afterwards."""
    seed: int
    augment: dict[str, Any]  # Any: parsed JSON


def read_recipe(bundle: Path, steps: int | None) -> Recipe:
    """`steps` overrides the file's, for trials. Raises ModelError."""
    try:
        raw = json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))
        raw.pop("_meta_", None)
        return Recipe(**(raw | ({"steps": steps} if steps else {})))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"bundle {bundle.name}: configs/train.json is not usable: {error}") from error


def new_network(bundle: Path, pretrained: Path | None) -> torch.nn.Module:
    """The bundle's network with ImageNet weights where a file has them.

    `pretrained` is an .npz of torchvision names with batch norm folded into the convolutions, or
    torchvision's own state dict as safetensors.
    """
    import torch

    from dicom_node.infer.configuration import parse

    raw = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    network: torch.nn.Module = parse(raw, f"bundle {bundle.name}").get_parsed_content("network_def")
    if pretrained is not None:
        _start_from(network, pretrained)
    head = dict(network.named_modules())["classifier.1"]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()  # every case starts at even odds
    return network.to(memory_format=torch.channels_last)


def _start_from(network: torch.nn.Module, pretrained: Path) -> None:
    import torch

    if pretrained.suffix == ".npz":
        with np.load(pretrained) as file:
            given = {name: torch.from_numpy(file[name]) for name in file.files}
    else:
        from safetensors.torch import load_file

        given = load_file(pretrained)
    own = network.state_dict()
    usable = {
        name: value for name, value in given.items()
        if not name.startswith("classifier") and name in own and own[name].shape == value.shape
    }  # fmt: skip
    if not usable:
        raise ModelError(f"{pretrained.name} has no weights that fit the network")
    network.load_state_dict(usable, strict=False)
    if pretrained.suffix == ".npz":
        _unfold(network, given)


def _unfold(network: torch.nn.Module, given: dict[str, torch.Tensor]) -> None:
    """Give the folded biases to the batch norms behind the convolutions.

    With mean 0 and variance 1 for now, a norm of weight sqrt(1 + eps) and that bias is what the
    folded convolution was; `calibrate` puts real statistics in their place.
    """
    import torch

    modules = dict(network.named_modules())
    with torch.no_grad():
        for conv, norm in norms(network):
            batch_norm = modules[norm]
            batch_norm.running_mean.zero_()
            batch_norm.running_var.fill_(1.0)
            batch_norm.weight.fill_(math.sqrt(1.0 + float(batch_norm.eps)))
            batch_norm.bias.copy_(given[f"{conv}.bias"])


def norms(network: torch.nn.Module) -> list[tuple[str, str]]:
    """(convolution, batch norm behind it) by name, for every pair inside one Sequential."""
    from torch import nn

    pairs = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            children = list(module.named_children())
            for (first, conv), (second, norm) in pairwise(children):
                if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                    pairs.append((f"{name}.{first}", f"{name}.{second}"))
    return pairs


def calibrate(network: torch.nn.Module, batch: torch.Tensor) -> None:
    """Measure each batch norm's input on one batch and make it do the same thing with these statistics.

    Without it the norms of a folded network would change what the convolutions say as soon as
    training normalises: weight = sqrt(var + eps), bias = mean + folded bias.
    """
    import torch

    modules = dict(network.named_modules())
    network.eval()
    seen: dict[str, torch.Tensor] = {}

    def listen(name: str) -> Callable[..., None]:
        return lambda _module, inputs: seen.__setitem__(name, inputs[0])

    handles = [modules[name].register_forward_pre_hook(listen(name)) for _, name in norms(network)]
    with torch.no_grad():
        network(batch)
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        for name, values in seen.items():
            norm = modules[name]
            variance, mean = torch.var_mean(values.float(), dim=(0, 2, 3), unbiased=False)
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            shift = norm.bias - norm.running_mean * scale
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
            norm.bias.copy_(shift + mean * scale)


def train_network(
    bundle: Path, slices: Slices, positive: Ints, negative: Ints, *, recipe: Recipe, pretrained: Path | None
) -> torch.nn.Module:  # fmt: skip
    """Teach the bundle's network to tell `positive` from `negative` rows of `slices`.

    A batch is half of each; within a half every case is as likely as any other, whatever its
    number of slices. Same seed, data and machine: same weights.
    """
    import torch

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network = new_network(bundle, pretrained)
    draw = [_by_case(rows, slices.case) for rows in (positive, negative)]
    if pretrained is not None and pretrained.suffix == ".npz":
        calibrate(network, _batch(slices, np.concatenate([d(rng, 32) for d in draw])))
    layers: Any = network.features  # Any: nn.Module's attribute access
    for block in layers[: recipe.frozen_blocks]:
        block.requires_grad_(False)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))
    half = recipe.batch // 2
    truth = torch.cat([torch.ones(half), torch.zeros(half)])
    for _ in range(recipe.steps):
        network.train()
        for block in layers[: recipe.frozen_blocks]:
            block.eval()
        batch = augmented(_batch(slices, np.concatenate([d(rng, half) for d in draw])), recipe.augment, rng)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], truth)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    settle(network, [_batch(slices, np.concatenate([d(rng, half) for d in draw])) for _ in range(SETTLING)])
    return network.eval()


def settle(network: torch.nn.Module, batches: Sequence[torch.Tensor]) -> None:
    """Measure batch-norm statistics anew with the final weights, on pictures as they come.

    The running ones lag behind after a short training and are those of augmented pictures. Frozen
    blocks keep theirs.
    """
    import torch
    from torch import nn

    learnt = [
        module for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.weight.requires_grad
    ]  # fmt: skip
    network.eval()
    for norm in learnt:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    for norm in learnt:
        norm.momentum = 0.1
    network.eval()


def _rate(step: int, recipe: Recipe) -> float:
    at = (step + 1) / recipe.steps
    if at < recipe.warm_up:
        return at / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (at - recipe.warm_up) / (1 - recipe.warm_up))) + 1e-3


def _by_case(rows: Ints, case: Ints) -> Callable[[np.random.Generator, int], Ints]:
    """Draws rows so that every case is as likely as any other."""
    if len(rows) == 0:
        raise ModelError("there are no slices of one of the two classes to train on")
    groups = [rows[case[rows] == at] for at in np.unique(case[rows])]

    def draw(rng: np.random.Generator, count: int) -> Ints:
        chosen = rng.integers(len(groups), size=count)
        return np.array([groups[at][rng.integers(len(groups[at]))] for at in chosen], np.int64)

    return draw


def _batch(slices: Slices, rows: Ints) -> torch.Tensor:
    """(rows, CHANNELS, height, width) float32 in -1..1."""
    import torch

    images = torch.from_numpy(slices.images[rows]).float().div_(127.5).sub_(1.0)
    return images[:, None].expand(-1, CHANNELS, -1, -1).contiguous(memory_format=torch.channels_last)


def augmented(batch: torch.Tensor, how: dict[str, Any], rng: np.random.Generator) -> torch.Tensor:
    """Turned, scaled, shifted, mirrored (rows stay up), with another contrast, gamma and noise."""
    import torch

    n = len(batch)

    def uniform(width: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(-width, width, n).astype(np.float32))

    angle, scale = uniform(math.radians(how["turn_deg"])), 1 + uniform(how["scale"])
    mirrored = rng.random(n) < (0.5 if how["flip"] else 0.0)
    mirror = torch.from_numpy(np.where(mirrored, -1.0, 1.0).astype(np.float32))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    across = torch.stack([cos * mirror, -sin, uniform(how["shift"])], dim=1)
    down = torch.stack([sin * mirror, cos, uniform(how["shift"])], dim=1)
    theta = torch.stack([across, down], dim=1)
    one = batch[:, :1]
    grid = torch.nn.functional.affine_grid(theta, list(one.shape), align_corners=False)
    one = torch.nn.functional.grid_sample(one + 1, grid, align_corners=False)  # 0 outside is air
    one = (one / 2).clamp(0, 1) ** torch.exp(uniform(how["gamma"]))[:, None, None, None]
    one = one * (1 + uniform(how["contrast"]))[:, None, None, None]
    noise = torch.from_numpy(rng.standard_normal(tuple(one.shape), dtype=np.float32))
    one = one + noise * uniform(how["noise"]).abs()[:, None, None, None]
    done = one.clamp(0, 1) * 2 - 1
    return done.expand(-1, CHANNELS, -1, -1).contiguous(memory_format=torch.channels_last)


def logits(network: torch.nn.Module, slices: Slices, rows: Ints) -> Logits:
    """The network's output for these rows, in order."""
    import torch

    from dicom_node.infer.bundle import fold_batch_norm

    folded = fold_batch_norm(_copy(network)).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        parts = [folded(_batch(slices, rows[at : at + 64]))[:, 0].numpy() for at in range(0, len(rows), 64)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _copy(network: torch.nn.Module) -> torch.nn.Module:
    import copy

    return copy.deepcopy(network).eval()


def half_precision(network: torch.nn.Module) -> torch.nn.Module:
    """The network as it is after its weights were stored in 16 bits: what is evaluated is what is shipped."""
    import torch

    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())
    return network
