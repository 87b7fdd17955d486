"""Splits every series into stacks: frames of one contrast on one regular grid.

A series may hold several: b values, echoes, time points, magnitude and phase, planes of a
localiser. What does not make a regular grid is refused with the series' number and the
reason (PS3.3 C.7.6.2.1.1); nothing is padded, guessed or quietly left out. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dicom_node.assemble import contrast, geometry
from dicom_node.assemble.dynamics import Draft, numbered
from dicom_node.assemble.images import Image, is_image, objection, patients, read_images
from dicom_node.domain.identity import UID
from dicom_node.domain.series import Refusal, Stack, StoredInstance
from dicom_node.errors import InvalidValue

_PLANES_APART_DEGREES = 45.0
_ORDINALS = {2: "nd", 3: "rd"}
_LOCALISER_SLICES = 10  # at most, per plane, where a localiser has only two planes


@dataclass(frozen=True, slots=True)
class _Part:
    """Images of one series that may be a stack, and what is known of all of them."""

    series_uid: UID
    series_number: int
    images: tuple[Image, ...]
    planes: int
    diffusion: bool
    field_map: bool

    def of(self, images: Iterable[Image]) -> _Part:
        return replace(self, images=tuple(images))


def stacks(instances: Iterable[StoredInstance]) -> tuple[tuple[Stack, ...], tuple[Refusal, ...]]:
    """The usable stacks of one study, and why the rest cannot be used; by series number."""
    series: dict[UID, list[StoredInstance]] = defaultdict(list)
    everything = sorted(instances, key=lambda instance: instance.sop_instance_uid)
    for instance in everything:
        series[instance.series_uid].append(instance)
    mixed = _mixed([instance for instance in everything if is_image(instance)])
    found: list[Draft] = []
    refused: list[Refusal] = []
    for uid, members in sorted(series.items(), key=lambda item: (_number(item[1]), item[0])):
        ours, theirs = ([], [_refusal(uid, members, mixed)]) if mixed else _of_series(uid, members)
        found += ours
        refused += theirs
    return numbered(found), tuple(refused)


def _mixed(images: Sequence[StoredInstance]) -> str:
    if (studies := len({image.study_uid for image in images})) > 1:
        return f"images of {studies} different studies came together"
    if (people := patients(images)) > 1:
        return f"the study holds images of {people} different patients"
    return ""


def _of_series(uid: UID, members: Sequence[StoredInstance]) -> tuple[list[Draft], list[Refusal]]:
    refused = []
    if unread := [member for member in members if not member.header]:
        refused.append(_refusal(uid, members, f"{_count(len(unread), 'object')} could not be read"))
    candidates = [member for member in members if is_image(member) and member.header]
    for why, count in Counter(why for member in candidates if (why := objection(member))).items():
        some = "" if count == len(candidates) else f" ({count} of {len(candidates)} objects)"
        refused.append(_refusal(uid, members, why + some))
    images, lost = _images([member for member in candidates if not objection(member)])
    refused += [_refusal(uid, members, f"{_count(n, 'image')} {why}") for why, n in Counter(lost).items()]
    if not images:
        return [], refused
    results = [result for part in _parts(uid, _number(members), images) for result in _planar(part)]
    made = [result for result in results if isinstance(result, Draft)]
    return made, refused + [result for result in results if isinstance(result, Refusal)]


def _images(members: Sequence[StoredInstance]) -> tuple[list[Image], list[str]]:
    images: list[Image] = []
    lost: list[str] = []
    for member in members:
        ours, theirs = read_images(member)
        images += ours
        lost += theirs
    images.sort(key=lambda image: (image.number, image.ref.sop_instance_uid, image.ref.frame))
    return images, lost


def _parts(uid: UID, number: int, images: Sequence[Image]) -> list[_Part]:
    """By orientation; one part with all images where orientations are mixed without being a localiser."""
    clusters: list[list[Image]] = []
    for image in images:
        near = (c for c in clusters if geometry.same_orientation(c[0].orientation, image.orientation))
        home = next(near, None)
        if home is None:
            clusters.append(home := [])
        home.append(image)
    diffusion = any(contrast.is_diffusion(image.facts) for image in images)
    field_map = any(contrast.is_field_map(image.facts) for image in images)
    whole = _Part(uid, number, tuple(images), 1, diffusion, field_map)
    if not _is_localiser(clusters):
        return [whole]
    return [replace(whole, images=tuple(cluster), planes=len(clusters)) for cluster in clusters]


def _is_localiser(clusters: Sequence[Sequence[Image]]) -> bool:
    if len(clusters) not in (2, 3):
        return False
    pairs = [(a, b) for k, a in enumerate(clusters) for b in clusters[k + 1 :]]
    apart = all(
        geometry.degrees_between(a[0].orientation, b[0].orientation) > _PLANES_APART_DEGREES for a, b in pairs
    )
    return apart and (len(clusters) == 3 or max(map(len, clusters)) <= _LOCALISER_SLICES)


def _planar(part: _Part) -> list[Draft | Refusal]:
    first = part.images[0].orientation
    others = [i for i in part.images if not geometry.same_orientation(first, i.orientation)]
    if others:
        angle = max(geometry.degrees_between(first, image.orientation) for image in others)
        some = f"{len(others)} of {len(part.images)} images"
        return [_refused(part, f"mixed orientations: {some} lie up to {angle:.0f} degrees askew")]
    groups: dict[_Kind, list[Image]] = defaultdict(list)
    for image in part.images:
        groups[_kind(image, part)].append(image)
    ordered = sorted(groups.items(), key=lambda item: item[0].order)
    return [_stack(piece) for _, group in ordered for piece in _told_apart(part.of(group))]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What always separates stacks. -1 stands for a b value that is not stated."""

    b_value: float
    times: tuple[float | None, ...]
    image_type: tuple[str, ...]
    words: tuple[str | None, ...]

    @property
    def order(self) -> tuple[float, list[float], str]:
        return self.b_value, [time or 0.0 for time in self.times], str((self.image_type, self.words))


def _kind(image: Image, part: _Part) -> _Kind:
    facts = image.facts
    b = facts.get("b_value") if part.diffusion else None
    return _Kind(
        b_value=-1.0 if b is None else b,
        times=tuple(_rounded(facts.get(name)) for name in ("echo_time", "inversion_time", "flip_angle")),
        image_type=tuple(facts.get("image_type", ())),
        words=(facts.get("complex_component"), facts.get("acquisition_contrast")),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


# What may tell images at one position apart, asked in this order and only where there are such.
_TELLTALES: Sequence[Callable[[Image], Hashable]] = (
    lambda image: tuple(image.facts.get("direction", ())),
    lambda image: image.facts.get("temporal_position"),
    lambda image: image.facts.get("acquisition_number"),
    lambda image: image.ref.sop_instance_uid if image.ref.multiframe else None,
    lambda image: image.facts.get("trigger_time"),
    lambda image: image.facts.get("stack_id"),
    lambda image: image.facts.get("echo_number"),
    lambda image: tuple(image.facts.get("rescale", ())),
    lambda image: image.facts.get("repetition_time"),
)


def _told_apart(part: _Part) -> list[_Part]:
    """Splits images that share positions by what distinguishes them; time of acquisition last."""
    for telltale in _TELLTALES:
        if _repeats(part.images) == 1:
            return [part]
        groups: dict[Hashable, list[Image]] = defaultdict(list)
        for image in part.images:
            groups[telltale(image)].append(image)
        if len(groups) > 1 and _helps(groups, part.images):
            return [
                piece
                for _, group in sorted(groups.items(), key=lambda item: (str(type(item[0])), item[0]))
                for piece in _told_apart(part.of(group))
            ]
    return _by_time(part)


def _repeats(images: Sequence[Image]) -> int:
    return max(Counter(_place(image) for image in images).values())


def _place(image: Image) -> int:
    """Position along the normal in 0.01 mm."""
    return round(100 * image.depth_mm)


def _helps(groups: Mapping[Hashable, Sequence[Image]], images: Sequence[Image]) -> bool:
    """Whether a split makes fewer repeats without tearing volumes into slices."""
    places = len({_place(image) for image in images})
    kept = np.mean([len({_place(image) for image in group}) for group in groups.values()])
    fewer = max(_repeats(group) for group in groups.values()) < _repeats(images)
    return fewer and float(kept) > places / 2


def _by_time(part: _Part) -> list[_Part]:
    """The k-th acquired image of all positions together, where each has as many, at distinct times.

    Where times are equal, instance numbers order the images if the scanner states as many
    temporal positions, (0020,0105), as each position has images.
    """
    repeats = _repeats(part.images)
    places: dict[int, list[Image]] = defaultdict(list)
    for image in sorted(part.images, key=lambda image: (_acquired_at(image), image.number)):
        places[_place(image)].append(image)
    stated = part.images[0].header.get("temporal_positions") == repeats
    if all(_is_series_in_time(group, repeats, numbered=stated) for group in places.values()):
        return [part.of(volume) for volume in zip(*places.values(), strict=True)]
    return [part]


def _is_series_in_time(group: Sequence[Image], repeats: int, *, numbered: bool) -> bool:
    times = {_acquired_at(image) for image in group}
    numbers = {image.number for image in group}
    told = (len(times) == repeats and all(times)) or (numbered and len(numbers) == repeats)
    return len(group) == repeats and told


def _acquired_at(image: Image) -> str:
    return str(image.facts.get("acquired_at", ""))


def _stack(part: _Part) -> Draft | Refusal:
    for name, values in (  # what must be one and the same in all images
        ("frame sizes", {f"{image.rows} x {image.columns}" for image in part.images}),
        ("pixel spacings", {"{:.3f} x {:.3f} mm".format(*image.pixel_mm) for image in part.images}),
        ("frames of reference", {image.header.get("frame_of_reference_uid", "") for image in part.images}),
    ):
        if len(values) > 1:
            listed = "" if name.endswith("reference") else ": " + ", ".join(sorted(values))
            return _refused(part, f"mixed {name}{listed}")
    images = part.images
    orientation = images[0].orientation
    positions = np.asarray([image.ref.position_mm for image in images], dtype=np.float64)
    found = geometry.find_grid(positions, orientation, [image.name for image in images])
    if isinstance(found, geometry.Flaw):
        return _refused(part, found.why)
    ordered = [images[k] for k in found.order]
    if every := _stride(ordered, found):
        return _refused(part, f"only every {every} slice is there, by instance numbers and stated spacing")
    return _made(part, ordered, found)


def _stride(ordered: Sequence[Image], grid: geometry.Grid) -> str:
    """ "2nd" or the like where slices are missing so evenly that positions alone do not show it."""
    stated = ordered[0].facts.get("spacing_between_slices")
    if len(ordered) < 3 or not stated or grid.spacing_mm is None or ordered[0].ref.multiframe:
        return ""
    steps = {abs(b.number - a.number) for a, b in pairwise(ordered)}
    step = steps.pop() if len(steps) == 1 else 1
    even = step > 1 and abs(grid.spacing_mm - step * stated) < 0.05 * stated
    return f"{step}{_ORDINALS.get(step, 'th')}" if even else ""


def _made(part: _Part, ordered: Sequence[Image], grid: geometry.Grid) -> Draft:
    image, concluded = ordered[0], _concluded(part)
    facts = image.facts
    plane, because = geometry.plane_of(image.orientation)
    stated = facts.get("spacing_between_slices") or facts.get("slice_thickness") or 1.0
    stack = Stack(
        series_uid=part.series_uid,
        study_uid=UID(str(image.header["study_uid"])),
        frame_of_reference_uid=_uid_or_none(image.header.get("frame_of_reference_uid")),
        series_number=part.series_number,
        contrast=concluded.contrast,
        plane=plane,
        frames=tuple(image.ref for image in ordered),
        rows=image.rows,
        columns=image.columns,
        row_cosine=geometry.vector(image.orientation[:3]),
        column_cosine=geometry.vector(image.orientation[3:]),
        spacing_mm=(float(grid.spacing_mm or stated), *image.pixel_mm),
        reasons=(*concluded.reasons, because),
        b_value=concluded.b_value,
        fat_suppressed=concluded.fat_suppressed,
        contrast_agent=bool(image.header.get("contrast_agent")),
        derived=concluded.derived,
        echo_time_ms=facts.get("echo_time"),
        repetition_time_ms=facts.get("repetition_time"),
        description=str(image.header.get("series_description", "")),
    )
    moment = min(_acquired_at(image) for image in ordered)
    gradient = "GR" in facts.get("scanning_sequence", ()) and "EP" not in facts.get("scanning_sequence", ())
    position = facts.get("temporal_position") or 0.0
    return Draft(stack, (moment, position, min(i.number for i in ordered)), gradient, facts.get("flip_angle"))


def _concluded(part: _Part) -> contrast.Conclusion:
    image = part.images[0]
    words = str(image.header.get("series_description") or image.header.get("protocol_name") or "")
    seen = contrast.evidence(
        image.facts, diffusion=part.diffusion, field_map=part.field_map, planes=part.planes, description=words
    )
    return contrast.conclude(seen)


def _refused(part: _Part, why: str) -> Refusal:
    """The sentence begins with what the images are, so that a reader knows what was lost."""
    concluded, (plane, _) = _concluded(part), geometry.plane_of(part.images[0].orientation)
    b = "" if concluded.b_value is None else f" b{concluded.b_value:.0f}"
    kind = f"{concluded.contrast.value}{b} {plane.value}"
    return Refusal(part.series_uid, part.series_number, f"{_called(part.series_number)}, {kind}: {why}")


def _refusal(uid: UID, members: Sequence[StoredInstance], why: str) -> Refusal:
    number = _number(members)
    return Refusal(uid, number, f"{_called(number)}: {why}")


def _called(number: int) -> str:
    return f"series {number}" if number else "a series without number"


def _number(members: Sequence[StoredInstance]) -> int:
    """Series Number (0020,0011); 0 where none is stated."""
    return min((n for m in members if isinstance(n := m.header.get("series_number"), int)), default=0)


def _count(n: int, noun: str) -> str:
    return f"1 {noun}" if n == 1 else f"{n} {noun}s"


def _uid_or_none(text: str | None) -> UID | None:
    try:
        return UID(text) if text else None
    except InvalidValue:
        return None
