"""What a microscope, a stain and a camera do to the same cell: pictures as batches, changed at random.

Cells have no up and no left, so they are turned by any angle. Colours change in optical density, where
stains add (Ruifrok & Johnston 2001), most of all per channel: a network that learns the tint of a
laboratory instead of the nucleus is of no use in the next one.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Changes:
    """How much may change: train.json's `augment`."""

    turn: bool = True
    """By any angle, and mirrored."""
    scale: float = 0.1
    shift_px: float = 4.0
    """Of the output: a finder does not hit the middle of a nucleus exactly."""
    stain: float = 0.25
    """Of each channel's optical density, as a factor."""
    light: float = 0.06
    """Of the lamp's brightness, by channel."""
    blur_px: float = 1.2
    """Standard deviation of a defocused cell, at most; half of the cells stay sharp."""
    noise: float = 0.015
    jpeg: float = 0.15
    """Share that goes through JPEG of quality 50 to 90."""
    fade: float = 0.0
    """Share whose surroundings fade into empty glass."""
    multiply: float = 0.0
    """Share on which another cell's edge lies."""


def as_batch(images: Bytes) -> torch.Tensor:
    """(n, 3, rows, columns) float32, 0 to 1, of (n, rows, columns, 3)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255.0)


def centre(images: Bytes, size: int) -> torch.Tensor:
    """The batch as it is at inference: the pictures brought to `size`."""
    import torch

    batch = as_batch(images)
    if batch.shape[-1] == size:
        return batch
    return torch.nn.functional.interpolate(
        batch, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    ).clamp_(0, 1)


def changed(images: Bytes, size: int, how: Changes, rng: np.random.Generator) -> torch.Tensor:
    """(n, 3, size, size) float32, 0 to 1. Repeatable: all chance comes from `rng`."""
    import torch

    n = len(images)
    batch = _moved(as_batch(_through_jpeg(images, how.jpeg, rng)), size, how, rng)
    if how.multiply:
        batch = _overlaid(batch, how.multiply, rng)
    density = -torch.log(batch.clamp(1 / 255, 1))
    gain = 1 + _uniform(rng, how.stain, n, 3) + _uniform(rng, how.stain / 2, n, 1)
    batch = torch.exp(-density * gain[:, :, None, None])
    batch = batch * (1 + _uniform(rng, how.light, n, 3) + _uniform(rng, how.light, n, 1))[:, :, None, None]
    if how.fade:
        batch = _faded(batch, how.fade, rng)
    if how.blur_px:
        batch = _blurred(batch, how.blur_px, rng)
    if how.noise:
        noise = torch.from_numpy(rng.standard_normal(tuple(batch.shape), dtype=np.float32))
        batch = batch + noise * (_uniform(rng, how.noise, n, 1).abs())[:, :, None, None]
    return batch.clamp_(0, 1)


def _uniform(rng: np.random.Generator, width: float, *shape: int) -> torch.Tensor:
    import torch

    return torch.from_numpy(rng.uniform(-width, width, shape).astype(np.float32))


def _moved(batch: torch.Tensor, size: int, how: Changes, rng: np.random.Generator) -> torch.Tensor:
    import torch

    n = len(batch)
    angle = _uniform(rng, math.pi if how.turn else 0.0, n)
    scale = 1 + _uniform(rng, how.scale, n)
    mirror = torch.from_numpy(rng.choice([-1.0, 1.0], n).astype(np.float32)) if how.turn else 1.0
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = 2 * how.shift_px / size
    across = torch.stack([cos * mirror, -sin, _uniform(rng, shift, n)], dim=1)
    down = torch.stack([sin * mirror, cos, _uniform(rng, shift, n)], dim=1)
    grid = torch.nn.functional.affine_grid(
        torch.stack([across, down], dim=1), [n, 3, size, size], align_corners=False
    )
    return torch.nn.functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)


def _overlaid(batch: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """The outer part of another picture of the batch lies over some, as cells overlap on glass."""
    import torch

    n, _, rows, columns = batch.shape
    other = batch[torch.from_numpy(rng.permutation(n))]
    angle = _uniform(rng, math.pi, n)[:, None, None]
    y = (torch.arange(rows) - rows / 2 + 0.5)[None, :, None] / rows
    x = (torch.arange(columns) - columns / 2 + 0.5)[None, None, :] / columns
    beyond = (
        x * torch.cos(angle) + y * torch.sin(angle) - (0.35 + _uniform(rng, 0.1, n)[:, None, None])
    ) * 40
    amount = torch.sigmoid(beyond)[:, None] * torch.from_numpy(rng.random(n) < share)[:, None, None, None]
    return batch * (1 - amount) + batch * other * amount


def _faded(batch: torch.Tensor, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Surroundings give way to glass, as around a cell that lies alone."""
    import torch

    n, _, rows, columns = batch.shape
    y = (torch.arange(rows) - rows / 2 + 0.5)[None, :, None] / rows
    x = (torch.arange(columns) - columns / 2 + 0.5)[None, None, :] / columns
    radius = torch.from_numpy(rng.uniform(0.34, 0.62, n).astype(np.float32))[:, None, None]
    soft = torch.from_numpy(rng.uniform(10, 40, n).astype(np.float32))[:, None, None]
    out = torch.sigmoid(((x * x + y * y).sqrt() - radius) * soft)[:, None]
    out = out * torch.from_numpy(rng.random(n) < share)[:, None, None, None]
    glass = torch.from_numpy(rng.uniform(0.82, 0.97, (n, 1)).astype(np.float32)) + _uniform(rng, 0.03, n, 3)
    return batch * (1 - out) + glass[:, :, None, None] * out


def _blurred(batch: torch.Tensor, at_most: float, rng: np.random.Generator) -> torch.Tensor:
    import torch

    n, channels, rows, columns = batch.shape
    sigma = np.where(rng.random(n) < 0.5, 0.05, rng.uniform(0.2, at_most, n)).astype(np.float32)
    reach = max(1, math.ceil(2.5 * at_most))
    offset = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(offset**2)[None] / (2 * torch.from_numpy(sigma)[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)
    flat = batch.reshape(1, n * channels, rows, columns)
    flat = torch.nn.functional.pad(flat, (reach, reach, reach, reach), mode="reflect")
    flat = torch.nn.functional.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    flat = torch.nn.functional.conv2d(flat, kernel[:, None, None, :], groups=n * channels)
    return flat.reshape(n, channels, rows, columns)


def _through_jpeg(images: Bytes, share: float, rng: np.random.Generator) -> Bytes:
    from PIL import Image

    chosen = np.flatnonzero(rng.random(len(images)) < share)
    quality = rng.integers(50, 91, len(chosen))
    done = images.copy() if len(chosen) else images
    for at, q in zip(chosen, quality, strict=True):
        file = io.BytesIO()
        Image.fromarray(images[at]).save(file, "JPEG", quality=int(q))
        done[at] = np.asarray(Image.open(file))
    return done
