"""What a radiologist reads of the results in OHIF: the report, the page, and a list that helps."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.domain.job import ResultKind
from support import mr
from support.viewers import material, placement
from support.viewers.material import Shown
from support.viewers.ohif import Ohif

Open = Callable[[Shown], Ohif]


@pytest.fixture(scope="module")
def shown(studies: Path) -> Shown:
    folder = studies / "reading"
    study = material.classic(folder / "source", "reading", mr.AXIAL)
    return material.results(study, folder / "results")


def test_the_report_reads_verdict_first(opened: Open, shown: Shown) -> None:
    """Without scrolling: what, how sure, by which operating point, where, that it is AI and unverified."""
    viewer = opened(shown)

    viewer.show(shown.of(ResultKind.SR)[0])

    viewer.photograph("report")
    wanted = (
        "Diagnosis: Sarcoma of uterus", "Probability of sarcoma of uterus: 87.0 %",
        "positive: at or above 60.0 %", "AI - research use only - not for diagnostic use", "Unverified",
        "Operating point: negative below 40.0 %", "4 of 12 (images 3-6)", "Model: Sarcoma Evaluator",
    )  # fmt: skip
    text = " ".join(viewer.tab.text().split())
    places = [text.find(part) for part in wanted]
    assert -1 not in places
    assert sorted(places) == places
    for part in wanted:
        assert viewer.tab.page.get_by_text(part).first.bounding_box()["y"] < 860, f"below the fold: {part}"


@pytest.mark.viewers
def test_the_page_is_shown_as_it_was_drawn(opened: Open, shown: Shown) -> None:
    """Verdict, probability, colour bar and the caution in the corner are the encoded pixels, not mirrored."""
    (page,) = shown.of(ResultKind.SC)
    pixels = dcmread(BytesIO(page.content)).pixel_array
    viewer = opened(shown)

    viewer.show(page)

    picture, view = viewer.photograph("page"), viewer.view()
    expected, covered = placement.laid_out(view, pixels)
    picture = np.where(covered[..., None], view.cut(picture), 0)
    assert placement.likeness(expected, picture) > 0.9
    parts = {
        "caution": (0, 860, 56, 1280),
        "probability": (76, 960, 196, 1250),
        "colour bar": (343, 500, 372, 820),
    }
    for name, (top, left, bottom, right) in parts.items():
        marked = np.zeros(pixels.shape[:2], bool)
        marked[top:bottom, left:right] = True
        where, _ = placement.laid_out(view, np.repeat(marked[..., None].astype(np.uint8), 3, axis=-1))
        rows, columns = np.nonzero(where[..., 0])
        box = np.s_[rows.min() : rows.max(), columns.min() : columns.max()]
        alike = placement.likeness(expected[box], picture[box])
        assert alike > 0.8, name
        assert alike > placement.likeness(expected[box], picture[box][:, ::-1].copy()) + 0.2, name


@pytest.mark.viewers
def test_the_list_of_the_study_says_that_it_is_ai(opened: Open, shown: Shown) -> None:
    """Images first; every result begins with AI and ends with what it is not for, the report before the rest
    of its kind. What OHIF does not know (presentation states, key objects) is listed and does no harm."""
    viewer = opened(shown)

    viewer.photograph("list")
    listed = viewer.listed()

    assert "t2_tse" == listed[0]
    assert len(shown.results) == len(listed) - 1
    assert all(label.startswith("AI ") and label.endswith("not for diagnostic use") for label in listed[1:])
    reports = [label for label in listed if "report" in label or "marked regions" in label]
    assert "report" in reports[0]


@pytest.mark.viewers
@pytest.mark.parametrize("kind", [ResultKind.GSPS, ResultKind.KOS])
def test_what_ohif_does_not_know_does_no_harm(opened: Open, shown: Shown, kind: ResultKind) -> None:
    """OHIF 3.13 marks presentation states and key objects as unsupported; a double click leaves the images,
    and the report opens after it."""
    (unknown,) = shown.of(kind)
    viewer = opened(shown)

    label = str(dcmread(BytesIO(unknown.content)).SeriesDescription)
    viewer.tab.page.get_by_text(label, exact=True).first.dblclick()

    viewer.photograph(f"{kind}")
    viewer.show(shown.of(ResultKind.SR)[0])
    assert "Diagnosis: Sarcoma of uterus" in viewer.tab.text()
