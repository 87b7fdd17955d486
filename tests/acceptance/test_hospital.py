"""The node beside a PACS: a real study goes in by C-STORE, its results stand in the PACS."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.orthanc import Orthanc
from support.ports import wait_until
from support.results import data_set_bytes
from support.served import ServedNode
from support.storescu import storescu

RESULTS_WITHIN_S = 240.0
SR, SEG, PM, SC = (
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.30",
    "1.2.840.10008.5.1.4.1.1.7",
)


_SENT = "SELECT digest FROM results WHERE id IN (SELECT result_id FROM deliveries)"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_sent_twice_has_its_results_in_the_pacs_once(
    prostatex: Path, pacs: Orthanc, node: ServedNode
) -> None:
    """Two SR, SEG, Parametric Map and Secondary Capture stand in the study's own place in Orthanc, once,
    also after the whole study is sent again."""
    images = [path for path in prostatex.rglob("*") if path.is_file()]
    assert 0 == storescu(prostatex, pacs.dicom_port, called=pacs.ae_title).code

    first = storescu(prostatex, node.port)
    assert (0, len(images)) == (first.code, len(first.acknowledged)), first.output
    wait_until(node.idle, RESULTS_WITHIN_S, lambda: f"results delivered; the log ends\n{node.log_tail()}")
    delivered = results_in(pacs)
    assert {SR: 2, SEG: 1, PM: 1, SC: 1} == Counter(delivered.values()), node.log_tail()
    assert 1 == len(pacs.studies())
    assert len(images) + 5 == pacs.count()

    again = storescu(prostatex, node.port)
    assert (0, len(images)) == (again.code, len(again.acknowledged)), again.output
    wait_until(node.idle, RESULTS_WITHIN_S, "nothing more to do")
    assert delivered == results_in(pacs)
    assert len(images) + 5 == pacs.count()
    assert [(1,)] == node.rows("SELECT count(*) FROM jobs")

    assert data_sets_of(node) == {data_set_bytes(pacs.file(pacs.by_sop_instance()[uid])) for uid in delivered}
    assert 0 == node.stop()


def results_in(pacs: Orthanc) -> dict[str, str]:
    """SOP Instance UID -> SOP Class UID of what in the PACS is no image of the scanner."""
    found = {}
    for uid, instance in pacs.by_sop_instance().items():
        sop_class = pacs.get(f"/instances/{instance}/tags?simplify")["SOPClassUID"]
        if sop_class in (SR, SEG, PM, SC):
            found[uid] = sop_class
    return found


def data_sets_of(node: ServedNode) -> set[bytes]:
    """The data sets of the results it sent, as they stand in its archive."""
    objects = node.folder / "var" / "objects"
    digests = [str(digest) for (digest,) in node.rows(_SENT)]
    return {data_set_bytes((objects / digest[:2] / digest).read_bytes()) for digest in digests}
