"""Cells on many planes: all of them on one, the suspicious ones on all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dicom_node.errors import LeaseLost
from dicom_node.infer.cascade import Budget, cascade, chosen
from dicom_node.slide import open_slide
from dicom_node.slide.plan import planes_at
from support import slides
from support.slides import Scan


class Brightness:
    """A network that is two sums: it counts what it was shown."""

    image = SimpleNamespace(size_px=24)
    classes = ("dark", "bright")

    def __init__(self) -> None:
        self.shown = 0

    def stream(self, batches: Any) -> Iterator[Any]:
        for tag, images in batches:
            self.shown += len(images)
            bright = images.mean((1, 2, 3), dtype=np.float32)
            yield tag, (np.stack([255 - bright, bright], axis=1),)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    scan = Scan(rows=230, columns=310, tile=(32, 32), planes=5, syntax=slides.JPEG)
    folder: Path = tmp_path_factory.mktemp("stack")
    with open_slide(slides.slide_of(slides.write(scan, folder))) as found:
        yield found


CENTRES = np.random.default_rng(8).uniform((12, 12), (298, 218), (200, 2))


def test_suspicious_cells_are_seen_on_all_planes(reader: Any) -> None:
    """Their numbers are those of every plane; the others' those of the sharpest plane under them."""
    network: Any = Brightness()

    seen = cascade(
        reader, network, CENTRES, range(5), 24, lambda logits: logits[:, 1], Budget(150.0, 120.0, 0.05)
    )

    assert np.array_equal(seen.plane, planes_at(reader, 0, CENTRES))
    assert 10 <= len(seen.again) < 100
    assert set(np.flatnonzero(seen.first[:, 1] >= 150.0)) <= set(seen.again.tolist())
    assert network.shown == 200 + 5 * len(seen.again)
    corners = np.floor(CENTRES - 12 + 0.5).astype(int)
    for at, (x, y) in enumerate(corners.tolist()):
        shown = reader.region(0, x, y, 24, 24, int(seen.plane[at]))
        assert seen.first[at, 1] == pytest.approx(shown.mean(), abs=1e-3)
    for row, at in enumerate(seen.again.tolist()):
        x, y = corners[at]
        means = [reader.region(0, int(x), int(y), 24, 24, plane).mean() for plane in range(5)]
        assert np.allclose(seen.logits[row, :, 1], means, atol=1e-3)


def test_the_budget_takes_the_most_suspicious_first() -> None:
    """All above `always`, none below `least`, a share of the rest between them."""
    suspicion = np.array([0.9, 0.1, 0.4, 0.6, 0.45, 0.95, 0.02, 0.4, 0.3, 0.5], np.float32)

    assert chosen(suspicion, Budget(0.8, 0.3, 0.2)).tolist() == [0, 3, 5, 9]
    assert chosen(suspicion, Budget(0.8, 0.3, 1.0)).tolist() == [0, 2, 3, 4, 5, 7, 8, 9]
    assert chosen(suspicion, Budget(0.8, 0.99, 0.3)).tolist() == [0, 5]
    assert chosen(suspicion[:0], Budget(0.8, 0.3, 0.2)).tolist() == []


def test_no_cells_and_one_plane(reader: Any) -> None:
    network: Any = Brightness()
    none = cascade(reader, network, np.zeros((0, 2)), range(5), 24, lambda logits: logits[:, 1], Budget(1, 0))
    one = cascade(reader, network, CENTRES, (0,), 24, lambda logits: logits[:, 1], Budget(0, 0))

    assert none.first.shape == (0, 2) and none.logits.shape == (0, 5, 2)
    assert network.shown == 200 and one.logits.shape == (200, 1, 2)


def test_it_can_be_cancelled_between_batches(reader: Any) -> None:
    network: Any = Brightness()

    def cancel(fraction: float, _step: str) -> None:
        if fraction > 0.2:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        cascade(
            reader, network, CENTRES, range(5), 24, lambda logits: logits[:, 1], Budget(0, 0), progress=cancel
        )
    assert network.shown < 200
