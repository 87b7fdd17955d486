"""Teach a bundle's network to sort pictures of cells, and ask it.

A label may allow several classes (an immature granulocyte of unknown stage is one of three): the loss
is minus the logarithm of the probability of all allowed classes together. Same seed, data and machine:
same weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError
from dicom_node.infer.image import ImageInput, image_input
from dicom_node.train.cells.augment import Changes, centre, changed
from dicom_node.train.network import calibrate, half_precision, new_network, settle

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Report = Callable[[str], None]
SETTLING = 12
"""Batches on which the batch norms are measured at the end."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One bundle's train.json."""

    pool: int
    """Pictures that are drawn and changed, each learned from once or a few times."""
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float
    frozen_blocks: int
    """First blocks of `features` whose weights and batch-norm statistics stay as they are."""
    warm_up: float
    rarity: float
    """How much rarer classes are drawn more often: 0 as they come, 1 all alike."""
    smoothing: float
    """Share of the truth that is spread over all classes."""
    seed: int
    augment: Changes


def read_recipe(bundle: Path, steps: int | None) -> Recipe:
    """`steps` overrides the file's, for trials. Raises ModelError."""
    try:
        raw = json.loads((bundle / "configs" / "train.json").read_text(encoding="utf-8"))
        raw.pop("_meta_", None)
        raw["augment"] = Changes(**raw["augment"])
        return Recipe(**(raw | ({"steps": steps, "pool": steps * raw["batch"]} if steps else {})))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"bundle {bundle.name}: configs/train.json is not usable: {error}") from error


def read_input(bundle: Path) -> ImageInput:
    """What the network sees. Raises ModelError."""
    try:
        raw = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"bundle {bundle.name}: configs/inference.json is not readable: {error}") from error
    found = image_input(raw, bundle.name)
    if found is None:
        raise ModelError(f"bundle {bundle.name}: configs/inference.json says no `image`")
    return found


@dataclass(frozen=True)
class Pool:
    """Changed pictures as the frozen first blocks see them, for several networks to learn from."""

    base: torch.nn.Module
    """The network with those blocks, and all others as they start."""
    seen: Any  # Any: torch.Tensor
    """(m, channels, rows, columns) float16."""
    row: Ints
    """(m,) of which row of the pictures each was made."""


def pool(
    bundle: Path, images: Bytes, allowed: Bools, group: Ints, recipe: Recipe, pretrained: Path | None,
    report: Report = lambda line: None,
) -> Pool:  # fmt: skip
    """Draw `recipe.pool` pictures, change each, and pass them through the first blocks.

    `allowed` is (n, classes); rows without any are left out. Weights are those of 16 bits from here on.
    """
    import torch

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    seen = read_input(bundle)
    network: Any = new_network(bundle, pretrained)  # Any: nn.Module's attribute access
    draw = drawer(allowed, group, recipe.rarity)
    if pretrained is not None and pretrained.suffix == ".npz":
        some = draw(rng, min(64, recipe.batch))
        calibrate(network, normalised(centre(images[some], seen.size_px), seen))
    half_precision(network.eval())
    first = network.features[: recipe.frozen_blocks]
    rows = draw(rng, recipe.pool)
    parts, portion = [], max(4, 128 * 96**2 // seen.size_px**2)
    with torch.inference_mode():
        for at in range(0, len(rows), portion):
            batch = changed(images[rows[at : at + portion]], seen.size_px, recipe.augment, rng)
            parts.append(first(normalised(batch, seen)).half())
            if at // 2560 != (at - portion) // 2560:
                report(f"{at} of {len(rows)} pictures changed")
    return Pool(network, torch.cat(parts).contiguous(), rows)


def learn(
    given: Pool, allowed: Bools, keep: Bools, recipe: Recipe, report: Report = lambda line: None
) -> torch.nn.Module:  # fmt: skip
    """A network that learned those pictures of the pool whose row is in `keep`, (n,)."""
    import copy

    import torch

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    network: Any = copy.deepcopy(given.base)  # Any: nn.Module's attribute access
    network.requires_grad_(True)
    network.features[: recipe.frozen_blocks].requires_grad_(False)
    upper = _upper(network, recipe.frozen_blocks)
    rows = np.flatnonzero(keep[given.row])
    targets = torch.from_numpy(allowed[given.row].astype(np.float32))
    learning = [parameter for parameter in upper.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learning, recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))
    order = np.concatenate(
        [rng.permutation(rows) for _ in range(1 + recipe.steps * recipe.batch // len(rows))]
    )
    said = 0.0
    upper.train()
    for step in range(recipe.steps):
        mine = torch.from_numpy(order[step * recipe.batch : (step + 1) * recipe.batch])
        loss = set_loss(upper(_floats(given.seen[mine])), targets[mine], recipe.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        said += float(loss.detach())
        if (step + 1) % 100 == 0:
            report(f"step {step + 1} of {recipe.steps}, loss {said / 100:.3f}")
            said = 0.0
    chosen = rng.choice(rows, (SETTLING, recipe.batch))
    settle(upper, [_floats(given.seen[torch.from_numpy(mine)]) for mine in chosen])
    finished: torch.nn.Module = half_precision(network.eval())
    return finished


def _floats(part: torch.Tensor) -> torch.Tensor:
    import torch

    return part.float().contiguous(memory_format=torch.channels_last)


def _upper(network: Any, first: int) -> Any:  # Any: nn.Module's attribute access
    """The blocks from `first` on, pooling and head, sharing their weights with the network."""
    from torch import nn

    return nn.Sequential(network.features[first:], nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.classifier)


def set_loss(logits: torch.Tensor, allowed: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Mean of -log of the allowed classes' probability."""
    import torch

    logs = torch.log_softmax(logits, dim=1)
    right = torch.logsumexp(logs.masked_fill(allowed == 0, -math.inf), dim=1)
    return -((1 - smoothing) * right + smoothing * logs.mean(dim=1)).mean()


def drawer(allowed: Bools, group: Ints, rarity: float) -> Callable[[np.random.Generator, int], Ints]:
    """Draws rows: a kind of label by its number to the power 1 - rarity; within it a group by the square
    root of its size, so that one large field does not outvote all others; within that a row."""
    usable = np.flatnonzero(allowed.any(axis=1))
    if len(usable) == 0:
        raise ModelError("there is nothing to train on")
    _, kind = np.unique(allowed[usable], axis=0, return_inverse=True)
    weight = np.zeros(len(usable))
    for k in np.unique(kind):
        mine = np.flatnonzero(kind.ravel() == k)
        _, own, sizes = np.unique(group[usable[mine]], return_inverse=True, return_counts=True)
        each = 1 / np.sqrt(sizes[own])
        weight[mine] = each / each.sum() * len(mine) ** (1 - rarity)
    weight /= weight.sum()
    return lambda rng, count: usable[rng.choice(len(usable), count, p=weight)].astype(np.int64)


def normalised(batch: torch.Tensor, seen: ImageInput) -> torch.Tensor:
    """Of 0 to 1, as the network wants it: (value - mean) / std by channel."""
    import torch

    mean, std = (
        torch.tensor(value, dtype=torch.float32)[None, :, None, None] for value in (seen.mean, seen.std)
    )
    return ((batch - mean) / std).contiguous(memory_format=torch.channels_last)


def ask(network: torch.nn.Module, bundle: Path, images: Bytes) -> Floats:
    """(n, classes) logits of pictures, brought to the size of the input."""
    seen = read_input(bundle)
    parts = [
        (centre(images[at : at + 64], seen.size_px) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for at in range(0, len(images), 64)
    ]
    return as_seen(network, bundle, np.concatenate(parts)) if parts else np.zeros((0, len(seen.classes)))


def as_seen(network: torch.nn.Module, bundle: Path, images: Bytes) -> Floats:
    """(n, classes) logits of pictures that have the size of the input, as the engine computes them."""
    return explained(network, bundle, images)[0]


def explained(network: torch.nn.Module, bundle: Path, images: Bytes) -> tuple[Floats, Floats]:
    """(logits (n, classes), Grad-CAM (n, classes, r, c), at least 0)."""
    import copy

    import torch

    from dicom_node.infer.bundle import fold_batch_norm
    from dicom_node.infer.graph import Graph

    raw = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    folded = fold_batch_norm(copy.deepcopy(network).eval()).to(memory_format=torch.channels_last)
    graph = Graph(folded, read_input(bundle), raw["gradcam"]).eval()
    said, maps = [], []
    with torch.inference_mode():
        for at in range(0, len(images), raw["batch_size"]):
            logits, heat = graph(torch.from_numpy(np.ascontiguousarray(images[at : at + raw["batch_size"]])))
            said.append(logits.double().numpy())
            maps.append(heat.double().numpy())
    if not said:
        return np.zeros((0, 1)), np.zeros((0, 1, 1, 1))
    return np.concatenate(said), np.concatenate(maps)


def save(network: torch.nn.Module, path: Path) -> None:
    """Weights in 16 bits; they were rounded to that when `learn` returned them."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in network.state_dict().items()
        },
        path,
    )


def _rate(step: int, recipe: Recipe) -> float:
    at = (step + 1) / recipe.steps
    if at < recipe.warm_up:
        return at / recipe.warm_up
    return 0.5 * (1 + math.cos(math.pi * (at - recipe.warm_up) / (1 - recipe.warm_up))) + 1e-3
