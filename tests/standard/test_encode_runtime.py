"""What computed a result stands in the report, and another runtime makes another object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultObject
from dicom_node.encode.results import encode
from support.readings import judged, smear

FAST = "OpenVINO 2026.4.1, bf16, AMD EPYC"


def run_by(findings: Findings, runtime: str) -> Findings:
    return replace(findings, algorithms=tuple(replace(one, runtime=runtime) for one in findings.algorithms))


def texts(item: Dataset, concept: str) -> Iterator[str]:
    """All TEXT values of a concept, by its code value."""
    if "TextValue" in item and item.ConceptNameCodeSequence[0].CodeValue == concept:
        yield str(item.TextValue)
    for inner in item.get("ContentSequence", ()):
        yield from texts(inner, concept)


def test_the_report_names_what_ran_the_network(tmp_path: Path) -> None:
    """Algorithm Parameters (111002, DCM), TID 4019; the same runtime means the same UIDs and bytes."""
    study = smear(tmp_path)
    findings = judged(study)

    def encoded(runtime: str) -> tuple[ResultObject, ...]:
        return encode(
            run_by(findings, runtime), study, input_key="k", pipeline="p", pipeline_version="1", title="Smear"
        )

    plain, fast, again = encoded(""), encoded(FAST), encoded(FAST)

    said = set(texts(pydicom.dcmread(BytesIO(fast[0].content)), "111002"))
    assert f"run by {FAST}" in said
    assert not any("run by" in text for text in texts(pydicom.dcmread(BytesIO(plain[0].content)), "111002"))
    assert [one.content for one in fast] == [one.content for one in again]
    assert not {one.sop_instance_uid for one in plain} & {one.sop_instance_uid for one in fast}
    assert len({one.sop_instance_uid for one in fast}) == len(fast) > 1
