"""`dicom-node check --selftest`: marks come out where they went in, and a mirror image is not let pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.marks import Marked
from dicom_node.errors import PipelineError
from dicom_node.node.check import selftests
from dicom_node.node.selftest import locate, through
from dicom_node.train.phantoms import orientation
from dicom_node.train.phantoms.orientation import directions, mr
from dicom_node.train.phantoms.slides.spec import Layout


@pytest.fixture(scope="module")
def results() -> Iterator[tuple[Marked, list[Dataset]]]:
    """The marked MR images through the whole path, once; the folder goes with the module."""
    with TemporaryDirectory() as folder:
        marked = mr(Path(folder) / "images")
        yield marked, through(marked, Path(folder))


def test_every_form_has_every_mark_within_a_pixel(results: tuple[Marked, list[Dataset]]) -> None:
    """Segmentation, map and outlines, each read by the Standard's own formula."""
    marked, objects = results

    located = locate(marked, objects)

    assert ["PM", "SEG", "outlines"] == [one.form for one in located]
    assert [] == [one for one in located if not one.in_place(marked.pixel)]
    assert max(one.centre_off for one in located) < 0.05 * marked.pixel


@pytest.mark.parametrize(
    "turned", [t for t in itertools.product((1, -1), repeat=3) if t != (1, 1, 1)], ids=str
)
def test_no_mirror_image_and_no_half_turn_is_let_pass(
    results: tuple[Marked, list[Dataset]], turned: tuple[int, int, int]
) -> None:
    """Were the path to reverse rows, columns or slices, in any combination, every form would say so."""
    marked, objects = results
    axes = np.array(directions())
    middle = (marked.places.min(axis=0) + marked.places.max(axis=0)) / 2
    mirrored = replace(marked, places=middle + (marked.places - middle) @ axes.T * turned @ axes)

    located = locate(mirrored, objects)

    assert [] == [one.form for one in located if one.in_place(marked.pixel)]


def test_swapped_rows_and_columns_are_not_let_pass(results: tuple[Marked, list[Dataset]]) -> None:
    marked, objects = results
    axes = np.array(directions())
    swapped = replace(marked, places=marked.places @ axes.T[:, [1, 0, 2]] @ axes)

    assert [] == [one.form for one in locate(swapped, objects) if one.in_place(marked.pixel)]


def test_a_mark_that_is_off_by_two_pixels_is_told(results: tuple[Marked, list[Dataset]]) -> None:
    marked, objects = results
    shifted = replace(marked, places=marked.places + 2.0 * directions()[0])

    assert {1.9, 2.0} >= {round(one.centre_off - 0.05, 1) for one in locate(shifted, objects)}
    assert [] == [one.form for one in locate(shifted, objects) if one.in_place(marked.pixel)]


def test_results_that_say_no_place_are_told(results: tuple[Marked, list[Dataset]]) -> None:
    """A path that loses regions and maps does not pass by silence."""
    marked, objects = results
    silent = [ds for ds in objects if ds.Modality == "OT" and "FloatPixelData" not in ds]

    assert silent
    with pytest.raises(PipelineError, match="none of"):
        locate(marked, silent)


@pytest.fixture(scope="module")
def slide_results() -> Iterator[tuple[Marked, list[Dataset]]]:
    """A stack of focal planes in the layout that is hardest to read, through the whole path."""
    with TemporaryDirectory() as folder:
        marked = orientation.slide(Path(folder) / "images", layout=Layout.SPARSE, planes=3)
        yield marked, through(marked, Path(folder))


def test_every_mark_of_a_slide_is_within_a_tenth_of_a_pixel(
    slide_results: tuple[Marked, list[Dataset]],
) -> None:
    """Annotations in slide coordinates, turned back into pixels by the Standard's own formula."""
    marked, objects = slide_results

    (located,) = locate(marked, objects)

    assert "ANN" == located.form
    assert located.farthest < 0.1


@pytest.mark.parametrize("turned", ["left-right", "up-down", "both", "swapped", "shifted"])
def test_no_mirror_image_of_a_slide_is_let_pass(
    slide_results: tuple[Marked, list[Dataset]], turned: str
) -> None:
    marked, objects = slide_results
    x, y = marked.places.T
    places = {
        "left-right": (1100 - x, y), "up-down": (x, 700 - y), "both": (1100 - x, 700 - y), "swapped": (y, x),
        "shifted": (x + 2, y),
    }[turned]  # fmt: skip

    (located,) = locate(replace(marked, places=np.stack(places, axis=1)), objects)

    assert not located.in_place(marked.pixel)


def test_check_says_what_a_failed_selftest_met(tmp_path: Path) -> None:
    """Images without marks: the job has nothing to say, and check reports it in a sentence."""

    def unmarked(folder: Path) -> Marked:
        marked = orientation.mr(folder)
        marked.files[0].write_bytes(b"no DICOM")
        return marked

    (finding,) = selftests({"MR": unmarked})

    assert ("selftest MR", False) == (finding.what, finding.ok)
    assert "00.dcm" in finding.sentence or "DICOM" in finding.sentence
