"""What came in: instances, series, stacks, volumes, studies; slides are in `slide.py`.

A *stack* is what a pipeline can use: frames of one contrast on one regular grid. A series
may hold several (a DWI series has one per b value), so choosing is done on stacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.geometry import Vector
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.slide import Photograph, Slide


class Contrast(StrEnum):
    """The kind of MR image, decided from physics first (see `assemble/contrast.py`)."""

    T1 = "T1"
    T2 = "T2"
    PD = "PD"
    FLAIR = "FLAIR"
    DWI = "DWI"
    ADC = "ADC"
    DCE = "DCE"
    T2STAR = "T2*"
    LOCALISER = "localiser"
    OTHER = "other"


class Plane(StrEnum):
    """The anatomical plane nearest to the slices (PS3.3 C.7.6.2.1.1); oblique beyond 35 degrees."""

    AXIAL = "axial"
    SAGITTAL = "sagittal"
    CORONAL = "coronal"
    OBLIQUE = "oblique"


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One SOP instance in the archive: what the ledger knows and what its header says.

    `header` is the JSON-able extract made by `dicom/header.py`; empty until it was read.
    """

    sop_instance_uid: UID
    sop_class_uid: UID
    transfer_syntax_uid: UID
    study_uid: UID
    series_uid: UID
    digest: Digest
    size_bytes: int
    path: Path
    header: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One frame of a stored instance. `frame` counts from 1; 1 for single-frame objects."""

    sop_class_uid: UID
    sop_instance_uid: UID
    frame: int
    path: Path
    digest: Digest
    position_mm: Vector
    """Centre of the first transmitted pixel in patient LPS (PS3.3 C.7.6.2.1.1)."""
    multiframe: bool = False


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames of one contrast on one regular grid, sorted along the slice normal.

    `row_cosine` points along a row (increasing column index), `column_cosine` along a
    column (increasing row index), as in Image Orientation (Patient). `spacing_mm` is
    (between slices, between rows, between columns). `reasons` say, in words, why
    `contrast` and `plane` were concluded.
    """

    series_uid: UID
    study_uid: UID
    frame_of_reference_uid: UID | None
    series_number: int
    contrast: Contrast
    plane: Plane
    frames: tuple[FrameRef, ...]
    rows: int
    columns: int
    row_cosine: Vector
    column_cosine: Vector
    spacing_mm: Vector
    reasons: tuple[str, ...]
    b_value: float | None = None
    """s/mm2; 0 for b0; None where the stack is no diffusion image."""
    temporal_index: int | None = None
    fat_suppressed: bool = False
    contrast_agent: bool = False
    derived: bool = False
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    description: str = ""
    """Series description; for people and as a last hint. Never logged."""

    @property
    def label(self) -> str:
        """A short name without free text: `4: T2 axial, 19 slices`."""
        b = "" if self.b_value is None or self.contrast is not Contrast.DWI else f" b{self.b_value:.0f}"
        return f"{self.series_number}: {self.contrast.value}{b} {self.plane.value}, {len(self.frames)} slices"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A series, or a part of one, that cannot be used, and the sentence that says why."""

    series_uid: UID
    series_number: int
    why: str


@dataclass(frozen=True, slots=True)
class Volume:
    """A stack's pixels.

    `array` is (slices, rows, columns) float32 with rescale applied and no windowing;
    `affine` is (4, 4) float64 and maps (slice, row, column, 1) to patient LPS mm.
    """

    array: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    stack: Stack


@dataclass(frozen=True, slots=True)
class Patient:
    """What an intended-use guard may ask about the patient. Never logged."""

    sex: str | None = None
    """(0010,0040): "F", "M", "O", or None where it is empty."""
    age_years: float | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """One study at one revision, as a pipeline's guard and choice see it."""

    uid: UID
    revision: int
    patient: Patient
    modalities: frozenset[str]
    body_parts: frozenset[str]
    stacks: tuple[Stack, ...]
    refusals: tuple[Refusal, ...]
    referral: str = ""
    """Reason for the procedure, admitting diagnosis, study comments: free text. Never logged."""
    reports: tuple[str, ...] = ()
    """Plain text of earlier reports (SR) that came with the study. Never logged."""
    instances: tuple[StoredInstance, ...] = ()
    slides: tuple[Slide, ...] = ()
    photographs: tuple[Photograph, ...] = ()
