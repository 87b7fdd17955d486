"""Instances as slides are put together of them: one `Member` each, and why others can be no part of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dicom_node.dicom.provenance import MANUFACTURER
from dicom_node.dicom.slide_facts import MOST_PLANES, WHOLE_SLIDE
from dicom_node.domain.series import StoredInstance
from dicom_node.slide.decode import COLOURS, GREY, READ
from dicom_node.slide.index import MOST_FRAMES
from dicom_node.slide.reader import MOST_TILE_PIXELS, MOST_TILES

__all__ = ["WHOLE_SLIDE", "Member", "flavour_is_input", "is_ours", "member_of", "objection"]

_NOT_INPUT = frozenset({"LABEL", "OVERVIEW", "THUMBNAIL", "LOCALIZER"})

Facts = Mapping[str, Any]  # Any: JSON values of dicom/slide_facts.py


@dataclass(frozen=True, slots=True)
class Member:
    """One instance of a level, its facts in one shape."""

    instance: StoredInstance
    facts: Facts
    series_number: int
    size: tuple[int, int]
    """(rows, columns) of the total pixel matrix."""
    tile: tuple[int, int]
    frames: int
    tiled_full: bool
    paths: tuple[str, ...]
    z: float
    """Of the origin, as stored."""
    heights: tuple[float, ...]
    """Of the focal planes that sparse frames name, as stored."""
    part: int
    """Number in its concatenation; 1 for a whole instance."""

    @property
    def series_uid(self) -> str:
        return self.instance.series_uid

    @property
    def container(self) -> str:
        return str(self.facts.get("container", ""))

    @property
    def frame_of_reference(self) -> str:
        return str(self.instance.header.get("frame_of_reference_uid", ""))

    @property
    def pyramid_uid(self) -> str:
        return str(self.facts.get("pyramid_uid", ""))

    @property
    def extended_depth(self) -> bool:
        return bool(self.facts.get("extended_depth"))

    @property
    def orientation(self) -> tuple[float, ...]:
        return tuple(self.facts.get("orientation", ()))

    @property
    def stain(self) -> str:
        return str(self.facts.get("stain", ""))

    @property
    def modality(self) -> str:
        return str(self.instance.header.get("modality", "SM"))

    @property
    def whole(self) -> str:
        """What its concatenation, or itself where it is none, is called by."""
        return str(self.facts.get("concatenation_uid", self.instance.sop_instance_uid))

    @property
    def place(self) -> object:
        """Equal for two instances only where they show the same part of the same level."""
        return self.size, self.paths, self.z, self.heights if self.part == 1 else (), self.part

    @property
    def tiles(self) -> int:
        """On one focal plane."""
        return -(-self.size[0] // self.tile[0]) * -(-self.size[1] // self.tile[1])

    @property
    def focal_planes(self) -> int:
        """Total Pixel Matrix Focal Planes (0048,0303)."""
        return max(1, int(self.facts.get("focal_planes", 1)))

    @property
    def between_planes_mm(self) -> float:
        """Spacing Between Slices (0018,0088); 0 where it is not stated."""
        return abs(float(self.facts.get("between_planes_mm", 0.0)))

    @property
    def um_per_px(self) -> tuple[float, float]:
        """From Pixel Spacing, else from the size of what was scanned."""
        if "spacing_mm" in self.facts:
            between_rows, between_columns = self.facts["spacing_mm"]
            return 1000 * between_rows, 1000 * between_columns
        height, width = self.facts.get("height_mm", 0.0), self.facts.get("width_mm", 0.0)
        return 1000 * height / self.size[0], 1000 * width / self.size[1]


def is_ours(instance: StoredInstance) -> bool:
    """Whether this node made it: a result is never an input."""
    return instance.header.get("manufacturer") == MANUFACTURER


def flavour_is_input(instance: StoredInstance) -> bool:
    """Whether it is a scan, and no label, overview or thumbnail (PS3.3 C.8.12.4.1.1)."""
    facts = instance.header.get("slide", instance.header.get("photograph", {}))
    words = facts.get("image_type", ()) if isinstance(facts, dict) else ()
    return not _NOT_INPUT & set(words)


def objection(instance: StoredInstance) -> str:
    """Why it can be no part of a slide; "" where it may. Completes "series 3, slide: ..."."""
    header: Mapping[str, Any] = instance.header  # Any: JSON values
    facts: Facts = header.get("slide", {})
    if not header.get("rows") or not header.get("columns"):
        return "it states no rows or columns"
    if min(facts.get("total_rows", 0), facts.get("total_columns", 0)) < 1:
        return "it states no size of its total pixel matrix"
    if str(header.get("transfer_syntax_uid")) not in READ:
        return f"its transfer syntax {instance.transfer_syntax_uid} is not read"
    if header.get("bits_allocated") != 8 or facts.get("bits_stored", 8) != 8:
        return f"its pixels have {header.get('bits_allocated', 'no stated')} bits, not 8"
    kind, samples = header.get("photometric", "of no stated kind"), header.get("samples_per_pixel", 1)
    if (samples, kind in GREY, kind in COLOURS) not in ((1, True, False), (3, False, True)):
        return f"its pixels are {kind} in {samples} samples, which is not read"
    if not 0 < header.get("number_of_frames", 1) <= MOST_FRAMES:
        return f"its {header['number_of_frames']} frames are no number from 1 to {MOST_FRAMES}"
    if facts.get("focal_planes", 1) > MOST_PLANES:
        return f"its {facts['focal_planes']} focal planes are more than the {MOST_PLANES} this node reads"
    member = member_of(instance)
    if member.tiles > MOST_TILES:
        return f"its {member.tiles} tiles are more than the {MOST_TILES} this node reads"
    if member.tile[0] * member.tile[1] > MOST_TILE_PIXELS:
        return f"its frames of {member.tile[0]} x {member.tile[1]} pixels are larger than this node reads"
    if not all(0.0 < um < 1e4 for um in member.um_per_px):
        return "it states no pixel spacing"
    if not member.tiled_full and not facts.get("placed") and (member.frames, member.tiles) != (1, 1):
        return "its frames say no place, and it is not TILED_FULL"
    return ""


def member_of(instance: StoredInstance) -> Member:
    header: Mapping[str, Any] = instance.header  # Any: JSON values
    facts: Facts = header.get("slide", {})
    frames = int(header.get("number_of_frames", 1))
    size, tile = (facts["total_rows"], facts["total_columns"]), (header["rows"], header["columns"])
    paths = tuple(facts.get("paths", ()))
    stated = max(1, min(int(facts.get("optical_paths", len(paths) or 1)), 64))
    if len(paths) != stated:
        paths = tuple(str(k + 1) for k in range(stated))
    member = Member(
        instance=instance,
        facts=facts,
        series_number=int(header.get("series_number", 0)),
        size=size,
        tile=tile,
        frames=frames,
        tiled_full=facts.get("tiling") == "TILED_FULL",
        paths=paths,
        z=float((facts.get("origin") or (0.0, 0.0, 0.0))[2]),
        heights=tuple(facts.get("heights", ())),
        part=int(facts.get("part", 1)) if "concatenation_uid" in facts else 1,
    )
    in_order = not member.tiled_full and facts.get("placed") is False
    if in_order and frames == member.tiles * member.focal_planes * len(paths):
        return replace(member, tiled_full=True)  # frames without places, as many as there are places
    return member
