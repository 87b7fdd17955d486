"""Photographs through a microscope: which instances are, and why others cannot be used. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dicom_node.assemble.slide_members import flavour_is_input
from dicom_node.dicom.slide_facts import PHOTOGRAPHS
from dicom_node.domain.identity import UID
from dicom_node.domain.series import Refusal, StoredInstance
from dicom_node.domain.slide import Photograph

MOST_FRAMES = 10_000
_CAPTURES = frozenset({"1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.7.4"})
_MODALITIES = frozenset({"GM", "SM", "XC"})
"""Of secondary captures that are photographs: general, slide and external-camera microscopy."""
_KINDS = {"RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_ICT": 3, "YBR_RCT": 3, "XYB": 3, "MONOCHROME2": 1,
          "PALETTE COLOR": 1}  # fmt: skip


def read_photographs(
    instances: Sequence[StoredInstance],
) -> tuple[tuple[Photograph, ...], list[Refusal]]:
    """(photographs by series and instance number, why others cannot be used)."""
    found: list[Photograph] = []
    refused: dict[UID, list[tuple[StoredInstance, str]]] = defaultdict(list)
    for instance in instances:
        if not _is_photograph(instance):
            continue
        if why := _objection(instance.header):
            refused[instance.series_uid].append((instance, why))
        else:
            found += _frames(instance)
    found.sort(key=lambda one: (one.series_number, one.instance_number, one.sop_instance_uid, one.frame))
    return tuple(found), [refusal for group in refused.values() for refusal in _refusals(group)]


def _is_photograph(instance: StoredInstance) -> bool:
    """Secondary captures are only where their modality says so: most are screens and pages."""
    if instance.sop_class_uid not in PHOTOGRAPHS or not flavour_is_input(instance):
        return False
    return instance.sop_class_uid not in _CAPTURES or instance.header.get("modality") in _MODALITIES


def _objection(header: Mapping[str, Any]) -> str:  # Any: JSON values
    if not header.get("rows") or not header.get("columns"):
        return "it states no rows or columns"
    kind, samples = header.get("photometric", "of no stated kind"), header.get("samples_per_pixel", 1)
    if _KINDS.get(kind) != samples:
        return f"its pixels are {kind} in {samples} samples, which is not read"
    if header.get("bits_allocated") != 8:
        return f"its pixels have {header.get('bits_allocated', 'no stated')} bits, not 8"
    frames = header.get("number_of_frames", 1)
    return "" if 0 < frames <= MOST_FRAMES else f"it has {frames} frames"


def _frames(instance: StoredInstance) -> list[Photograph]:
    header: Mapping[str, Any] = instance.header  # Any: JSON values
    spacing = header.get("photograph", {}).get("spacing_mm", ())
    known = len(spacing) == 2 and min(spacing) > 0
    return [
        Photograph(
            study_uid=instance.study_uid,
            series_uid=instance.series_uid,
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            frame=frame,
            path=instance.path,
            digest=instance.digest,
            rows=header["rows"],
            columns=header["columns"],
            series_number=header.get("series_number", 0),
            instance_number=header.get("instance_number", 0),
            um_per_px=(1000 * spacing[0], 1000 * spacing[1]) if known else None,
        )
        for frame in range(1, header.get("number_of_frames", 1) + 1)
    ]


def _refusals(group: Sequence[tuple[StoredInstance, str]]) -> list[Refusal]:
    first = group[0][0]
    number = int(str(first.header.get("series_number", 0)))
    called = f"series {number}" if number else "a series without number"
    return [
        Refusal(first.series_uid, number, f"{called}, photograph: {why}{f' ({n} objects)' * (n > 1)}")
        for why, n in Counter(why for _, why in group).items()
    ]
