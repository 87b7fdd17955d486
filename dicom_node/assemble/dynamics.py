"""Stacks that repeat one volume over time: numbered, and called dynamic where they are.

A dynamic contrast study comes as one series with many time points or as one series per time
point; both are recognised by what they share (grid, echo, repetition time, flip angle) and
by distinct times of acquisition, never by their names. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from dicom_node.domain.series import Contrast, Stack

_FEWEST_PHASES = 3


@dataclass(frozen=True, slots=True)
class Draft:
    """A stack, and what tells it from its repetitions."""

    stack: Stack
    moment: tuple[str, float, int]
    """Of its first image: acquired at (YYYYMMDDHHMMSS.FFFFFF or ""), temporal position, number."""
    gradient_echo: bool
    flip_angle: float | None


def numbered(drafts: Sequence[Draft]) -> tuple[Stack, ...]:
    """The stacks in their order, repetitions numbered from 1 in time, T1 dynamics as DCE."""
    repetitions: dict[Hashable, list[int]] = defaultdict(list)
    for k, draft in enumerate(drafts):
        repetitions[_same_volume(draft)].append(k)
    result = [draft.stack for draft in drafts]
    for members in repetitions.values():
        if len(members) < 2 or len({drafts[k].moment for k in members}) < len(members):
            continue
        dynamic = _is_dynamic([drafts[k] for k in members])
        one_series = len({drafts[k].stack.series_uid for k in members}) == 1
        if not dynamic and not one_series:
            continue  # a sequence that was simply repeated
        ordered = sorted(members, key=lambda k: drafts[k].moment)
        for rank, k in enumerate(ordered, start=1):
            result[k] = _phase(result[k], rank, len(ordered), dynamic=dynamic)
    return tuple(result)


def _phase(stack: Stack, rank: int, count: int, *, dynamic: bool) -> Stack:
    if not dynamic:
        reason = f"repetition {rank} of {count} of the same volume"
        return replace(stack, temporal_index=rank, reasons=(*stack.reasons, reason))
    reason = f"time point {rank} of {count} of one T1-weighted gradient-echo volume: dynamic"
    return replace(stack, temporal_index=rank, contrast=Contrast.DCE, reasons=(*stack.reasons, reason))


def _is_dynamic(members: Sequence[Draft]) -> bool:
    gradient = all(draft.gradient_echo and draft.stack.contrast is Contrast.T1 for draft in members)
    return gradient and len(members) >= _FEWEST_PHASES


def _same_volume(draft: Draft) -> Hashable:
    stack = draft.stack
    orientation = tuple(round(cosine, 2) for cosine in (*stack.row_cosine, *stack.column_cosine))
    corner = tuple(round(value) for value in stack.frames[0].position_mm)
    size = (stack.rows, stack.columns, len(stack.frames), tuple(round(mm, 2) for mm in stack.spacing_mm))
    physics = (stack.contrast, stack.b_value, stack.echo_time_ms, stack.repetition_time_ms, draft.flip_angle)
    kind = (stack.derived, stack.fat_suppressed, stack.frame_of_reference_uid)
    return orientation, corner, size, physics, kind
