"""In OHIF every overlay lies on the right slice at the right place, in every orientation and encoding.

Masks and maps are an L that a flip in rows, in columns or in the order of slices moves elsewhere;
the same L is bright in the images, so that the viewer's own geometry is checked as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.job import ResultKind
from dicom_node.domain.series import Study
from support import mr
from support.viewers import material, placement
from support.viewers.material import MARKED, Mask, Shown
from support.viewers.ohif import Ohif

Open = Callable[[Shown], Ohif]
WELL, BADLY = 0.85, 0.5
"""Overlap of what is coloured with what is meant: lines and smoothing take a little of it."""
NOTHING = 0.005
"""Part of the viewport that the viewer's own letters and buttons may colour; the smallest L is 0.03."""
MADE: dict[str, Callable[[Path, str], Study]] = {
    "axial": lambda folder, name: material.classic(folder, name, mr.AXIAL),
    "sagittal": lambda folder, name: material.classic(folder, name, mr.SAGITTAL),
    "enhanced": material.enhanced,
}
TURNED: dict[str, Callable[[Mask], Mask]] = {
    "slices": lambda mask: mask[::-1],
    "rows": lambda mask: mask[:, ::-1],
    "columns": lambda mask: mask[:, :, ::-1],
}
KINDS = [pytest.param(kind, marks=() if kind == "axial" else pytest.mark.viewers) for kind in MADE]


def made(studies: Path, kind: str) -> Shown:
    folder = studies / kind
    return material.results(MADE[kind](folder / "source", kind), folder / "results")


def colour(viewer: Ohif, shown: Shown, place: int, name: str) -> tuple[Mask, Mask]:
    """What is coloured within the image of a slice, and where the mark is; (height, width) each."""
    region = shown.findings.regions[0]
    view = viewer.turn_to(region.stack, place)
    picture = view.cut(viewer.photograph(f"{name} slice {place}"))
    image = placement.projected(view, region.stack, np.ones_like(region.mask))
    return placement.coloured(picture) & image, placement.projected(view, region.stack, region.mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("result", [ResultKind.SEG, ResultKind.PM])
def test_colour_lies_on_the_marked_slices(opened: Open, studies: Path, kind: str, result: ResultKind) -> None:
    """Over each marked slice its own L and nothing else; nothing over the slices beside and opposite."""
    shown = made(studies, kind)
    viewer = opened(shown)

    viewer.show(shown.of(result)[0])

    for place in (MARKED[0], MARKED[-1]):
        assert placement.overlap(*colour(viewer, shown, place, f"{kind} {result}")) > WELL
    for place in (MARKED[0] - 1, MARKED[-1] + 1, material.SLICES - 1 - MARKED[0]):
        drawn, _ = colour(viewer, shown, place, f"{kind} {result}")
        assert drawn.mean() < NOTHING


@pytest.mark.viewers
@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("result", [ResultKind.SEG, ResultKind.PM])
def test_what_is_turned_round_is_found(opened: Open, studies: Path, turned: str, result: ResultKind) -> None:
    """The check itself: results with their mask mirrored are shown, and do not pass for those meant."""
    shown = made(studies, "axial")
    wrong = TURNED[turned](shown.findings.regions[0].mask)
    mirrored = material.results(shown.study, studies / turned, mark=wrong, key=turned)
    viewer = opened(mirrored)

    viewer.show(mirrored.of(result)[0])

    own = [n for n in range(material.SLICES) if wrong[n].any()]
    assert placement.overlap(*colour(viewer, mirrored, own[0], f"turned {turned} {result}")) > WELL
    assert placement.overlap(*colour(viewer, shown, MARKED[0], f"turned {turned} {result}")) < BADLY


@pytest.mark.viewers
@pytest.mark.parametrize("kind", MADE)
def test_the_images_lie_where_their_geometry_says(opened: Open, studies: Path, kind: str) -> None:
    """What is bright in the images is bright there on the screen, so the viewer's camera can be trusted."""
    shown = made(studies, kind)
    region = shown.findings.regions[0]
    viewer = opened(shown)

    for place in (MARKED[0], MARKED[-1]):
        view = viewer.turn_to(region.stack, place)
        picture = view.cut(viewer.photograph(f"{kind} image slice {place}"))
        image = placement.projected(view, region.stack, np.ones_like(region.mask))
        mark = placement.projected(view, region.stack, region.mask)
        lit = picture.astype(np.int16).mean(axis=-1) > 150
        assert placement.overlap(lit & image, mark) > WELL


@pytest.mark.viewers
@pytest.mark.parametrize("kind", MADE)
def test_an_outline_is_drawn_around_the_region(opened: Open, studies: Path, kind: str) -> None:
    """On its slice and nowhere else, with a label that says what the number is."""
    shown = made(studies, kind)
    region = shown.findings.regions[0]
    viewer = opened(shown)

    viewer.show(shown.of(ResultKind.ROI)[0])

    for place in MARKED:
        view = viewer.turn_to(region.stack, place)
        viewer.photograph(f"{kind} roi slice {place}")
        (outline,) = viewer.outlines()
        mark = placement.projected(view, region.stack, region.mask)
        assert placement.overlap(placement.inside(outline, view), mark) > WELL
        (label,) = viewer.labels()
        assert f"Probability of cancer: {80 + place}.00 %" in label
    viewer.turn_to(region.stack, MARKED[-1] + 1)
    viewer.photograph(f"{kind} roi slice {MARKED[-1] + 1}")
    assert [] == viewer.outlines()
