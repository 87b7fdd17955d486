"""The slices the verdict rests on, as Key Object Selection (TID 2010): a PACS shows them as a set."""

from __future__ import annotations

import highdicom as hd
from pydicom.dataset import Dataset

from dicom_node.dicom.provenance import MANUFACTURER
from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.encode import words
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish, nobody, plain
from dicom_node.encode.images import concept, frames_by_instance
from dicom_node.encode.structure import observer, separate, stand_in

_TITLE = code("of-interest")
_REJECTED = code("rejected-for-quality")
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."
"""Where the SOP Class UIDs of structured reports begin (PS3.4 B.5)."""
Named = dict[tuple[UID, UID, UID], list[int]]
"""(series, SOP class, SOP instance) -> frame numbers; empty for single-frame instances."""


def key_objects(run: Run) -> tuple[ResultObject, ...]:
    """One selection of all kept slices; none where none was kept."""
    slices: Named = {}
    for part in run.findings.sequences:
        frames = [score.frame for score in part.slices if score.kept]
        for (sop_class, instance), numbers in frames_by_instance(frames).items():
            slices.setdefault((part.stack.series_uid, sop_class, instance), []).extend(numbers)
    if run.findings.verdict is None or not slices:
        return ()
    text = f"Slices used by AI: {run.title}. {words.CAUTION}."
    data_set = selection(run, _TITLE, slices, text)
    number = SERIES_NUMBERS[ResultKind.KOS]
    return (finish(data_set, run, ResultKind.KOS, (), series_number=number, what="slices used"),)


def rejection(run: Run) -> tuple[ResultObject, ...]:
    """The rejection note of what this replaces (IHE RAD IOCM, RAD-66); none where it replaces nothing."""
    if not run.predecessors:
        return ()
    named: Named = {(old.series_uid, old.sop_class_uid, old.sop_instance_uid): [] for old in run.predecessors}
    text = f"Replaced by a later AI result: {run.title}. The images or models changed."
    data_set = selection(run, _REJECTED, named, text)
    number = SERIES_NUMBERS[ResultKind.REJECT]
    return (finish(data_set, run, ResultKind.REJECT, (), series_number=number, what="results replaced"),)


def selection(run: Run, title: Code, named: Named, text: str) -> Dataset:
    """A selection of instances or frames of the study, with its reason in words."""
    evidence = [stand_in(run, *names) for names in named]
    for data_set in evidence:
        if not data_set.SOPClassUID.startswith(_DOCUMENTS):
            data_set.Rows = data_set.Columns = 1  # highdicom tells images from documents by these
    nobody(evidence[0])
    content = hd.ko.KeyObjectSelection(
        document_title=concept(title), referenced_objects=evidence, observer_device_context=observer(run),
        description=plain(text),
    )  # fmt: skip
    document: Dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=evidence, content=content, series_instance_uid="2.25.1", series_number=1,
        sop_instance_uid="2.25.1", instance_number=1, manufacturer=MANUFACTURER,
    )  # fmt: skip
    frames = {instance: numbers for (_, _, instance), numbers in named.items()}
    for item in document.ContentSequence:
        if item.ValueType in ("IMAGE", "COMPOSITE"):
            del item.ConceptNameCodeSequence  # TID 2010 rows 8 to 10 have none
            reference = item.ReferencedSOPSequence[0]
            if numbers := frames[reference.ReferencedSOPInstanceUID]:
                reference.ReferencedFrameNumber = numbers
    separate(document)
    return document
