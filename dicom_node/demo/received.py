"""Result objects as a PACS holds them, read back: what the SR says, where SEG and map lie.

Everything here comes from the received DICOM files alone, so what is shown of it is what any
viewer would have to go by. Refuses to lay a map over an image that it does not fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # Any: elements of pydicom data sets

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.domain.job import ResultKind
from dicom_node.errors import UnfaithfulGeometry

KINDS = {
    "1.2.840.10008.5.1.4.1.1.88.34": ResultKind.SR,
    "1.2.840.10008.5.1.4.1.1.66.4": ResultKind.SEG,
    "1.2.840.10008.5.1.4.1.1.30": ResultKind.PM,
    "1.2.840.10008.5.1.4.1.1.7": ResultKind.SC,
    "1.2.840.10008.5.1.4.1.1.11.1": ResultKind.GSPS,
    "1.2.840.10008.5.1.4.1.1.88.59": ResultKind.KOS,
}
"""SOP classes of results, PS3.4 B.5."""
_IMAGING_MEASUREMENT_REPORT = "126000"
_CONCLUSION, _COMMENT, _DIAGNOSIS = "121077", "121106", "439401001"
_PROBABILITY, _PROBABILITY_OF_CANCER, _MEANING = "122157", "111047", "121050"
_SAME_PLACE_MM = 0.05
_PERCENT = r"(\d+(?:\.\d+)?) %"
_POINT = re.compile(
    rf"Operating point: negative below {_PERCENT}, positive from {_PERCENT}.*?threshold {_PERCENT}\.?\s*(.*)"
)

FrameKey = tuple[str, int]
"""(SOP Instance UID, frame number from 1)."""


@dataclass(frozen=True, slots=True)
class Point:
    """The operating point as the SR states it, as parts of 1."""

    low: float
    high: float
    threshold: float
    chosen_on: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the SR says."""

    conclusion: str = ""
    diagnosis: str = ""
    performed: bool = False
    probability: float | None = None
    """Of the class in `probability_of`, as a part of 1."""
    probability_of: str = ""
    point: Point | None = None
    sequences: tuple[str, ...] = ()
    """Per sequence: which slices were used, and the probability on it alone."""
    warnings: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """Every other sentence: limits, research use, unverified."""
    kept: tuple[FrameKey, ...] = ()
    """The slices behind the verdict."""


def read_report(report: Dataset) -> Reading:
    """The parts of a Measurement Report (TID 1500) that a summary shows."""
    conclusion, diagnosis, comments = "", "", []
    probabilities: list[tuple[str, float]] = []
    kept: list[FrameKey] = []
    for item in _items(report):
        name = _code(item, "ConceptNameCodeSequence")
        match item.get("ValueType"), name:
            case "TEXT", code if code == _CONCLUSION:
                conclusion = conclusion or str(item.TextValue)
            case "TEXT", code if code == _COMMENT:
                comments.append(str(item.TextValue))
            case "CODE", code if code == _DIAGNOSIS:
                diagnosis = diagnosis or str(item.ConceptCodeSequence[0].CodeMeaning)
            case "NUM", code if code in (_PROBABILITY, _PROBABILITY_OF_CANCER):
                probabilities.append((_meaning(item), _number(item) / 100.0))
            case "IMAGE", _:
                kept += _frames(item)
    of, probability = _positive(probabilities)
    return Reading(
        conclusion=conclusion, diagnosis=diagnosis, performed=bool(probabilities),
        probability=probability, probability_of=of, kept=tuple(dict.fromkeys(kept)),
        **_sorted_comments(comments),
    )  # fmt: skip


def _items(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _code(item: Dataset, sequence: str) -> str:
    codes = item.get(sequence)
    return str(codes[0].get("CodeValue", "")) if codes else ""


def _meaning(item: Dataset) -> str:
    """What a number is of, in words: its Equivalent Meaning, else its concept name."""
    for modifier in item.get("ContentSequence", ()):
        if _code(modifier, "ConceptNameCodeSequence") == _MEANING:
            return str(modifier.TextValue)
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def _number(item: Dataset) -> float:
    return float(item.MeasuredValueSequence[0].NumericValue)


def _positive(probabilities: Sequence[tuple[str, float]]) -> tuple[str, float | None]:
    """The first probability that says in words what it is of: the positive class comes first."""
    for name, value in probabilities:
        if name.startswith("Probability of ") and "cancer" not in name:
            return name.removeprefix("Probability of "), value
    return ("", None) if not probabilities else (probabilities[0][0], probabilities[0][1])


def _frames(item: Dataset) -> Iterator[FrameKey]:
    for reference in item.get("ReferencedSOPSequence", ()):
        for frame in _numbers(reference.get("ReferencedFrameNumber")) or [1]:
            yield str(reference.ReferencedSOPInstanceUID), frame


def _numbers(value: Any) -> list[int]:  # Any: IS, one or several, or absent
    if value is None:
        return []
    return [int(value)] if isinstance(value, int | str) else [int(number) for number in value]


def _sorted_comments(comments: Iterable[str]) -> dict[str, Any]:  # Any: keyword arguments of Reading
    """The report's sentences by how they begin, see `encode/words.py`."""
    point: Point | None = None
    sorted_: dict[str, list[str]] = {"sequences": [], "warnings": [], "models": [], "remarks": []}
    for text in comments:
        if found := _POINT.match(text):
            low, high, threshold = (float(part) / 100.0 for part in found.groups()[:3])
            point = Point(low, high, threshold, found.group(4))
        elif text.startswith("Warning: "):
            sorted_["warnings"].append(text.removeprefix("Warning: "))
        elif text.startswith("Slices used of "):
            sorted_["sequences"].append(text.removeprefix("Slices used of "))
        elif text.startswith("Model: "):
            sorted_["models"].append(text.removeprefix("Model: "))
        elif not text.startswith("Probability of "):
            sorted_["remarks"].append(text)
    return {name: tuple(lines) for name, lines in sorted_.items()} | {"point": point}


# ---- geometry of frames, classic and multi-frame ----------------------------------------


@dataclass(frozen=True)
class Placement:
    """Where a frame's pixels lie in the patient: LPS, mm."""

    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]
    spacing: npt.NDArray[np.float64]
    """(between rows, between columns)"""
    rows: int
    columns: int

    def same_as(self, other: Placement) -> bool:
        return (
            (self.rows, self.columns) == (other.rows, other.columns)
            and bool(np.allclose(self.position, other.position, atol=_SAME_PLACE_MM))
            and bool(np.allclose(self.orientation, other.orientation, atol=1e-4))
            and bool(np.allclose(self.spacing, other.spacing, rtol=1e-3))
        )


def placement(data_set: Dataset, frame: int) -> Placement:
    """Of frame `frame` (from 1), from functional groups where there are any. PS3.3 C.7.6.16."""
    return Placement(
        position=_values(data_set, frame, "PlanePositionSequence", "ImagePositionPatient"),
        orientation=_values(data_set, frame, "PlaneOrientationSequence", "ImageOrientationPatient"),
        spacing=_values(data_set, frame, "PixelMeasuresSequence", "PixelSpacing"),
        rows=int(data_set.Rows),
        columns=int(data_set.Columns),
    )


def _values(data_set: Dataset, frame: int, group: str, keyword: str) -> npt.NDArray[np.float64]:
    for holder in _groups(data_set, frame):
        if group in holder:
            return np.array([float(value) for value in holder[group].value[0][keyword].value])
    if keyword not in data_set:
        raise UnfaithfulGeometry(f"an image without {keyword}")
    return np.array([float(value) for value in data_set[keyword].value])


def _groups(data_set: Dataset, frame: int) -> Iterator[Dataset]:
    if "PerFrameFunctionalGroupsSequence" in data_set:
        yield data_set.PerFrameFunctionalGroupsSequence[frame - 1]
    if "SharedFunctionalGroupsSequence" in data_set:
        yield data_set.SharedFunctionalGroupsSequence[0]


@dataclass(frozen=True)
class Layer:
    """One frame of a SEG or a Parametric Map that says something about one source frame.

    `values` is (rows, columns): float32 of a map, bool of a segment.
    """

    values: npt.NDArray[Any]  # Any: float32 or bool
    where: Placement
    number: int
    """Place of the frame in its object, from 1."""


@dataclass(frozen=True)
class Results:
    """All results of one job, as received."""

    reading: Reading
    files: tuple[tuple[ResultKind, Path, Dataset], ...]
    page: npt.NDArray[np.uint8] | None = None
    """The Secondary Capture, (rows, columns, 3)."""
    maps: Mapping[FrameKey, Layer] = field(default_factory=dict)
    segments: Mapping[FrameKey, Layer] = field(default_factory=dict)


def kind_of(data_set: Dataset) -> ResultKind | None:
    """The form of a result; None for what is none. The two reports differ by their titles (CID 7021)."""
    kind = KINDS.get(str(data_set.SOPClassUID))
    drawn = _code(data_set, "ConceptNameCodeSequence") == _IMAGING_MEASUREMENT_REPORT
    return ResultKind.ROI if kind is ResultKind.SR and drawn else kind


def read_results(paths: Sequence[Path]) -> Results:
    """Read received files of all forms."""
    files = []
    for path in paths:
        data_set = dcmread(path)
        kind = kind_of(data_set)
        if kind is not None:
            files.append((kind, path, data_set))
    order = [ResultKind.SR, ResultKind.SEG, ResultKind.PM, ResultKind.SC]
    order += [kind for kind in ResultKind if kind not in order]
    files.sort(key=lambda file: (order.index(file[0]), int(file[2].get("SeriesNumber") or 0)))
    reading, page = Reading(), None
    maps: dict[FrameKey, Layer] = {}
    segments: dict[FrameKey, Layer] = {}
    for kind, _, data_set in files:
        if kind is ResultKind.SR:
            reading = read_report(data_set)
        elif kind is ResultKind.SC:
            page = np.asarray(data_set.pixel_array, dtype=np.uint8)
        elif kind is ResultKind.PM:
            maps |= _layers(data_set)
        elif kind is ResultKind.SEG:
            segments |= _merged(segments, _layers(data_set))
    return Results(reading, tuple(files), page, maps, segments)


def _merged(have: Mapping[FrameKey, Layer], new: Mapping[FrameKey, Layer]) -> dict[FrameKey, Layer]:
    """Several regions on one slice show as one."""
    return {
        key: layer if key not in have
        else Layer(have[key].values | layer.values, layer.where, layer.number)
        for key, layer in new.items()
    }  # fmt: skip


def _layers(data_set: Dataset) -> dict[FrameKey, Layer]:
    """The frames of an object by the source frame each was derived from (PS3.3 C.7.6.16.2.6)."""
    pixels = data_set.pixel_array
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else pixels
    if data_set.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4":
        pixels = pixels > 0
    layers: dict[FrameKey, Layer] = {}
    for number, groups in enumerate(data_set.PerFrameFunctionalGroupsSequence, start=1):
        layer = Layer(pixels[number - 1], placement(data_set, number), number)
        for key in _derived_from(groups):
            layers |= _merged(layers, {key: layer}) if layer.values.dtype == np.bool_ else {key: layer}
    return layers


def _derived_from(groups: Dataset) -> Iterator[FrameKey]:
    for derivation in groups.get("DerivationImageSequence", ()):
        for source in derivation.get("SourceImageSequence", ()):
            for frame in _numbers(source.get("ReferencedFrameNumber")) or [1]:
                yield str(source.ReferencedSOPInstanceUID), frame
