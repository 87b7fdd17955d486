"""What a pipeline says: a verdict, scores, regions, maps; or why it did not run.

`encode/` turns these into SR, SEG, Parametric Map and Secondary Capture objects. A
pipeline never touches DICOM result objects itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from dicom_node.domain.codes import Code
from dicom_node.domain.identity import Digest
from dicom_node.domain.series import FrameRef, Stack
from dicom_node.domain.slide import Reading
from dicom_node.errors import InvalidValue


class Certainty(StrEnum):
    POSITIVE = "positive"
    NEGATIVE = "negative"
    INDETERMINATE = "indeterminate"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Where the verdict changes, and on what data it was chosen.

    Below `low` the verdict is negative, at or above `high` positive, between them
    indeterminate; `threshold` is the single point within, used for sensitivity and specificity.
    """

    threshold: float
    low: float
    high: float
    chosen_on: str
    """One sentence: the calibration data, n, and what was asked of it."""
    sensitivity: tuple[float, float, float] | None = None
    """(estimate, 95 % lower, 95 % upper) at `threshold`, on data not used for training."""
    specificity: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.low <= self.threshold <= self.high <= 1.0:
            raise InvalidValue(f"operating point out of order: {self.low}, {self.threshold}, {self.high}")

    def certainty(self, probability: float) -> Certainty:
        if probability >= self.high:
            return Certainty.POSITIVE
        return Certainty.NEGATIVE if probability < self.low else Certainty.INDETERMINATE


@dataclass(frozen=True, slots=True)
class Score:
    """A number with its concept and unit, e.g. (111047, DCM, "Probability of cancer"), 87 %."""

    name: Code
    value: float
    unit: Code
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The case-level answer."""

    finding: Code
    """What was looked for, e.g. (108369006, SCT, "Neoplasm")."""
    site: Code
    diagnosis: Code
    """The categorical verdict; for an indeterminate one the code that says so."""
    certainty: Certainty
    probability: float
    """Of the positive class, 0 to 1."""
    positive_class: Code
    negative_class: Code
    operating_point: OperatingPoint
    scores: tuple[Score, ...] = ()
    statement: str = ""
    """One sentence for a person, verdict first."""
    warnings: tuple[str, ...] = ()
    """Disagreement with the referral, missing sequences, use outside the intended use ..."""
    probability_concept: Code | None = None
    """What `probability` is called by itself, e.g. (111047, DCM, "Probability of cancer"); None where only
    the classes' own (122157, DCM, "Probability") say it."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise InvalidValue(f"probability outside 0 to 1: {self.probability}")


@dataclass(frozen=True, slots=True)
class SliceScore:
    """What the slice stage said of one frame, and whether it was kept for the next stage."""

    frame: FrameRef
    probability: float
    """That the slice contains tumour, 0 to 1."""
    kept: bool
    positive_probability: float | None = None
    """Of the positive class from the second stage; None where the slice was not kept."""


@dataclass(frozen=True, slots=True)
class SequenceScore:
    """One chosen stack's part in the verdict."""

    need: str
    stack: Stack
    slices: tuple[SliceScore, ...]
    probability: float | None
    """Of the positive class over this stack's kept slices; None where none was kept."""


@dataclass(frozen=True, slots=True)
class Region:
    """A marked region on one stack: `mask` is (slices, rows, columns) bool on the stack's grid."""

    stack: Stack
    mask: npt.NDArray[np.bool_]
    category: Code
    kind: Code
    label: str
    site: Code
    score: float | None = None


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A map on one stack: `values` is (slices, rows, columns) float32 in 0 to 1.

    Slices the map says nothing about are zero and False in `present`, (slices,) bool.
    """

    stack: Stack
    values: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    quantity: Code
    label: str


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One model that took part, as TID 4019 and the Contributing Equipment want it."""

    name: str
    version: str
    digest: Digest
    """sha256 of the weights."""
    description: str
    trained_on: str
    limits: str
    runtime: str = ""
    """What computed it here: library with version, precision, processor, and why not the fastest; "" is torch
    in float32. The same sentence means the same numbers, and it is part of every result UID."""


@dataclass(frozen=True, slots=True)
class NotPerformed:
    """Why there is no AI result, in a sentence a radiologist understands.

    Completes "AI not performed, because ...": `because` starts in lower case and has no full stop.
    """

    because: str
    code: str
    """Stable word for tables and tests: `sex`, `age`, `modality`, `body-part`, `missing-series`,
    `geometry`, `failed` ..."""


@dataclass(frozen=True, slots=True)
class Findings:
    """All a pipeline run says. Exactly one of `verdict` and `not_performed` is there."""

    algorithms: tuple[Algorithm, ...]
    verdict: Verdict | None = None
    not_performed: NotPerformed | None = None
    sequences: tuple[SequenceScore, ...] = ()
    regions: tuple[Region, ...] = ()
    maps: tuple[HeatMap, ...] = ()
    readings: tuple[Reading, ...] = ()
    """What was found on slides and photographs."""
    previews: tuple[tuple[Stack, npt.NDArray[np.uint8]], ...] = ()
    """(stack, (slices, rows, columns) uint8): the windowed pixels behind maps and regions,
    for the Secondary Capture page and PNG previews."""
    lead: Stack | None = None
    """The stack whose map and region become objects of their own, where one set of overlays says enough;
    the others stay on the Secondary Capture page. None: every map and region becomes an object."""
    procedure: Code | None = None
    """The procedure reported (CID 100), e.g. (363679005, SCT, "Imaging procedure"); None: by the images."""
    report_title: Code | None = None
    """Of the report (CID 7021); None: (126001, DCM, "Oncology Measurement Report")."""
    limits: str = "Research use only. Not a medical device. Not for clinical decisions."
    seconds: Mapping[str, float] | None = None
    """Time per step, e.g. {"read": 0.2, "forward": 3.1}. Never encoded: bytes must repeat."""

    def __post_init__(self) -> None:
        if (self.verdict is None) == (self.not_performed is None):
            raise InvalidValue("findings need either a verdict or the reason why there is none")
