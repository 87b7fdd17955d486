"""A differential as Enhanced SR, TID 2000 "Basic Diagnostic Imaging Report": shares with intervals.

A table in plain text that a person reads in any viewer, and each share as a number under its own
concept (LOINC for blood), so that a laboratory system takes it. PS3.16 TID 2000, 2002, 1204, 1001.
"""

from __future__ import annotations

from collections.abc import Iterable

import highdicom as hd
from pydicom.dataset import Dataset

from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.slide import Reading, Share
from dicom_node.encode import words
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish, plain
from dicom_node.encode.images import concept
from dicom_node.encode.slide import words as said
from dicom_node.encode.slide.regions import key
from dicom_node.encode.slide.report import subject
from dicom_node.encode.structure import PERCENT, meaning, observer, rounded, separate, wrapped

_TITLE = concept(code("imaging-report"))
_FINDINGS = concept(code("findings"))
_IMPRESSIONS = concept(code("impressions"))
_FINDING = concept(code("finding"))
_IMPRESSION = concept(code("impression"))
_QUANTITY = concept(code("quantity"))
_COUNTS = concept(code("counts"))
_ENGLISH = concept(code("english"))


def differentials(run: Run) -> tuple[ResultObject, ...]:
    """One for each picture whose reading has a differential."""
    readings = [reading for reading in run.findings.readings if reading.differential]
    return tuple(_differential(run, reading, place) for place, reading in enumerate(readings, start=1))


def _differential(run: Run, reading: Reading, place: int) -> ResultObject:
    root = hd.sr.ContainerContentItem(name=_TITLE, is_content_continuous=False, template_id="2000")
    context = hd.sr.ObservationContext(
        observer_device_context=observer(run), subject_context=subject(run, [reading])
    )
    content = hd.sr.ContentSequence(is_root=False)
    content.extend(hd.sr.LanguageOfContentItemAndDescendants(_ENGLISH))
    content.extend(context)
    content.append(_section(_FINDINGS, _findings(reading)))
    content.append(_section(_IMPRESSIONS, _impressions(run)))
    root.ContentSequence = content
    data_set: Dataset = wrapped(run, ResultKind.SR, root, hd.sr.EnhancedSR)
    separate(data_set)
    return finish(
        data_set, run, ResultKind.SR, ("differential", *key(reading)),
        series_number=SERIES_NUMBERS[ResultKind.SR] + place, what=f"differential, {said.name(reading)}",
    )  # fmt: skip


def _findings(reading: Reading) -> Iterable[hd.sr.ContentItem]:
    shares = reading.differential
    yield _text(_FINDING, said.differential(shares))
    yield _number(_QUANTITY, shares[0].total, _COUNTS, "Cells in the differential")
    for share in shares:
        part = 100.0 * share.count / share.total if share.total else 0.0
        yield _number(concept(_of(share)), rounded(part), PERCENT, _counted(share))


def _of(share: Share) -> Code:
    return share.cell_class.count_code or share.cell_class.code


def _counted(share: Share) -> str:
    label = plain(share.cell_class.label)
    return f"{label}: {share.count} of {share.total} cells, 95 % interval {said.interval(share)}"


def _impressions(run: Run) -> Iterable[hd.sr.ContentItem]:
    verdict = run.findings.verdict
    if verdict:
        yield _text(_IMPRESSION, words.statement(verdict))
    for line in said.adequacy(run.findings.readings):
        yield _text(_IMPRESSION, line)
    for line in words.making(run.findings):
        yield _text(_IMPRESSION, line)


def _section(name: hd.sr.CodedConcept, items: Iterable[hd.sr.ContentItem]) -> hd.sr.ContainerContentItem:
    section = hd.sr.ContainerContentItem(name=name, is_content_continuous=False, relationship_type="CONTAINS")
    section.ContentSequence = hd.sr.ContentSequence(list(items))
    return section


def _text(name: hd.sr.CodedConcept, text: str) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(name=name, value=text, relationship_type="CONTAINS")


def _number(
    name: hd.sr.CodedConcept, value: float, unit: hd.sr.CodedConcept, what: str
) -> hd.sr.NumContentItem:  # fmt: skip
    item = hd.sr.NumContentItem(name=name, value=value, unit=unit, relationship_type="CONTAINS")
    item.ContentSequence = hd.sr.ContentSequence([meaning(what)])
    return item
