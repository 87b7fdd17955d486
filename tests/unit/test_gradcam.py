"""Grad-CAM in closed form is Grad-CAM, and maps land where the pixels are."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from dicom_node.infer.bundle import Bundle
from dicom_node.infer.gradcam import Lattice, onto_grid
from support.bundles import EVALUATOR, uterine_bundles


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    import torch

    torch.set_num_threads(1)
    return Bundle(EVALUATOR, uterine_bundles(tmp_path_factory.mktemp("models")))


def test_closed_form_is_the_gradient(evaluator: Bundle) -> None:
    """Equal to ReLU(sum of mean gradient x activation), computed by autograd, for each image by itself."""
    import torch

    batch = evaluator.preprocess(np.random.default_rng(0).random((3, 90, 70)).astype(np.float32)).clone()

    _, maps = evaluator.explain(batch)

    for image, closed in zip(batch, maps, strict=True):
        features = evaluator.network.features(image[None]).detach().requires_grad_()
        pooled = torch.nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)
        evaluator.network.classifier(pooled)[0, 0].backward()
        gradient = features.grad
        assert gradient is not None
        alpha = gradient.mean(dim=(2, 3), keepdim=True) * features.shape[2] * features.shape[3]
        expected = torch.relu((alpha * features).sum(dim=1))[0]
        assert torch.allclose(expected, closed, atol=1e-4)


def test_a_map_does_not_depend_on_its_batch(evaluator: Bundle) -> None:
    """Each image of a batch gets the map it gets alone."""
    import torch

    batch = evaluator.preprocess(np.random.default_rng(1).random((5, 64, 64)).astype(np.float32))

    _, together = evaluator.explain(batch)
    alone = torch.cat([evaluator.explain(batch[at : at + 1])[1] for at in range(len(batch))])

    assert torch.allclose(together, alone, atol=1e-5)


def test_a_cell_looks_at_the_pixel_it_is_placed_on(evaluator: Bundle) -> None:
    """By the gradient: what cell i answers to is centred on input pixel i x stride, as `onto_grid` says.

    All weights are made equal, so that only the geometry of the network decides. Were it the
    middle of a block of 16 pixels, it would be 7.5 further.
    """
    import torch

    even = copy.deepcopy(evaluator.network.features)
    for module in even.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    image = torch.full((1, 3, 640, 640), 1e-3, requires_grad=True)  # far from where ReLU6 saturates
    row, column = 20, 18

    even(image)[0, :, row, column].sum().backward()

    assert image.grad is not None
    weight = image.grad[0].sum(0)
    centre = [float((weight.sum(1 - axis) * torch.arange(640.0)).sum() / weight.sum()) for axis in (0, 1)]
    assert np.allclose([16 * row, 16 * column], centre, atol=1)


def test_maps_land_where_they_belong() -> None:
    """Cell i is centred on input pixel first + i x step: hot there, in mm from the centre, on the source."""
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 1, 2] = 1.0  # input pixels 16 down and 32 across, of 64

    grid = onto_grid(maps, Lattice(64, 2.0, 0, 16), rows=200, columns=300, spacing_mm=(1.0, 0.5))

    hottest = np.argwhere(grid[0] >= grid.max() - 1e-6).mean(axis=0)
    y_mm, x_mm = (16 - 31.5) * 2.0, (32 - 31.5) * 2.0
    assert (1, 200, 300) == grid.shape
    assert np.allclose([y_mm + 99.5, x_mm / 0.5 + 149.5], hottest, atol=1.0)


def test_a_bright_spot_is_seen_where_it_is() -> None:
    """Through a network of stride-2 convolutions padded by one, the map's peak is on the spot."""
    import torch

    blocks = [torch.nn.AvgPool2d(3, stride=2, padding=1) for _ in range(4)]
    image = torch.zeros(1, 1, 112, 112)
    image[0, 0, 48, 64] = 1.0

    maps = torch.nn.Sequential(*blocks)(image)[:, 0]
    grid = onto_grid(maps, Lattice(112, 1.0, 0, 16), rows=112, columns=112, spacing_mm=(1.0, 1.0))

    assert (48, 64) == tuple(int(at) for at in np.unravel_index(grid[0].argmax(), grid[0].shape))


def test_no_map_is_drawn_where_no_cell_looked() -> None:
    """Outside the field, and more than half a cell beyond the last cell, a map is zero."""
    grid = onto_grid(
        np.ones((2, 3, 3), np.float32), Lattice(12, 1.0, 0, 4), rows=20, columns=20, spacing_mm=(1.0, 1.0)
    )

    shown = np.zeros((2, 20, 20), bool)
    shown[:, 4:15, 4:15] = True  # pixels 0 to 10 of 12: cells are centred on 0, 4 and 8
    assert np.array_equal(shown, grid == 1)
    assert np.array_equal(~shown, grid == 0)
