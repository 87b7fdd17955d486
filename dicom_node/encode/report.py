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

from dicom_node.dicom.provenance import MANUFACTURER, code_item
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Algorithm, Score, Verdict
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.encode import words
from dicom_node.encode.document import SERIES_NUMBERS, Run, clipped, finish, nobody, plain
from dicom_node.encode.images import concept, frames_by_instance, tracking

_TITLE = code("oncology-measurement-report")
_PROCEDURE = concept(code("mri-procedure"))
_PROBABILITY_OF_CANCER = code("probability-of-cancer")
_PROBABILITY = concept(code("probability"))
_NUMBER_OF_FRAMES = concept(code("number-of-frames"))
_FRAMES = concept(code("frames"))
_EQUIVALENT_MEANING = concept(code("equivalent-meaning"))
_DIAGNOSIS = code("diagnosis")
_CONCLUSION = code("conclusion")
_COMMENT = code("comment")
_QUALITATIVE_EVALUATIONS = code("qualitative-evaluations")
_IMAGING_MEASUREMENTS = code("imaging-measurements")
_PERCENT = concept(code("percent"))
_ARTIFICIAL_INTELLIGENCE = concept(code("artificial-intelligence"))
_DEVICE = concept(code("device"))


def structured_report(run: Run) -> ResultObject:
    """The SR of one run, of a verdict or of the reason why there is none."""
    data_set = hd.sr.Comprehensive3DSR(
        evidence=_evidence(run),
        content=hd.sr.MeasurementReport(
            observation_context=_observer(run),
            procedure_reported=_PROCEDURE,
            imaging_measurements=[_group(run)],
            title=concept(_TITLE),
        ),
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.1",
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    _put_reading_first(data_set, run)
    _separate(data_set)
    what = "not performed" if run.findings.verdict is None else f"report {run.title}"
    return finish(data_set, run, ResultKind.SR, (), series_number=SERIES_NUMBERS[ResultKind.SR], what=what)


def _put_reading_first(data_set: Dataset, run: Run) -> None:
    """Qualitative Evaluations before Imaging Measurements; without a verdict there is nothing measured."""
    header = [item for item in data_set.ContentSequence if not _named(item, _IMAGING_MEASUREMENTS)]
    measured = [item for item in data_set.ContentSequence if _named(item, _IMAGING_MEASUREMENTS)]
    reading = _item("CONTAINER", _QUALITATIVE_EVALUATIONS)
    reading.ContentSequence = list(_reading(run))
    content = [*header, reading, *(measured if run.findings.verdict else [])]
    # highdicom's own sequence takes only items in its own order and classes.
    data_set["ContentSequence"].value = content


def _reading(run: Run) -> Iterable[Dataset]:
    verdict, reason = run.findings.verdict, run.findings.not_performed
    if verdict is not None:
        yield _code(_DIAGNOSIS, verdict.diagnosis)
        yield _text(_CONCLUSION, words.statement(verdict))
    if reason is not None:
        yield _text(_CONCLUSION, words.not_performed(reason))
    for line in words.report(run.findings, run.study):
        yield _text(_COMMENT, line)


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
        algorithm_id=_algorithm(models[-1]) if models else None,
        measurements=[*_measurements(verdict), *(_slices_kept(run, model) for model in models[:-1])],
        qualitative_evaluations=[
            hd.sr.QualitativeEvaluation(name=concept(_DIAGNOSIS), value=concept(verdict.diagnosis))
        ],
        source_images=_kept_slices(run),
    )


def _measurements(verdict: Verdict) -> Iterable[hd.sr.Measurement]:
    yield hd.sr.Measurement(
        name=concept(_PROBABILITY_OF_CANCER), value=_rounded(100.0 * verdict.probability), unit=_PERCENT
    )
    yield _class_probability(verdict.positive_class, verdict.probability)
    yield _class_probability(verdict.negative_class, 1.0 - verdict.probability)
    for score in verdict.scores:
        if score.name != _PROBABILITY_OF_CANCER:
            yield _score(score)


def _class_probability(of: Code, probability: float) -> hd.sr.Measurement:
    measurement = hd.sr.Measurement(name=_PROBABILITY, value=_rounded(100.0 * probability), unit=_PERCENT)
    return _meaning(measurement, words.probability_of(of))


def _score(score: Score) -> hd.sr.Measurement:
    measurement = hd.sr.Measurement(
        name=concept(score.name), value=_rounded(score.value), unit=concept(score.unit)
    )
    return _meaning(measurement, score.explanation) if score.explanation else measurement


def _slices_kept(run: Run, model: Algorithm) -> hd.sr.Measurement:
    """A group names one algorithm (TID 4019), so each earlier stage stands with the number it decided."""
    kept = sum(score.kept for part in run.findings.sequences for score in part.slices)
    measurement = hd.sr.Measurement(
        name=_NUMBER_OF_FRAMES, value=kept, unit=_FRAMES, algorithm_id=_algorithm(model)
    )
    return _meaning(measurement, f"Slices kept by {model.name}")


def _meaning(measurement: hd.sr.Measurement, text: str) -> hd.sr.Measurement:
    """Say in words which of several numbers with one concept name this is, TID 1210."""
    item = hd.sr.TextContentItem(
        name=_EQUIVALENT_MEANING, value=plain(text), relationship_type="HAS CONCEPT MOD"
    )
    if "ContentSequence" not in measurement[0]:
        measurement[0].ContentSequence = hd.sr.ContentSequence()
    measurement[0].ContentSequence.append(item)
    return measurement


def _rounded(value: float) -> float:
    """Numeric Value is a DS of 16 characters; more digits than these were never meant."""
    return round(float(value), 6)


def _algorithm(model: Algorithm) -> hd.sr.AlgorithmIdentification:
    return hd.sr.AlgorithmIdentification(
        name=plain(model.name),
        version=plain(model.version),
        parameters=[f"sha256:{model.digest}"],
        family=_ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


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


def _observer(run: Run) -> hd.sr.ObservationContext:
    equipment = run.equipment
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=equipment.device_uid,
        name=clipped(f"{equipment.model} {run.pipeline}"),
        manufacturer_name=equipment.manufacturer,
        model_name=equipment.model,
        serial_number=equipment.serial_number,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(
            observer_type=_DEVICE, observer_identifying_attributes=device
        )
    )


def _evidence(run: Run) -> list[Dataset]:
    """A stand-in for each source instance, without patient: highdicom takes the references only."""
    evidence = [_instance(run, *names) for names in run.source.instances]
    nobody(evidence[0])
    return evidence


def _instance(run: Run, series: str, sop_class: str, sop_instance: str) -> Dataset:
    instance = Dataset()
    instance.StudyInstanceUID, instance.SeriesInstanceUID = run.source.study_uid, series
    instance.SOPClassUID, instance.SOPInstanceUID = sop_class, sop_instance
    return instance


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


def _separate(item: Dataset) -> None:
    """Continuity of Content SEPARATE everywhere: CONTINUOUS makes viewers drop the concept names."""
    if item.get("ValueType") == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for nested in item.get("ContentSequence", ()):
        _separate(nested)
