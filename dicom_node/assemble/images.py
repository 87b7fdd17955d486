"""Frames as the assembler sees them: one `Image` per frame of each stored MR instance.

Also says, before any geometry, which instances can be no part of a stack, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.assemble import geometry
from dicom_node.domain.series import FrameRef, StoredInstance

MR_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
    }
)
_ENHANCED = MR_CLASSES - {"1.2.840.10008.5.1.4.1.1.4"}

Header = Mapping[str, Any]  # Any: JSON values of the extract made by dicom/header.py


@dataclass(frozen=True, slots=True)
class Image:
    """One frame with its facts."""

    ref: FrameRef
    name: str
    """For sentences: `image 7`, or `frame 7` of a multi-frame object."""
    number: int
    """Instance number, or frame number in a multi-frame object."""
    depth_mm: float
    """Position along the slice normal."""
    rows: int
    columns: int
    facts: Mapping[str, Any]  # Any: JSON values; see dicom/frames.py
    header: Header

    @property
    def orientation(self) -> tuple[float, ...]:
        return tuple(self.facts["orientation"])

    @property
    def pixel_mm(self) -> tuple[float, float]:
        between_rows, between_columns = self.facts["pixel_spacing"]
        return float(between_rows), float(between_columns)


def objection(instance: StoredInstance) -> str:
    """Why no frame of this instance can join a stack; "" where they may. Completes "series 3: ..."."""
    header: Header = instance.header
    if instance.sop_class_uid not in MR_CLASSES:
        kind = f"of modality {header['modality']}" if "modality" in header else "of no stated modality"
        return f"its images are no MR images but other objects {kind}"
    if not header.get("rows") or not header.get("columns"):
        return "an image states no rows or columns"
    if header.get("samples_per_pixel", 1) != 1 or header.get("photometric") != "MONOCHROME2":
        return f"its pixels are {header.get('photometric', 'of no stated kind')}, not MONOCHROME2"
    if header.get("bits_allocated", 16) not in (8, 16, 32):
        return f"its pixels have {header['bits_allocated']} bits"
    if (mosaic := header.get("mosaic_images")) is not None:
        return f"a Siemens mosaic: {mosaic} slices share each image, and mosaics are not unpacked"
    if "MOSAIC" in header.get("shared", {}).get("image_type", ()):
        return "a mosaic of unknown layout: several slices share each image"
    return ""


def is_image(instance: StoredInstance) -> bool:
    return bool(instance.header.get("rows")) or instance.sop_class_uid in MR_CLASSES


def read_images(instance: StoredInstance) -> tuple[list[Image], list[str]]:
    """(frames that have a place in the patient, why each of the others has none)."""
    header: Header = instance.header
    shared, frames = header.get("shared", {}), header.get("frames", [])
    multiframe = instance.sop_class_uid in _ENHANCED or len(frames) > 1
    images, lost = [], []
    for k, own in enumerate(frames, start=1):
        facts = {**shared, **own} if own else shared
        if why := _misplaced(facts):
            lost.append(why)
            continue
        number = k if multiframe else header.get("instance_number", 0)
        ref = FrameRef(
            instance.sop_class_uid, instance.sop_instance_uid, k, instance.path, instance.digest,
            geometry.vector(facts["position"]), multiframe,
        )  # fmt: skip
        depth = geometry.depth_mm(facts["position"], facts["orientation"])
        name = f"frame {number}" if multiframe else f"image {number}"
        images.append(Image(ref, name, number, depth, header["rows"], header["columns"], facts, header))
    return images, lost


_PLACE = {"position": "position", "orientation": "orientation", "pixel_spacing": "pixel spacing"}


def _misplaced(facts: Mapping[str, Any]) -> str:  # Any: JSON values
    if absent := [name for fact, name in _PLACE.items() if fact not in facts]:
        return f"without {absent[0]}"
    if not geometry.is_orthonormal(facts["orientation"]):
        return "whose direction cosines are not perpendicular unit vectors"
    return "" if min(facts["pixel_spacing"]) > 0 else "whose pixel spacing is not positive"


def patients(instances: Sequence[StoredInstance]) -> int:
    """How many patients the images are of, as far as identifier, birth date and sex tell."""
    headers: list[Header] = [instance.header for instance in instances]
    stated = [header.get("patient", {}) for header in headers]
    keys = ("id_digest", "birth_digest", "sex")
    return max((len({patient[key] for patient in stated if key in patient}) for key in keys), default=0)
