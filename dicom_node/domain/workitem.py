"""Work items: Unified Procedure Steps that this node performs for a worklist manager (PS3.4 Annex CC)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dicom_node.domain.identity import UID


class Step(StrEnum):
    """How far a work item is here; the manager knows SCHEDULED, IN PROGRESS, COMPLETED and CANCELED only.

    CLAIMING -> INPUTS      the manager lets this node have it: IN PROGRESS there, under our Transaction UID
    INPUTS -> ASSEMBLING    all images it names are here
    ASSEMBLING -> JOBS      they are in a revision of their study, and its jobs are in the ledger
    JOBS -> ASSEMBLING      a later revision overtook its jobs before they ran
    any of these -> ENDING  what becomes of it is decided, and written down
    ENDING -> COMPLETED     the manager knows: performed, with references to the results
    ENDING -> CANCELED      the manager knows: not performed, with the reason
    any -> LOST             another performer has it, or it was ended there, or it is gone
    any -> FAILED           the manager could not be told for too long; a person has to
    """

    CLAIMING = "CLAIMING"
    INPUTS = "INPUTS"
    ASSEMBLING = "ASSEMBLING"
    JOBS = "JOBS"
    ENDING = "ENDING"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    LOST = "LOST"
    FAILED = "FAILED"


OPEN = frozenset({Step.CLAIMING, Step.INPUTS, Step.ASSEMBLING, Step.JOBS, Step.ENDING})
"""Steps at which there is something left to do."""


@dataclass(frozen=True, slots=True)
class Input:
    """What an item of the Input Information Sequence (0040,4021) names, of a study or one of its series."""

    study_uid: UID
    series_uid: UID | None
    instances: tuple[tuple[UID, str], ...]
    """(SOP instance, SOP class); none: all there is."""
    ae_titles: tuple[str, ...] = ()
    """Where they may be retrieved from."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a manager says of a work item, as far as a performer without curiosity needs it."""

    uid: UID
    state: str
    """Procedure Step State (0074,1000)."""
    workitem: tuple[str, str] = ("", "")
    """Scheduled Workitem Code (0040,4018): value, scheme."""
    stations: tuple[tuple[str, str], ...] = ()
    """Scheduled Station Name Codes (0040,4025)."""
    readiness: str = ""
    """Input Readiness State (0040,4041)."""
    inputs: tuple[Input, ...] = ()
    cancel_asked: bool = False
    """Whether the manager noted in the item that somebody wants it canceled."""


@dataclass(frozen=True, slots=True)
class Output:
    """A result object that was delivered for a work item."""

    destination: str
    study_uid: UID
    series_uid: UID
    sop_class_uid: UID
    sop_instance_uid: UID


@dataclass(frozen=True, slots=True)
class Claim:
    """A work item in the ledger."""

    id: int
    peer: str
    uid: UID
    transaction_uid: UID
    pipeline: str
    workitem: str
    """Its Scheduled Workitem Code, as the configuration writes it."""
    step: Step
    inputs: tuple[Input, ...]
    jobs: tuple[int, ...]
    attempts: int
    """Attempts of this step that failed so far."""
    since: datetime
    """Since when it has been at this step."""
    claimed_at: datetime
    told_at: datetime | None
    """When the manager last heard of its progress."""
    said: str
    """What it was told then."""
    reason: str
    outcome: dict[str, object] | None
    """From ENDING on: the final attributes (PS3.18 F.2) and the state they belong to."""
