"""The C-STORE response statuses, typed by hand from PS3.4 B.2.3 and PS3.7 Annex C."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dicom_node.dicom.commitment import refusal
from dicom_node.dicom.status import TABLE, Kind, classify
from dicom_node.errors import InvalidValue

STORED = (0x0000,)
STORED_WITH_WARNING = (0xB000, 0xB006, 0xB007, 0x0001, 0x0107, 0x0116, 0x0111)
OUT_OF_RESOURCES = (0xA700, 0xA701, 0xA7FF, 0x0213)
MAY_PASS = (*OUT_OF_RESOURCES, 0x0110, 0x0210)
STAYS_REFUSED = (
    0xA900, 0xA9FF, 0xC000, 0xC123, 0xCFFF, 0x0105, 0x0106, 0x0112, 0x0115, 0x0117,
    0x0118, 0x0119, 0x0120, 0x0121, 0x0122, 0x0124, 0x0211, 0x0212,
)  # fmt: skip
EXPECTED = (
    [(code, Kind.SUCCESS) for code in STORED]
    + [(code, Kind.WARNING) for code in STORED_WITH_WARNING]
    + [(code, Kind.RETRY_LATER) for code in MAY_PASS]
    + [(code, Kind.REFUSED) for code in STAYS_REFUSED]
)


@pytest.mark.parametrize(("status", "kind"), EXPECTED, ids=[f"{status:04X}" for status, _ in EXPECTED])
def test_each_status_of_the_standard_has_its_consequence(status: int, kind: Kind) -> None:
    """Stored, stored with a warning, may pass, or stays refused."""
    assert kind == classify(status).kind


def test_every_number_is_classified_with_a_sentence() -> None:
    """No answer of a peer, however odd, is without a meaning that shows the number."""
    sentences = [classify(status).sentence for status in range(0x10000)]

    assert [] == [status for status, text in enumerate(sentences) if f"0x{status:04X}" not in text]


RANGES = (  # (first, last, consequence), in order and without a gap: PS3.4 Table B.2-1, PS3.7 Annex C
    (0x0000, 0x0000, Kind.SUCCESS), (0x0001, 0x0001, Kind.WARNING), (0x0002, 0x0104, Kind.RETRY_LATER),
    (0x0105, 0x0106, Kind.REFUSED), (0x0107, 0x0107, Kind.WARNING), (0x0108, 0x0110, Kind.RETRY_LATER),
    (0x0111, 0x0111, Kind.WARNING), (0x0112, 0x0115, Kind.REFUSED), (0x0116, 0x0116, Kind.WARNING),
    (0x0117, 0x0119, Kind.REFUSED), (0x011A, 0x011F, Kind.RETRY_LATER), (0x0120, 0x0124, Kind.REFUSED),
    (0x0125, 0x0210, Kind.RETRY_LATER), (0x0211, 0x0212, Kind.REFUSED),
    (0x0213, 0xA7FF, Kind.RETRY_LATER), (0xA800, 0xA800, Kind.REFUSED), (0xA801, 0xA8FF, Kind.RETRY_LATER),
    (0xA900, 0xA9FF, Kind.REFUSED), (0xAA00, 0xAFFF, Kind.RETRY_LATER), (0xB000, 0xBFFF, Kind.WARNING),
    (0xC000, 0xCFFF, Kind.REFUSED), (0xD000, 0xFFFF, Kind.RETRY_LATER),
)  # fmt: skip
"""The whole range. What no table names is tried again, so that nothing is given up by mistake."""


def test_the_whole_range_has_the_consequence_typed_here() -> None:
    """Each of the 65,536 numbers."""
    expected = [kind for first, last, kind in RANGES for _ in range(first, last + 1)]

    assert 0x10000 == len(expected)
    assert expected == [classify(status).kind for status in range(0x10000)]


ASKED = (0x0000, 0x0001, 0x0107, 0x0116, *range(0xB000, 0xC000))
N_ACTION_FAILURES = (
    0x0110, 0x0112, 0x0114, 0x0115, 0x0117, 0x0118, 0x0119, 0x0122, 0x0123, 0x0124,
    0x0210, 0x0211, 0x0212, 0x0213,
)  # fmt: skip
"""PS3.7 10.1.4.1.10: what an N-ACTION for storage commitment (PS3.4 J.3.2) may be answered with."""


def test_every_answer_to_a_request_for_commitment_has_a_meaning() -> None:
    """Success and warnings took it; every other number is a reason that shows itself."""
    said = [refusal(status) for status in range(0x10000)]

    assert list(ASKED) == [status for status, why in enumerate(said) if not why]
    assert [] == [status for status, why in enumerate(said) if why and f"(0x{status:04X})" not in why]
    named = [status for status, why in enumerate(said) if why and not why.startswith("Unknown status")]
    assert list(N_ACTION_FAILURES) == named
    with pytest.raises(InvalidValue, match="65536"):
        refusal(0x10000)


def test_success_is_one_number_only() -> None:
    """Only 0x0000 is success: nothing else is taken for it by accident."""
    assert [0x0000] == [status for status in range(0x10000) if classify(status).kind is Kind.SUCCESS]


def test_only_warnings_count_as_stored_beside_success() -> None:
    """PS3.7 Annex C: warnings are 0x0001, 0x0107, 0x0116 and 0xBxxx; 0x0111 is explained in the table."""
    warned = {status for status in range(0x10000) if classify(status).kind is Kind.WARNING}

    assert {0x0001, 0x0107, 0x0111, 0x0116, *range(0xB000, 0xC000)} == warned


def test_an_unknown_failure_is_tried_again() -> None:
    """Trying again loses nothing; giving up would."""
    assert Kind.RETRY_LATER == classify(0xA801).kind
    assert Kind.RETRY_LATER == classify(0x7777).kind
    assert Kind.RETRY_LATER == classify(0xFF00).kind


def test_rows_do_not_overlap() -> None:
    """A status has one meaning."""
    rows = sorted(TABLE, key=lambda row: row.first)

    assert [] == [(a, b) for a, b in pairwise(rows) if b.first <= a.last]


def test_what_is_no_status_is_refused_by_its_value() -> None:
    """A status is 16 bits, PS3.7 E.1."""
    with pytest.raises(InvalidValue, match="65536"):
        classify(0x10000)
