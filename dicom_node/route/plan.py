"""What a pipeline will do with a study, decided before anything is computed. Pure.

A plan is the choices with their reasons, the warnings, and why there will be no result if
there will be none. `input_key` is the digest of all that decides the result: the same
input, model and policy give the same key, hence the same UIDs and bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dicom_node.domain.identity import UID
from dicom_node.domain.pipeline import Choice, Found, Pipeline, Plan
from dicom_node.domain.series import Stack, Study
from dicom_node.domain.slide import Slide
from dicom_node.route.choose import choose
from dicom_node.route.guard import guard


def plan(pipeline: type[Pipeline], study: Study, intended_use: str) -> Plan:
    """`intended_use` is the route's policy: "enforce" or "warn"."""
    choices = choose(pipeline.needs, study)
    not_performed, warnings = guard(pipeline.intended_use, study, choices, intended_use)
    return Plan(pipeline.name, pipeline.version, choices, warnings, not_performed)


def input_key(
    planned: Plan, study: Study, policy: str, model_digests: Mapping[str, str], subject_uid: UID | None = None
) -> str:
    """64 hexadecimal digits: sha256 of what the result depends on.

    `subject_uid` is the series for a pipeline that takes one series at a time, else the study.

    The chosen frames by their files' digests, whom they are of, what was said in referral and
    reports, the pipeline, its models, and the policy; not the study's revision, nor images
    that were not chosen.
    """
    refusal = planned.not_performed
    decides = {
        "subject": [study.uid, subject_uid or study.uid],
        "pipeline": [planned.pipeline, planned.version],
        "policy": policy,
        "models": dict(model_digests),
        "patient": [study.patient.sex, study.patient.age_years],
        "said": [study.referral, *study.reports],
        "warnings": list(planned.warnings),
        "not_performed": refusal and [refusal.code, refusal.because],
        "inputs": {choice.need.name: _input(choice.found) for choice in planned.choices},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _input(found: Found | None) -> list[list[object]]:
    match found:
        case Stack():
            return [[f.sop_instance_uid, f.frame, f.digest] for f in found.frames]
        case Slide():
            parts = (part for level in found.levels for part in level.parts)
            return [[part.sop_instance_uid, part.first_frame, part.digest] for part in parts]
    return [[p.sop_instance_uid, p.frame, p.digest] for p in found or ()]


def describe(planned: Plan, study: Study | None = None) -> dict[str, Any]:  # Any: JSON values
    """The plan for people, JSON-able: each need, the stack taken for it, and the reasons.

    With the study also what came: its stacks with reasons, and what was refused.
    """
    refusal = planned.not_performed
    told: dict[str, Any] = {
        "pipeline": planned.pipeline,
        "version": planned.version,
        "performed": refusal is None,
        "because": refusal.because if refusal else "",
        "code": refusal.code if refusal else "",
        "warnings": list(planned.warnings),
        "choices": [_told(choice) for choice in planned.choices],
    }
    if study is not None:
        told["stacks"] = [{"stack": s.label, "reasons": list(s.reasons)} for s in study.stacks]
        told["slides"] = [slide.label for slide in study.slides]
        told["photographs"] = [photograph.label for photograph in study.photographs]
        told["refusals"] = [refusal.why for refusal in study.refusals]
    return told


def _told(choice: Choice) -> dict[str, Any]:  # Any: JSON values
    return {
        "need": choice.need.name,
        "asked": choice.need.label,
        "required": choice.need.required,
        "series": choice.series_number,
        "stack": choice.label or None,
        "reasons": list(choice.reasons),
    }
