"""Slides beside a PACS: sent by DCMTK, looked at cell by cell, results in Orthanc; killed on the way."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from dicom_node.domain.job import ResultKind
from support.orthanc import Orthanc
from support.ports import wait_until
from support.served import PROGRAM, ServedNode, served
from support.storescu import storescu

RESULTS_WITHIN_S = 400.0
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


@pytest.fixture(scope="module")
def cytology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 150 drawn cells on three focal planes."""
    return generated(tmp_path_factory.mktemp("slide"), "--count", "150", "--planes", "3", "--seed", "5")


def generated(folder: Path, *options: str) -> Path:
    command = [str(PROGRAM), "phantom", "slide", "--out", str(folder), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@contextmanager
def screening(folder: Path, pacs: Orthanc, pipeline: str) -> Iterator[ServedNode]:
    with served(folder / "node", pacs.dicom_port, pipeline=pipeline, stable_after_s=6.0) as node:
        yield node


def send(slide: Path, node: ServedNode) -> int:
    """Every DICOM file of the folder, in JPEG as it is; how many."""
    files = list(slide.rglob("*.dcm"))
    sent = storescu(slide, node.port, "-xy", "-R", "+sp", "*.dcm")
    assert (0, len(files)) == (sent.code, len(sent.acknowledged)), sent.output
    return len(files)


def kill(node: ServedNode) -> None:
    """SIGKILL to the whole tree, at once."""
    for process in node.tree():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert node.process is not None
    node.process.wait()


def delivered(node: ServedNode, pacs: Orthanc) -> Counter[str]:
    """The results that stand in the PACS, by kind; waits until there is nothing more to do."""
    wait_until(node.idle, RESULTS_WITHIN_S, lambda: f"results delivered; the log ends\n{node.log_tail()}")
    there = pacs.by_sop_instance()
    return Counter(
        str(kind) for kind, uid in node.rows("SELECT kind, sop_instance_uid FROM results") if uid in there
    )


def chosen(node: ServedNode) -> list[str]:
    plans = [json.loads(str(plan)) for (plan,) in node.rows("SELECT plan FROM jobs")]
    return [str(choice["stack"]) for plan in plans for choice in plan["choices"]]


FORMS = {ResultKind.SR: 1, ResultKind.ROI: 1, ResultKind.SC: 1, ResultKind.ANN: 1}
"""What every slide with cells gets, beside maps."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slide_goes_in_and_its_results_stand_in_the_pacs(
    cytology: Path, pacs: Orthanc, tmp_path: Path
) -> None:
    """Report, outlines, page and annotations, once; label and overview are kept and no pipeline sees them."""
    with screening(tmp_path, pacs, "cervical_cytology") as node:
        sent = send(cytology, node)

        found = delivered(node, pacs)

        assert FORMS.items() <= found.items(), node.log_tail()
        assert all("3 planes" in label for label in chosen(node))
        assert [(sent,)] == node.rows("SELECT count(*) FROM instances")
        send(cytology, node)
        assert found == delivered(node, pacs)
        assert [(1, "COMPLETED")] == node.rows("SELECT count(*), min(state) FROM jobs")
        assert 0 == node.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_a_slide_it_goes_on(cytology: Path, pacs: Orthanc, tmp_path: Path) -> None:
    """SIGKILL to the whole process tree while cells are classified: after the next start each result is
    there once, and what a killed job had kept is gone."""
    with screening(tmp_path, pacs, "cervical_cytology") as node:
        send(cytology, node)
        working = "SELECT count(*) FROM jobs WHERE state = 'IN PROGRESS' AND progress > 0.1"
        wait_until(lambda: node.rows(working) == [(1,)], RESULTS_WITHIN_S, "the slide is being looked at")
        kill(node)
        assert [(1,)] == node.rows(working)

        node.start()

        found = delivered(node, pacs)
        assert FORMS.items() <= found.items(), node.log_tail()
        assert sum(found.values()) == pacs.count()
        assert node.log.read_text(encoding="utf-8").count('"job.started"') >= 2
        assert [] == list((node.folder / "var" / "resume").glob("*"))


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_slide_goes_through(real_data: Path, pacs: Orthanc, tmp_path: Path) -> None:
    """CMU-1-Small-Region is tissue: what the pipeline says of it means nothing, but it says it in objects."""
    slide = real_data / "wsi_jcupitt" / "cmu-1-small-region"
    with screening(tmp_path, pacs, "cervical_cytology") as node:
        send(slide, node)

        found = delivered(node, pacs)

        assert found[ResultKind.SR] == 1 and found[ResultKind.SC] == 1, node.log_tail()
        assert any(label.startswith("2967 x 2220", label.index(": ") + 2) for label in chosen(node))
