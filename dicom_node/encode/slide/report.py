"""The report on slides and photographs as Comprehensive SR, TID 1500 "Measurement Report".

Titled (126001, DCM, "Oncology Measurement Report") with separate containers, as the report on MR is,
and of a class that viewers of slides do not take for drawn regions. What a person reads comes first;
the image-level group (TID 1501) holds the same for programs: class counts, probabilities, adequacy.
The subject is the specimen (TID 1009). PS3.16 TID 1500, 1501, 300, 4019.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import highdicom as hd

from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import code
from dicom_node.domain.findings import Verdict
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.slide import Photograph, Picture, Reading
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish
from dicom_node.encode.images import concept, tracking
from dicom_node.encode.report import put_reading_first
from dicom_node.encode.slide import ground
from dicom_node.encode.slide import words as said
from dicom_node.encode.structure import PERCENT, PROBABILITY, algorithm, document, meant, rounded, separate
from dicom_node.encode.words import probability_of

_TITLE = code("oncology-measurement-report")
_DIAGNOSIS = concept(code("diagnosis"))
_FINDING = concept(code("finding"))
_QUANTITY = concept(code("quantity"))
_COUNTS = concept(code("counts"))
_FOCAL_PLANES = concept(code("focal-planes"))
_SPECIMEN = concept(code("specimen"))
MOST_SOURCES = 100


def slide_report(run: Run) -> ResultObject:
    """The SR of a run that read slides or photographs."""
    data_set = document(
        run, ResultKind.SR, run.findings.report_title or _TITLE, [_group(run)],
        subject=subject(run, run.findings.readings),
        of=hd.sr.ComprehensiveSR,
    )  # fmt: skip
    put_reading_first(data_set, run, said.report(run.findings))
    separate(data_set)
    what, number = f"report {run.title}", SERIES_NUMBERS[ResultKind.SR]
    return finish(data_set, run, ResultKind.SR, (), series_number=number, what=what)


def subject(run: Run, readings: Sequence[Reading]) -> hd.sr.SubjectContext | None:
    """The specimen on the pictures (TID 1009); None where they show several."""
    found = {}
    for reading in readings:
        module = ground.specimen(run, reading.picture)
        if "SpecimenDescriptionSequence" in module:
            item = module.SpecimenDescriptionSequence[0]
            names = item.get("SpecimenIdentifier") or None, module.get("ContainerIdentifier") or None
            found[str(item.SpecimenUID)] = names
        else:
            found[derived_uid("specimen", reading.picture.series_uid)] = None, None
    if len(found) != 1:
        return None
    ((uid, (identifier, container)),) = found.items()
    specific = hd.sr.SubjectContextSpecimen(uid=uid, identifier=identifier, container_identifier=container)
    return hd.sr.SubjectContext(subject_class=_SPECIMEN, subject_class_specific_context=specific)


def _group(run: Run) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501: the numbers behind the verdict."""
    findings, (tracking_id, tracking_uid) = run.findings, tracking(run)
    verdict, models = findings.verdict, findings.algorithms
    site = [hd.sr.FindingSite(anatomic_location=concept(verdict.site))] if verdict else None
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=tracking_uid, identifier=tracking_id),
        finding_type=concept(verdict.finding) if verdict else None,
        finding_sites=site,
        algorithm_id=algorithm(models[-1]) if models else None,
        measurements=[*(_of_verdict(verdict) if verdict else ()), *_of_readings(findings.readings)],
        qualitative_evaluations=list(_evaluations(run)),
        source_images=_sources(findings.readings),
    )


def _of_verdict(verdict: Verdict) -> Iterable[hd.sr.Measurement]:
    if (asked := verdict.probability_concept) is not None:
        yield hd.sr.Measurement(name=concept(asked), value=rounded(100.0 * verdict.probability), unit=PERCENT)
    for of, value in ((verdict.positive_class, verdict.probability),
                      (verdict.negative_class, 1.0 - verdict.probability)):  # fmt: skip
        measurement = hd.sr.Measurement(name=PROBABILITY, value=rounded(100.0 * value), unit=PERCENT)
        yield meant(measurement, probability_of(of))
    for score in verdict.scores:
        if score.name == verdict.probability_concept:
            continue
        measurement = hd.sr.Measurement(
            name=concept(score.name), value=rounded(score.value), unit=concept(score.unit)
        )
        yield meant(measurement, score.explanation) if score.explanation else measurement


def _of_readings(readings: Sequence[Reading]) -> Iterable[hd.sr.Measurement]:
    tally = said.counted(readings)
    yield _count(sum(n for _, n in tally), "All cells")
    for kind, n in tally:
        yield _count(n, f"Cells called {kind.label}: {kind.code.meaning}")
    deepest = max((reading.planes_read for reading in readings), default=1)
    if deepest > 1:
        yield meant(hd.sr.Measurement(name=_FOCAL_PLANES, value=deepest, unit=_COUNTS), "Focal planes read")


def _count(n: int, what: str) -> hd.sr.Measurement:
    return meant(hd.sr.Measurement(name=_QUANTITY, value=n, unit=_COUNTS), what)


def _evaluations(run: Run) -> Iterable[hd.sr.QualitativeEvaluation]:
    verdict, readings = run.findings.verdict, run.findings.readings
    if verdict:
        yield hd.sr.QualitativeEvaluation(name=_DIAGNOSIS, value=concept(verdict.diagnosis))
    for adequate in dict.fromkeys(reading.adequacy.code for reading in readings if reading.adequacy):
        yield hd.sr.QualitativeEvaluation(name=_FINDING, value=concept(adequate))


def _sources(readings: Sequence[Reading]) -> list[hd.sr.SourceImageForMeasurementGroup]:
    sources = []
    for picture in [reading.picture for reading in readings][:MOST_SOURCES]:
        part = picture if isinstance(picture, Photograph) else picture.base.parts[0]
        sources.append(
            hd.sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=part.sop_class_uid,
                referenced_sop_instance_uid=part.sop_instance_uid,
                referenced_frame_numbers=frames_of(picture),
            )
        )
    return sources


def frames_of(picture: Picture) -> list[int] | None:
    """The frame that a reference must name: of a photograph that is one of several in its object."""
    return [picture.frame] if isinstance(picture, Photograph) and picture.frame > 1 else None
