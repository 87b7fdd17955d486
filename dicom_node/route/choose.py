"""Chooses what meets each need of a pipeline, and says why, also why not the others. Pure.

What fits is decided by the need itself (`Need.objection`); among those that fit a table of
preferences decides, first to last, so that the same study always gives the same choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dicom_node.domain.pipeline import AnyNeed, Choice, Need, PhotographNeed, SlideNeed
from dicom_node.domain.series import Contrast, Plane, Stack, Study
from dicom_node.domain.slide import Photograph, Slide

_MOST_REASONS = 24
_ANATOMICAL = frozenset({Contrast.T1, Contrast.T2, Contrast.PD, Contrast.FLAIR})


def choose(needs: Sequence[AnyNeed], study: Study) -> tuple[Choice, ...]:
    """One choice per need, in order. Two needs may get the same stack if both ask for the same."""
    return tuple(_choose(need, study) for need in needs)


def _choose(need: AnyNeed, study: Study) -> Choice:
    match need:
        case SlideNeed():
            return _choose_slide(need, study)
        case PhotographNeed():
            return _choose_photographs(need, study)
    return _choose_stack(need, study)


def _choose_slide(need: SlideNeed, study: Study) -> Choice:
    fitting = [slide for slide in study.slides if not need.objection(slide)]
    ranked = sorted(fitting, key=_largest_first)
    reasons = [f"chosen {slide.label}" for slide in ranked[:1]]
    reasons += [f"passed over {slide.label}: smaller, or equal and later" for slide in ranked[1:]]
    unfit = [(slide, why) for slide in study.slides if (why := need.objection(slide))]
    reasons += [f"does not fit {slide.label}: {why}" for slide, why in unfit]
    reasons += [f"refused {refusal.why}" for refusal in study.refusals if _concerns(need, refusal.why)]
    if not ranked:
        reasons.insert(0, f"no {need.label} among {_count(len(study.slides), 'usable slide')}")
    return Choice(need, ranked[0] if ranked else None, _shortened(reasons))


def _largest_first(slide: Slide) -> tuple[object, ...]:
    height, width = slide.size_mm
    return -round(height * width, 3), slide.base.um_per_px, slide.series_number, slide.series_uid


def _choose_photographs(need: PhotographNeed, study: Study) -> Choice:
    fitting = tuple(sorted((p for p in study.photographs if not need.objection(p)), key=_in_order))
    reasons = [f"chosen {photograph.label}" for photograph in fitting]
    unfit = [(photograph, why) for photograph in study.photographs if (why := need.objection(photograph))]
    reasons += [f"does not fit {photograph.label}: {why}" for photograph, why in unfit]
    reasons += [f"refused {refusal.why}" for refusal in study.refusals if _concerns(need, refusal.why)]
    if not fitting:
        reasons.insert(0, f"no {need.label} among {_count(len(study.photographs), 'usable photograph')}")
    return Choice(need, fitting or None, _shortened(reasons))


def _in_order(photograph: Photograph) -> tuple[object, ...]:
    return (
        photograph.series_number, photograph.instance_number, photograph.frame, photograph.sop_instance_uid
    )  # fmt: skip


def _shortened(reasons: list[str]) -> tuple[str, ...]:
    if (more := len(reasons) - _MOST_REASONS) > 0:
        reasons[_MOST_REASONS:] = [f"and {more} more"]
    return tuple(reasons)


def _choose_stack(need: Need, study: Study) -> Choice:
    fitting = [stack for stack in study.stacks if not need.objection(stack)]
    ranked = sorted(fitting, key=lambda stack: _rank(need, stack, fitting))
    winner = ranked[0] if ranked else None
    reasons = [] if winner is None else [f"chosen {winner.label}", *winner.reasons]
    for loser in ranked[1:]:
        reasons.append(f"passed over {loser.label}: {_lost(need, ranked[0], loser, fitting)}")
    reasons += _unfit(need, study)
    reasons += [f"refused {refusal.why}" for refusal in study.refusals if _concerns(need, refusal.why)]
    if winner is None:
        reasons.insert(0, f"no {need.label} among {_count(len(study.stacks), 'usable stack')}")
    return Choice(need, winner, _shortened(reasons))


def _unfit(need: Need, study: Study) -> list[str]:
    """Why the others do not fit: those of the contrast one by one, the rest counted."""
    near = [stack for stack in study.stacks if stack.contrast is need.contrast and need.objection(stack)]
    far = sum(stack.contrast is not need.contrast for stack in study.stacks)
    said = [f"does not fit {stack.label}: {need.objection(stack)}" for stack in near]
    return said + ([f"{_count(far, 'other stack')} of another contrast"] if far else [])


def _concerns(need: AnyNeed, why: str) -> bool:
    """Whether a refused series was of the kind that is asked for, or of none that could be told."""
    kind = why.partition(": ")[0].partition(", ")[2]
    return not kind or kind.split()[0] == need.kind


@dataclass(frozen=True, slots=True)
class _Preference:
    """`cost` is smaller for the better stack; `why` tells what the loser lacks (winner, loser)."""

    applies: Callable[[Need], bool]
    cost: Callable[[Stack, Sequence[Stack]], float]
    why: Callable[[Stack, Stack], str]


def _always(need: Need) -> bool:
    return True


def _from_middle(stack: Stack, fitting: Sequence[Stack]) -> float:
    phases = [other.temporal_index or 0 for other in fitting if other.series_uid == stack.series_uid]
    return abs((stack.temporal_index or 0) - (min(phases) + max(phases)) / 2)


_PREFERENCES: Sequence[_Preference] = (
    _Preference(
        lambda need: need.contrast is not Contrast.ADC,
        lambda stack, _: stack.derived,
        lambda winner, loser: "calculated from other images, and a measured one is there",
    ),
    _Preference(
        lambda need: need.contrast is not Contrast.DCE,
        lambda stack, _: stack.contrast_agent,
        lambda winner, loser: "with contrast agent, and one without is there",
    ),
    _Preference(
        lambda need: need.contrast in _ANATOMICAL,
        lambda stack, _: stack.fat_suppressed,
        lambda winner, loser: "fat suppressed, and one without is there",
    ),
    _Preference(
        lambda need: need.plane is None,
        lambda stack, _: stack.plane is not Plane.AXIAL,
        lambda winner, loser: f"{loser.plane.value}, and an axial one is there",
    ),
    _Preference(
        lambda need: need.contrast is Contrast.DWI,
        lambda stack, _: -(stack.b_value or 0.0),
        lambda winner, loser: f"b = {loser.b_value or 0:g}, lower than {winner.b_value or 0:g}",
    ),
    _Preference(
        lambda need: need.contrast is not Contrast.DCE,
        lambda stack, _: stack.temporal_index is not None,
        lambda winner, loser: "one of several repetitions or diffusion directions",
    ),
    _Preference(
        lambda need: need.contrast is Contrast.DCE,
        _from_middle,
        lambda winner, loser: "farther from the middle of the dynamic series",
    ),
    _Preference(
        _always,
        lambda stack, _: -len(stack.frames),
        lambda winner, loser: f"{len(loser.frames)} slices, fewer than {len(winner.frames)}",
    ),
    _Preference(
        _always,
        lambda stack, _: round(stack.spacing_mm[1] * stack.spacing_mm[2], 4),
        lambda winner, loser: "coarser pixels",
    ),
    _Preference(
        _always,
        lambda stack, _: -stack.series_number,
        lambda winner, loser: "equally good, but earlier: a repeated series usually replaces the first",
    ),
    _Preference(
        _always,
        lambda stack, _: stack.temporal_index or 0,
        lambda winner, loser: "equally good; the first repetition is taken",
    ),
)
"""In this order; the first that differs decides."""


def _rank(need: Need, stack: Stack, fitting: Sequence[Stack]) -> tuple[object, ...]:
    costs = (preference.cost(stack, fitting) for preference in _PREFERENCES if preference.applies(need))
    return (*costs, stack.series_uid, stack.frames[0].sop_instance_uid, stack.frames[0].frame)


def _lost(need: Need, winner: Stack, loser: Stack, fitting: Sequence[Stack]) -> str:
    for preference in _PREFERENCES:
        differs = preference.cost(winner, fitting) != preference.cost(loser, fitting)
        if preference.applies(need) and differs:
            return preference.why(winner, loser)
    return "equal in all that counts; the order of UIDs decides"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
