"""Statuses of C-FIND, C-GET and C-MOVE: the tables of PS3.4 C.4 and PS3.7 Annex C, typed in by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dicom_node.dicom.query_status import TABLE, Outcome, Service, classify
from dicom_node.errors import InvalidValue

FIND, GET, MOVE = Service.FIND, Service.GET, Service.MOVE
PENDING, SUCCESS, INCOMPLETE = Outcome.PENDING, Outcome.SUCCESS, Outcome.INCOMPLETE
LATER, REFUSED = Outcome.RETRY_LATER, Outcome.REFUSED

C_FIND = {  # PS3.4 Table C.4-1
    0xA700: LATER, 0xA900: REFUSED, 0xC000: LATER, 0xC123: LATER, 0xCFFF: LATER, 0xFE00: LATER,
    0x0000: SUCCESS, 0xFF00: PENDING, 0xFF01: PENDING, 0x0122: REFUSED,
}  # fmt: skip
C_MOVE = {  # PS3.4 Table C.4-2
    0xA701: LATER, 0xA702: LATER, 0xA801: REFUSED, 0xA900: REFUSED, 0xAA00: REFUSED, 0xAA04: REFUSED,
    0xC000: LATER, 0xCFFF: LATER, 0xFE00: LATER, 0xB000: INCOMPLETE, 0x0000: SUCCESS, 0xFF00: PENDING,
    0x0122: REFUSED, 0x0124: REFUSED, 0x0210: LATER, 0x0211: REFUSED, 0x0212: REFUSED,
}  # fmt: skip
C_GET = {  # PS3.4 Table C.4-3
    0xA701: LATER, 0xA702: LATER, 0xA900: REFUSED, 0xAA00: REFUSED, 0xAA04: REFUSED, 0xC000: LATER,
    0xCFFF: LATER, 0xFE00: LATER, 0xB000: INCOMPLETE, 0x0000: SUCCESS, 0xFF00: PENDING, 0x0122: REFUSED,
}  # fmt: skip


@pytest.mark.parametrize(
    ("service", "status", "outcome"),
    [
        (service, status, outcome)
        for service, table in ((FIND, C_FIND), (MOVE, C_MOVE), (GET, C_GET))
        for status, outcome in table.items()
    ],
)
def test_each_line_of_the_tables(service: Service, status: int, outcome: Outcome) -> None:
    """A status means what the service's own table says, and its sentence shows the number."""
    said = classify(service, status)

    assert outcome is said.outcome
    assert f"0x{status:04X}" in said.sentence


def test_only_a_find_is_pending_without_optional_keys() -> None:
    """0xFF01 stands in Table C.4-1 alone: at C-GET it must not keep the request open for ever."""
    assert [PENDING, LATER, LATER] == [classify(service, 0xFF01).outcome for service in (FIND, GET, MOVE)]


def test_every_number_has_a_meaning() -> None:
    """No status raises, an unknown one never counts as success or as pending; what is no number does."""
    known = {0x0000, 0xFF00, 0xFF01}
    for service in Service:
        for status in range(0x10000):
            good = classify(service, status).outcome in (SUCCESS, PENDING)
            assert not good or status in known, hex(status)
    with pytest.raises(InvalidValue):
        classify(FIND, 0x10000)


def test_the_rows_do_not_overlap() -> None:
    """Which line counts does not depend on their order."""
    for service in Service:
        ranges = sorted((row.first, row.last) for row in TABLE if service in row.services)
        assert all(last < first for (_, last), (first, _) in pairwise(ranges))
