"""The slow part: what the network says of each cell on every plane, kept as it goes for after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import CROPS_AT_A_TIME, Progress, Resume, sharpness, sweep

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


Crops = Callable[[int], Iterator[tuple[npt.NDArray[np.int64], Picture]]]
"""From a batch on: (which cells, (k, planes, s, s, 3)) of each."""


def look(
    crops: Crops, network: Network, cells: int, planes: int, classes: int, progress: Progress,
    resume: Resume,
) -> Looked:  # fmt: skip
    """Ask the network about every cell on every plane; what `resume` holds is not asked again."""

    def asked(first: int) -> Iterator[Mapping[str, npt.NDArray[np.generic]]]:
        for which, pictures in crops(first):
            flat = pictures.reshape(-1, *pictures.shape[2:])
            logits = network.run(flat).reshape(len(which), planes, classes)
            yield {"which": which, "logits": logits, "sharp": sharpness(pictures)}

    batches = -(-cells // CROPS_AT_A_TIME)
    said = sweep(asked, batches, resume=resume, step="classify", progress=progress)
    order = np.argsort(said["which"])
    return Looked(said["logits"][order], said["sharp"][order])
