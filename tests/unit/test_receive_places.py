"""Who makes room: the oldest silent connection, then an association that does nothing; never one at work."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dicom_node.receive import places
from dicom_node.receive.places import Guest, Places
from dicom_node.receive.wire import Wire


@dataclass
class Doing:
    """As much of an association as is looked at; `idle_s` is how long it has done nothing, once inside."""

    messages: int = 1
    idle_s: float = 0.0
    progress: float = 0.0


class Street:
    """Real connections into a house."""

    def __init__(self, house: Places) -> None:
        self.house = house
        self.sockets: list[socket.socket] = []

    def comes(self, address: str = "192.0.2.1") -> tuple[Guest, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.sockets += [ours, theirs]
        return self.house.enter(_UnixWire(ours), address), theirs

    def close(self) -> None:
        for one in self.sockets:
            one.close()


class _UnixWire(Wire):
    """TCP options do not exist on a socket pair."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection


def is_ended(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        return theirs.recv(1) == b""
    except BlockingIOError:
        return False


@pytest.fixture
def street() -> Iterator[Street]:
    made = Street(Places(4))
    yield made
    made.close()


def let_in(street: Street, doing: Doing, peer: str = "a", at_most: int = 4) -> tuple[bool, socket.socket]:
    guest, theirs = street.comes()
    inside = street.house.let_in(guest, doing, peer, at_most)
    doing.progress = time.monotonic() - doing.idle_s
    return inside, theirs


def test_the_oldest_silent_connection_of_an_address_makes_room(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest ones stay: a good peer's is among them, and needs milliseconds."""
    monkeypatch.setattr(places, "UNANNOUNCED_PER_ADDRESS", 3)
    other = street.comes("192.0.2.2")[1]
    silent = [street.comes()[1] for _ in range(5)]

    assert [True, True, False, False, False] == [is_ended(theirs) for theirs in silent]
    assert not is_ended(other)


def test_the_oldest_of_all_makes_room_where_all_are_too_many(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many addresses they come from."""
    monkeypatch.setattr(places, "UNANNOUNCED", 3)
    silent = [street.comes(f"192.0.2.{number}")[1] for number in range(5)]

    assert [True, True, False, False, False] == [is_ended(theirs) for theirs in silent]


def test_an_association_is_no_silent_connection(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once let in it does not make room for connections that say nothing."""
    monkeypatch.setattr(places, "UNANNOUNCED_PER_ADDRESS", 2)
    _, theirs = let_in(street, Doing())
    for _ in range(5):
        street.comes()

    assert not is_ended(theirs)


def test_associations_at_work_keep_their_places(street: Street) -> None:
    """Then a further one is turned away."""
    inside = [let_in(street, Doing())[1] for _ in range(4)]

    assert not let_in(street, Doing())[0]
    assert not any(is_ended(theirs) for theirs in inside)


def test_one_that_does_nothing_makes_room(street: Street) -> None:
    """The one that is idle longest, of those that are idle long enough."""
    idle = (places.IDLE_S + 1, 0.0, places.IDLE_S + 9, places.IDLE_S - 1)
    inside = [let_in(street, Doing(idle_s=seconds))[1] for seconds in idle]

    assert let_in(street, Doing())[0]
    assert [False, False, True, False] == [is_ended(theirs) for theirs in inside]


def test_one_that_never_sent_a_message_makes_room_sooner(street: Street) -> None:
    """It may be one that drips bytes; a sender at work sends whole messages."""
    for _ in range(3):
        let_in(street, Doing(idle_s=places.IDLE_S - 1))
    _, dripping = let_in(street, Doing(messages=0, idle_s=places.IDLE_S - 2))

    assert let_in(street, Doing())[0]
    assert is_ended(dripping)


def test_a_peer_has_its_own_number(street: Street) -> None:
    """At its limit room is made among its own associations only; others' are left alone."""
    _, elsewhere = let_in(street, Doing(idle_s=places.IDLE_S + 99), peer="b")
    _, own = let_in(street, Doing(idle_s=places.IDLE_S + 1), peer="a", at_most=1)

    assert let_in(street, Doing(), peer="a", at_most=1)[0]
    assert (False, True) == (is_ended(elsewhere), is_ended(own))
    assert not let_in(street, Doing(), peer="a", at_most=1)[0]


def test_who_leaves_makes_room(street: Street) -> None:
    """And the house is empty when all have left."""
    guests = []
    for _ in range(4):
        guest, _ = street.comes()
        street.house.let_in(guest, Doing(), "a", 4)
        guests.append(guest)
    assert not street.house.empty()

    street.house.leave(guests[0])
    assert let_in(street, Doing())[0]
    for guest in guests[1:]:
        street.house.leave(guest)
    assert not street.house.empty()
