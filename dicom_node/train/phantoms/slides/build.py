"""From wishes to a slide: which cells, how deep each lies, how large the slide is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dicom_node.errors import InvalidValue
from dicom_node.train.phantoms.slides.placement import Islands, around, place, room_for
from dicom_node.train.phantoms.slides.scene import Scene, Sprites, Together, joined
from dicom_node.train.phantoms.slides.spec import SlideSpec

NORMAL = "NILM"


@dataclass(frozen=True, slots=True)
class Wish:
    """Which cells should lie on a slide."""

    count: int
    abnormal: int | None = None
    """Of them, not of the class `normal`; None: as many as their share among the cells there are."""
    normal: str = NORMAL
    classes: Sequence[str] = ()
    """Only these; empty: all there are."""
    mix: Mapping[str, float] = field(default_factory=dict)
    """Shares of classes, in any unit; excludes `abnormal`."""
    background: float = 0.3
    """Share of the slide without cells."""
    overlap: float = 0.0
    """Share of a cell's side by which it may lie on its neighbours."""
    between_planes: bool = False
    """Cells lie at any height of the stack, not only on a focal plane."""
    off_focus: bool = False
    """Abnormal cells lie far from the middle plane."""


def build_slide(spec: SlideSpec, sprites: Sprites, wish: Wish, surroundings: Sprites | None = None) -> Scene:
    """A scene with the cells that were wished for; `spec` with width or height 1 gets room for them.

    `surroundings` are small cells that fill the space between. Raises InvalidValue where there are no
    such cells or no room.
    """
    rng = np.random.default_rng([spec.seed, 17])
    chosen = choose(rng, sprites, wish)
    z_um = _depths(rng, spec, sprites, chosen, wish)
    if min(spec.width, spec.height) <= 1:
        largest = round(int(sprites.sizes[chosen].max(initial=1)) * (1 - wish.overlap))
        side = max(room_for(len(chosen), largest, wish.background), spec.tile)
        spec = replace(spec, width=side, height=side)
    islands = Islands(rng, wish.background)
    size = {"width": spec.width, "height": spec.height}
    placed = place(
        rng, islands, sprites.sizes, chosen, z_um, background=wish.background, overlap=wish.overlap, **size
    )
    counted = len(placed)
    if surroundings is not None:
        fill = around(rng, islands, placed, surroundings.sizes, crowding=_CROWDING, **size)
        placed = joined(placed, fill, len(sprites.labels))
        sprites = Together(sprites, surroundings)
    spec = replace(spec, contents=placed.digest(sprites.name))
    return Scene(spec, sprites, placed, counted)


_CROWDING = 0.55


def choose(rng: np.random.Generator, sprites: Sprites, wish: Wish) -> npt.NDArray[np.int32]:
    """(count,) sprites in random order; one is taken twice only where there are too few of its class."""
    wanted = _counts(rng, sprites, wish)
    parts = [
        _drawn(rng, np.flatnonzero(sprites.labels == sprites.classes.index(name)), n)
        for name, n in wanted.items()
        if n
    ]
    chosen = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return rng.permutation(chosen).astype(np.int32)


def _drawn(rng: np.random.Generator, there: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    rounds, rest = divmod(n, len(there))
    return np.concatenate([np.tile(there, rounds), rng.choice(there, rest, replace=False)])


def _counts(rng: np.random.Generator, sprites: Sprites, wish: Wish) -> dict[str, int]:
    """How many cells of each class. Raises InvalidValue for a class of which there is none."""
    names = list(wish.mix or wish.classes or sprites.classes)
    there = {name: int((sprites.labels == k).sum()) for k, name in enumerate(sprites.classes)}
    if wish.abnormal is not None and wish.normal not in names:
        names = [wish.normal, *names]
    if missing := [name for name in names if not there.get(name)]:
        raise InvalidValue(f"there is no cell of class {', '.join(missing)}; there are {', '.join(there)}")
    if wish.abnormal is None:
        shares = [wish.mix[name] if wish.mix else there[name] for name in names]
        return dict(zip(names, _split(rng, wish.count, shares), strict=True))
    others = [name for name in names if name != wish.normal]
    if wish.abnormal > wish.count or (wish.abnormal and not others):
        raise InvalidValue(f"{wish.abnormal} abnormal cells of {wish.count}, of classes {others}")
    normal = {wish.normal: wish.count - wish.abnormal}
    return normal | dict(zip(others, _split(rng, wish.abnormal, [1.0] * len(others)), strict=True))


def _split(rng: np.random.Generator, count: int, shares: Sequence[float]) -> list[int]:
    if not shares:
        return []
    return [int(n) for n in rng.multinomial(count, np.asarray(shares, float) / sum(shares))]


def _depths(
    rng: np.random.Generator, spec: SlideSpec, sprites: Sprites, chosen: npt.NDArray[np.int32], wish: Wish
) -> npt.NDArray[np.float32]:
    """Heights over the middle of the stack; off focus, abnormal cells in its outer parts."""
    heights = np.array(spec.heights_um(), np.float32)
    z_um = heights[rng.integers(0, len(heights), len(chosen))]
    if wish.between_planes:
        z_um = rng.uniform(heights[0], heights[-1], len(chosen)).astype(np.float32)
    if wish.off_focus:
        outer = heights[np.abs(heights) >= 0.6 * heights[-1]]
        abnormal = sprites.labels[chosen] != _index(sprites, wish.normal)
        z_um = np.where(abnormal, outer[rng.integers(0, len(outer), len(chosen))], z_um)
    return np.asarray(z_um, np.float32)


def _index(sprites: Sprites, name: str) -> int:
    return sprites.classes.index(name) if name in sprites.classes else -1
