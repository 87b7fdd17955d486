"""Codes that a pipeline, and a reason, put into the report: PS3.16 TID 1500, CID 7021, 100, 9300."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.findings import found, pelvis, refused
from support.validators import dciodvfy_errors, pixelmed_errors


def encoded(findings: Findings, study: Study) -> tuple[ResultObject, ...]:
    return encode(
        findings, study, input_key="k", pipeline="uterine_mri", pipeline_version="1.0.0", title="Uterine MRI"
    )


def read(result: ResultObject) -> Dataset:
    return dcmread(BytesIO(result.content))


PROBABILITY_OF_CANCER, PROBABILITY = "111047", "122157"
REASONS = {
    "modality": codes.DCM.ObjectTypesNotSupported,
    "missing-series": codes.DCM.ObjectSetIncomplete,
    "geometry": codes.DCM.ObjectsIncorrectlyFormatted,
    "failed": codes.DCM.EquipmentFailure,
    "sex": codes.DCM.DiscontinuedForUnspecifiedReason,
    "age": codes.DCM.DiscontinuedForUnspecifiedReason,
    "body-part": codes.DCM.DiscontinuedForUnspecifiedReason,
    "no-slice-kept": codes.DCM.DiscontinuedForUnspecifiedReason,
}
"""CID 9300, from pydicom's dictionary of the Standard."""


def items(ds: Dataset) -> list[Dataset]:
    """All content items, in order."""
    inner = [below for item in ds.get("ContentSequence", ()) for below in (item, *items(item))]
    return list(inner)


def named(ds: Dataset, value: str) -> list[Dataset]:
    return [item for item in items(ds) if _name(item) == value]


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def changed(findings: Findings, **verdict: Any) -> Findings:
    assert findings.verdict is not None
    return replace(findings, verdict=replace(findings.verdict, **verdict))


def _file(folder: Path, result: ResultObject) -> Path:
    path = folder / "report.dcm"
    path.write_bytes(result.content)
    return path


def valid(folder: Path, result: ResultObject) -> None:
    path = _file(folder, result)
    assert [] == [*dciodvfy_errors(path), *pixelmed_errors(path)]


def test_a_report_with_a_coded_reason_keeps_to_its_template(tmp_path: Path) -> None:
    """PixelMed's judgement of TID 1500, beside dciodvfy's below."""
    study = pelvis(tmp_path / "study")

    valid(tmp_path, encoded(refused(code="missing-series"), study)[0])


@pytest.mark.parametrize("word", REASONS)
def test_why_there_is_no_result_is_coded_too(tmp_path: Path, word: str) -> None:
    """The sentence first, then a coded Conclusion (CODE) of CID 9300; the report stays valid."""
    study = pelvis(tmp_path / "study")
    report = encoded(refused(code=word), study)[0]

    text, coded = named(read(report), "121077")
    assert ("TEXT", "CODE") == (text.ValueType, coded.ValueType)
    assert text.TextValue.startswith("AI not performed, because ")
    value, expected = coded.ConceptCodeSequence[0], REASONS[word]
    assert (expected.value, "DCM", expected.meaning) == (
        value.CodeValue, value.CodingSchemeDesignator, value.CodeMeaning,
    )  # fmt: skip
    assert 9300 in _groups(expected.value)
    assert [] == dciodvfy_errors(_file(tmp_path, report))


def _groups(value: str) -> list[int]:
    """The context groups that a DCM code stands in."""
    from pydicom.sr._concepts_dict import concepts

    return [group for one in concepts["DCM"].values() if value in one for group in one[value][1]]


def test_the_concept_of_the_probability_is_the_pipelines(tmp_path: Path) -> None:
    """(111047, DCM, "Probability of cancer") where it says so; without, only the classes' probabilities."""
    study = pelvis(tmp_path / "study")
    of_cancer = encoded(found(study), study)
    without = encoded(changed(found(study), probability_concept=None), study)

    assert 1 == len(named(read(of_cancer[0]), PROBABILITY_OF_CANCER))
    outlines = {kind: [read(one) for one in made if one.kind == "roi"] for kind, made in (
        ("cancer", of_cancer), ("plain", without),
    )}  # fmt: skip
    assert named(outlines["cancer"][0], PROBABILITY_OF_CANCER)
    for ds in (read(without[0]), *outlines["plain"]):
        assert [] == named(ds, PROBABILITY_OF_CANCER)
        assert named(ds, PROBABILITY)
    valid(tmp_path, without[0])


def test_procedure_and_title_are_the_pipelines(tmp_path: Path) -> None:
    """Procedure reported (121058, CID 100) and Document Title (CID 7021)."""
    study = pelvis(tmp_path / "study")
    title = Code("126000", "DCM", "Imaging Measurement Report")
    procedure = Code("363679005", "SCT", "Imaging procedure")
    report = encoded(replace(found(study), procedure=procedure, report_title=title), study)[0]

    ds = read(report)
    (reported,) = named(ds, "121058")
    assert "363679005" == reported.ConceptCodeSequence[0].CodeValue
    assert "126000" == ds.ConceptNameCodeSequence[0].CodeValue
    valid(tmp_path, report)


def test_without_a_word_of_the_pipeline_the_images_and_the_default_decide(tmp_path: Path) -> None:
    """MR: an MRI procedure, as before; (126001, DCM, "Oncology Measurement Report")."""
    study = pelvis(tmp_path / "study")
    asked = encoded(found(study), study)[0]
    silent = encoded(replace(found(study), procedure=None), study)[0]

    assert asked.content == silent.content
    assert "126001" == read(asked).ConceptNameCodeSequence[0].CodeValue
