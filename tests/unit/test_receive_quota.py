"""How much one peer may send, and when it may again."""

from __future__ import annotations

import pytest

from dicom_node.config import Peer
from dicom_node.receive.quota import Quota, QuotaReached


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def quota(clock: Clock, **limits: object) -> Quota:
    peer = {"name": "scanner", "ae_title": "SCANNER", "host": "127.0.0.1", **limits}
    return Quota(Peer.model_validate(peer), clock)


def test_without_limits_as_many_as_come() -> None:
    """0 is no limit, as the configuration says."""
    unlimited = quota(Clock())

    for _ in range(1000):
        unlimited.begin()
        unlimited.add(10**12)


def test_objects_in_a_minute() -> None:
    """The third one of two is refused, as out of resources; a minute later there is room again."""
    clock = Clock()
    two = quota(clock, max_instances_per_minute=2)
    two.begin()
    two.begin()
    with pytest.raises(QuotaReached, match="max_instances_per_minute") as refused:
        two.begin()
    assert (0xA700, 503) == (refused.value.dimse_status, refused.value.http_status)

    clock.now = 59.9
    with pytest.raises(QuotaReached):
        two.begin()
    clock.now = 60.0
    two.begin()


def test_bytes_in_an_hour() -> None:
    """What passes the limit still comes in; the next one is refused until the hour is over."""
    clock = Clock()
    one_gb = quota(clock, max_gb_per_hour=1.0)
    one_gb.begin()
    one_gb.add(1_000_000_000)
    with pytest.raises(QuotaReached, match="max_gb_per_hour"):
        one_gb.begin()

    clock.now = 3600.0
    one_gb.begin()
