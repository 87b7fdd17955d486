"""What a peer may send in answer to a request, fragment by fragment: hostile bytes, too much, too soon."""

from __future__ import annotations

import queue
import struct
import threading
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.errors import RetrieveError
from dicom_node.scu import conversation
from dicom_node.scu.conversation import Conversation, Offer, _Listener, command_set, elements

COMMAND, LAST = 1, 2
C_STORE_RQ, C_FIND_RSP, C_ECHO_RQ = 0x0001, 0x8020, 0x0030
MR = "1.2.840.10008.5.1.4.1.1.4"
CONTEXT = SimpleNamespace(abstract_syntax=MR, transfer_syntax=["1.2.840.10008.1.2.1"])


class Sink:
    """Takes a data set, and counts."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.closed = False

    def write(self, fragment: bytes) -> None:
        self.size_bytes += len(fragment)

    def close(self) -> None:
        self.closed = True


def listener(*, stores: bool = True) -> tuple[_Listener, list[Sink]]:
    sinks: list[Sink] = []

    def take(offer: Offer) -> Any:
        sinks.append(Sink())
        return sinks[-1]

    association = SimpleNamespace(_accepted_cx={1: CONTEXT}, acceptor=SimpleNamespace(maximum_length=16382))
    made = _Listener(association, take, stores=stores)
    return made, sinks


def hear(made: _Listener, pdvs: Iterable[bytes], context_id: int = 1) -> None:
    for pdv in pdvs:
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, pdv))
        made.receive_primitive(primitive)


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def command(field: int, *, data: bool) -> bytes:
    """One whole command set as one fragment."""
    values = {
        0x0002: MR.encode() + b"\0", 0x0100: us(field), 0x0110: us(1), 0x0120: us(1),
        0x0800: us(0x0001 if data else 0x0101), 0x0900: us(0xFF00), 0x1000: b"1.2.3\0",
    }  # fmt: skip
    return bytes([COMMAND | LAST]) + command_set(values)


def complaint(made: _Listener) -> str:
    with pytest.raises(RetrieveError) as caught:
        while True:
            made.take(0.0)
    return str(caught.value)


def test_a_sub_operation_is_written_fragment_by_fragment() -> None:
    made, sinks = listener()

    hear(made, [command(C_STORE_RQ, data=True), b"\0" + bytes(1000), b"\0" + bytes(500)])
    before = [sink.size_bytes for sink in sinks]
    hear(made, [b"\2" + bytes(10)])

    assert ([1500], [1510]) == (before, [sink.size_bytes for sink in sinks])
    assert "1.2.3" == getattr(made.take(0.0), "sop_instance_uid", None)


@pytest.mark.parametrize(
    ("pdvs", "sentence"),
    [
        ([b""], "sent an empty fragment"),
        ([b"\2data"], "sent a data set that belongs to no message"),
        ([command(C_ECHO_RQ, data=False)], "sent a message that has no place in an answer"),
        ([command(C_STORE_RQ, data=True)] * 2, "sent a message within a message"),
        ([b"\1" + bytes(9000)] * 2, "a command set of no reasonable length"),
        ([b"\3\0\0\2"], "sent a command set that ends within an element"),
        ([b"\3" + struct.pack("<HHI", 8, 5, 0)], "sent a command set with what is no command element"),
        ([b"\3"], "sent a command set without a number in (0000,0100)"),
    ],
)
def test_what_has_no_place_ends_it(pdvs: list[bytes], sentence: str) -> None:
    """With a sentence, and nothing more is heard of that peer."""
    made, _ = listener()

    hear(made, [*pdvs, command(C_FIND_RSP, data=False)])

    assert sentence in complaint(made)
    with pytest.raises(queue.Empty):
        made.take(0.0)


def test_a_context_that_was_not_agreed_on_ends_it() -> None:
    made, _ = listener()

    hear(made, [command(C_FIND_RSP, data=False)], context_id=3)

    assert "presentation context that was not agreed on" in complaint(made)


def test_a_query_takes_no_sub_operation() -> None:
    made, sinks = listener(stores=False)

    hear(made, [command(C_STORE_RQ, data=True)])

    assert "has no place in an answer" in complaint(made)
    assert [] == sinks


def test_sub_operations_that_nobody_answered_are_few() -> None:
    """Each holds a file: a peer that does not wait for its answers is cut off, and its files go."""
    made, sinks = listener()

    hear(made, [command(C_STORE_RQ, data=True), b"\2data"] * 100)

    assert 9 == len(sinks)
    assert "sends more, and sooner, than it was asked for" in complaint(made)
    made.close()
    assert sinks[-1].closed


def test_answers_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In their number as in their length; what was looked at does not count any more."""
    monkeypatch.setattr(conversation, "WAITING_BYTES", 4096)
    slow, _ = listener()
    quick, _ = listener()

    hear(slow, [command(C_FIND_RSP, data=True), b"\2" + bytes(512)] * 5)
    for _ in range(50):
        hear(quick, [command(C_FIND_RSP, data=True), b"\2" + bytes(512)])
        quick.take(0.0)

    assert "sends more, and sooner, than it was asked for" in complaint(slow)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=8))
def test_no_bytes_raise_in_the_reader(pdvs: list[bytes]) -> None:
    """An exception there would kill pynetdicom's thread, and the wait would last its full time."""
    made, _ = listener()

    hear(made, pdvs)
    hear(made, [command(C_FIND_RSP, data=False)[:1] + b"".join(pdvs)])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.integers(1, 0xFFFF), st.binary(max_size=40)))
def test_command_sets_go_there_and_back(values: dict[int, bytes]) -> None:
    decoded = elements(command_set(values))

    assert values == {element: value for element, value in decoded.items() if element}


def test_an_association_that_is_over_is_not_waited_for() -> None:
    """pynetdicom's loop, which would pause, has ended with it."""
    over = SimpleNamespace(
        _accepted_cx={}, _reactor_checkpoint=threading.Event(), _is_paused=False, is_alive=lambda: False
    )
    started = time.monotonic()

    with (
        pytest.raises(RetrieveError, match="PACS ended the association"),
        Conversation(over, "PACS", 60.0).open(),
    ):
        pass

    assert time.monotonic() - started < 30.0
