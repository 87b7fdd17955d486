"""Sprites that are drawn: so many of each class, each from a seed of its own, drawn when looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dicom_node.train.phantoms.slides.scene import Sprite

Draw = Callable[[np.random.Generator, float], Sprite]
"""Draws one cell with that many um per pixel."""
VARIANTS = 40
"""Different cells of a class; each may lie on the slide in eight ways."""


class Drawn:
    """`Sprites` of a table of classes."""

    def __init__(
        self,
        name: str,
        draws: Mapping[str, Draw],
        *,
        um_per_px: float,
        background: tuple[float, float, float],
        seed: int,
        variants: int = VARIANTS,
    ) -> None:
        self.name = f"{name} {um_per_px} {seed} {variants}"
        self.classes = tuple(draws)
        self.background = background
        self._draws, self._um_per_px, self._seed, self._variants = draws, um_per_px, seed, variants
        self.labels = np.repeat(np.arange(len(draws), dtype=np.int32), variants)
        self.sprite = lru_cache(maxsize=None)(self._draw)
        self._sizes: npt.NDArray[np.int32] | None = None

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(n, 2); drawing all of them takes a second or two."""
        if self._sizes is None:
            self._sizes = np.array([self.sprite(k).shape[:2] for k in range(len(self.labels))], np.int32)
        return self._sizes

    def _draw(self, number: int) -> Sprite:
        label, variant = divmod(number, self._variants)
        rng = np.random.default_rng([self._seed, 53, label, variant])
        return self._draws[self.classes[label]](rng, self._um_per_px)
