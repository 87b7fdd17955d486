"""Intended use: may the model judge this study at all? Pure.

`enforce` answers a study outside the model's card with "AI not performed, because ...";
`warn` lets it pass with the same words as warnings. What is physically not there can never
be warned away. An absent statement (no sex, no body part) is a warning, not a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from dicom_node.domain.findings import NotPerformed
from dicom_node.domain.pipeline import AnyNeed, Choice, IntendedUse, Need
from dicom_node.domain.series import Study

Policy = Literal["enforce", "warn"]

_SEXES = {"F": "female", "M": "male", "O": "other"}
_ANY_AGE = (0.0, 130.0)
_MOST_REFUSALS = 3


def guard(
    use: IntendedUse, study: Study, choices: Sequence[Choice], policy: str = "enforce"
) -> tuple[NotPerformed | None, tuple[str, ...]]:
    """(why there will be no result, or None; warnings that go into every result).

    With several reasons the first gives the code, in the order modality, sex, age, body
    part, missing series; the sentence names all of them.
    """
    outside, absent = _outside(use, study), _absent(use, study)
    missing = _missing(use, study, choices)
    if policy == "warn":
        warnings = tuple(f"outside the intended use, but run as configured: {n.because}" for n in outside)
        return _joined(missing), (*warnings, *absent)
    return _joined([*outside, *missing]), absent


def _joined(reasons: Sequence[NotPerformed]) -> NotPerformed | None:
    if not reasons:
        return None
    return NotPerformed("; ".join(reason.because for reason in reasons), reasons[0].code)


def _outside(use: IntendedUse, study: Study) -> list[NotPerformed]:
    said = {
        "modality": _wrong_modality(use, study),
        "sex": _wrong_sex(use, study),
        "age": _wrong_age(use, study),
        "body-part": _wrong_body_part(use, study),
    }
    return [NotPerformed(because, code) for code, because in said.items() if because]


def _wrong_modality(use: IntendedUse, study: Study) -> str:
    if not study.modalities or use.modalities & study.modalities:
        return ""
    return f"the study holds {_listed(study.modalities)} and the model is for {_listed(use.modalities, 'or')}"


def _wrong_sex(use: IntendedUse, study: Study) -> str:
    sex = study.patient.sex
    if sex is None or sex in use.sex:
        return ""
    return f"the patient's sex is {_SEXES.get(sex, sex)} and the model is for {_sexes(use)} patients"


def _wrong_age(use: IntendedUse, study: Study) -> str:
    (low, high), age = use.age_years, study.patient.age_years
    if age is None or low <= age <= high:
        return ""
    return f"the patient is {age:g} years old and the model is for {low:g} to {high:g} years"


def _wrong_body_part(use: IntendedUse, study: Study) -> str:
    if not use.body_parts or not study.body_parts or use.body_parts & study.body_parts:
        return ""
    examined = _listed(study.body_parts)
    return f"the examined body part is {examined} and the model is for {_listed(use.body_parts, 'or')}"


def _absent(use: IntendedUse, study: Study) -> tuple[str, ...]:
    found = []
    if study.patient.sex is None and use.sex < frozenset(_SEXES):
        found.append(f"the patient's sex is not stated; the model is for {_sexes(use)} patients")
    if study.patient.age_years is None and use.age_years != _ANY_AGE:
        low, high = use.age_years
        found.append(f"the patient's age is not stated; the model is for {low:g} to {high:g} years")
    if use.body_parts and not study.body_parts:
        found.append(f"the body part is not stated; the model is for {_listed(use.body_parts, 'or')}")
    return tuple(found)


def _missing(use: IntendedUse, study: Study, choices: Sequence[Choice]) -> list[NotPerformed]:
    """Needs without which nothing can be computed: required ones, groups, or all of them."""
    lost = [[choice.need] for choice in choices if choice.need.required and choice.found is None]
    groups = dict.fromkeys(choice.need.group for choice in choices if choice.need.group)
    for group in groups:
        members = [choice for choice in choices if choice.need.group == group]
        if all(choice.found is None for choice in members):
            lost.append([choice.need for choice in members])
    if not lost and choices and all(choice.found is None for choice in choices):
        lost.append([choice.need for choice in choices])
    return [_not_found(needs, study) for needs in lost]


def _not_found(needs: Sequence[AnyNeed], study: Study) -> NotPerformed:
    wanted = _listed((need.label for need in needs), "or", keep_order=True)
    wanted += " series" if isinstance(needs[-1], Need) else ""
    kinds = {need.kind for need in needs}
    refused = [refusal.why for refusal in study.refusals if _kind(refusal.why) in kinds]
    if refused:
        shown = "; ".join(refused[:_MOST_REFUSALS])
        return NotPerformed(f"no usable {wanted} is there: {shown}", "geometry")
    others = [refusal.why for refusal in study.refusals if not _kind(refusal.why)]
    more = f" ({'; '.join(others[:_MOST_REFUSALS])})" if others else ""
    return NotPerformed(f"no {wanted} is there{more}", "missing-series")


def _kind(why: str) -> str:
    """What a refusal's sentence is about: `series 8, DWI b1000 axial: ...`, `series 2, slide: ...`; or ""."""
    return why.partition(": ")[0].partition(", ")[2].partition(" ")[0]


def _sexes(use: IntendedUse) -> str:
    return _listed((_SEXES.get(sex, sex) for sex in use.sex), "or")


def _listed(words: Iterable[str], last: str = "and", *, keep_order: bool = False) -> str:
    found = list(words) if keep_order else sorted(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}"
