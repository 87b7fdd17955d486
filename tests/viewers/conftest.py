"""OHIF before an Orthanc, in one Chromium for all tests of a module.

Tests marked `viewers` run by `make viewers` only: together they take many minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.viewers.archive import Archive, archive
from support.viewers.browser import Browser, chromium
from support.viewers.material import Shown
from support.viewers.ohif import Ohif, dist, served
from support.viewers.site import Site

Open = Callable[[Shown], Ohif]
"""Stores a study with its results and opens it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("DICOM_NODE_ALL_VIEWERS"):
        for item in items:
            if item.get_closest_marker("viewers"):
                item.add_marker(pytest.mark.skip(reason="runs by `make viewers`"))


@dataclass(frozen=True)
class Place:
    """What is made once: an archive, OHIF before it, a browser."""

    pacs: Archive
    site: Site
    browser: Browser


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    dist()
    with (
        archive(tmp_path_factory.mktemp("orthanc")) as pacs,
        served(pacs.prefixes) as site,
        chromium() as browser,
    ):
        yield Place(pacs, site, browser)


@pytest.fixture
def opened(place: Place) -> Iterator[Open]:
    """Stores a study and its results alone, and opens it in a fresh page, which must not break."""
    viewers = []
    with ExitStack() as stack:

        def open_study(shown: Shown) -> Ohif:
            place.pacs.empty()
            place.pacs.store(shown.files)
            viewer = Ohif(stack.enter_context(place.browser.tab(place.site.url)))
            viewers.append(viewer)
            viewer.open(shown.uid)
            return viewer

        yield open_study
        assert [] == [error for viewer in viewers for error in viewer.tab.errors]


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where studies made by code are written."""
    return tmp_path_factory.mktemp("studies")
