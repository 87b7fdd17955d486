"""What only slides and photographs have, in the order of delivery; the page is made in `capture.py`."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node.domain.job import ResultObject
from dicom_node.encode.document import Run
from dicom_node.encode.slide.annotations import cell_annotations
from dicom_node.encode.slide.differential import differentials
from dicom_node.encode.slide.maps import fractions, maps, regions
from dicom_node.encode.slide.overlay import overlay
from dicom_node.encode.slide.regions import region_reports


def slide_objects(run: Run) -> Iterator[ResultObject]:
    """Beside the report and the page: differentials, then for each picture what lies over it."""
    yield from differentials(run)
    yield from region_reports(run)
    for place, reading in enumerate(run.findings.readings):
        yield from cell_annotations(run, reading, place)
        yield from maps(run, reading, place)
        yield from regions(run, reading, place)
        yield from fractions(run, reading, place)
        yield from overlay(run, reading, place)
