"""When an object is sent again, and when the node gives up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dicom_node.config import Deliver
from dicom_node.deliver.backoff import JITTER, gives_up, pause_s

SETTINGS = Deliver(retry_after_s=10.0, retry_at_most_s=1800.0, give_up_after_days=7.0)
THEN = datetime(2026, 1, 1, tzinfo=UTC)


def test_pauses_double_up_to_the_cap() -> None:
    """10, 20, 40 ... seconds, then 1800 for ever."""
    pauses = [pause_s(attempts, SETTINGS, dice=0.0) for attempts in (1, 2, 3, 8, 9, 10, 1_000_000)]

    assert [10.0, 20.0, 40.0, 1280.0, 1800.0, 1800.0, 1800.0] == pauses


def test_jitter_only_shortens() -> None:
    """The cap is a promise: with any dice the pause lies within a quarter below it."""
    pauses = [pause_s(20, SETTINGS, dice / 100) for dice in range(101)]

    assert 1800.0 == max(pauses)
    assert 1800.0 * (1 - JITTER) == min(pauses)


def test_an_outage_of_just_the_limit_does_not_lose_anything() -> None:
    """Only an attempt made later than `give_up_after_days` is the last one."""
    limit = timedelta(days=7)

    assert not gives_up(THEN, THEN + limit, SETTINGS)
    assert gives_up(THEN, THEN + limit + timedelta(seconds=1), SETTINGS)
