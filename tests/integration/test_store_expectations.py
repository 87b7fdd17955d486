"""What peers said they have: the latest answer of each counts, on both databases."""

from __future__ import annotations

from datetime import timedelta

from dicom_node.domain.expectation import Expectation
from dicom_node.domain.identity import UID
from dicom_node.store.expectations import Expectations
from support.ledger import START, STUDY, Books

ONE, TWO, THREE = UID("1.2.3.1.1"), UID("1.2.3.1.2"), UID("1.2.3.1.3")
LATER = START + timedelta(seconds=9)


def test_the_latest_answer_of_a_peer_replaces_its_earlier_one(store: Books) -> None:
    """Also series that it no longer has; what other peers said, and about other studies, stays."""
    said = Expectations(store.engine, store.clock)
    said.keep(STUDY, "pacs", {ONE: 5, TWO: 7}, START, "first")
    said.keep(STUDY, "archive", {ONE: 4}, START, "another")
    said.keep(UID("1.2.9"), "pacs", {ONE: 1}, START, "elsewhere")

    said.keep(STUDY, "pacs", {TWO: 9, THREE: 2}, LATER, "second")

    assert said.of(STUDY) == (
        Expectation(STUDY, ONE, "archive", 4, START),
        Expectation(STUDY, TWO, "pacs", 9, LATER),
        Expectation(STUDY, THREE, "pacs", 2, LATER),
    )
    assert 1 == len(said.of(UID("1.2.9")))
    assert ["first", "another", "second"] == [row.detail for row in store.history.of(STUDY)]


def test_a_peer_that_has_nothing_of_it_leaves_no_row(store: Books) -> None:
    said = Expectations(store.engine, store.clock)
    said.keep(STUDY, "pacs", {ONE: 5}, START, "first")

    said.keep(STUDY, "pacs", {}, LATER, "nothing any more")

    assert () == said.of(STUDY)
