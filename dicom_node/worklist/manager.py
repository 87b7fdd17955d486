"""What a performer of Unified Procedure Steps needs of a worklist manager: four questions (PS3.4 CC.2).

Two ways to ask them: `dimse.py` (UPS Pull, PS3.4 CC.3) and `ups_rs.py` (UPS-RS, PS3.18 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from pydicom.dataset import Dataset

from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import Item

MOST_ITEMS = 1000
"""Answers to one search that are looked at; the others come with the next one."""


class Said(Enum):
    """What a manager makes of a request to change an item."""

    DONE = "done"
    """Also where the item was in the requested state already (0xB304, 0xB306)."""
    NOT_OURS = "not ours"
    """The Transaction UID is not the one it was claimed under (0xC301)."""
    CONFLICT = "conflict"
    """Not in the state the item is in (0xC300, 0xC302, 0xC310): what that is, `get` says."""
    GONE = "gone"
    """It has no such item (0xC307)."""
    REFUSED = "refused"
    """Something else is wrong with the request (0xC304 ...): another time, or after a change there."""


@dataclass(frozen=True, slots=True)
class Reply:
    said: Said
    why: str = ""
    """For the operator, where it was not DONE."""


@dataclass(frozen=True, slots=True)
class Sought:
    """Which items are looked for: SCHEDULED ones with these codes (value, scheme)."""

    workitem: tuple[str, str]
    station: tuple[str, str] | None = None


class Manager(Protocol):
    """Each call raises PeerUnreachable where no answer came, PeerRefused where this node is not let in.

    No answer does not mean that nothing was done.
    """

    def search(self, sought: Sought) -> Sequence[Item]:
        """Items that match, as far as the manager matches; what cannot be read is left out."""

    def get(self, uid: UID) -> Item | None:
        """What it says of an item; None where it has none."""

    def update(self, uid: UID, transaction_uid: UID, changes: Dataset) -> Reply:
        """N-SET of a claimed item."""

    def change_state(self, uid: UID, transaction_uid: UID, state: str) -> Reply:
        """N-ACTION "Change UPS State" to IN PROGRESS, COMPLETED or CANCELED."""
