"""`dicom-node bench latency`: from the last image acknowledged to the SR accepted by the PACS.

The real thing on loopback: `serve`, a generated study over one association, a stand-in PACS.
What is measured is the first study after a start, once the models are loaded: nothing is
warmed up. The node's own overhead is everything but the networks' forward passes and the
stated quiet time.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread

from dicom_node.deliver.scu import send
from dicom_node.demo.loopback import LoopbackNode, Setup, ends_on_sigterm, environment
from dicom_node.demo.received import KINDS
from dicom_node.demo.standin import Arrival, StandInPacs
from dicom_node.demo.story import JobStory, Story, read_story
from dicom_node.dicom.status import Kind
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind, State
from dicom_node.errors import DicomNodeError
from dicom_node.node.build import build

SETTLE_S = 1.0
"""The stated quiet time of the benchmark."""
LEAST_IMAGES = 45
"""Below this a generated study has stacks too small for the pipeline."""
GOALS = {
    "overhead_s": 2.0,
    "receiver_peak_mb": 150.0,
    "worker_peak_mb": 1500.0,
}
"""For 200 slices on two cores."""
_READY_WITHIN_S = 180.0
_DONE_WITHIN_S = 300.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Moments:
    """When it happened, by this machine's one clock."""

    acknowledged: datetime
    """The sender got the answer to the last image."""
    completed: datetime
    scheduled: datetime
    started: datetime
    finished: datetime
    accepted: datetime
    """The PACS has the SR."""


def measure(slices: int) -> dict[str, object]:
    """One study of about `slices` images; at least 45, so that the pipeline runs. Raises DicomNodeError."""
    with ends_on_sigterm(), ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicom-node-bench-")))
        images = _study(folder / "study", max(slices, LEAST_IMAGES))
        pacs = stack.enter_context(StandInPacs(folder / "pacs", "STANDIN"))
        setup = Setup("bench latency", folder / "data", pacs.port, SETTLE_S, 30.0, intended_use="warn")
        service = stack.enter_context(LoopbackNode(setup, folder / "node.toml", folder / "node.log"))
        service.wait_until_ready(_READY_WITHIN_S)
        node = build(service.config)
        stack.callback(node.engine.dispose)
        began = time.monotonic()
        acknowledged = _send(service, images)
        receive_s = time.monotonic() - began
        study_uid = UID(str(dcmread(images[0], specific_tags=["StudyInstanceUID"]).StudyInstanceUID))
        story = _until_over(service, lambda: read_story(node.engine, study_uid))
        accepted = _accepted(pacs)
        job = story.job
        if job is None or job.state is not State.COMPLETED or accepted is None or story.revision is None:
            raise DicomNodeError(f"the job did not complete: {job.reason if job else 'there is none'}")
        moments = Moments(
            acknowledged, story.revision.completed_at, job.scheduled_at, job.started_at or job.scheduled_at,
            job.finished_at or job.scheduled_at, accepted,
        )  # fmt: skip
        steps = split(moments, job.seconds, SETTLE_S)
        return {
            **_about(images, receive_s),
            **{f"{name}, s": round(seconds, 3) for name, seconds in steps.items()},
            **totals(steps),
            **_memory(service.peak_mb(), job),
            "results sent": len(story.sendings),
            "goals (200 slices, two cores)": ", ".join(f"{name} < {goal:g}" for name, goal in GOALS.items()),
        }


def split(moments: Moments, spent: Mapping[str, float], quiet_s: float) -> dict[str, float]:
    """Seconds per step; their sum is the time from `acknowledged` to `accepted`."""
    infer, encode = spent.get("infer", 0.0), spent.get("encode", 0.0)
    read, forward = spent.get("read", 0.0), spent.get("forward", 0.0)
    waited = _between(moments.acknowledged, moments.completed)
    quiet = min(quiet_s, waited)
    return {
        "quiet time (stated)": quiet,
        "headers, assemble, route": waited - quiet,
        "wait for a worker": _between(moments.completed, moments.started),
        "read volumes": read,
        "forward passes": forward,
        "other inference": infer - read - forward,
        "encode": encode,
        "verify, store, commit": _between(moments.started, moments.finished) - infer - encode,
        "deliver the SR": _between(moments.finished, moments.accepted),
    }


def totals(steps: Mapping[str, float]) -> dict[str, float]:
    """The sum, and what of it is the node's own."""
    total = sum(steps.values())
    return {
        "total_s": round(total, 3),
        "overhead_s": round(total - steps["forward passes"] - steps["quiet time (stated)"], 3),
    }


def _between(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def _study(folder: Path, slices: int) -> list[Path]:
    command = [sys.executable, "-m", "dicom_node.cli", "phantom", "--out", str(folder), "--vendor", "siemens"]
    made = subprocess.run(  # noqa: S603 - our own interpreter and module
        [*command, "--slices", str(slices)],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    if made.returncode != 0:
        raise DicomNodeError(f"no study could be generated: {made.stderr.strip()[-300:]}")
    return sorted(folder.rglob("*.dcm"))


def _send(service: LoopbackNode, images: list[Path]) -> datetime:
    """All images over one association; when the last was acknowledged."""
    acknowledged = datetime.now(UTC)
    for sent in send(service.as_peer, "SCANNER", images, 60.0):
        if sent.kind is not Kind.SUCCESS:
            raise DicomNodeError(f"the node did not take an image: {sent.sentence}")
        acknowledged = datetime.now(UTC)
    return acknowledged


def _until_over(service: LoopbackNode, look: Callable[[], Story]) -> Story:
    ends = time.monotonic() + _DONE_WITHIN_S
    while not (story := look()).over:
        service.check()
        if time.monotonic() > ends:
            raise DicomNodeError(f"the results did not arrive within {_DONE_WITHIN_S:.0f} s")
        time.sleep(_LOOK_S)
    return story


def _accepted(pacs: StandInPacs) -> datetime | None:
    """When the PACS had the SR."""

    def reports(arrivals: tuple[Arrival, ...]) -> list[datetime]:
        return [item.at for item in arrivals if KINDS.get(item.sop_class_uid) is ResultKind.SR and item.path]

    pacs.wait_for(lambda arrivals: bool(reports(arrivals)), 10.0)
    return next(iter(reports(pacs.arrivals)), None)


def _about(images: list[Path], receive_s: float) -> dict[str, object]:
    size_mb = sum(path.stat().st_size for path in images) / 1e6
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
        "images": len(images),
        "size_mb": round(size_mb, 1),
        "receive_s": round(receive_s, 3),
        "receive_images_per_s": round(len(images) / receive_s, 1),
    }


def _memory(peaks: Mapping[str, float], job: JobStory) -> dict[str, object]:
    """Peaks of resident memory (VmHWM). The worker is the process that holds the lease and its sandbox."""
    if "receive" not in peaks or "work" not in peaks:
        return {"sandbox_peak_mb": job.seconds.get("peak_mb", 0.0)}  # a system without /proc
    return {
        "receiver_peak_mb": peaks["receive"],
        "worker_peak_mb": round(peaks["work"] + peaks.get("sandbox", 0.0), 1),
        "of that the sandbox_mb": peaks.get("sandbox", 0.0),
        "ticker_peak_mb": peaks.get("tick", 0.0),
        "supervisor_peak_mb": peaks.get("supervisor", 0.0),
    }
