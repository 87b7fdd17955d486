"""When an object is sent again, and when the node gives up. Pure: no clock, no dice of its own."""

from __future__ import annotations

from datetime import datetime, timedelta

from dicom_node.config import Deliver

JITTER = 0.25
"""A pause is up to this part shorter, so that destinations and nodes do not call in step."""


def pause_s(attempts: int, settings: Deliver, dice: float) -> float:
    """Seconds to wait after attempt number `attempts` (from 1); `dice` is from 0 to 1.

    Doubles from `retry_after_s` with each attempt and stays at `retry_at_most_s`.
    """
    doubled = settings.retry_after_s * 2.0 ** min(max(attempts, 1) - 1, 40)  # 2**1024 is no float
    return min(doubled, settings.retry_at_most_s) * (1.0 - JITTER * dice)


def gives_up(scheduled_at: datetime, now: datetime, settings: Deliver) -> bool:
    """Whether an attempt that failed at `now` was the last.

    Only an attempt made after `give_up_after_days` is the last one, so that an outage of just
    that length still ends with everything delivered.
    """
    return now - scheduled_at > timedelta(days=settings.give_up_after_days)
