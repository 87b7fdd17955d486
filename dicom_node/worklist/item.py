"""Unified Procedure Steps as data sets (PS3.3 C.30, PS3.4 Table CC.2.5-3): read, and what is set in them.

Nothing about the patient is asked for, and nothing but codes, references and the node's own sentences is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any  # Any: what a decoder made of a peer's bytes

from pydicom.dataset import Dataset

from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import Input, Item, Output
from dicom_node.errors import UnreadableObject
from dicom_node.worklist.manager import Sought

SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
FINAL = frozenset({COMPLETED, CANCELED})

ASKED = (
    "ProcedureStepState", "ScheduledWorkitemCodeSequence", "ScheduledStationNameCodeSequence",
    "InputReadinessState", "InputInformationSequence", "ProcedureStepProgressInformationSequence",
)  # fmt: skip
"""What N-GET asks for. Never the Transaction UID: it is the lock."""
MOST_INSTANCES = 100_000
"""References in one item; one with more is not read."""


def keys(sought: Sought) -> Dataset:
    """The identifier of a search, PS3.4 CC.2.8.1: sequence matching by code, and what is to be answered."""
    ds = Dataset()
    ds.SOPInstanceUID = ""
    ds.ProcedureStepState = SCHEDULED
    ds.ScheduledWorkitemCodeSequence = [_key(sought.workitem)]
    ds.ScheduledStationNameCodeSequence = [_key(sought.station or ("", ""))]
    ds.InputReadinessState = ""
    return ds


def _key(of: tuple[str, str]) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator = of
    return ds


def fits(item: Item, sought: Sought) -> bool:
    """Whether it may be claimed; a manager need not match all keys, so all are looked at again."""
    return (
        item.state == SCHEDULED
        and item.workitem == sought.workitem
        and (sought.station is None or sought.station in item.stations)
        and item.readiness in ("", "READY")
    )


def read(ds: Dataset, uid: UID | None = None) -> Item:
    """Raises UnreadableObject, whatever is wrong with it; the values never reach the message."""
    try:
        return Item(
            uid=uid or UID(_text(ds, "SOPInstanceUID")),
            state=_text(ds, "ProcedureStepState"),
            workitem=next(_codes(ds, "ScheduledWorkitemCodeSequence"), ("", "")),
            stations=tuple(_codes(ds, "ScheduledStationNameCodeSequence")),
            readiness=_text(ds, "InputReadinessState"),
            inputs=tuple(_inputs(ds)),
            cancel_asked=any(
                _text(one, "ProcedureStepCancellationDateTime")
                for one in _items(ds, "ProcedureStepProgressInformationSequence")
            ),
        )
    except UnreadableObject:
        raise
    except Exception as error:  # the edge to a decoder on a peer's bytes, which raises anything
        raise UnreadableObject(f"no work item that can be read ({type(error).__name__})") from error


def _text(ds: Dataset, keyword: str) -> str:
    value = ds.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def _items(ds: Dataset, keyword: str) -> Iterable[Dataset]:
    return ds.get(keyword) or ()


def _codes(ds: Dataset, keyword: str) -> Iterator[tuple[str, str]]:
    for one in _items(ds, keyword):
        yield _text(one, "CodeValue"), _text(one, "CodingSchemeDesignator")


def _inputs(ds: Dataset) -> Iterator[Input]:
    """PS3.3 Table 10-3b; what is no DICOM instance (CDA) is none of this node's business."""
    left = MOST_INSTANCES
    for one in _items(ds, "InputInformationSequence"):
        if _text(one, "TypeOfInstances") not in ("", "DICOM") or not _text(one, "StudyInstanceUID"):
            continue
        series = _text(one, "SeriesInstanceUID")
        named = tuple(_references(one))
        left -= len(named)
        if left < 0:
            raise UnreadableObject("a work item with too many references")
        yield Input(
            UID(_text(one, "StudyInstanceUID")), UID(series) if series else None, named, tuple(_titles(one))
        )


def _references(ds: Dataset) -> Iterator[tuple[UID, str]]:
    for one in _items(ds, "ReferencedSOPSequence"):
        yield UID(_text(one, "ReferencedSOPInstanceUID")), _text(one, "ReferencedSOPClassUID")[:64]


def _titles(ds: Dataset) -> Iterator[str]:
    for one in _items(ds, "DICOMRetrievalSequence"):
        value: Any = one.get("RetrieveAETitle") or ()
        for title in [value] if isinstance(value, str) else list(value):
            yield str(title).strip()


def change(state: str, transaction_uid: UID) -> Dataset:
    """Action Information of "Change UPS State", PS3.4 Table CC.2.1-1."""
    ds = Dataset()
    ds.ProcedureStepState, ds.TransactionUID = state, transaction_uid
    return ds


def progress(percent: int, words: str) -> Dataset:
    """Progress Information, PS3.3 C.30.1."""
    ds, one = Dataset(), Dataset()
    one.ProcedureStepProgress = str(min(max(percent, 0), 100))
    one.ProcedureStepProgressDescription = words[:1024]
    ds.ProcedureStepProgressInformationSequence = [one]
    return ds


def performed(
    outputs: Sequence[tuple[Output, str, str]], workitem: tuple[str, str], station: Code,
    started: datetime, ended: datetime, words: str,
) -> Dataset:  # fmt: skip
    """The final attributes of a COMPLETED item (final state code P, PS3.4 Table CC.2.5-3).

    `outputs` are (result, AE title, or "", and WADO-RS address, or "", of where it was delivered).
    """
    ds, one = progress(100, words), Dataset()
    one.PerformedStationNameCodeSequence = [_coded(station)]
    one.PerformedProcedureStepStartDateTime = _moment(started)
    one.PerformedProcedureStepEndDateTime = _moment(ended)
    one.PerformedWorkitemCodeSequence = [_coded(Code(*workitem, _meaning(workitem)))]
    one.OutputInformationSequence = list(_output(outputs))
    ds.UnifiedProcedureStepPerformedProcedureSequence = [one]
    return ds


def _output(outputs: Sequence[tuple[Output, str, str]]) -> Iterator[Dataset]:
    """An item for each series, with all places it was delivered to."""
    for series_uid in dict.fromkeys(result.series_uid for result, _, _ in outputs):
        mine = [one for one in outputs if one[0].series_uid == series_uid]
        ds = Dataset()
        ds.TypeOfInstances, ds.StudyInstanceUID = "DICOM", mine[0][0].study_uid
        ds.SeriesInstanceUID = series_uid
        pairs = dict.fromkeys((result.sop_class_uid, result.sop_instance_uid) for result, _, _ in mine)
        ds.ReferencedSOPSequence = [_reference(*pair) for pair in pairs]
        if titles := dict.fromkeys(title for _, title, _ in mine if title):
            ds.DICOMRetrievalSequence = [_from_ae(title) for title in titles]
        if urls := dict.fromkeys(url for _, _, url in mine if url):
            ds.WADORSRetrievalSequence = [_from_url(url) for url in urls]
        yield ds


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return ds


def _from_ae(title: str) -> Dataset:
    ds = Dataset()
    ds.RetrieveAETitle = title
    return ds


def _from_url(url: str) -> Dataset:
    ds = Dataset()
    ds.RetrieveURL = url
    return ds


def discontinued(reason: str, now: datetime) -> Dataset:
    """The final attributes of a CANCELED item (final state code X, PS3.4 Table CC.2.5-3)."""
    ds, one = Dataset(), Dataset()
    one.ProcedureStepCancellationDateTime = _moment(now)
    one.ReasonForCancellation = reason[:1024]
    one.ProcedureStepDiscontinuationReasonCodeSequence = [_coded(code("discontinued"))]
    ds.ProcedureStepProgressInformationSequence = [one]
    return ds


def _coded(of: Code) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = of.value, of.scheme, of.meaning
    return ds


def _meaning(workitem: tuple[str, str]) -> str:
    """CID 9231; a site's own code has the meaning the site knows."""
    known = {"110003": "Computer Aided Diagnosis", "110004": "Computer Aided Detection",
             "110001": "Image Processing"}  # fmt: skip
    return known.get(workitem[0], workitem[0]) if workitem[1] == "DCM" else workitem[0]


def _moment(at: datetime) -> str:
    """VR DT with its offset: a manager may be in another zone."""
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")
