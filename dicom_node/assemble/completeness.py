"""Is this study complete? Decided by need; quiet time is the last resort. Pure.

A study is shown to be complete when all that can be checked says so: no gap, no part
refused, instance numbers without holes, as many images as the scanner announced, equally
many slices in every b value or time point, and every need of at least one pipeline met.
Even then the last slices of the last series may be on their way, so it is given `settle_s`.

Where a peer was asked what it has (C-FIND), its answer is the better proof: as many here as there
is complete, fewer is not, whatever the images look like.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dicom_node.assemble.images import MR_CLASSES
from dicom_node.assemble.slides import slide_doubts
from dicom_node.config import Receive
from dicom_node.domain.expectation import Expectation
from dicom_node.domain.identity import UID
from dicom_node.domain.pipeline import AnyNeed, Need, SlideNeed
from dicom_node.domain.series import Contrast, StoredInstance, Study


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a study counts as complete now. `because` goes into the history: ids and counts only."""

    complete: bool
    because: str


@dataclass(frozen=True, slots=True)
class Told:
    """What peers said about the study. `here` counts, per series, the instances that such answers count."""

    expectations: Sequence[Expectation] = ()
    here: Mapping[UID, int] = field(default_factory=dict)
    last_received_at: datetime | None = None
    """An answer to a question asked before that shows what is missing, but not that nothing is."""
    asking: Sequence[str] = ()
    """Names of peers whose answer, or whose missing images, are on the way."""


NOBODY_ASKED = Told()


def judge(
    study: Study, instances: Sequence[StoredInstance], needs: Sequence[tuple[AnyNeed, ...]], quiet_s: float,
    receive: Receive, told: Told = NOBODY_ASKED,
) -> Judgement:  # fmt: skip
    """Judge a study whose last image came `quiet_s` seconds ago.

    `needs` holds the needs, required and optional, of each pipeline routed to it.
    """
    missing, proof = _missing(told, study), _proof(told)
    doubt = missing or _awaited(told) or ("" if proof else doubts(study, instances, needs))
    if not doubt and quiet_s >= receive.settle_s:
        because = proof or "every series is whole and every need is met"
        return Judgement(True, f"{because}; quiet for {quiet_s:.0f} s")
    if quiet_s >= receive.stable_after_s:
        why = doubt or "waiting to settle"
        return Judgement(True, f"no image came for {quiet_s:.0f} s, the last resort, since: {why}")
    return Judgement(False, doubt or f"seen to be complete; settling for {receive.settle_s:g} s")


def _missing(told: Told, study: Study) -> str:
    """The first series of which a peer has more; an old answer shows that as well as a new one."""
    for said in told.expectations:
        if (here := told.here.get(said.series_uid, 0)) < said.instances:
            which = _series_name(said.series_uid, study)
            images = "1 image" if said.instances == 1 else f"{said.instances} images"
            return f"PACS {said.peer!r} has {images} of {which}, {here} {'is' if here == 1 else 'are'} here"
    return ""


def _series_name(uid: UID, study: Study) -> str:
    known = [one.header.get("series_number") for one in study.instances if one.series_uid == uid]
    if not known:
        return "a series that is not here"
    return f"series {next((number for number in known if number is not None), 'without number')}"


def _awaited(told: Told) -> str:
    return f"PACS {told.asking[0]!r} is being asked what it has of it" if told.asking else ""


def _proof(told: Told) -> str:
    """One peer has, since the last image came here, exactly what is here; "" where none does.

    A peer that has less than is here is still receiving, or is not where the study comes from.
    """
    here = {uid: count for uid, count in told.here.items() if count}
    for peer in dict.fromkeys(said.peer for said in told.expectations):
        mine = [said for said in told.expectations if said.peer == peer]
        fresh = told.last_received_at is not None and all(
            said.asked_at >= told.last_received_at for said in mine
        )
        if fresh and {said.series_uid: said.instances for said in mine if said.instances} == here:
            return f"PACS {peer!r} has {sum(here.values())} images of it, all are here"
    return ""


def doubts(study: Study, instances: Sequence[StoredInstance], needs: Sequence[tuple[AnyNeed, ...]]) -> str:
    """The first thing that speaks against completeness; "" where nothing does."""
    series: dict[UID, list[StoredInstance]] = defaultdict(list)
    for instance in instances:
        if instance.sop_class_uid in MR_CLASSES:
            series[instance.series_uid].append(instance)
    checks: Iterable[str] = (
        _unread(instances),
        slide_doubts(instances),
        _unmet(study, needs),
        *(refusal.why for refusal in study.refusals if refusal.series_uid in series),
        *(_numbers(members) for members in series.values()),
        *(_announced(members) for members in series.values()),
        _uneven(study),
    )
    return next((doubt for doubt in checks if doubt), "")


def _unread(instances: Sequence[StoredInstance]) -> str:
    unread = sum(not instance.header for instance in instances)
    return f"{unread} objects are not read" if unread else ""


def _unmet(study: Study, needs: Sequence[tuple[AnyNeed, ...]]) -> str:
    if not any(needs):
        return "no pipeline with declared needs is routed to it"
    missing = [
        [need.label for need in wanted if not _is_met(need, study) and not _has_other(need, wanted, study)]
        for wanted in needs
        if wanted
    ]
    fewest = min(missing, key=len)
    return f"nothing yet for {', '.join(fewest)}" if fewest else ""


def _has_other(need: AnyNeed, wanted: tuple[AnyNeed, ...], study: Study) -> bool:
    """Whether the slide stands in for the photographs of its group, or they for it."""
    others = [other for other in wanted if other is not need and need.group == other.group != ""]
    return not isinstance(need, Need) and any(_is_met(other, study) for other in others)


def _is_met(need: AnyNeed, study: Study) -> bool:
    if isinstance(need, Need):
        return any(not need.objection(stack) for stack in study.stacks)
    if isinstance(need, SlideNeed):
        return any(not need.objection(slide) for slide in study.slides)
    return any(not need.objection(photograph) for photograph in study.photographs)


def _numbers(members: Sequence[StoredInstance]) -> str:
    """Holes in the instance numbers of a classic series; where they are unique, they count from 1."""
    headers: list[Mapping[str, Any]] = [member.header for member in members]  # Any: JSON
    if any(len(header.get("frames", ())) > 1 for header in headers):
        return ""
    numbers = [header.get("instance_number") for header in headers]
    found = {number for number in numbers if isinstance(number, int)}
    if len(found) < len(numbers):
        return f"{_called(members)}: instance numbers are missing or repeated"
    absent = sorted(set(range(1, max(found) + 1)) - found)
    if not absent and min(found) == 1:
        return ""
    listed = ", ".join(map(str, absent[:5])) + (" ..." if len(absent) > 5 else "")
    return f"{_called(members)}: instance numbers {listed} are absent" if absent else \
        f"{_called(members)}: instance numbers do not count from 1"  # fmt: skip


def _announced(members: Sequence[StoredInstance]) -> str:
    """Fewer images in an acquisition than Images in Acquisition (0020,1002) announces."""
    arrived: dict[int, int] = defaultdict(int)
    announced: dict[int, int] = {}
    for member in members:
        header: Mapping[str, Any] = member.header  # Any: JSON
        acquisition = header.get("acquisition_number", 0)
        arrived[acquisition] += len(header.get("frames", (None,)))
        announced[acquisition] = max(announced.get(acquisition, 0), header.get("images_in_acquisition", 0))
    short = [(arrived[a], count) for a, count in announced.items() if arrived[a] < count]
    return f"{_called(members)}: {short[0][0]} of {short[0][1]} announced images are here" if short else ""


def _uneven(study: Study) -> str:
    """Unequal slice counts among the b values or time points of one series."""
    counts: dict[tuple[UID, str, bool], set[int]] = defaultdict(set)
    for stack in study.stacks:
        if stack.contrast in (Contrast.DWI, Contrast.DCE):
            counts[stack.series_uid, stack.plane.value, stack.derived].add(len(stack.frames))
    uneven = [(uid, found) for (uid, _, _), found in counts.items() if len(found) > 1]
    if not uneven:
        return ""
    uid, found = uneven[0]
    number = next(stack.series_number for stack in study.stacks if stack.series_uid == uid)
    return f"series {number}: its stacks have {min(found)} to {max(found)} slices"


def _called(members: Sequence[StoredInstance]) -> str:
    return f"series {members[0].header.get('series_number', 'without number')}"
