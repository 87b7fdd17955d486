"""What a peer said it has of a study, kept to be compared with what is here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dicom_node.domain.identity import UID


@dataclass(frozen=True, slots=True)
class Expectation:
    """So many instances of a series, of those that this node takes, were at `peer` at `asked_at`."""

    study_uid: UID
    series_uid: UID
    peer: str
    instances: int
    asked_at: datetime
