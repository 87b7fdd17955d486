"""How many may be here at a time: connections that have not said who they are, and associations.

A connection is counted apart, and by address, until it becomes an association; so silent clients
take no association's place. Where a number is reached, the one that is of least use makes room: the oldest
unannounced connection, or an association that does nothing. Only when all are at work for a while is
the newcomer turned away.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from dicom_node.receive.wire import Wire

UNANNOUNCED_PER_ADDRESS = 64
"""Connections of one address that have not asked for an association, or not to the end."""
UNANNOUNCED = 256
IDLE_S = 5.0
"""An association without progress for so long makes room for another, where there is none left."""
NOTHING_SAID_S = 0.1
"""So does one that has sent neither a whole message nor a good part of one since it began, sooner: who
opens associations to hold their places holds each only so long."""
PLACE_WITHIN_S = 0.6
"""A newcomer waits so long for somebody to make room, before it is turned away."""
_LOOK_EVERY_S = 0.02


class Busy(Protocol):
    """What is asked of an association."""

    messages: int
    progress: float


@dataclass(eq=False, slots=True)
class Guest:
    """One connection. `association` and `peer` are set once it is let in."""

    wire: Wire
    address: str
    since: float = field(default_factory=time.monotonic)
    peer: str = ""
    association: Busy | None = None


class Places:
    """Mutable, under its lock: who is here."""

    def __init__(self, associations: int) -> None:
        self._associations = associations
        self._lock = threading.Lock()
        self._unannounced: dict[Guest, None] = {}  # oldest first
        self._let_in: set[Guest] = set()

    def enter(self, wire: Wire, address: str) -> Guest:
        """Count a new connection. If there are too many, the oldest of its address, or of all, is ended."""
        guest = Guest(wire, address)
        with self._lock:
            neighbours = [other for other in self._unannounced if other.address == address]
            if len(neighbours) >= UNANNOUNCED_PER_ADDRESS:
                self._end(neighbours[0])
            elif len(self._unannounced) >= UNANNOUNCED:
                self._end(next(iter(self._unannounced)))
            self._unannounced[guest] = None
        return guest

    def let_in(self, guest: Guest, association: Busy, peer: str, at_most: int) -> bool:
        """Make the connection an association of `peer`, which may have `at_most`; False: no place is left."""
        until = time.monotonic() + PLACE_WITHIN_S
        while not self._took_place(guest, association, peer, at_most):
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_EVERY_S)  # its own thread; the others go on
        return True

    def _took_place(self, guest: Guest, association: Busy, peer: str, at_most: int) -> bool:
        with self._lock:
            same = [other for other in self._let_in if other.peer == peer]
            crowd = same if len(same) >= at_most else list(self._let_in)
            if len(same) >= at_most or len(self._let_in) >= self._associations:
                idle = _idlest(crowd)
                if idle is None:
                    return False
                self._let_in.remove(idle)
                idle.wire.shut()
            self._unannounced.pop(guest, None)
            association.progress = time.monotonic()
            guest.association, guest.peer = association, peer
            self._let_in.add(guest)
            return True

    def leave(self, guest: Guest) -> None:
        with self._lock:
            self._unannounced.pop(guest, None)
            self._let_in.discard(guest)

    def empty(self) -> bool:
        """Whether no association is left."""
        with self._lock:
            return not self._let_in

    def end_all(self) -> None:
        with self._lock:
            for guest in (*self._unannounced, *self._let_in):
                guest.wire.shut()

    def _end(self, guest: Guest) -> None:
        del self._unannounced[guest]
        guest.wire.shut()


def _idlest(crowd: list[Guest]) -> Guest | None:
    """The one that has done nothing for longest, if that is long enough."""
    now = time.monotonic()
    idle = [(since, number) for number, guest in enumerate(crowd) if (since := _idle_s(guest, now)) > 0.0]
    return crowd[max(idle)[1]] if idle else None


def _idle_s(guest: Guest, now: float) -> float:
    """Seconds past the allowed ones; 0 or less where it is at work."""
    if guest.association is None:
        return 0.0
    allowed = IDLE_S if guest.association.messages else NOTHING_SAID_S
    return now - guest.association.progress - allowed
