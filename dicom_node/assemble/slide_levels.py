"""One level of a slide from its instances: concatenations joined, focal planes and optical paths in order.

Refuses a level that lacks something by its own numbers, and says what: a part of a concatenation
(PS3.3 C.7.6.16.1), a focal plane, frames.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dicom_node.assemble.slide_members import Member
from dicom_node.domain.identity import known_uid
from dicom_node.domain.slide import SlideLevel, SlidePart
from dicom_node.errors import UnfaithfulGeometry

_NEAR = 0.1
"""Part of the step by which focal planes may be off."""
_UM_APART = 0.005
"""Heights nearer than this are one."""
_OVERLAP = "the focal planes of level {} in different instances overlap"


@dataclass(frozen=True, slots=True)
class _Whole:
    """An instance, or a concatenation with all its parts in order."""

    parts: tuple[Member, ...]
    first_frames: tuple[int, ...]
    planes: int
    expected_planes: int
    """Of the level, as this one says."""
    heights: tuple[float, ...]
    """As stored; those of its focal planes where frames name them, else of the first."""

    @property
    def first(self) -> Member:
        return self.parts[0]


def level_of(number: int, members: Sequence[Member]) -> SlideLevel:
    """Level `number` of `members`, which are all of one size. Raises UnfaithfulGeometry."""
    for name, values in (
        ("frame sizes", {"{} x {}".format(*member.tile) for member in members}),
        ("kinds of pixels", {str(member.instance.header.get("photometric")) for member in members}),
        ("pixel spacings", {"{:.4g} x {:.4g} um".format(*member.um_per_px) for member in members}),
    ):
        if len(values) > 1:
            raise UnfaithfulGeometry(f"level {number} has mixed {name}: {', '.join(sorted(values))}")
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.whole].append(member)
    wholes = [_whole(number, parts) for _, parts in sorted(groups.items())]
    unit = _um_per_unit(wholes)
    by_paths: dict[tuple[str, ...], list[_Whole]] = defaultdict(list)
    for whole in wholes:
        by_paths[whole.first.paths].append(whole)
    paths = tuple(path for some in by_paths for path in some)
    if len(set(paths)) != len(paths):
        raise UnfaithfulGeometry(f"level {number} is in several instances with the same optical paths")
    stacks = [_stack(number, some, unit) for some in by_paths.values()]
    heights = stacks[0][0]
    if any(len(other) != len(heights) for other, _ in stacks):
        raise UnfaithfulGeometry(
            f"the optical paths of level {number} have different numbers of focal planes"
        )
    parts: list[SlidePart] = []
    first_path = 0
    for some, (_, placed) in zip(by_paths, stacks, strict=True):
        for first_plane, whole in placed:
            parts += _slide_parts(whole, first_plane, first_path, len(some))
        first_path += len(some)
    return _made(members[0], wholes, heights, paths, parts)


def _made(
    member: Member, wholes: Sequence[_Whole], heights: Sequence[float], paths: tuple[str, ...],
    parts: Sequence[SlidePart],
) -> SlideLevel:  # fmt: skip
    x, y, _ = member.facts.get("origin") or (0.0, 0.0, 0.0)
    return SlideLevel(
        rows=member.size[0],
        columns=member.size[1],
        tile_rows=member.tile[0],
        tile_columns=member.tile[1],
        um_per_px=member.um_per_px,
        origin_mm=(float(x), float(y), heights[0] / 1000),
        planes_um=tuple(height - heights[0] for height in heights),
        optical_paths=paths,
        photometric=str(member.instance.header.get("photometric")),
        samples_per_pixel=int(str(member.instance.header.get("samples_per_pixel", 1))),
        bits_allocated=8,
        parts=tuple(parts),
        extended_depth_of_field=member.extended_depth,
    )


# ---- parts of a concatenation ---------------------------------------------------------------------


def _whole(number: int, members: Sequence[Member]) -> _Whole:
    parts = sorted(members, key=lambda member: (member.part, member.instance.sop_instance_uid))
    _check_parts(number, parts)
    first_frames, frames = [], 0
    for member in parts:
        stated = int(member.facts.get("first_frame", frames)) if len(parts) > 1 or member.part > 1 else 0
        if stated != frames:
            begins = f"begins at frame {stated + 1}, not {frames + 1}"
            raise UnfaithfulGeometry(f"part {member.part} of level {number} {begins}")
        first_frames.append(frames)
        frames += member.frames
    first = parts[0]
    if not first.tiled_full:
        heights = tuple(sorted({height for member in parts for height in member.heights})) or (first.z,)
        _check_room(number, first, frames, len(heights))
        return _Whole(tuple(parts), tuple(first_frames), len(heights), 1, heights)
    planes = _planes(number, first, frames)
    return _Whole(tuple(parts), tuple(first_frames), planes, first.focal_planes, (first.z,))


def _check_parts(number: int, parts: Sequence[Member]) -> None:
    """That all parts are here, each once, by their numbers and the total they state."""
    numbers = [member.part for member in parts]
    total = max((int(member.facts.get("parts", 0)) for member in parts), default=0)
    if len(set(numbers)) < len(numbers):
        raise UnfaithfulGeometry(f"a part of level {number} is here twice")
    last = max(total, max(numbers))
    absent = [k for k in range(1, min(last, 1 << 16) + 1) if k not in set(numbers)]
    if absent:
        of = f" of {total}" if total else ""
        raise UnfaithfulGeometry(_absent("part", absent, of, number))


def _planes(number: int, first: Member, frames: int) -> int:
    """Focal planes that frames in order make: all that are announced, or one (its own instance each)."""
    each, planes = first.tiles * len(first.paths), first.focal_planes
    if frames == each * planes:
        return planes
    if frames == each:
        return 1
    raise UnfaithfulGeometry(f"level {number} has {frames} frames, not {each * planes}")


def _check_room(number: int, first: Member, frames: int, planes: int) -> None:
    most = first.tiles * len(first.paths) * planes
    if frames > most:
        raise UnfaithfulGeometry(f"level {number} has {frames} frames, more than its {most} places")


# ---- focal planes ---------------------------------------------------------------------------------


def _um_per_unit(wholes: Sequence[_Whole]) -> float:
    """1000 where heights are in mm: they step by the very number that Spacing Between Slices, mm, says."""
    heights = sorted({height for whole in wholes for height in whole.heights})
    stated = max(whole.first.between_planes_mm for whole in wholes)
    steps = [b - a for a, b in pairwise(heights)]
    return 1000.0 if steps and stated and abs(min(steps) - stated) < _NEAR * stated else 1.0


def _stack(
    number: int, wholes: Sequence[_Whole], unit: float
) -> tuple[list[float], list[tuple[int, _Whole]]]:
    """(heights of the focal planes in um, ascending; for each whole the first of its planes)."""
    ordered = sorted(wholes, key=lambda whole: whole.heights[0])
    heights: list[float] = []
    placed: list[tuple[int, _Whole]] = []
    for whole in ordered:
        own = _heights(number, whole, unit)
        if heights and own[0] - heights[-1] < _UM_APART:
            same = len(ordered) > 1 and abs(own[0] - heights[-1]) < _UM_APART
            raise UnfaithfulGeometry(_twice(number, ordered) if same else _OVERLAP.format(number))
        placed.append((len(heights), whole))
        heights += own
    _check_planes(number, ordered, heights)
    return heights, placed


def _twice(number: int, wholes: Sequence[_Whole]) -> str:
    """One copy too many, or focal planes of which nobody can say which is which."""
    if max(whole.expected_planes for whole in wholes) > 1:
        return f"focal planes of level {number} are in instances that state one and the same height"
    return f"level {number} is here twice"


def _heights(number: int, whole: _Whole, unit: float) -> list[float]:
    """In um."""
    if not whole.first.tiled_full or whole.planes == 1:
        return [unit * height for height in whole.heights]
    step = 1000 * whole.first.between_planes_mm
    if not step:
        planes = f"{whole.planes} focal planes"
        raise UnfaithfulGeometry(f"level {number} has {planes} but states no distance between them")
    return [unit * whole.heights[0] + k * step for k in range(whole.planes)]


def _check_planes(number: int, wholes: Sequence[_Whole], heights: Sequence[float]) -> None:
    """That planes which came one by one are as many as announced, at even distances."""
    expected = max(whole.expected_planes for whole in wholes)
    steps = [b - a for a, b in pairwise(heights)]
    step = 1000 * max(whole.first.between_planes_mm for whole in wholes)
    if len(steps) > 1 and not any(abs(one - step) < _NEAR * step for one in steps):
        step = min(steps)
    if len(wholes) > 1 and step:
        absent, place = [], 0
        for one in steps:
            times = round(one / step)
            if times > 1 and abs(one - times * step) < _NEAR * step:
                absent += [place + k for k in range(2, min(times, 100) + 1)]
            place += max(times, 1)
        total = max(expected, place + 1)
        if absent:
            raise UnfaithfulGeometry(_absent("focal plane", absent, f" of {total}", number))
    if len(heights) < expected:
        raise UnfaithfulGeometry(f"{len(heights)} of {expected} focal planes of level {number} are here")


def _slide_parts(whole: _Whole, first_plane: int, first_path: int, paths: int) -> list[SlidePart]:
    return [
        SlidePart(
            sop_class_uid=member.instance.sop_class_uid,
            sop_instance_uid=member.instance.sop_instance_uid,
            series_uid=member.instance.series_uid,
            transfer_syntax_uid=known_uid(str(member.instance.header["transfer_syntax_uid"])),
            path=member.instance.path,
            digest=member.instance.digest,
            size_bytes=member.instance.size_bytes,
            frames=member.frames,
            tiled_full=member.tiled_full,
            first_frame=first_frame,
            first_plane=first_plane,
            planes=whole.planes,
            first_path=first_path,
            paths=paths,
        )
        for member, first_frame in zip(whole.parts, whole.first_frames, strict=True)
    ]


def _absent(noun: str, numbers: Sequence[int], of: str, level: int) -> str:
    """ "parts 2 and 3 of 5 of level 0 are not here"."""
    many = len(numbers) > 1
    return f"{noun}{'s' * many} {_listed(numbers)}{of} of level {level} {'are' if many else 'is'} not here"


def _listed(numbers: Sequence[int]) -> str:
    """ "2", "2 and 3", "2, 3, 4, ..."."""
    if len(numbers) > 5:
        return ", ".join(map(str, numbers[:4])) + ", ..."
    *rest, last = map(str, numbers)
    return f"{', '.join(rest)} and {last}" if rest else last
