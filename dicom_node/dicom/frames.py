"""Facts of each frame, in one shape for classic and Enhanced MR (PS3.3 C.8.3.1, C.8.13).

A fact of an Enhanced frame stands in a functional group macro, per frame or shared, or at
the top of the data set; a classic image is one frame. Enhanced words for the pulse sequence
are put into the classic ones (Scanning Sequence), so that one table of rules reads both.

Facts: position, orientation, pixel_spacing, slice_thickness, spacing_between_slices, echo_time,
repetition_time, inversion_time, flip_angle, b_value, measured_b, direction, image_type,
scanning_sequence, sequence_variant, scan_options, sequence_name, acquisition_contrast,
echo_number, temporal_position, trigger_time, acquired_at, acquisition_number, rescale, stack_id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from dicom_node.dicom import values, vendor
from dicom_node.errors import UnreadableObject

_SHARED, PER_FRAME = 0x52009229, 0x52009230
_NUMBER_OF_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
_MOST_FRAMES = 100_000
_LONGEST_SIDE = 65535
"""Rows and Columns are unsigned shorts, PS3.3 C.7.6.3.1."""

Facts = dict[str, Any]  # Any: JSON values
Reader = Callable[[Dataset, int], Any]  # Any: a JSON value or None


def _number(vr: str) -> Reader:
    return lambda data_set, tag: values.number(data_set, tag, vr)


def _numbers(count: int) -> Reader:
    def read(data_set: Dataset, tag: int) -> list[float] | None:
        found = values.numbers(data_set, tag, "DS")
        return list(found[:count]) if len(found) >= count else None

    return read


def _words(data_set: Dataset, tag: int) -> list[str] | None:
    return list(values.words(data_set, tag)) or None


def _word(data_set: Dataset, tag: int) -> str | None:
    return " ".join(values.words(data_set, tag)) or None


def _vector(data_set: Dataset, tag: int) -> list[float] | None:
    found = values.numbers(data_set, tag, "FD")
    return [round(number, 4) for number in found[:3]] if len(found) >= 3 else None


# fact: (tag, reader, functional group macro or 0 where it only stands at the top)
_FACTS: Mapping[str, tuple[int, Reader, int]] = {
    "position": (0x00200032, _numbers(3), 0x00209113),
    "orientation": (0x00200037, _numbers(6), 0x00209116),
    "pixel_spacing": (0x00280030, _numbers(2), 0x00289110),
    "slice_thickness": (0x00180050, _number("DS"), 0x00289110),
    "spacing_between_slices": (0x00180088, _number("DS"), 0x00289110),
    "image_type": (0x00080008, _words, 0),
    "frame_type": (0x00089007, _words, 0x00189226),
    "acquisition_contrast": (0x00089209, _word, 0x00189226),
    "complex_component": (0x00089208, _word, 0x00189226),
    "repetition_time": (0x00180080, _number("DS"), 0x00189112),
    "flip_angle": (0x00181314, _number("DS"), 0x00189112),
    "echo_time": (0x00180081, _number("DS"), 0),
    "effective_echo_time": (0x00189082, _number("FD"), 0x00189114),
    "inversion_time": (0x00180082, _number("DS"), 0),
    "inversion_times": (0x00189079, _number("FD"), 0x00189115),
    "inversion_recovery": (0x00189009, _word, 0x00189115),
    "fat_suppression": (0x00189025, _word, 0),
    "echo_pulse_sequence": (0x00189008, _word, 0),
    "echo_planar": (0x00189018, _word, 0),
    "steady_state": (0x00189017, _word, 0),
    "scanning_sequence": (0x00180020, _words, 0),
    "sequence_variant": (0x00180021, _words, 0),
    "scan_options": (0x00180022, _words, 0),
    "acquisition_type": (0x00180023, _word, 0),
    "sequence_name": (0x00180024, _word, 0),
    "pulse_sequence_name": (0x00189005, _word, 0),
    "echo_number": (0x00180086, _number("IS"), 0),
    "temporal_position": (0x00200100, _number("IS"), 0),
    "temporal_index": (0x00209128, _number("UL"), 0x00209111),
    "trigger_time": (0x00181060, _number("DS"), 0),
    "acquired_at": (0x00189074, values.ascii_text, 0x00209111),
    "acquisition_datetime": (0x0008002A, values.ascii_text, 0),
    "acquisition_date": (0x00080022, values.ascii_text, 0),
    "acquisition_time": (0x00080032, values.ascii_text, 0),
    "acquisition_number": (0x00200012, _number("IS"), 0),
    "stack_id": (0x00209056, _word, 0x00209111),
    "rescale_slope": (0x00281053, _number("DS"), 0x00289145),
    "rescale_intercept": (0x00281052, _number("DS"), 0x00289145),
    "direction": (0x00189089, _vector, 0x00189076),
}
_DIFFUSION, _DIRECTION = 0x00189117, 0x00189076
_MACROS = frozenset(macro for _, _, macro in _FACTS.values() if macro) | {_DIFFUSION}

WANTED = frozenset({tag for tag, _, _ in _FACTS.values()} | {_SHARED, PER_FRAME, 0x00189087, 0x00189075})

_BY_MACRO: dict[int, list[tuple[str, int, Reader]]] = {}
for _name, (_tag, _reader, _macro) in _FACTS.items():
    _BY_MACRO.setdefault(_macro, []).append((_name, _tag, _reader))


def functional_groups(data_set: Dataset) -> tuple[Dataset, ...]:
    """The shared functional groups' item first, then one per frame; () for classic images."""
    return (*values.items(data_set, _SHARED)[:1], *values.items(data_set, PER_FRAME))


def number_of_frames(data_set: Dataset) -> int:
    """1 where nothing or 0 is written. Raises UnreadableObject where it is no number of frames."""
    return _within(data_set, _NUMBER_OF_FRAMES, "IS", "Number of Frames (0028,0008)", _MOST_FRAMES) or 1


def rows(data_set: Dataset) -> int:
    """0 where there are none. Raises UnreadableObject where they cannot be those of an image."""
    return _within(data_set, _ROWS, "US", "Rows (0028,0010)", _LONGEST_SIDE)


def columns(data_set: Dataset) -> int:
    """As `rows`."""
    return _within(data_set, _COLUMNS, "US", "Columns (0028,0011)", _LONGEST_SIDE)


def _within(data_set: Dataset, tag: int, vr: str, name: str, most: int) -> int:
    """0 where nothing is written."""
    count = values.integer(data_set, tag, vr)
    if count is None and values.raw(data_set, tag) is None:
        return 0
    if count is None or not 0 <= count <= most:
        raise UnreadableObject(f"{name} is no number from 1 to {most}")
    return count


def read_frames(data_set: Dataset) -> tuple[Facts, list[Facts]]:
    """(facts that all frames share, for each frame those that differ).

    Raises UnreadableObject where frames are announced that are not described, or absurdly many.
    """
    count = number_of_frames(data_set)
    shared = _top(data_set)
    for group in values.items(data_set, _SHARED)[:1]:
        shared |= _group(group)
    per_frame = [_group(group) for group in values.items(data_set, PER_FRAME)]
    if per_frame and len(per_frame) != count:
        raise UnreadableObject(f"{count} frames are announced but {len(per_frame)} described")
    classic = not per_frame
    all_frames = [_classic_words(shared | facts) for facts in per_frame] or [_classic_words(shared)]
    if classic and count > 1:
        all_frames *= count  # a multi-frame object without functional groups: all facts are shared
    return _factored(all_frames)


def _top(data_set: Dataset) -> Facts:
    facts = {name: reader(data_set, tag) for name, (tag, reader, _) in _FACTS.items()}
    facts["b_value"] = vendor.b_value(data_set)
    facts["measured_b"] = vendor.measured_b_range(data_set)
    return _present(facts)


def _group(group: Dataset) -> Facts:
    facts: Facts = {}
    for macro in _MACROS:
        for item in values.items(group, macro)[:1]:
            for name, tag, reader in _BY_MACRO.get(macro, ()):
                facts[name] = reader(item, tag)
            if macro == _DIFFUSION:
                facts |= _diffusion(item)
    return _present(facts)


def _diffusion(item: Dataset) -> Facts:
    direction = next((_vector(d, 0x00189089) for d in values.items(item, _DIRECTION)), None)
    return {"b_value": values.number(item, 0x00189087, "FD"), "direction": direction}


def _classic_words(facts: Facts) -> Facts:
    """Enhanced MR's attributes under the classic ones' names."""
    found = dict(facts)
    if found.pop("effective_echo_time", None) is not None:
        found["echo_time"] = facts["effective_echo_time"]
    if "frame_type" in found:
        found["image_type"] = found.pop("frame_type")
    if "inversion_times" in found:
        found["inversion_time"] = found.pop("inversion_times")
    if "temporal_index" in found:
        found["temporal_position"] = found.pop("temporal_index")
    if "pulse_sequence_name" in found:
        found.setdefault("sequence_name", found.pop("pulse_sequence_name"))
        found.pop("pulse_sequence_name", None)
    _scanning_sequence(found)
    _acquired_at(found)
    if "rescale_slope" in found or "rescale_intercept" in found:
        found["rescale"] = [found.pop("rescale_slope", 1.0), found.pop("rescale_intercept", 0.0)]
    return found


def _scanning_sequence(found: Facts) -> None:
    echo, planar = found.pop("echo_pulse_sequence", ""), found.pop("echo_planar", "")
    recovery, state = found.pop("inversion_recovery", ""), found.pop("steady_state", "")
    suppressed = found.pop("fat_suppression", "")
    if echo and "scanning_sequence" not in found:
        kinds = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}.get(echo, [])
        kinds = kinds + ["EP"] * (planar == "YES") + ["IR"] * (recovery == "YES")
        found["scanning_sequence"] = kinds
    if state and state != "NONE" and "sequence_variant" not in found:
        found["sequence_variant"] = ["SS"]
    if "FAT" in suppressed and "FS" not in found.get("scan_options", []):
        found["scan_options"] = [*found.get("scan_options", []), "FS"]


def _acquired_at(found: Facts) -> None:
    """`acquired_at` as YYYYMMDDHHMMSS.FFFFFF: the frame's own, else the image's, else date and time."""
    moment = found.pop("acquisition_datetime", "")
    day, time = found.pop("acquisition_date", ""), found.pop("acquisition_time", "")
    if not found.get("acquired_at"):
        found["acquired_at"] = moment or (day + time if time else "")
    if not found["acquired_at"]:
        del found["acquired_at"]


def _factored(all_frames: list[Facts]) -> tuple[Facts, list[Facts]]:
    first = all_frames[0]
    shared = {
        name: value
        for name, value in first.items()
        if all(name in facts and facts[name] == value for facts in all_frames[1:])
    }
    return shared, [{n: v for n, v in facts.items() if n not in shared} for facts in all_frames]


def _present(facts: Facts) -> Facts:
    return {name: value for name, value in facts.items() if value is not None and value != ""}
