"""The region report: outlines on their slices as Comprehensive 3D SR, which viewers draw.

Titled (126000, DCM, "Imaging Measurement Report") and with planar regions only (TID 1410):
viewers draw such a report over the images, and show an empty page when it holds a group of
another kind. What a person reads is in `report.py`, a document of its own.
"""

from __future__ import annotations

import highdicom as hd

from dicom_node.domain.codebook import code
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.encode import words
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish
from dicom_node.encode.images import concept
from dicom_node.encode.marks import Mark, marks
from dicom_node.encode.structure import PERCENT, PROBABILITY, algorithm, document, meant, rounded, separate

_TITLE = code("imaging-measurement-report")


def region_report(run: Run) -> tuple[ResultObject, ...]:
    """One report of all outlines; none where nothing is marked."""
    groups = [_group(run, mark) for mark in marks(run)]
    if not groups:
        return ()
    data_set = document(run, ResultKind.ROI, _TITLE, groups)
    separate(data_set)
    number = SERIES_NUMBERS[ResultKind.ROI]
    return (finish(data_set, run, ResultKind.ROI, (), series_number=number, what="marked regions"),)


def _group(run: Run, mark: Mark) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    region, models = mark.region, run.findings.algorithms
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=mark.tracking_uid, identifier=mark.tracking_id),
        referenced_region=hd.sr.ImageRegion(
            graphic_type="POLYLINE",
            graphic_data=mark.points,
            source_image=hd.sr.SourceImageForRegion(
                referenced_sop_class_uid=mark.frame.sop_class_uid,
                referenced_sop_instance_uid=mark.frame.sop_instance_uid,
                referenced_frame_numbers=[mark.frame.frame] if mark.frame.multiframe else None,
            ),
        ),
        finding_category=concept(region.category),
        finding_type=concept(region.kind),
        finding_sites=[hd.sr.FindingSite(anatomic_location=concept(region.site))],
        algorithm_id=algorithm(models[-1]) if models else None,
        measurements=_measurements(run, mark),
    )


def _measurements(run: Run, mark: Mark) -> list[hd.sr.Measurement] | None:
    verdict = run.findings.verdict
    if mark.probability is None or verdict is None:
        return None
    # viewers print the concept's name beside the outline, where "Probability" alone does not say of what
    of = concept(verdict.probability_concept) if verdict.probability_concept else PROBABILITY
    measurement = hd.sr.Measurement(name=of, value=rounded(100.0 * mark.probability), unit=PERCENT)
    return [meant(measurement, f"{words.probability_of(verdict.positive_class)} on {mark.where} alone")]
