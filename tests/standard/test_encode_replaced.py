"""A later result names what it replaces, and a site's own codes stand in every object."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.codebook import NO_SWAPS, Swaps, code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Findings
from dicom_node.domain.job import Predecessor, ResultKind, ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.findings import found, pelvis, refused
from support.validators import dciodvfy_errors, pixelmed_errors

LOCAL = Code("UT-7", "99HOSPITAL", "Uterus, local word")


def encoded(
    findings: Findings, study: Study, *, key: str = "k", predecessors: tuple[Predecessor, ...] = (),
    swaps: Swaps = NO_SWAPS,
) -> dict[ResultKind, list[ResultObject]]:  # fmt: skip
    made: dict[ResultKind, list[ResultObject]] = {}
    for result in encode(
        findings, study, input_key=key, pipeline="p", pipeline_version="1", title="Uterine MRI",
        predecessors=predecessors, swaps=swaps,
    ):  # fmt: skip
        made.setdefault(result.kind, []).append(result)
    return made


def earlier(made: dict[ResultKind, list[ResultObject]]) -> tuple[Predecessor, ...]:
    return tuple(
        Predecessor(result.kind, result.sop_class_uid, result.sop_instance_uid, result.series_uid)
        for results in made.values() for result in results
    )  # fmt: skip


def read(result: ResultObject) -> Dataset:
    return pydicom.dcmread(BytesIO(result.content))


def codes(item: Dataset) -> Iterator[tuple[str, str]]:
    if "CodeValue" in item:
        yield item.CodeValue, item.CodingSchemeDesignator
    for element in item:
        if element.VR == "SQ":
            for nested in element.value:
                yield from codes(nested)


@pytest.mark.parametrize("which", ["found", "not performed"])
def test_a_later_report_names_its_predecessor(tmp_path: Path, which: str) -> None:
    """Predecessor Documents Sequence (PS3.3 C.17.2): a report that of a report, regions those of regions."""
    study = pelvis(tmp_path / "study")
    before = encoded(found(study), study)
    now = found(study, probability=0.2) if which == "found" else refused()

    after = encoded(now, study, key="later", predecessors=earlier(before))

    for kind in {ResultKind.SR, ResultKind.ROI} & set(after):
        report = read(after[kind][0])
        (item,) = report.PredecessorDocumentsSequence
        (series,) = item.ReferencedSeriesSequence
        (document,) = series.ReferencedSOPSequence
        assert study.uid == item.StudyInstanceUID
        assert before[kind][0].series_uid == series.SeriesInstanceUID
        assert before[kind][0].sop_instance_uid == document.ReferencedSOPInstanceUID
    assert b"This replaces an earlier AI result" in after[ResultKind.SR][0].content
    assert b"This replaces" not in before[ResultKind.SR][0].content


def test_a_rejection_note_lists_all_that_is_replaced(tmp_path: Path) -> None:
    """IHE RAD IOCM: Key Object Selection titled (113001, DCM, "Rejected for Quality Reasons")."""
    study = pelvis(tmp_path / "study")
    before = encoded(found(study), study)

    after = encoded(found(study, probability=0.2), study, key="later", predecessors=earlier(before))

    note = read(after[ResultKind.REJECT][0])
    assert "113001" == note.ConceptNameCodeSequence[0].CodeValue
    listed = {
        reference.ReferencedSOPInstanceUID
        for item in note.ContentSequence for reference in item.get("ReferencedSOPSequence", ())
    }  # fmt: skip
    assert {old.sop_instance_uid for old in earlier(before)} == listed
    assert ResultKind.REJECT not in before


def test_documents_that_replace_others_are_valid(tmp_path: Path) -> None:
    study = pelvis(tmp_path / "study")
    old = earlier(encoded(found(study), study))
    after = encoded(refused(), study, key="later", predecessors=old)

    for kind in (ResultKind.SR, ResultKind.REJECT):
        path = tmp_path / f"{kind}.dcm"
        path.write_bytes(after[kind][0].content)
        assert [] == dciodvfy_errors(path)
        assert [] == pixelmed_errors(path)


def test_what_replaces_another_result_is_another_object(tmp_path: Path) -> None:
    """The content differs, so the UIDs do; the same replacement made again is the same object."""
    study = pelvis(tmp_path)
    old = earlier(encoded(refused(), study, key="before"))

    alone, one, again = (encoded(refused(), study, predecessors=given) for given in ((), old, old))

    assert one == again
    assert not {item.sop_instance_uid for item in earlier(alone)} & {
        item.sop_instance_uid for item in earlier(one)
    }


def test_a_sites_own_codes_stand_in_every_object(tmp_path: Path) -> None:
    """Instead of the node's, in content, segments, anatomy; under UIDs of their own. Nothing else changes."""
    study = pelvis(tmp_path)
    ours = code("uterus")

    plain = encoded(found(study), study)
    swapped = encoded(found(study), study, swaps={ours: LOCAL})

    for kind in (ResultKind.SR, ResultKind.ROI, ResultKind.SEG, ResultKind.PM):
        for before, after in zip(plain[kind], swapped[kind], strict=True):
            old, new = list(codes(read(before))), list(codes(read(after)))
            swap = {(ours.value, ours.scheme): (LOCAL.value, LOCAL.scheme)}
            assert (ours.value, ours.scheme) in old
            assert [swap.get(one, one) for one in old] == new
            assert before.sop_instance_uid != after.sop_instance_uid
