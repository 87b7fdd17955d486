"""The sandbox: what happens inside never takes the worker with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dicom_node.config import Config, Infer, Node
from dicom_node.domain.job import ResultKind
from dicom_node.errors import JobTimeout, OutOfMemory, OutOfStorage, PipelineError, WorkerDied
from dicom_node.node.sandbox import Order, Sandbox
from support import mr
from support.stored import stored

TOYS = Path(__file__).parent.parent / "support" / "toys"
ALL = ("answers", "declines", "dies", "fills", "hangs", "quotes", "swells")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return Config(
        node=Node(data_dir=tmp_path_factory.mktemp("data"), pipelines_dir=TOYS),
        infer=Infer(job_time_limit_s=8.0, memory_limit_mb=1500, threads=1),
    )


@pytest.fixture(scope="module")
def sandbox(config: Config) -> Iterator[Sandbox]:
    with Sandbox(config, ALL) as opened:
        yield opened


def order(pipeline: str, folder: Path) -> Order:
    instances = stored(mr.mr_series(slices=3), folder / "images")
    return Order(
        pipeline=pipeline, intended_use="enforce", input_key="0" * 64, subject_uid=instances[0].study_uid,
        study_uid=instances[0].study_uid, revision=1, instances=instances, folder=folder,
    )  # fmt: skip


def ignore(fraction: float, step: str) -> None:
    """Progress nobody looks at."""


def test_an_order_travels_unchanged(tmp_path: Path) -> None:
    """What the worker orders is what the sandbox reads."""
    asked = order("answers", tmp_path)

    assert asked == Order.from_json(asked.to_json())


def test_an_order_is_answered_with_result_files_and_progress(sandbox: Sandbox, tmp_path: Path) -> None:
    """A good run leaves its result objects in the folder and tells how far it is."""
    steps: list[str] = []

    outcome = sandbox.run(order("answers", tmp_path), lambda fraction, step: steps.append(step))

    assert {ResultKind.SR, ResultKind.SC} == {result.kind for result in outcome.results}
    assert all(result.path.read_bytes()[128:132] == b"DICM" for result in outcome.results)
    assert "encode" in steps


@pytest.mark.parametrize(
    ("pipeline", "error", "sentence"),
    [
        ("hangs", JobTimeout, "the job ran past 8 s and was stopped"),
        ("dies", WorkerDied, "the process that ran the job ended with code 139"),
        ("swells", OutOfMemory, "the limit is 1500 MB"),
        ("fills", OutOfStorage, "the job waits for room"),
        ("declines", PipelineError, "the toy declines this study"),
    ],
)
def test_what_goes_wrong_inside_becomes_a_sentence(
    sandbox: Sandbox, tmp_path: Path, pipeline: str, error: type[Exception], sentence: str
) -> None:
    """A hang, a crash, a leak and a refusal each end the job only, and the next order is carried out."""
    with pytest.raises(error, match=sentence):
        sandbox.run(order(pipeline, tmp_path / "bad"), ignore)

    outcome = sandbox.run(order("answers", tmp_path / "good"), ignore)

    assert len(outcome.results) == 2


def test_a_library_that_quotes_the_patient_is_not_quoted(sandbox: Sandbox, tmp_path: Path) -> None:
    """A foreign exception is named by kind and place; its text stays inside."""
    with pytest.raises(PipelineError) as caught:
        sandbox.run(order("quotes", tmp_path), ignore)

    assert "CANARY" not in str(caught.value)
    assert str(caught.value).startswith("ValueError at behave.py:")


def test_a_damaged_file_is_never_inferred_from(sandbox: Sandbox, tmp_path: Path) -> None:
    """A stored image whose bytes changed fails the job with the integrity error."""
    asked = order("answers", tmp_path)
    damaged = asked.instances[0].path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")

    with pytest.raises(Exception, match="is not what was received"):
        sandbox.run(asked, ignore)


def test_what_progress_raises_stops_the_child(config: Config, tmp_path: Path) -> None:
    """A worker that lost its lease stops the computing at once."""

    def lost(fraction: float, step: str) -> None:
        raise KeyboardInterrupt

    with Sandbox(config, ("hangs",)) as sandbox:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(order("hangs", tmp_path), lost)

        assert sandbox.pid is None


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A killed worker leaves no process that computes for nobody."""
    script = (
        "import sys, time; from pathlib import Path; from dicom_node.config import Config, Node;"
        "from dicom_node.node.sandbox import Sandbox;"
        f"node = Node(data_dir=Path({str(tmp_path)!r}), pipelines_dir=Path({str(TOYS)!r}));"
        "s = Sandbox(Config(node=node), ('hangs',));"
        "s.start(); print(s.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))

    os.kill(parent.pid, 9)
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
