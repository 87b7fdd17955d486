"""Something slow is asked once at a time, and waited for no longer than told."""

from __future__ import annotations

import threading

import pytest

from dicom_node.errors import LedgerUnavailable
from dicom_node.web.single_flight import SingleFlight


def test_the_answer_comes_through() -> None:
    """Each time anew."""
    numbers = iter(range(9))
    flight = SingleFlight(lambda: next(numbers))

    assert [0, 1] == [flight.within(20, else_=-1), flight.within(20, else_=-1)]


def test_what_hangs_hangs_once() -> None:
    """However often it is asked for, one call is under way; when it ends, the next may begin."""
    release, calls = threading.Event(), []

    def hang() -> int:
        calls.append(1)
        release.wait(20)
        return 7

    flight = SingleFlight(hang)

    assert [-1] * 5 == [flight.within(0.01, else_=-1) for _ in range(5)]
    assert 1 == len(calls)
    release.set()
    assert 7 == flight.within(20, else_=-1)


def test_what_it_raises_is_raised() -> None:
    """An error is no timeout."""

    def fail() -> int:
        raise LedgerUnavailable

    with pytest.raises(LedgerUnavailable):
        SingleFlight(fail).within(20, else_=-1)
