"""PNG previews and index.html of one result, for people without a PACS viewer at hand.

The pictures are made from the received objects over the source pixels. A map or a region is
drawn only where its own geometry says it lies on that image, so a picture is a proof of the
objects and not of what this program has in memory. The page is one static file beside its
pictures: no script, font or style from anywhere else, nothing of a person on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # Any: pydicom ships few types

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.demo.received import FrameKey, Layer, Placement, Results, placement
from dicom_node.demo.story import Step

Grey = npt.NDArray[np.uint8]
Colour = npt.NDArray[np.uint8]

LONGEST_PX = 640
"""Longer side of a composed preview."""
WINDOW = (1.0, 99.6)
"""Percentiles of a stack's slices that become black and white."""
HEAT = (
    (0.00, 20, 10, 60, 0), (0.15, 45, 15, 110, 0), (0.35, 140, 30, 110, 80), (0.60, 225, 75, 50, 120),
    (0.80, 250, 150, 35, 140), (1.00, 255, 245, 160, 155),
)  # fmt: skip
"""Colours of a map: value, red, green, blue, opacity. Low values stay clear: the image is what is read."""
OUTLINE = (90, 230, 240)
_LAYERS = "layers"
_COMPRESS = 2
"""zlib level: a third of the time of the default for a tenth more bytes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source frame belongs."""

    label: str
    """Of its stack."""
    name: str
    """As the report and a viewer call it: `image 12`."""
    of: int
    """Slices in the stack."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice that was used, as four files; paths are relative to the page."""

    name: str
    """As the report calls it: `image 12`."""
    image: str
    heat: str | None
    outline: str | None
    composed: str
    peak: float | None
    """Greatest value of the map on it."""


@dataclass(frozen=True, slots=True)
class Strip:
    """The slices used of one stack."""

    label: str
    of: int
    """Slices in the stack."""
    aspect: float
    """Width divided by height, in mm."""
    slices: tuple[Slice, ...]
    featured: int
    """Index of the slice to show first: the one the map marks most."""
    notes: tuple[str, ...] = ()

    @property
    def has_map(self) -> bool:
        return any(item.heat is not None for item in self.slices)

    @property
    def title(self) -> str:
        """`3: T2 axial, 31 slices` as `T2 axial`; how many slices is said beside it."""
        return self.label.partition(": ")[2].rpartition(", ")[0] or self.label


@dataclass(frozen=True, slots=True)
class Chosen:
    """One need of the pipeline: what was chosen for it and why."""

    need: str
    stack: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrived:
    """One series as it arrived."""

    number: int
    images: int
    stacks: tuple[str, ...]
    description: str
    role: str
    """Which need it was chosen for; empty where it was passed over."""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One result object as it arrived at the PACS."""

    kind: str
    name: str
    file: str
    size_bytes: int
    series_number: int
    description: str
    status: str


@dataclass(frozen=True, slots=True)
class Model:
    """What a model's card says."""

    name: str
    version: str
    digest: str
    description: str
    trained_on: str
    limits: str


@dataclass(frozen=True, slots=True)
class Page:
    """All that index.html shows."""

    title: str
    subject: str
    """What was sent, in a sentence without a person in it."""
    made_at: str
    results: Results
    strips: tuple[Strip, ...]
    page_image: str | None
    arrived: tuple[Arrived, ...]
    chosen: tuple[Chosen, ...]
    because: str
    steps: tuple[Step, ...]
    delivered: tuple[Delivered, ...]
    models: tuple[Model, ...]
    notes: tuple[str, ...] = ()

    @property
    def total_s(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def headline(self) -> str:
        """The verdict in a few words: how the SR's conclusion begins, else its diagnosis."""
        reading = self.results.reading
        if not reading.performed:
            return "AI not performed"
        begins, colon, _ = reading.conclusion.partition(":")
        return begins if colon and len(begins) <= 60 else reading.diagnosis or reading.conclusion

    @property
    def tone(self) -> str:
        """Which side of the operating point the probability is on; decides colours only."""
        reading = self.results.reading
        if not reading.performed:
            return "not-performed"
        if reading.point is None or reading.probability is None:
            return ""
        if reading.probability >= reading.point.high:
            return "positive"
        return "negative" if reading.probability < reading.point.low else "open"

    @property
    def conclusion(self) -> str:
        """What the SR concludes, without the words that are the headline already."""
        text = self.results.reading.conclusion
        rest = text.removeprefix(f"{self.headline}:").strip()
        return rest[:1].upper() + rest[1:]


def render(page: Page) -> str:
    """index.html. Every value is escaped; a name the template does not know is an error."""
    environment = Environment(
        loader=PackageLoader("dicom_node.demo", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda part: f"{100.0 * part:.1f}"
    environment.filters["seconds"] = seconds_in_words
    environment.filters["size"] = size_in_words
    return environment.get_template("index.html.jinja").render(page=page, reading=page.results.reading)


def seconds_in_words(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.995 else f"{seconds:.1f} s"


def size_in_words(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e6 else f"{max(1, round(size_bytes / 1e3))} kB"


# ---- pictures ---------------------------------------------------------------------------


def draw(
    results: Results, sources: Mapping[str, Path], places: Mapping[FrameKey, Place], folder: Path
) -> tuple[tuple[Strip, ...], str | None]:
    """Write the previews to `folder`; returns what the page shows of them, and the SC page's path.

    `sources` are the sent files by SOP Instance UID; `places` are in the order to show.
    """
    (folder / _LAYERS).mkdir(parents=True, exist_ok=True)
    page = None
    if results.page is not None:
        Image.fromarray(results.page).save(folder / "page.png")
        page = f"{folder.name}/page.png"
    grouped: dict[str, list[tuple[Place, FrameKey]]] = {}
    kept = frozenset(results.reading.kept)
    for key, place in places.items():
        if key in kept and key[0] in sources:
            grouped.setdefault(place.label, []).append((place, key))
    strips = [
        _strip(number, members, results, sources, folder)
        for number, members in enumerate(grouped.values(), start=1)
    ]
    marked_first = sorted(strips, key=lambda strip: not strip.has_map)
    return tuple(marked_first), page


@dataclass(frozen=True)
class _Picture:
    """One source slice with the layers that lie on it."""

    name: str
    pixels: npt.NDArray[np.float32]
    where: Placement
    heat: Layer | None
    segment: Layer | None
    misplaced: bool


def _strip(
    number: int, members: Sequence[tuple[Place, FrameKey]], results: Results, sources: Mapping[str, Path],
    folder: Path,
) -> Strip:  # fmt: skip
    data_sets: dict[str, Dataset] = {}
    pictures = [_picture(place.name, key, results, sources, data_sets) for place, key in members]
    values = np.concatenate([picture.pixels.ravel()[::7] for picture in pictures])
    low, high = (float(value) for value in np.percentile(values, WINDOW))
    names = [f"{number}-{at:02d}-{p.name.replace(' ', '-')}" for at, p in enumerate(pictures, start=1)]
    with ThreadPoolExecutor() as pool:  # compressing, most of the work, needs no lock
        slices = list(pool.map(lambda p, name: _save(p, name, low, high, folder), pictures, names))
    peaks = [item.peak if item.peak is not None else -1.0 for item in slices]
    where = pictures[0].where
    notes = []
    if wrong := sum(picture.misplaced for picture in pictures):
        notes.append(f"{wrong} overlay(s) not drawn: their geometry is not that of the image.")
    return Strip(
        label=members[0][0].label,
        of=members[0][0].of,
        aspect=float(where.columns * where.spacing[1] / (where.rows * where.spacing[0])),
        slices=tuple(slices),
        featured=_featured(pictures, peaks),
        notes=tuple(notes),
    )


def _featured(pictures: Sequence[_Picture], peaks: Sequence[float]) -> int:
    """The slice with the largest marked region, else the one the map marks most, else the middle one."""
    areas = [0 if picture.segment is None else int(picture.segment.values.sum()) for picture in pictures]
    if not any(areas) and max(peaks) < 0.0:
        return len(pictures) // 2
    weights = areas if any(areas) else peaks
    return max(range(len(pictures)), key=lambda index: weights[index])


def _picture(
    name: str, key: FrameKey, results: Results, sources: Mapping[str, Path], data_sets: dict[str, Dataset]
) -> _Picture:
    uid, frame = key
    if uid not in data_sets:
        data_sets[uid] = dcmread(sources[uid])
    source = data_sets[uid]
    where = placement(source, frame)
    layers = [results.maps.get(key), results.segments.get(key)]
    fitting = [layer if layer is not None and layer.where.same_as(where) else None for layer in layers]
    misplaced = any(fits is not layer for fits, layer in zip(fitting, layers, strict=True))
    return _Picture(name, source_pixels(source, frame), where, fitting[0], fitting[1], misplaced)


def source_pixels(data_set: Dataset, frame: int) -> npt.NDArray[np.float32]:
    """(rows, columns) float32 of one frame as stored; bright is bright (MONOCHROME1 is inverted)."""
    pixels: Any = data_set.pixel_array  # Any: numpy array of whatever type
    plane = np.asarray(pixels[frame - 1] if pixels.ndim == 3 else pixels, dtype=np.float32)
    if data_set.get("PhotometricInterpretation") == "MONOCHROME1":
        plane = plane.max() - plane
    return plane


def _save(picture: _Picture, name: str, low: float, high: float, folder: Path) -> Slice:
    """Layers on the source matrix, which the browser stretches; the composed one at display size."""
    size = shown_size(picture.where)
    base = Image.fromarray(windowed(picture.pixels, low, high))
    overlays: dict[str, Image.Image] = {}
    composed = base.resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    peak = None
    if picture.heat is not None:
        values = np.asarray(picture.heat.values, dtype=np.float32)
        peak = float(values.max())
        overlays["heat"] = Image.fromarray(coloured(values))
        smooth = Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)
        composed.alpha_composite(Image.fromarray(coloured(np.asarray(smooth))))
    if picture.segment is not None and picture.segment.values.any():
        overlays["outline"] = outlined(picture.segment.values, size)
        composed.alpha_composite(overlays["outline"])
    files = {kind: f"{_LAYERS}/{name}-{kind}.png" for kind in ("image", *overlays)}
    for kind, layer in (("image", base), *overlays.items()):
        layer.save(folder / files[kind], compress_level=_COMPRESS)
    composed.convert("RGB").save(folder / f"slice-{name}.png", compress_level=_COMPRESS)
    return Slice(
        name=picture.name,
        image=f"{folder.name}/{files['image']}",
        heat=f"{folder.name}/{files['heat']}" if "heat" in files else None,
        outline=f"{folder.name}/{files['outline']}" if "outline" in files else None,
        composed=f"{folder.name}/slice-{name}.png",
        peak=peak,
    )


def shown_size(where: Placement) -> tuple[int, int]:
    """(width, height) in pixels with the proportions of the patient, not of the matrix."""
    width, height = where.columns * where.spacing[1], where.rows * where.spacing[0]
    scale = LONGEST_PX / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def windowed(pixels: npt.NDArray[np.float32], low: float, high: float) -> Grey:
    """Linear from `low` (black) to `high` (white); (rows, columns) uint8."""
    span = max(high - low, 1e-6)
    grey: Grey = (np.clip((pixels - low) / span, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return grey


def coloured(values: npt.NDArray[np.float32]) -> Colour:
    """A map's values, 0 to 1, as (rows, columns, 4) uint8 RGBA by `HEAT`."""
    table = np.array(HEAT, dtype=np.float64)
    channels = [np.interp(values, table[:, 0], table[:, at]) for at in range(1, 5)]
    colour: Colour = (np.stack(channels, axis=-1) + 0.5).astype(np.uint8)
    colour[colour[..., 3] == 0] = 0  # nothing is seen of it, and nothing packs best
    return colour


def outlined(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """The contour of a region, drawn at display size with a dark rim so that it shows on any grey."""
    smooth = Image.fromarray((mask * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(smooth) >= 128
    line, rim = inside & ~_shrunk(inside, 3), _grown(inside, 1) & ~_shrunk(inside, 4)
    picture = np.zeros((size[1], size[0], 4), dtype=np.uint8)
    picture[rim] = (0, 0, 0, 150)
    picture[line] = (*OUTLINE, 255)
    return Image.fromarray(picture)


def _grown(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    """Dilated by 4-neighbours, `steps` times."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return mask


def _shrunk(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    return ~_grown(~mask, steps)
