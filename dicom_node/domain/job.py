"""Jobs and deliveries in the words of the Unified Procedure Step, PS3.4 CC.1.1."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_node.domain.identity import UID, Digest


class State(StrEnum):
    """State of a job or a delivery.

    SCHEDULED -> IN PROGRESS     a worker holds the lease
    IN PROGRESS -> SCHEDULED     the lease lapsed or the attempt failed and may be repeated
    IN PROGRESS -> COMPLETED     results and their deliveries are committed (T3); the peer took it (T4)
    IN PROGRESS -> FAILED        not repeatable, or the attempts are used up; `reason` says why
    SCHEDULED -> CANCELED        superseded by a later revision before it ran, or by an operator
    IN PROGRESS -> CANCELED      a delivery withheld: the destination takes another form of the result
    FAILED -> SCHEDULED          an operator's `retry`
    """

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    FAILED = "FAILED"


class Level(StrEnum):
    """What a pipeline takes at a time."""

    STUDY = "study"
    SERIES = "series"
    SLIDE = "slide"
    """One slide, whatever series its levels are in; the study where it holds none."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to finish a job. `token` grows with every claim; an older one cannot commit."""

    job_id: int
    token: int
    worker: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """One pipeline on one subject at one revision."""

    id: int
    subject_uid: UID
    study_uid: UID
    level: Level
    revision: int
    pipeline: str
    version: str
    route: int
    """Index of the [[route]] that asked for it."""
    state: State
    attempts: int
    reason: str = ""
    progress: float = 0.0
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class ResultKind(StrEnum):
    """The form of a result object."""

    SR = "sr"
    SC = "sc"
    SEG = "seg"
    PM = "pm"
    ROI = "roi"
    """A second SR, with the regions' outlines on their slices: viewers draw it."""
    GSPS = "gsps"
    KOS = "kos"
    REJECT = "reject"
    """A Key Object Selection that rejects what this result replaces (IHE RAD IOCM)."""
    ANN = "ann"
    """Every cell of a slide, as Microscopy Bulk Simple Annotations."""
    FSEG = "fseg"
    """The heatmap of a slide as a fractional Segmentation, one pixel for each of its squares."""
    WSI = "wsi"
    """A small slide with heatmap and marks drawn in, for viewers that lay nothing over a slide."""


BY_NAME_ONLY = frozenset({ResultKind.GSPS, ResultKind.KOS, ResultKind.REJECT, ResultKind.FSEG})
"""Forms that a route must name: they change what a PACS shows by itself, or stop a viewer that others use."""
OF_SLIDES = frozenset({ResultKind.ANN, ResultKind.FSEG, ResultKind.WSI})
"""Forms that only results on slides have."""


@dataclass(frozen=True, slots=True)
class ResultObject:
    """One encoded DICOM result: whole file bytes (PS3.10), its identity and kind."""

    kind: ResultKind
    sop_class_uid: UID
    sop_instance_uid: UID
    series_uid: UID
    content: bytes


@dataclass(frozen=True, slots=True)
class Predecessor:
    """A result object of an earlier revision that a new one replaces."""

    kind: ResultKind
    sop_class_uid: UID
    sop_instance_uid: UID
    series_uid: UID


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result object after T3: in the archive under its digest."""

    id: int
    job_id: int
    kind: ResultKind
    sop_class_uid: UID
    sop_instance_uid: UID
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One result object on its way to one destination."""

    id: int
    result: StoredResult
    destination: str
    state: State
    attempts: int
    token: int
    status: int | None = None
    """The peer's DIMSE status of the last attempt."""
    reason: str = ""
    scheduled_at: datetime | None = None
    """Since when it waits; delivering gives up by this."""
    optional: bool = False
    """Withheld where the destination accepts another form of the result, and not this one."""
    finished_at: datetime | None = None
    """When it was delivered, refused or withheld."""
