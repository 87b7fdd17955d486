"""A study as pipelines see it: its stacks, slides and photographs, what was refused, and what was said
about the patient. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dicom_node.assemble.slides import read_slides
from dicom_node.assemble.stacks import stacks
from dicom_node.domain.identity import UID
from dicom_node.domain.series import Patient, StoredInstance, Study


def read_study(uid: UID, revision: int, instances: Iterable[StoredInstance]) -> Study:
    """One study from its instances' header extracts.

    Where images differ about sex or age, the most frequent statement counts; two sexes or two
    patient identifiers refuse every series (`stacks`).
    """
    members = tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid))
    slides, photographs, lacking = read_slides(members)
    seen = {photograph.sop_instance_uid for photograph in photographs}
    found, refused = stacks(m for m in members if "slide" not in m.header and m.sop_instance_uid not in seen)
    headers: list[Mapping[str, Any]] = [member.header for member in members if member.header]  # Any: JSON
    patients = [header.get("patient", {}) for header in headers]
    return Study(
        uid=uid,
        revision=revision,
        patient=Patient(_usual(p.get("sex") for p in patients), _usual(p.get("age_years") for p in patients)),
        modalities=frozenset(str(header["modality"]) for header in headers if "modality" in header),
        body_parts=frozenset(part for header in headers for part in header.get("body_parts", ())),
        stacks=found,
        refusals=(*refused, *lacking),
        referral="\n".join(_unique(line for h in headers for line in str(h.get("referral", "")).split("\n"))),
        reports=tuple(_unique(str(header.get("report", "")) for header in headers)),
        instances=members,
        slides=slides,
        photographs=photographs,
    )


def _usual(values: Iterable[Any]) -> Any:  # Any: str or float, as given
    counted = Counter(value for value in values if value is not None)
    return min(counted, key=lambda value: (-counted[value], str(value)), default=None)


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(line for line in lines if line))
