"""Phantom images against PS3.3 A.4, as dicom3tools' dciodvfy judges it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.train.phantoms import orientation
from dicom_node.train.phantoms.cases import VENDORS, Vendor, case_specs
from dicom_node.train.phantoms.generate import render
from dicom_node.train.phantoms.write import write_study
from support.validators import dciodvfy_errors


@pytest.mark.parametrize("vendor", VENDORS)
def test_dciodvfy_finds_no_error_in_any_series(vendor: Vendor, tmp_path: Path) -> None:
    """The first image of every series, and the last one, which in a joined DWI series is b1000."""
    spec = replace(case_specs("development")[0], vendor=vendor)
    paths = write_study(render(spec, matrix=32, slices=2), tmp_path)

    folders = sorted({path.parent for path in paths})
    judged = [path for folder in folders for path in (min(folder.iterdir()), max(folder.iterdir()))]

    assert {} == {path.parent.name: errors for path in judged if (errors := dciodvfy_errors(path))}


def test_dciodvfy_finds_no_error_in_the_marked_phantoms(tmp_path: Path) -> None:
    """What `check --selftest` sends is as valid as what a scanner does."""
    files = [*orientation.mr(tmp_path / "mr").files, *orientation.slide(tmp_path / "slide").files]

    assert {} == {path.name: errors for path in files if (errors := dciodvfy_errors(path))}
