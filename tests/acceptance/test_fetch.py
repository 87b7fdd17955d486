"""A PACS that sent only a part of a study, and a person who fetches another one beside the running node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support import mr
from support.archive_pacs import QUERY_RETRIEVE, fill
from support.orthanc import Orthanc, orthanc
from support.ports import free_port, wait_until
from support.served import PROGRAM, ServedNode
from support.storescu import storescu

TOYS = Path(__file__).parent.parent / "support" / "toys"
SENT, OTHER = mr.mr_series(slices=12), mr.mr_series(slices=5, study="another study")
WITHIN_S = 120.0


def node_beside(pacs: Orthanc, folder: Path, port: int, retrieve: str) -> ServedNode:
    """`serve` on `port`, with a route that retrieves what is missing."""
    node = ServedNode(folder, pacs.dicom_port, stable_after_s=600.0)
    text = node.config.read_text(encoding="utf-8")
    for old, new in (
        (f"port = {node.port}", f"port = {port}"),
        ('data_dir = "var"', f'data_dir = "var"\npipelines_dir = "{TOYS}"'),
        (f"port = {pacs.dicom_port}", f'port = {pacs.dicom_port}\nretrieve = "{retrieve}"'),
        ('pipeline = "uterine_mri"', 'pipeline = "answers"\nfetch = "missing"'),
        ('from = ["pacs", "scanner"]', 'from = ["pacs"]'),
    ):
        assert old in text
        text = text.replace(old, new)
    node.config.write_text(text, encoding="utf-8")
    node.port = port
    return node


def fetched(node: ServedNode, *arguments: str) -> tuple[int, str]:
    """`dicom-node fetch pacs ...`: exit code and output."""
    command = [str(PROGRAM), "fetch", "pacs", "--config", str(node.config), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(400)
@pytest.mark.parametrize("retrieve", ["get", "move"])
def test_twelve_images_of_which_nine_were_sent_are_one_revision_and_one_job(
    tmp_path: Path, retrieve: str
) -> None:
    """The node fetches the three; a person fetches a study that was never sent, beside the running node."""
    port = free_port()
    (tmp_path / "files").mkdir()
    for number, ds in enumerate(SENT[:9]):
        (tmp_path / "files" / f"{number}.dcm").write_bytes(mr.file_bytes(ds))
    known = {"DICOMNODE": ("127.0.0.1", port)}
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE, modalities=known) as pacs:
        fill(pacs, [*SENT, *OTHER])
        node = node_beside(pacs, tmp_path / "node", port, retrieve)
        try:
            node.start()
            sent = storescu(tmp_path / "files", node.port, calling=pacs.ae_title)
            assert (0, 9) == (sent.code, len(sent.acknowledged)), sent.output
            wait_until(node.idle, WITHIN_S, lambda: f"the study is done; the log ends\n{node.log_tail()}")

            assert [(1, 12)] == node.rows("SELECT revision, instances FROM revisions"), node.log_tail()
            assert [(1,)] == node.rows("SELECT count(*) FROM jobs")

            code, said = fetched(node, "--study", OTHER[0].StudyInstanceUID)
            assert 0 == code, said
            assert (
                "PACS 'pacs' has 5 objects of it in 1 series; this node takes 5 of them, 0 are here." in said
            )
            wait_until(
                lambda: node.idle() and [(2,)] == node.rows("SELECT count(*) FROM jobs"), WITHIN_S,
                lambda: f"the fetched study is done; the log ends\n{node.log_tail()}",
            )  # fmt: skip
            code, said = fetched(node, "--study", OTHER[0].StudyInstanceUID, "--missing", "--json")
            assert (0, 0) == (code, json.loads(said)["missing"])
            series = ("--series", SENT[0].SeriesInstanceUID, "--missing")
            code, said = fetched(node, "--study", SENT[0].StudyInstanceUID, *series)
            assert (0, True) == (code, "Nothing is missing here." in said), said
            assert 12 + 5 == node.rows("SELECT count(*) FROM instances")[0][0]
        finally:
            node.stop()


def test_what_could_not_be_had_is_exit_code_1(tmp_path: Path) -> None:
    """A study the PACS does not know, a peer that is not listed, a PACS that is down, no way to retrieve."""
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE) as pacs:
        fill(pacs, OTHER)
        node = node_beside(pacs, tmp_path / "node", free_port(), "no")
        unknown = fetched(node, "--study", "1.2.3")
        no_way = fetched(node, "--study", OTHER[0].StudyInstanceUID)
        no_uid = fetched(node, "--study", "not/a/uid")
    down = fetched(node, "--study", "1.2.3")

    assert (1, "PACS 'pacs' does not know it.\n") == unknown
    assert (1, True) == (no_way[0], 'set `retrieve` to "get" or "move"' in no_way[1])
    assert (1, True) == (no_uid[0], "not a UID (PS3.5 9.1)" in no_uid[1])
    assert (1, True) == (down[0], "refuses the connection: is it running" in down[1])
