"""What is drawn on single slices: the regions' outlines and the slice's own probability.

Pure. At most one outline for each region and slice, the largest: a viewer lists every one of
them, and the Segmentation has every voxel. PS3.16 TID 1410.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from dicom_node.domain.findings import Findings, Region
from dicom_node.domain.identity import UID
from dicom_node.domain.series import FrameRef, Stack
from dicom_node.encode import words
from dicom_node.encode.contour import Points, outlines
from dicom_node.encode.document import Run, clipped
from dicom_node.encode.images import shown, tracking
from dicom_node.encode.source import stack_key


@dataclass(frozen=True, slots=True)
class Mark:
    """One region's outline on one slice."""

    region: Region
    frame: FrameRef
    where: str
    """The slice as viewers number it: `image 12`."""
    points: Points
    pixels: int
    """Of the region on this slice."""
    probability: float | None
    """Of the positive class on this slice, 0 to 1; None where the slice has none of its own."""
    tracking_id: str
    tracking_uid: UID


def marks(run: Run) -> list[Mark]:
    """All outlines to be drawn, in order of regions and slices.

    Viewers take a Tracking UID for the outline's own and show one of each. So the finding's own stands on
    the slice that shows most of it, and every other outline has one derived from it.
    """
    marked = [region for region in run.findings.regions if shown(run, region.stack)]
    every = [mark for number, region in enumerate(marked) for mark in _of(run, number, region)]
    most = max(every, key=lambda mark: mark.pixels, default=None)
    tracking_id, tracking_uid = tracking(run)
    return [
        replace(mark, tracking_id=tracking_id, tracking_uid=tracking_uid) if mark is most else mark
        for mark in every
    ]


def _of(run: Run, number: int, region: Region) -> Iterator[Mark]:
    stack = region.stack
    numbering, numbers = words.numbered(stack, run.study)
    for place in np.flatnonzero(region.mask.any(axis=(1, 2))).tolist():
        where = f"{numbering} {numbers[place]}"
        yield Mark(
            region=region, frame=stack.frames[place], where=where, points=outlines(region.mask[place])[0],
            pixels=int(region.mask[place].sum()),
            probability=_probability(run.findings, stack, stack.frames[place]),
            tracking_id=clipped(f"{tracking(run)[0]}, {where}"),
            tracking_uid=run.uid("tracking", *stack_key(stack), number, place),
        )  # fmt: skip


def _probability(findings: Findings, stack: Stack, frame: FrameRef) -> float | None:
    for part in findings.sequences:
        if stack_key(part.stack) == stack_key(stack):
            return next((score.positive_probability for score in part.slices if score.frame == frame), None)
    return None
