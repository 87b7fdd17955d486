"""Facts of slides and of photographs through a microscope, JSON-able (PS3.3 C.8.12.4 to C.8.12.6).

A slide's header says how large it is, how it is cut into frames and which part of it this instance
is. Its description of single frames may be fifty megabytes and is not taken in; where frames may
stand anywhere (TILED_SPARSE), only which focal planes there are is.

Lengths are in mm as stored. Heights (0040,074A) are as stored too: micrometres by the Standard,
millimetres by some scanners, told apart when the slide is put together.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.dicom import values
from dicom_node.errors import UnreadableObject
from dicom_node.slide.file import PER_FRAME, SlideFile
from dicom_node.slide.sparse import read_places

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
PHOTOGRAPHS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.77.1.2",  # VL Microscopic
        "1.2.840.10008.5.1.4.1.1.77.1.3",  # VL Slide-Coordinates Microscopic
        "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
        "1.2.840.10008.5.1.4.1.1.7.4",  # Multi-frame True Color Secondary Capture
    }
)
CLASSES = PHOTOGRAPHS | {WHOLE_SLIDE}

MOST_PLANES = 4096
_MOST_PATHS = 64

_TEXTS = {
    "pyramid_uid": 0x00080019,
    "concatenation_uid": 0x00209161,
    "tiling": 0x00209311,
}
_INTEGERS = {  # name: (tag, VR)
    "total_rows": (0x00480007, "UL"),
    "total_columns": (0x00480006, "UL"),
    "focal_planes": (0x00480303, "UL"),
    "optical_paths": (0x00480302, "UL"),
    "part": (0x00209162, "US"),
    "parts": (0x00209163, "US"),
    "first_frame": (0x00209228, "UL"),
    "bits_stored": (0x00280101, "US"),
}
_NUMBERS = {"width_mm": (0x00480001, "FL"), "height_mm": (0x00480002, "FL")}
_IMAGE_TYPE, _CONTAINER, _EDF, _ORIENTATION = 0x00080008, 0x00400512, 0x00480012, 0x00480102
_ORIGIN, _X, _Y, _Z = 0x00480008, 0x0040072A, 0x0040073A, 0x0040074A
_SHARED, _MEASURES, _SPACING, _BETWEEN = 0x52009229, 0x00289110, 0x00280030, 0x00180088
_POSITION = 0x0048021A
_PATHS, _PATH = 0x00480105, 0x00480106
_SPECIMENS, _PREPARATION, _STEP_CONTENT = 0x00400560, 0x00400610, 0x00400612
_CONCEPT, _CODE, _VALUE, _MEANING = 0x0040A043, 0x0040A168, 0x00080100, 0x00080104
_STAINS = frozenset({"424361007", "G-C350"})
"""Concept "Using substance": SNOMED CT, and as SRT wrote it (TID 8003)."""

WANTED = frozenset(
    {
        _IMAGE_TYPE, _CONTAINER, _EDF, _ORIENTATION, _ORIGIN, _SHARED, _PATHS, _SPACING, _SPECIMENS,
        *_TEXTS.values(), *(tag for tag, _ in _INTEGERS.values()), *(tag for tag, _ in _NUMBERS.values()),
    }
)  # fmt: skip


def past_header(tag: int, vr: str | None, length: int) -> bool:
    """Where the header of a slide ends for reading: at the description of single frames, or at the pixels."""
    return tag == PER_FRAME or tag >> 16 == 0x7FE0


def photograph_facts(data_set: Dataset) -> dict[str, object]:
    """Facts of one photograph, or of several in one object."""
    spacing = values.numbers(data_set, _SPACING, "DS")
    return _present(
        {
            "image_type": list(values.words(data_set, _IMAGE_TYPE)),
            "spacing_mm": list(spacing[:2]) if len(spacing) >= 2 else None,
        }
    )


def slide_facts(data_set: Dataset, path: Path) -> dict[str, object]:
    """Facts of one instance of a slide.

    Raises UnreadableObject where its frames may stand anywhere and do not say where.
    """
    facts: dict[str, Any] = {name: values.ascii_text(data_set, tag) for name, tag in _TEXTS.items()}
    facts |= {name: values.integer(data_set, tag, vr) for name, (tag, vr) in _INTEGERS.items()}
    facts |= {name: values.number(data_set, tag, vr) for name, (tag, vr) in _NUMBERS.items()}
    facts["image_type"] = list(values.words(data_set, _IMAGE_TYPE))
    facts["container"] = _digest(values.text(data_set, _CONTAINER))
    facts["extended_depth"] = values.words(data_set, _EDF) == ("YES",) or None
    orientation = values.numbers(data_set, _ORIENTATION, "DS")
    facts["orientation"] = list(orientation[:6]) if len(orientation) >= 6 else None
    facts["origin"] = _origin(data_set)
    facts["paths"] = [values.text(item, _PATH, 16) for item in values.items(data_set, _PATHS)[:_MOST_PATHS]]
    facts["stain"] = _stain(data_set)
    facts |= _measures(data_set)
    frames = values.integer(data_set, 0x00280008, "IS") or 1
    if facts["tiling"] != "TILED_FULL":
        facts |= _sparse(path, frames)
    return _present(facts)


def _sparse(path: Path, frames: int) -> dict[str, object]:
    """Whether frames say their places, and on which focal planes they are."""
    file = SlideFile(path)
    try:
        places = read_places(file, frames)
    finally:
        file.close()
    if places is None:
        return {"placed": False}
    heights = np.zeros(1) if places.z is None else np.unique(places.z)
    if len(heights) > MOST_PLANES:
        raise UnreadableObject(f"its frames are on {len(heights)} focal planes")
    return {"placed": True, "heights": [float(z) for z in heights] if places.z is not None else None}


def _origin(data_set: Dataset) -> list[float] | None:
    """X and Y in mm, Z as stored; that of all frames where the origin has none."""
    origin = values.items(data_set, _ORIGIN)[:1]
    shared = [
        at for group in values.items(data_set, _SHARED)[:1] for at in values.items(group, _POSITION)[:1]
    ]
    z = next((z for item in (*origin, *shared) if (z := values.number(item, _Z)) is not None), None)
    if not origin and z is None:
        return None
    x, y = (values.number(origin[0], tag) if origin else None for tag in (_X, _Y))
    return [x or 0.0, y or 0.0, z or 0.0]


def _measures(data_set: Dataset) -> dict[str, object]:
    """Pixel spacing (between rows, between columns) and between focal planes, mm."""
    shared = values.items(data_set, _SHARED)[:1]
    measures = [item for group in shared for item in values.items(group, _MEASURES)[:1]]
    for source in (*measures, data_set):
        spacing = values.numbers(source, _SPACING, "DS")
        if len(spacing) >= 2:
            return {"spacing_mm": list(spacing[:2]), "between_planes_mm": values.number(source, _BETWEEN)}
    return {}


def _stain(data_set: Dataset) -> str:
    """Meaning of the substances that the first specimen was stained with, at most three."""
    found: list[str] = []
    for specimen in values.items(data_set, _SPECIMENS)[:1]:
        for step in values.items(specimen, _PREPARATION)[:64]:
            for item in values.items(step, _STEP_CONTENT)[:64]:
                named = [values.text(name, _VALUE, 16) for name in values.items(item, _CONCEPT)[:1]]
                if set(named) & _STAINS:
                    found += [values.text(code, _MEANING, 64) for code in values.items(item, _CODE)[:1]]
    return ", ".join(dict.fromkeys(filter(None, found[:3])))


def _digest(text: str) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else None


def _present(facts: dict[str, Any]) -> dict[str, object]:  # Any: JSON values
    return {name: value for name, value in facts.items() if value not in (None, "", [])}
