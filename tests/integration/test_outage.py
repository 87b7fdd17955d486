"""A week without an answer, then a bad line: every result is in the PACS once, as it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.outage import run


@pytest.mark.timeout(120)
def test_deliveries_over_a_bad_line_arrive_once_and_unchanged(tmp_path: Path) -> None:
    """Connections are refused, cut in requests and in answers, delayed, silent and repeated whole;
    `make outage` is the same with 5,000 deliveries."""
    told = run(tmp_path, 64, seed=4)

    assert 64 == told.deliveries
    assert told.attempts > 64 * (1 + told.calls_while_down)  # the line did harm
    assert {"cut request", "cut answer", "repeat"} <= set(told.faults)
