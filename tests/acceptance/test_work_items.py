"""A RIS hands out work, Orthanc has the images and gets the results: `dicom-node serve` in between."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support import mr
from support.archive_pacs import QUERY_RETRIEVE, fill
from support.orthanc import Orthanc, orthanc
from support.ports import wait_until
from support.served import PROGRAM, ServedNode
from support.ups_book import scheduled
from support.ups_scp import UpsRest, UpsScp

TOYS = Path(__file__).parent.parent / "support" / "toys"
STUDY = mr.mr_series(slices=6)
WITHIN_S = 180.0
WORKLIST = """
[[peer]]
name = "ris"
ae_title = "RIS"
host = "127.0.0.1"
port = {port}
may_send = false
{url}
[[worklist]]
peer = "ris"
pipeline = "answers"
workitem = "110004^DCM"
station = "AI1^99SITE"
fetch_from = "pacs"
poll_s = 1
"""


def performer(folder: Path, pacs: Orthanc, ris: UpsScp | UpsRest) -> ServedNode:
    node = ServedNode(folder, pacs.dicom_port, stable_after_s=600.0)
    text = node.config.read_text(encoding="utf-8")
    for old, new in (
        ('data_dir = "var"', f'data_dir = "var"\npipelines_dir = "{TOYS}"'),
        (f"port = {pacs.dicom_port}", f'port = {pacs.dicom_port}\nretrieve = "get"'),
        ('pipeline = "uterine_mri"', 'pipeline = "answers"'),
        ('from = ["pacs", "scanner"]', 'from = ["ris"]'),
    ):
        assert old in text
        text = text.replace(old, new)
    url = f'url = "{ris.peer.url}"' if ris.peer.url else ""
    node.config.write_text(text + WORKLIST.format(port=ris.port, url=url), encoding="utf-8")
    return node


def said(node: ServedNode, *arguments: str) -> str:
    command = [str(PROGRAM), *arguments, "--config", str(node.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", [UpsScp, UpsRest])
def test_what_the_ris_asks_for_is_in_the_pacs_and_referenced(
    tmp_path: Path, server: type[UpsScp] | type[UpsRest]
) -> None:
    """Nobody sends the study; killed as a whole while it computes or delivers, the node ends the item once,
    with references to objects that Orthanc has. An item for another station is left alone.
    """  # fmt: skip
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE) as pacs, server() as ris:
        fill(pacs, STUDY)
        node = performer(tmp_path / "node", pacs, ris)
        try:
            node.start()
            ours = ris.book.add(scheduled("1.2.3.4", STUDY, station=("AI1", "99SITE")))
            ris.book.add(scheduled("1.2.3.5", STUDY, station=("AI2", "99SITE")))
            wait_until(lambda: ris.book.claims != [], WITHIN_S, node.log_tail)
            for process in node.tree():
                process.kill()
            node.stop()  # reaps what is dead
            node.start()
            wait_until(lambda: ris.book.ends != [], WITHIN_S, node.log_tail)
            wait_until(
                lambda: [("COMPLETED",)] == node.rows("SELECT step FROM work_items"), WITHIN_S, node.log_tail
            )
            listed = json.loads(said(node, "workitems", "--json"))
            checked = said(node, "check")
            log = node.log.read_text(encoding="utf-8")
        finally:
            node.stop()
        held = set(pacs.sop_instances())

    done = ris.book.items[ours].UnifiedProcedureStepPerformedProcedureSequence[0]
    outputs = {
        one.ReferencedSOPInstanceUID
        for output in done.OutputInformationSequence for one in output.ReferencedSOPSequence
    }  # fmt: skip
    assert [ours] == [uid for uid, _ in ris.book.claims]
    assert [(ours, "COMPLETED")] == ris.book.ends
    assert outputs
    assert outputs <= held
    assert ("AI1", "99SITE") == (
        done.PerformedStationNameCodeSequence[0].CodeValue,
        done.PerformedStationNameCodeSequence[0].CodingSchemeDesignator,
    )
    assert [("COMPLETED", ours, ["1"])] == [(one["step"], one["uid"], one["jobs"]) for one in listed]
    assert "worklist of ris: answers by" in checked
    assert "CANARY" not in log
