"""What the report and the region report have in common: TID 1500 around their groups.

PS3.16 TID 1500 "Measurement Report", 1001 (observer), 4019 (algorithm), 1210 (meaning).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as Concept

from dicom_node.dicom.provenance import MANUFACTURER
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Algorithm
from dicom_node.domain.job import Predecessor, ResultKind
from dicom_node.encode.document import Run, clipped, nobody, plain
from dicom_node.encode.images import concept

PROBABILITY = concept(code("probability"))
PERCENT = concept(code("percent"))
_MRI = concept(code("mri-procedure"))
_IMAGING = concept(code("imaging-procedure"))
_EQUIVALENT_MEANING = concept(code("equivalent-meaning"))
_ARTIFICIAL_INTELLIGENCE = concept(code("artificial-intelligence"))
_DEVICE = concept(code("device"))


def document(
    run: Run, kind: ResultKind, title: Code, groups: Sequence[Any], *,
    subject: hd.sr.SubjectContext | None = None, of: type[Dataset] = hd.sr.Comprehensive3DSR,
) -> Dataset:  # fmt: skip
    """A Comprehensive 3D SR, or one `of` another class, around measurement groups, without identity.

    `subject` is what was looked at where that is not the patient.
    """
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=observer(run), subject_context=subject
        ),
        procedure_reported=procedure(run),
        imaging_measurements=groups,
        title=concept(title),
    )
    return wrapped(run, kind, content, of)


def procedure(run: Run) -> Concept:
    """What was done to get the images, of CID 100: as the pipeline says, else by what there is."""
    if run.findings.procedure is not None:
        return concept(run.findings.procedure)
    study = run.study
    return _IMAGING if run.findings.readings or study.slides or study.photographs else _MRI


def wrapped(run: Run, kind: ResultKind, content: Any, of: type[Dataset]) -> Dataset:  # Any: a root container
    """A report of a class around its content, complete and unverified."""
    made = of(
        evidence=evidence_of(run),
        content=content,
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.1",
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    replaced = [old for old in run.predecessors if old.kind is kind]
    if replaced:
        made.PredecessorDocumentsSequence = [_predecessors(run, replaced)]
    return made


def _predecessors(run: Run, replaced: Sequence[Predecessor]) -> Dataset:
    """Predecessor Documents Sequence (PS3.3 C.17.2): documents of this study, by series."""
    study = Dataset()
    study.StudyInstanceUID = run.source.study_uid
    study.ReferencedSeriesSequence = []
    for old in replaced:
        series, document = Dataset(), Dataset()
        document.ReferencedSOPClassUID = old.sop_class_uid
        document.ReferencedSOPInstanceUID = old.sop_instance_uid
        series.SeriesInstanceUID = old.series_uid
        series.ReferencedSOPSequence = [document]
        study.ReferencedSeriesSequence.append(series)
    return study


def meant(measurement: hd.sr.Measurement, text: str) -> hd.sr.Measurement:
    """Say in words which of several numbers with one concept name this is, TID 1210."""
    if "ContentSequence" not in measurement[0]:
        measurement[0].ContentSequence = hd.sr.ContentSequence()
    measurement[0].ContentSequence.append(meaning(text))
    return measurement


def meaning(text: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(
        name=_EQUIVALENT_MEANING, value=plain(text), relationship_type="HAS CONCEPT MOD"
    )


def rounded(value: float) -> float:
    """Numeric Value is a DS of 16 characters; more digits than these were never meant."""
    return round(float(value), 6)


def algorithm(model: Algorithm) -> hd.sr.AlgorithmIdentification:
    return hd.sr.AlgorithmIdentification(
        name=plain(model.name),
        version=plain(model.version),
        parameters=[f"sha256:{model.digest}", *([plain(f"run by {model.runtime}")] if model.runtime else [])],
        family=_ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def observer(run: Run) -> hd.sr.ObserverContext:
    """The node as the device that observed."""
    equipment = run.equipment
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=equipment.device_uid,
        name=clipped(f"{equipment.model} {run.pipeline}"),
        manufacturer_name=equipment.manufacturer,
        model_name=equipment.model,
        serial_number=equipment.serial_number,
    )
    return hd.sr.ObserverContext(observer_type=_DEVICE, observer_identifying_attributes=device)


def evidence_of(run: Run) -> list[Dataset]:
    """A stand-in for each source instance, without patient: highdicom takes the references only."""
    evidence = [stand_in(run, *names) for names in run.source.instances]
    nobody(evidence[0])
    return evidence


def stand_in(run: Run, series: str, sop_class: str, sop_instance: str) -> Dataset:
    """An instance of the study by its references alone."""
    instance = Dataset()
    instance.StudyInstanceUID, instance.SeriesInstanceUID = run.source.study_uid, series
    instance.SOPClassUID, instance.SOPInstanceUID = sop_class, sop_instance
    return instance


def separate(item: Dataset) -> None:
    """Continuity of Content SEPARATE everywhere: CONTINUOUS makes viewers drop the concept names."""
    if item.get("ValueType") == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for nested in item.get("ContentSequence", ()):
        separate(nested)
