"""Unified Procedure Steps against PS3.4 Annex CC, typed in from its tables."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from pydicom.dataset import Dataset
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from dicom_node.domain.codes import Code
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import Output
from dicom_node.errors import UnreadableObject
from dicom_node.worklist.dimse import _MEANINGS
from dicom_node.worklist.item import (
    ASKED,
    MOST_INSTANCES,
    discontinued,
    fits,
    keys,
    performed,
    progress,
    read,
)
from dicom_node.worklist.manager import Said, Sought
from support import mr
from support.ups_book import coded, scheduled, unmet

STUDY = mr.mr_series(slices=3)
AT = datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=2)))
OUTPUT = Output("pacs", UID("1.1"), UID("1.2"), UID("1.3"), UID("1.4"))


@pytest.mark.parametrize(
    ("status", "said"),
    [  # Tables CC.2.1-2, CC.2.6-1, CC.2.7-1
        (0x0000, Said.DONE), (0x0001, Said.DONE), (0xB304, Said.DONE), (0xB305, Said.DONE),
        (0xB306, Said.DONE), (0xC300, Said.CONFLICT), (0xC301, Said.NOT_OURS), (0xC302, Said.CONFLICT),
        (0xC303, Said.REFUSED), (0xC304, Said.REFUSED), (0xC307, Said.GONE), (0xC310, Said.CONFLICT),
        (0x0110, Said.REFUSED), (0x0112, Said.GONE),
    ],
)  # fmt: skip
def test_status_codes(status: int, said: Said) -> None:
    assert said is _MEANINGS.get(status, Said.REFUSED)


def test_a_performed_step_meets_the_final_state() -> None:
    """Final state code P: every attribute it names has a value; the output may be an empty sequence."""
    station = Code("AI1", "99SITE", "AI1")
    full = performed([(OUTPUT, "PACS", "")], ("110004", "DCM"), station, AT, AT, "done")
    empty = performed([], ("110004", "DCM"), station, AT, AT, "done")

    assert [] == unmet(full, "COMPLETED") == unmet(empty, "COMPLETED")
    assert [] != unmet(progress(100, "done"), "COMPLETED")


def test_a_discontinued_step_meets_the_final_state() -> None:
    """Final state code X: a moment and a reason, which is of CID 9300."""
    ds = discontinued("no images came", AT)
    why = ds.ProcedureStepProgressInformationSequence[0]
    reason = why.ProcedureStepDiscontinuationReasonCodeSequence[0]
    values = {v for name in cid_concepts[9300]["DCM"] for v in concepts["DCM"][name]}

    assert [] == unmet(ds, "CANCELED")
    assert "20260301073000+0000" == why.ProcedureStepCancellationDateTime
    assert reason.CodeValue in values


def test_outputs_are_referenced_by_series_with_where_they_are() -> None:
    """PS3.3 Table 10-3b: one item for a series, one reference for an object, all places it is at."""
    again = Output("archive", *_rest(OUTPUT))
    web = Output("web", *_rest(OUTPUT))
    other = Output("pacs", UID("1.1"), UID("1.9"), UID("1.3"), UID("1.5"))
    url = "https://pacs/rs/studies/1.1/series/1.2"
    ds = performed(
        [(OUTPUT, "PACS", ""), (again, "ARCHIVE", ""), (web, "", url), (other, "PACS", "")],
        ("110004", "DCM"), Code("AI1", "99SITE", "AI1"), AT, AT, "done",
    )  # fmt: skip
    first, second = ds.UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence

    assert ("DICOM", "1.1", "1.2") == (
        first.TypeOfInstances, first.StudyInstanceUID, first.SeriesInstanceUID,
    )  # fmt: skip
    assert ["1.4"] == [one.ReferencedSOPInstanceUID for one in first.ReferencedSOPSequence]
    assert ["PACS", "ARCHIVE"] == [one.RetrieveAETitle for one in first.DICOMRetrievalSequence]
    assert [url] == [one.RetrieveURL for one in first.WADORSRetrievalSequence]
    assert ["1.5"] == [one.ReferencedSOPInstanceUID for one in second.ReferencedSOPSequence]


def _rest(output: Output) -> tuple[UID, UID, UID, UID]:
    return output.study_uid, output.series_uid, output.sop_class_uid, output.sop_instance_uid


def test_neither_the_lock_nor_the_patient_is_asked_for() -> None:
    """PS3.4 CC.2.7.2: the Transaction UID is never requested; the node needs nothing about the patient."""
    asked = {*ASKED, *(element.keyword for element in keys(Sought(("110004", "DCM"))))}

    assert {name for name in asked if name.startswith(("Patient", "Transaction", "Accession"))} == set()
    assert "InputInformationSequence" in asked


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True), ({"ProcedureStepState": "IN PROGRESS"}, False),
        ({"InputReadinessState": "UNREADY"}, False),
        ({"InputReadinessState": "INCOMPLETE"}, False), ({"InputReadinessState": ""}, True),
        ({"ScheduledWorkitemCodeSequence": [coded("110003", "DCM")]}, False),
        ({"ScheduledWorkitemCodeSequence": [coded("110004", "99SITE")]}, False),
        ({"ScheduledWorkitemCodeSequence": []}, False),
        ({"ScheduledStationNameCodeSequence": [coded("AI2", "99SITE")]}, False),
        ({"ScheduledStationNameCodeSequence": [coded("AI2", "99SITE"), coded("AI1", "99SITE")]}, True),
    ],
)  # fmt: skip
def test_a_manager_that_matches_no_keys_is_read_all_the_same(
    changes: dict[str, object], expected: bool
) -> None:
    """Some answer all items to any search; what is claimed is decided here."""
    ds = scheduled("1.2.3", STUDY, station=("AI1", "99SITE"))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)

    assert expected is fits(read(ds), Sought(("110004", "DCM"), ("AI1", "99SITE")))


def test_inputs_are_read_with_where_they_are() -> None:
    """Input Information Sequence: study, series, instances with their classes, AE titles."""
    (found,) = read(scheduled("1.2.3", STUDY, ae_title="PACS")).inputs

    assert STUDY[0].StudyInstanceUID == found.study_uid
    assert STUDY[0].SeriesInstanceUID == found.series_uid
    assert [(ds.SOPInstanceUID, ds.SOPClassUID) for ds in STUDY] == list(found.instances)
    assert ("PACS",) == found.ae_titles


def _without_uid(ds: Dataset) -> None:
    del ds.SOPInstanceUID


def _wrong_reference(ds: Dataset) -> None:
    ds.InputInformationSequence[0].ReferencedSOPSequence = [Dataset()]


def _too_many(ds: Dataset) -> None:
    one = ds.InputInformationSequence[0].ReferencedSOPSequence[0]
    ds.InputInformationSequence[0].ReferencedSOPSequence = [one] * (MOST_INSTANCES + 1)


@pytest.mark.parametrize("spoil", [_without_uid, _wrong_reference, _too_many])
def test_what_cannot_be_read_says_so_without_quoting_it(spoil: object) -> None:
    """One error of the family, whatever a peer sends, and no value of the item in it."""
    ds = scheduled("1.2.3", STUDY)
    spoil(ds)  # type: ignore[operator]

    with pytest.raises(UnreadableObject) as raised:
        read(ds)
    assert "CANARY" not in str(raised.value)
