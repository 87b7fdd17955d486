"""Puts slides together from stored instances: levels, focal planes, optical paths and parts, in any layout.

A level may be one instance, one per focal plane, or a concatenation of either; frames may stand in
order or each say its place (PS3.3 C.8.12.4, C.7.6.16.2.2.4, C.7.6.17.3). What lacks by its own numbers
is named and refused, nothing is filled in. Labels and overviews, which may show a name, are left
out, and so is what this node made itself. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from dicom_node.assemble.images import patients
from dicom_node.assemble.photographs import read_photographs
from dicom_node.assemble.slide_levels import level_of
from dicom_node.assemble.slide_members import (
    WHOLE_SLIDE,
    Member,
    flavour_is_input,
    is_ours,
    member_of,
    objection,
)  # fmt: skip
from dicom_node.domain.geometry import Vector
from dicom_node.domain.identity import UID
from dicom_node.domain.series import Refusal, StoredInstance
from dicom_node.domain.slide import Photograph, Slide, SlideLevel
from dicom_node.errors import InvalidValue, UnfaithfulGeometry

T = TypeVar("T")

_STANDARD_ORIENTATION = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
_NEAR = 0.05
"""Part by which the factor between two levels may be off."""


def read_slides(
    instances: Sequence[StoredInstance],
) -> tuple[tuple[Slide, ...], tuple[Photograph, ...], tuple[Refusal, ...]]:
    """(slides, photographs, why others cannot be used) of one study; by series number."""
    everything = sorted(instances, key=lambda instance: instance.sop_instance_uid)
    ours = [one for one in everything if one.header and not is_ours(one)]
    scans = [one for one in ours if one.sop_class_uid == WHOLE_SLIDE and flavour_is_input(one)]
    photographs, refused = read_photographs(ours)
    if (people := patients([one for one in everything if one.header.get("rows")])) > 1:
        pictured = {photograph.sop_instance_uid for photograph in photographs}
        lost = [*scans, *(one for one in ours if one.sop_instance_uid in pictured)]
        why = f"the study holds images of {people} different patients"
        refusals = [_refused(group, why) for group in _by(lost, lambda one: one.series_uid)]
        return (), (), tuple(sorted(refusals, key=_order))
    members, objections = _members(scans)
    slides: list[Slide] = []
    for group in _groups(members):
        found, lacking = _slide(group)
        slides += found
        objections += [_refused([member.instance for member in group], why) for why in lacking]
    slides.sort(key=lambda slide: (slide.series_number, slide.series_uid, -slide.base.rows))
    return tuple(slides), photographs, tuple(sorted([*refused, *objections], key=_order))


def _order(refusal: Refusal) -> tuple[int, str]:
    return refusal.series_number, refusal.why


def slide_doubts(instances: Sequence[StoredInstance]) -> str:
    """The first thing that a slide lacks by its own numbers; "" where nothing is known to be missing."""
    slides, _, refusals = read_slides(instances)
    if refusals:
        return refusals[0].why
    derived = {one.sop_instance_uid for one in instances if _is_resampled(one)}
    return next((doubt for slide in slides if (doubt := _missing_level(slide, derived))), "")


def _missing_level(slide: Slide, resampled: set[UID]) -> str:
    called = f"{_called(slide.series_number)}, slide: "
    if all(part.sop_instance_uid in resampled for part in slide.base.parts):
        return called + "the finest level is not here; what is here was resampled from it"
    widths = [level.columns for level in slide.levels]
    factors = [a / b for a, b in pairwise(widths) if b]
    for k, factor in enumerate(factors):
        others = factors[:k] + factors[k + 1 :]
        usual = others[0] if others else 0.0
        same = all(abs(other - usual) < _NEAR * usual for other in others)
        if len(others) >= 2 and same and usual > 1 and abs(factor - usual**2) < _NEAR * usual**2:
            return called + f"a level between level {k} and level {k + 1} is not here"
    return ""


def _is_resampled(instance: StoredInstance) -> bool:
    slide = instance.header.get("slide")
    words = slide.get("image_type", []) if isinstance(slide, dict) else []
    return len(words) > 3 and words[3] == "RESAMPLED"


def _members(scans: Sequence[StoredInstance]) -> tuple[list[Member], list[Refusal]]:
    members: list[Member] = []
    refused: list[Refusal] = []
    for group in _by(scans, lambda one: one.series_uid):
        why = Counter(said for one in group if (said := objection(one)))
        for said, count in why.items():
            some = "" if count == len(group) else f" ({count} of {len(group)} objects)"
            refused.append(_refused(group, said + some))
        members += [member_of(one) for one in group if not objection(one)]
    return members, refused


# ---- which instances are one slide ----------------------------------------------------------------


def _groups(members: Sequence[Member]) -> Iterator[list[Member]]:
    """Instances of one slide together: of one pyramid, or else of one series or frame of reference."""
    pyramids = _by(
        members, lambda one: (one.container, one.extended_depth, one.pyramid_uid or one.series_uid)
    )
    merged: list[list[Member]] = []
    for pyramid in pyramids:
        home = next((one for one in merged if _belong_together(one, pyramid)), None)
        if home is None:
            merged.append(list(pyramid))
        else:
            home += pyramid
    for group in merged:
        yield from _apart(group)


def _belong_together(one: Sequence[Member], other: Sequence[Member]) -> bool:
    """Two groups of one container and frame of reference: focal planes, or levels, of one slide."""
    a, b = one[0], other[0]
    same = (a.container, a.frame_of_reference, a.extended_depth) == (
        b.container, b.frame_of_reference, b.extended_depth,
    )  # fmt: skip
    if not same or not a.container or not a.frame_of_reference or _repeats([*one, *other]):
        return False
    sizes = {member.size for member in one} & {member.size for member in other}
    return bool(sizes) or not (a.pyramid_uid and b.pyramid_uid)


def _apart(group: Sequence[Member]) -> list[list[Member]]:
    """Slides that share a series, by frame of reference; one that differs with each level tells nothing."""
    by_frame = _by(group, lambda one: one.frame_of_reference)
    if len(by_frame) > 1 and (_repeats(group) or any(len({m.size for m in part}) > 1 for part in by_frame)):
        return [piece for part in by_frame for piece in _apart(part)]
    if _repeats(group):
        return _by(group, lambda one: one.series_uid)
    return [list(group)]


def _repeats(group: Sequence[Member]) -> bool:
    """Whether a part of a level is there twice."""
    return len({member.place for member in group}) < len(group)


# ---- one slide ------------------------------------------------------------------------------------


def _slide(group: Sequence[Member]) -> tuple[list[Slide], list[str]]:
    """(the slide, or nothing where its finest level lacks something; what its levels lack)."""
    sizes = sorted({member.size for member in group}, key=lambda size: (-size[0] * size[1], size))
    levels: list[SlideLevel] = []
    lacking: list[str] = []
    for number, size in enumerate(sizes):
        try:
            levels.append(level_of(number, [member for member in group if member.size == size]))
        except UnfaithfulGeometry as lack:
            if not number:
                return [], [str(lack)]
            lacking.append(f"{lack}; that level is left out")
    first = min(
        (member for member in group if member.size == sizes[0]),
        key=lambda member: (member.part, member.z, member.instance.sop_instance_uid),
    )
    return [_made(first, group, levels)], lacking


def _made(first: Member, group: Sequence[Member], levels: Sequence[SlideLevel]) -> Slide:
    orientation = first.orientation or _STANDARD_ORIENTATION
    zero = levels[0].origin_mm[2]
    return Slide(
        study_uid=first.instance.study_uid,
        series_uid=first.instance.series_uid,
        frame_of_reference_uid=_uid_or_none(first.frame_of_reference),
        series_number=min((member.series_number for member in group), default=0),
        container=first.container,
        row_cosine=_vector(orientation[:3]),
        column_cosine=_vector(orientation[3:]),
        levels=tuple(_above(level, zero) for level in levels),
        stain=next((member.stain for member in group if member.stain), ""),
        modality=first.modality,
    )


def _above(level: SlideLevel, zero_mm: float) -> SlideLevel:
    """With heights over the slide's first plane instead of the level's."""
    up = 1000 * (level.origin_mm[2] - zero_mm)
    return replace(level, planes_um=tuple(round(z + up, 4) + 0.0 for z in level.planes_um))


def _vector(numbers: Sequence[float]) -> Vector:
    x, y, z = (float(number) for number in numbers)
    return x, y, z


def _uid_or_none(text: str) -> UID | None:
    try:
        return UID(text) if text else None
    except InvalidValue:
        return None


def _refused(group: Sequence[StoredInstance], why: str) -> Refusal:
    numbers = [n for one in group if isinstance(n := one.header.get("series_number"), int)]
    number = min(numbers, default=0)
    kind = "slide" if group[0].sop_class_uid == WHOLE_SLIDE else "photograph"
    return Refusal(group[0].series_uid, number, f"{_called(number)}, {kind}: {why}")


def _called(number: int) -> str:
    return f"series {number}" if number else "a series without number"


def _by(things: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Those with the same key together, in order of first appearance."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return list(groups.values())
