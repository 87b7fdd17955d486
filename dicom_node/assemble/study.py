"""A study as pipelines see it: its stacks, what was refused, and what was said about the patient. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dicom_node.assemble.stacks import stacks
from dicom_node.domain.identity import UID
from dicom_node.domain.series import Patient, StoredInstance, Study


def read_study(uid: UID, revision: int, instances: Iterable[StoredInstance]) -> Study:
    """One study from its instances' header extracts.

    Where images differ about sex or age, the most frequent statement counts; two sexes or two
    patient identifiers refuse every series (`stacks`).
    """
    members = tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid))
    found, refused = stacks(members)
    headers: list[Mapping[str, Any]] = [member.header for member in members if member.header]  # Any: JSON
    patients = [header.get("patient", {}) for header in headers]
    return Study(
        uid=uid,
        revision=revision,
        patient=Patient(_usual(p.get("sex") for p in patients), _usual(p.get("age_years") for p in patients)),
        modalities=frozenset(str(header["modality"]) for header in headers if "modality" in header),
        body_parts=frozenset(part for header in headers for part in header.get("body_parts", ())),
        stacks=found,
        refusals=refused,
        referral="\n".join(_unique(line for h in headers for line in str(h.get("referral", "")).split("\n"))),
        reports=tuple(_unique(str(header.get("report", "")) for header in headers)),
        instances=members,
    )


def _usual(values: Iterable[Any]) -> Any:  # Any: str or float, as given
    counted = Counter(value for value in values if value is not None)
    return min(counted, key=lambda value: (-counted[value], str(value)), default=None)


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(line for line in lines if line))
