"""Results made from real MR in OHIF: classic axial and sagittal, and Enhanced objects of a scanner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.domain.job import ResultKind
from support.findings import folder_study
from support.viewers import material, placement
from support.viewers.material import MARKED, Shown
from support.viewers.ohif import Ohif

pytestmark = [pytest.mark.viewers, pytest.mark.real]
Open = Callable[[Shown], Ohif]
SOURCES = {
    "ProstateX T2 sagittal": "mr_prostatex/ProstateX/ProstateX-0000/*/3.*/*.dcm",
    "ProstateX T2 axial": "mr_prostatex/ProstateX/ProstateX-0000/*/4.*/*.dcm",
    "ProstateX ADC": "mr_prostatex/ProstateX/ProstateX-0000/*/7.*/*.dcm",
    "Enhanced Siemens": "mr_dcm_qa_xa30/In/8_gre_field_mapping/0002_*.dcm",
    "Enhanced Philips": "mr_dcm_qa_enh/In/Philips/IM_0027_fMAP.dcm",
}


@pytest.fixture(params=SOURCES)
def shown(request: pytest.FixtureRequest, real_data: Path, tmp_path: Path) -> Shown:
    paths = sorted(real_data.glob(SOURCES[request.param]))
    if not paths:
        pytest.skip(f"no {request.param}")
    study = folder_study([_known(path, tmp_path) for path in paths])
    return replace(material.results(study, tmp_path / "results", key=request.param), name=request.param)


def _known(path: Path, folder: Path) -> Path:
    """OHIF lists no series where its search by Patient ID finds none: without an id, or with an @ in it."""
    data_set = dcmread(path)
    if data_set.get("PatientID") and "@" not in data_set.PatientID:
        return path
    data_set.PatientID = "ANONYMOUS"
    data_set.save_as(folder / path.name)
    return folder / path.name


@pytest.mark.parametrize("kind", [ResultKind.SEG, ResultKind.PM])
def test_colour_lies_on_the_marked_slices(opened: Open, shown: Shown, kind: ResultKind) -> None:
    """On real grids, oblique ones too: over each marked slice its own L; nothing on the slices opposite.

    Maps only over series that are one stack: over others OHIF makes no volume, which it needs for a map.
    """
    if kind is ResultKind.PM and shown.name == "Enhanced Philips":
        pytest.skip("two images a position in one object: OHIF shows no map over these")
    region = shown.findings.regions[0]
    viewer = opened(shown)

    viewer.show(shown.of(kind)[0])

    for place in (MARKED[0], MARKED[-1], len(region.mask) - 1 - MARKED[0]):
        view = viewer.turn_to(region.stack, place)
        picture = view.cut(viewer.photograph(f"{shown.name} {kind} slice {place}"))
        image = placement.projected(view, region.stack, np.ones_like(region.mask))
        drawn = placement.coloured(picture) & image
        if region.mask[place].any():
            assert placement.overlap(drawn, placement.projected(view, region.stack, region.mask)) > 0.75
        else:
            assert drawn.mean() < 0.005


def test_report_page_and_outlines_are_shown(opened: Open, shown: Shown) -> None:
    """One after the other in one page, as a reader goes through them."""
    region = shown.findings.regions[0]
    viewer = opened(shown)

    viewer.show(shown.of(ResultKind.ROI)[0])
    view = viewer.turn_to(region.stack, MARKED[1])
    viewer.photograph(f"{shown.name} roi")
    mark = placement.projected(view, region.stack, region.mask)
    assert any(placement.overlap(placement.inside(line, view), mark) > 0.75 for line in viewer.outlines())

    viewer.show(shown.of(ResultKind.SR)[0])
    viewer.photograph(f"{shown.name} report")
    assert "Probability of sarcoma of uterus: 87.0 %" in viewer.tab.text()

    viewer.show(shown.of(ResultKind.SC)[0])
    viewer.photograph(f"{shown.name} page")
