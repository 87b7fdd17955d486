"""In dicom-microscopy-viewer results lie over the slide where they were found, and nowhere mirrored.

The slide is wider than high, off the origin, of both orientations that slides mostly have; its hot
squares are near the upper right. What changes on the page when a result is laid over the slide is
compared with where the viewer's own map has those pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from dicom_node.domain.job import ResultKind
from dicom_node.encode.results import encode
from support.readings import STEP, TURNED, USUAL, judged, smear
from support.viewers.archive import Archive, archive
from support.viewers.browser import Browser, Photograph, chromium
from support.viewers.dmv import VIEWER, Dmv, served
from support.viewers.package import published
from support.viewers.placement import overlap

Mask = npt.NDArray[np.bool_]
COLUMNS, ROWS = 1300, 900
SQUARES = -(-COLUMNS // STEP)
HOT = ((SQUARES - 5) * STEP, 2 * STEP, (SQUARES - 2) * STEP, 4 * STEP)
"""Left, top, right, bottom of what is hot, in pixels of the slide."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Archive, Browser]]:
    published(VIEWER, "dist")
    with archive(tmp_path_factory.mktemp("orthanc")) as pacs, chromium() as browser:
        yield pacs, browser


class Seen:
    """A slide on the page before and after a result was laid over it."""

    def __init__(
        self, place: tuple[Archive, Browser], folder: Path, kind: ResultKind, *, which: int = 0,
        cosines: tuple[tuple[float, ...], ...] = USUAL, planes: int = 1,
    ) -> None:  # fmt: skip
        pacs, browser = place
        study = smear(folder / "study", cosines=cosines, planes=planes)
        self.findings = judged(study)
        results = encode(self.findings, study, input_key="k", pipeline="p", pipeline_version="1", title="T")
        self.result = [result for result in results if result.kind is kind][which]
        paths = [instance.path for instance in study.instances]
        for number, made in enumerate(one for one in results if one.series_uid == self.result.series_uid):
            paths.append(folder / f"{number}.dcm")
            paths[-1].write_bytes(made.content)
        pacs.empty()
        pacs.store(paths)
        name = f"dmv {kind} {which} {'usual' if cosines is USUAL else 'turned'} {planes}"
        with served(pacs.prefixes, self.result) as site, browser.tab(site.url) as tab:
            self._look(Dmv(tab), str(study.uid), str(study.slides[0].series_uid), name)

    def _look(self, viewer: Dmv, study: str, slide: str, name: str) -> None:
        drawn = self.result.kind is ResultKind.WSI
        viewer.open(study, [slide])
        self.before = viewer.photograph(f"{name} before")
        if drawn:
            viewer.open(study, [slide, self.result.series_uid])
            self.together = viewer.photograph(f"{name} together")
            viewer.open(study, [self.result.series_uid])
            self.labels = ["drawn"]
        else:
            self.labels = viewer.over(self.result)
        self.after = viewer.photograph(name)
        self.failed = viewer.failed()
        factor = 2 if drawn else 1  # the drawn slide has half the pixels
        self.at = lambda places: viewer.placed(np.asarray(places, float) / factor)
        left, top, right, bottom = HOT
        self.hot = self._box(left, top, right, bottom)
        self.mirrored = self._box(COLUMNS - right, top, COLUMNS - left, bottom)
        self.flipped = self._box(left, ROWS - bottom, right, ROWS - top)
        cells = self.findings.readings[0].cells
        self.cells = self.at(cells.centre_px)
        self.half_px = float(
            np.abs(self.at([(100, 0)]) - self.at([(0, 0)])).max() / 100 * cells.size_px.max() / 2
        )

    def _box(self, *corners: float) -> Mask:
        left, top, right, bottom = corners
        ring = self.at([(left, top), (right, top), (right, bottom), (left, bottom)])
        image = Image.new("1", self.before.shape[1::-1])
        ImageDraw.Draw(image).polygon([(x, y) for x, y in ring.tolist()], fill=1)
        return np.asarray(image, dtype=bool)

    @property
    def changed(self) -> Mask:
        return _apart(self.before, self.after) > 40


def _apart(one: Photograph, other: Photograph) -> npt.NDArray[np.int16]:
    apart: npt.NDArray[np.int16] = np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=-1)
    return apart


ORIENTATIONS = [USUAL, pytest.param(TURNED, marks=pytest.mark.viewers)]


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_marked_regions_lie_on_the_hot_squares(
    place: tuple[Archive, Browser], tmp_path: Path, cosines: tuple[tuple[float, ...], ...]
) -> None:
    """The binary Segmentation, one pixel for each square."""
    seen = Seen(place, tmp_path, ResultKind.SEG, cosines=cosines)

    assert ([], ["HSIL"]) == (seen.failed, seen.labels)
    assert overlap(seen.changed, seen.hot) > 0.85
    assert not (seen.changed & (seen.mirrored | seen.flipped)).any()


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_the_heatmap_lies_on_the_hot_squares(
    place: tuple[Archive, Browser], tmp_path: Path, cosines: tuple[tuple[float, ...], ...]
) -> None:
    """The Parametric Map of the worst class, zero but for the hot squares: bright there, dark elsewhere."""
    seen = Seen(place, tmp_path, ResultKind.PM, which=1, cosines=cosines)

    assert ([], ["HSIL"]) == (seen.failed, seen.labels)
    bright = seen.after.mean(axis=-1)
    assert bright[seen.hot].mean() > 190
    assert max(bright[seen.mirrored].mean(), bright[seen.flipped].mean()) < 100


@pytest.mark.viewers
def test_the_fractional_map_lies_on_the_hot_squares(place: tuple[Archive, Browser], tmp_path: Path) -> None:
    """Both classes at once: the worst one's blue over the hot squares, the other's red elsewhere."""
    seen = Seen(place, tmp_path, ResultKind.FSEG)

    assert ([], ["LSIL", "HSIL"]) == (seen.failed, seen.labels)
    red, _, blue = (seen.after[..., channel].astype(int) for channel in range(3))
    assert (blue - red)[seen.hot].mean() > 150
    assert (blue - red)[seen.mirrored].mean() < -50


@pytest.mark.parametrize("planes", [1, pytest.param(3, marks=pytest.mark.viewers)])
@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_cells_are_drawn_where_they_are(
    place: tuple[Archive, Browser], tmp_path: Path, cosines: tuple[tuple[float, ...], ...], planes: int
) -> None:
    """Annotations of a slide of one plane (2D) and of several (3D): a box around every cell, nothing else."""
    seen = Seen(place, tmp_path, ResultKind.ANN, cosines=cosines, planes=planes)

    assert ([], ["NILM", "LSIL", "HSIL"]) == (seen.failed, seen.labels)
    _drawn_around(seen, list(range(60)))


@pytest.mark.parametrize("cosines", ORIENTATIONS)
def test_regions_are_drawn_around_their_cells(
    place: tuple[Archive, Browser], tmp_path: Path, cosines: tuple[tuple[float, ...], ...]
) -> None:
    """The region report's polygons, as Slim reads them: around the gallery's cells, and no other."""
    seen = Seen(place, tmp_path, ResultKind.ROI, cosines=cosines)

    assert ([], ["POLYGON"] * 12) == (seen.failed, seen.labels)
    _drawn_around(seen, [shown.cell for shown in seen.findings.readings[0].gallery])


def test_the_drawn_slide_is_hot_where_the_map_is(place: tuple[Archive, Browser], tmp_path: Path) -> None:
    """Shown as a slide of its own; opened together with the slide, it displaces none of its levels."""
    seen = Seen(place, tmp_path, ResultKind.WSI)

    assert [] == seen.failed
    blue = seen.after[..., 2].astype(int)
    assert blue[seen.hot].mean() < 180
    assert min(blue[seen.mirrored].mean(), blue[seen.flipped].mean()) > 215
    assert (_apart(seen.before, seen.together) <= 40).all()


def _drawn_around(seen: Seen, cells: list[int]) -> None:
    """Lines on the page around each cell's place, in view and not under the overview, and nowhere else."""
    allowed = np.zeros(seen.changed.shape, bool)
    drawn, looked = 0, 0
    for column, row in seen.cells[cells]:
        window = np.zeros_like(allowed)
        half = seen.half_px + 4
        left, right = max(round(column - half), 0), max(round(column + half), 0)
        top, bottom = max(round(row - half), 0), max(round(row + half), 0)
        window[top:bottom, left:right] = True
        allowed |= window
        in_view = half < column < 1000 - half and half < row < 760 - half
        if in_view and not (column < 160 + half and row < 120 + half):
            looked += 1
            drawn += bool((seen.changed & window).any())
    assert looked >= len(cells) * 0.7
    assert drawn == looked
    assert not (seen.changed & ~allowed).any()
