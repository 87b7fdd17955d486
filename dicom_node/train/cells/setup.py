"""One training of a bundle for cells: where, from what, how much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.learn import Recipe


@dataclass(frozen=True, slots=True)
class Setup:
    """`models` holds the bundle's configs, and gets weights and card; `work` is for what is used again."""

    models: Path
    data: Path
    """Folder of the data sets' folders."""
    work: Path
    pretrained: Path | None
    steps: int | None = None
    """Instead of train.json's, for trials."""
    limit: int | None = None
    """Only so many pictures of each label, for trials."""
    version: str = "1.0.0"

    def thinned(self, crops: Crops) -> Crops:
        """At most `limit` pictures of each label."""
        if self.limit is None:
            return crops
        rows = [np.flatnonzero(crops.label == k)[: self.limit] for k in range(len(crops.names))]
        keep = np.sort(np.concatenate(rows))
        return replace(crops, images=crops.images[keep], label=crops.label[keep], group=crops.group[keep])

    def facts(self, pipeline: str, recipe: Recipe) -> dict[str, Any]:  # Any: JSON-able
        start = "chance" if self.pretrained is None else f"ImageNet weights, {self.pretrained.name}"
        return {
            "command": f"dicom-node train {pipeline}", "pretrained": start, "steps": recipe.steps,
            "batch": recipe.batch, "pictures_changed": recipe.pool, "limit": self.limit,
        }  # fmt: skip
