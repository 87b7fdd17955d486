"""The slow part: what the network says of each cell on every plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import sharpness

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]


class Network(Protocol):
    """What `Engine` is to this module."""

    def run(self, images: Picture) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Looked:
    """What the network said: n cells on p planes."""

    logits: Floats
    """(n, planes, classes)"""
    sharp: Floats
    """(n, planes)"""


def look(
    crops: Iterator[tuple[npt.NDArray[np.int64], Picture]], network: Network, cells: int, planes: int,
    classes: int, progress: Callable[[float], None],
) -> Looked:  # fmt: skip
    """Ask the network about every cell on every plane; `crops` gives (which cells, (k, planes, s, s, 3))."""
    logits = np.zeros((cells, planes, classes), np.float32)
    sharp = np.zeros((cells, planes), np.float32)
    done = 0
    for which, pictures in crops:
        flat = pictures.reshape(-1, *pictures.shape[2:])
        logits[which] = network.run(flat).reshape(len(which), planes, classes)
        sharp[which] = sharpness(pictures)
        done += len(which)
        progress(done / max(cells, 1))
    return Looked(logits, sharp)
