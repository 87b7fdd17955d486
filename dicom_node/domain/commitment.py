"""What a destination says when it is asked to vouch for objects (storage commitment, PS3.4 Annex J)."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.identity import UID


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one transaction. A SOP instance stands in one of the two, or in none."""

    transaction_uid: UID
    kept: frozenset[str]
    """SOP Instance UIDs that the peer has taken responsibility for."""
    failed: dict[str, str]
    """SOP Instance UID -> why not."""
