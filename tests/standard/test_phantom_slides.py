"""Phantom slides against PS3.3 A.32.8, as dicom3tools' dciodvfy judges it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.sr._concepts_dict import concepts

from dicom_node.train.phantoms.slides.build import Wish
from dicom_node.train.phantoms.slides.spec import STAINS, Layout, OffsetTable, SlideSpec
from dicom_node.train.phantoms.slides.write import write_slide
from support.phantom_slides import crop_folder, slide_of
from support.validators import dciodvfy_errors

COUNTS_FRAMES = "NumberOfFrames does not match expected value for tiled total pixel matrix"
"""dciodvfy of 2022 wants every tile of the matrix in every instance: it knows neither TILED_SPARSE, which
may leave tiles out (PS3.3 C.7.6.17.3), nor parts of a concatenation, which hold some of the frames."""


@pytest.mark.parametrize("table", OffsetTable)
@pytest.mark.parametrize("layout", Layout)
def test_dciodvfy_finds_no_error_in_any_layout(layout: Layout, table: OffsetTable, tmp_path: Path) -> None:
    """Every level, thumbnail, overview and label; a dense slide, so that sparse has all its tiles."""
    spec = SlideSpec("t", 300, 260, tile=64, levels=3, planes=3, layout=layout, offset_table=table)
    scene = slide_of(crop_folder(tmp_path / "cells"), spec, Wish(20, background=0))

    paths = write_slide(scene, tmp_path / "out")

    assert {"volume", "thumbnail", "overview", "label"} == {path.name.split("-")[1] for path in paths}
    assert {} == {
        path.name: errors
        for path in paths
        if (
            errors := [
                e for e in dciodvfy_errors(path) if layout is not Layout.SPARSE or COUNTS_FRAMES not in e
            ]
        )
    }


@pytest.mark.parametrize("stain", STAINS.values())
def test_every_code_is_in_the_dictionaries_of_ps3_16(stain: str, tmp_path: Path) -> None:
    """As pydicom has them: value, scheme and meaning belong together."""
    scene = slide_of(crop_folder(tmp_path / "cells"), SlideSpec("t", 300, 260, stain=stain), Wish(1))
    ds = pydicom.dcmread(write_slide(scene, tmp_path / "out")[0], stop_before_pixels=True)
    coded = [one for one in everything_in(ds) if "CodeValue" in one]

    assert len(coded) >= 8
    assert [] == [
        f"{one.CodeValue} {one.CodeMeaning}"
        for one in coded
        if one.CodeMeaning.lower() not in meanings(one.CodingSchemeDesignator, one.CodeValue)
    ]


def everything_in(ds: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    yield ds
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from everything_in(item)


def meanings(scheme: str, value: str) -> set[str]:
    return {
        found[value][0].partition(" (")[0].lower() for found in concepts[scheme].values() if value in found
    }


@pytest.mark.parametrize("layout", Layout)
def test_dciodvfy_finds_only_the_count_of_frames_in_a_concatenation(layout: Layout, tmp_path: Path) -> None:
    spec = SlideSpec("t", 300, 260, tile=64, planes=2, layout=layout, concatenate=3)
    scene = slide_of(crop_folder(tmp_path / "cells"), spec, Wish(6, background=0.5))

    parts = [p for p in write_slide(scene, tmp_path / "out") if p.name.endswith("volume-0.dcm")]

    assert 3 * (2 if layout is Layout.INSTANCES else 1) == len(parts)
    assert [] == [e for path in parts for e in dciodvfy_errors(path) if COUNTS_FRAMES not in e]
