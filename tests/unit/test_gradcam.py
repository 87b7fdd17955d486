"""Grad-CAM in closed form is Grad-CAM, and maps land where the pixels are."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_node.infer.bundle import Bundle
from dicom_node.infer.gradcam import onto_grid
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


def test_maps_land_where_they_belong() -> None:
    """A hot cell of the field's map is hot around the same place, in mm, of the source."""
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 0, 3] = 1.0  # top right quarter-cell: centre at y = -75 mm, x = +75 mm of a 200 mm field

    grid = onto_grid(maps, field_mm=(200.0, 200.0), rows=100, columns=150, spacing_mm=(2.0, 2.0))

    hottest = np.argwhere(grid[0] >= grid.max() - 1e-6).mean(axis=0)
    assert (1, 100, 150) == grid.shape
    assert np.allclose([(-75 + 100) / 2 - 0.5, (75 + 150) / 2 - 0.5], hottest, atol=7)
    assert 0.0 == grid[0, :, :25].max()  # left of the field: 25 columns of 2 mm


def test_no_map_is_drawn_outside_the_field() -> None:
    """Pixels the network did not see are zero."""
    grid = onto_grid(
        np.ones((2, 3, 3), np.float32), field_mm=(10.0, 10.0), rows=20, columns=20, spacing_mm=(1.0, 1.0)
    )

    assert 2 * 10 * 10 == int((grid == 1).sum())
    assert 2 * 20 * 20 - 200 == int((grid == 0).sum())
