"""The report as Comprehensive 3D SR, TID 1500 "Measurement Report".

Titled (126001, DCM, "Oncology Measurement Report") with separate containers, so that viewers
show it as labelled text. The document-level Qualitative Evaluations (TID 1500 rows 12-14)
come first and are what a person reads; the image-level group (TID 1501) holds the same for
programs: numbers, codes, and the slices they come from. PS3.16 TID 1500, 1501, 300, 4019.
"""

from __future__ import annotations

from collections.abc import Iterable

import highdicom as hd
from pydicom.dataset import Dataset

from dicom_node.dicom.provenance import code_item
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Algorithm, Score, Verdict
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.encode import words
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish
from dicom_node.encode.images import concept, frames_by_instance, tracking
from dicom_node.encode.structure import PERCENT, PROBABILITY, algorithm, document, meant, rounded, separate

_TITLE = code("oncology-measurement-report")
_NUMBER_OF_FRAMES = concept(code("number-of-frames"))
_FRAMES = concept(code("frames"))
_DIAGNOSIS = code("diagnosis")
_CONCLUSION = code("conclusion")
_COMMENT = code("comment")
_QUALITATIVE_EVALUATIONS = code("qualitative-evaluations")
_IMAGING_MEASUREMENTS = code("imaging-measurements")

_UNSPECIFIED = code("discontinued")
_REASONS = {
    "modality": code("object-types-not-supported"), "missing-series": code("object-set-incomplete"),
    "geometry": code("objects-incorrectly-formatted"), "failed": code("equipment-failure"),
}  # fmt: skip
"""CID 9300 has nothing for a patient or a body part that a model is not meant for: the sentence says it."""


def structured_report(run: Run) -> ResultObject:
    """The SR of one run, of a verdict or of the reason why there is none."""
    title = run.findings.report_title or _TITLE
    data_set = document(run, ResultKind.SR, title, [_group(run)])
    put_reading_first(data_set, run, words.report(run.findings, run.study))
    separate(data_set)
    what = "not performed" if run.findings.verdict is None else f"report {run.title}"
    return finish(data_set, run, ResultKind.SR, (), series_number=SERIES_NUMBERS[ResultKind.SR], what=what)


def put_reading_first(data_set: Dataset, run: Run, lines: Iterable[str]) -> None:
    """Qualitative Evaluations, `lines` after the verdict's own sentence, before Imaging Measurements; without
    a verdict there is nothing measured."""
    header = [item for item in data_set.ContentSequence if not _named(item, _IMAGING_MEASUREMENTS)]
    measured = [item for item in data_set.ContentSequence if _named(item, _IMAGING_MEASUREMENTS)]
    reading = _item("CONTAINER", _QUALITATIVE_EVALUATIONS)
    reading.ContentSequence = list(_reading(run, lines))
    content = [*header, reading, *(measured if run.findings.verdict else [])]
    # highdicom's own sequence takes only items in its own order and classes.
    data_set["ContentSequence"].value = content


def _reading(run: Run, lines: Iterable[str]) -> Iterable[Dataset]:
    verdict, reason = run.findings.verdict, run.findings.not_performed
    if verdict is not None:
        yield _code(_DIAGNOSIS, verdict.diagnosis)
        yield _text(_CONCLUSION, words.statement(verdict))
    if reason is not None:
        yield _text(_CONCLUSION, words.not_performed(reason))
        yield _code(_CONCLUSION, _REASONS.get(reason.code, _UNSPECIFIED))
    for line in lines:
        yield _text(_COMMENT, line)
    if run.predecessors:
        yield _text(_COMMENT, words.REPLACES)


def _group(run: Run) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501. Without a verdict a stand-in that highdicom insists on; it is dropped again."""
    verdict = run.findings.verdict
    tracking_id, tracking_uid = tracking(run)
    identifier = hd.sr.TrackingIdentifier(uid=tracking_uid, identifier=tracking_id)
    if verdict is None:
        return hd.sr.MeasurementsAndQualitativeEvaluations(tracking_identifier=identifier)
    models = run.findings.algorithms
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=identifier,
        finding_type=concept(verdict.finding),
        finding_sites=[hd.sr.FindingSite(anatomic_location=concept(verdict.site))],
        algorithm_id=algorithm(models[-1]) if models else None,
        measurements=[*_measurements(verdict), *(_slices_kept(run, model) for model in models[:-1])],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=concept(_DIAGNOSIS), value=concept(verdict.diagnosis))
        ],
        source_images=_kept_slices(run),
    )


def _measurements(verdict: Verdict) -> Iterable[hd.sr.Measurement]:
    if (asked := verdict.probability_concept) is not None:
        yield hd.sr.Measurement(name=concept(asked), value=rounded(100.0 * verdict.probability), unit=PERCENT)
    yield _class_probability(verdict.positive_class, verdict.probability)
    yield _class_probability(verdict.negative_class, 1.0 - verdict.probability)
    for score in verdict.scores:
        if score.name != verdict.probability_concept:
            yield _score(score)


def _class_probability(of: Code, probability: float) -> hd.sr.Measurement:
    measurement = hd.sr.Measurement(name=PROBABILITY, value=rounded(100.0 * probability), unit=PERCENT)
    return meant(measurement, words.probability_of(of))


def _score(score: Score) -> hd.sr.Measurement:
    measurement = hd.sr.Measurement(
        name=concept(score.name), value=rounded(score.value), unit=concept(score.unit)
    )
    return meant(measurement, score.explanation) if score.explanation else measurement


def _slices_kept(run: Run, model: Algorithm) -> hd.sr.Measurement:
    """A group names one algorithm (TID 4019), so each earlier stage stands with the number it decided."""
    kept = sum(score.kept for part in run.findings.sequences for score in part.slices)
    measurement = hd.sr.Measurement(
        name=_NUMBER_OF_FRAMES, value=kept, unit=_FRAMES, algorithm_id=algorithm(model)
    )
    return meant(measurement, f"Slices kept by {model.name}")


def _kept_slices(run: Run) -> list[hd.sr.SourceImageForMeasurementGroup]:
    frames = [score.frame for part in run.findings.sequences for score in part.slices if score.kept]
    return [
        hd.sr.SourceImageForMeasurementGroup(
            referenced_sop_class_uid=sop_class,
            referenced_sop_instance_uid=instance,
            referenced_frame_numbers=numbers or None,
        )
        for (sop_class, instance), numbers in frames_by_instance(frames).items()
    ]


def _item(value_type: str, name: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [code_item(name)]
    return item


def _text(name: Code, text: str) -> Dataset:
    item = _item("TEXT", name)
    item.TextValue = text
    return item


def _code(name: Code, value: Code) -> Dataset:
    item = _item("CODE", name)
    item.ConceptCodeSequence = [code_item(value)]
    return item


def _named(item: Dataset, name: Code) -> bool:
    return bool(item.ConceptNameCodeSequence[0].CodeValue == name.value)
