"""Findings into result objects, step 6 of the path: reports, Secondary Capture, SEG, map, and more.

Promises: the same findings on the same images with the same `input_key` give the same UIDs
and the same bytes, on any day and in any time zone. Refuses nothing: findings that exist
can be said, and where there is no verdict the objects say why.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicom_node.dicom import provenance
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import NO_SWAPS, Swaps
from dicom_node.domain.findings import Findings
from dicom_node.domain.job import Predecessor, ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.document import Run, plain, quiet_library
from dicom_node.encode.source import read_source


def warm_up() -> None:
    """Import what encoding needs, about a second; a worker does this before its first job."""
    import dicom_node.encode.images
    import dicom_node.encode.key_objects
    import dicom_node.encode.presentation
    import dicom_node.encode.regions
    import dicom_node.encode.report
    import dicom_node.encode.slide.results  # noqa: F401
    from dicom_node.encode.capture import capture_of

    with quiet_library():
        capture_of(np.zeros((2, 2, 3), np.uint8), "2.25.1")  # reads highdicom's tables of the Standard


def encode(
    findings: Findings, study: Study, *, input_key: str, pipeline: str, pipeline_version: str, title: str,
    predecessors: Sequence[Predecessor] = (), swaps: Swaps = NO_SWAPS,
) -> tuple[ResultObject, ...]:  # fmt: skip
    """Whole PS3.10 files, the SR first; each is a series of its own in the study it came from.

    `input_key` stands for the input, the models and the configuration: every UID derives from
    it, and from the results that these replace and the site's own codes. Raises UnreadableObject
    where a source file is gone.
    """
    # highdicom takes a second to import; a process that only receives never comes here.
    from dicom_node.encode.capture import secondary_capture
    from dicom_node.encode.images import images
    from dicom_node.encode.key_objects import key_objects, rejection
    from dicom_node.encode.presentation import presentation_state
    from dicom_node.encode.regions import region_report
    from dicom_node.encode.report import structured_report
    from dicom_node.encode.slide.report import slide_report
    from dicom_node.encode.slide.results import slide_objects

    with quiet_library():
        run = Run(
            findings=findings,
            study=study,
            source=read_source(findings, study),
            input_key=_key(input_key, findings, predecessors, swaps),
            pipeline=pipeline,
            title=plain(title),
            equipment=provenance.equipment(pipeline, pipeline_version, findings.algorithms),
            predecessors=tuple(predecessors),
            swaps=swaps,
        )
        if findings.readings:
            return slide_report(run), secondary_capture(run), *slide_objects(run), *rejection(run)
        return (
            structured_report(run), secondary_capture(run), *images(run), *region_report(run),
            *presentation_state(run), *key_objects(run), *rejection(run),
        )  # fmt: skip


def _key(input_key: str, findings: Findings, predecessors: Sequence[Predecessor], swaps: Swaps) -> str:
    """Where nothing is replaced and no code is the site's own, the UIDs are of the input alone.

    What computed it is only known once the models are loaded, and another runtime gives other last
    digits: so it joins here, and a job repeated on another machine makes other objects, not other bytes.
    """
    computed = [f"{one.name} {one.runtime}" for one in findings.algorithms if one.runtime]
    if not predecessors and not swaps and not computed:
        return input_key
    replaced = [predecessor.sop_instance_uid for predecessor in predecessors]
    own = [f"{ours}={theirs}" for ours, theirs in sorted(swaps.items(), key=str)]
    return derived_uid(input_key, *replaced, *own, *computed)
