"""Headers of what was received are read once and kept; the unreadable keeps its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.assemble.indexer import index
from dicom_node.assemble.study import read_study
from dicom_node.domain.identity import UID
from dicom_node.store.catalog import Arrival
from support import mr
from support.ledger import Books
from support.ledger import books as opened_books


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """An empty ledger, closed when the test ends: a later test may look at what files there are."""
    with opened_books(f"sqlite:///{tmp_path}/node.sqlite3", tmp_path) as opened:
        yield opened


def receive(books: Books, content: bytes, uid: str, study: str) -> None:
    arrival = Arrival(
        sop_instance_uid=UID(uid), sop_class_uid=UID(mr.MR_IMAGE), study_uid=UID(study),
        transfer_syntax_uid=UID("1.2.840.10008.1.2.1"), series_uid=UID(f"{study}.1"), peer="pacs",
    )  # fmt: skip
    books.catalog.record(arrival, books.archive.put(content), len(content))


def test_headers_are_read_in_batches_and_kept(books: Books) -> None:
    """`limit` at a time, none twice; what the ledger gives back makes the same stacks."""
    series = mr.mr_series(slices=6)
    for ds in series:
        receive(books, mr.file_bytes(ds), ds.SOPInstanceUID, ds.StudyInstanceUID)

    assert [4, 2, 0] == [index(books.catalog, 4) for _ in range(3)]
    uid = UID(series[0].StudyInstanceUID)
    study = read_study(uid, 1, books.catalog.instances(uid))
    assert ["1: T2 axial, 6 slices"] == [stack.label for stack in study.stacks]


def test_an_unreadable_object_stops_nobody_and_is_said(books: Books) -> None:
    """It stays in the archive with its reason, joins no stack, and is named in the study's refusals."""
    series = mr.mr_series(slices=6)
    study_uid = UID(series[0].StudyInstanceUID)
    receive(books, b"no DICOM at all", "1.2.3", study_uid)
    for ds in series:
        receive(books, mr.file_bytes(ds), ds.SOPInstanceUID, study_uid)

    assert 7 == index(books.catalog)

    assert {UID("1.2.3"): "not a DICOM file"} == books.catalog.unreadable(study_uid)
    study = read_study(study_uid, 1, books.catalog.instances(study_uid))
    assert 1 == len(study.stacks)
    assert ["series 1: 1 object could not be read"] == [r.why for r in study.refusals]
