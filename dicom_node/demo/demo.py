"""`dicom-node demo`: a node and a stand-in PACS on this machine; one study goes in, results come out.

Nothing is pretended: the node is `dicom-node serve` in processes of its own, the study goes in
by C-STORE, and all that is shown of the results is read from the DICOM objects the PACS got.
The node's data are in a temporary folder and gone afterwards; `out` keeps what is worth keeping.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from rich.console import Console

from dicom_node.deliver.scu import Sent, send
from dicom_node.demo import summary
from dicom_node.demo.gallery import render
from dicom_node.demo.loopback import WRITTEN_BY, LoopbackNode, Setup, ends_on_sigterm, environment
from dicom_node.demo.received import Results, kind_of, read_results
from dicom_node.demo.stages import Stages
from dicom_node.demo.standin import StandInPacs
from dicom_node.demo.story import Story, read_story
from dicom_node.dicom.status import Kind
from dicom_node.domain.identity import UID
from dicom_node.domain.job import BY_NAME_ONLY, OF_SLIDES, ResultKind, State
from dicom_node.domain.series import StoredInstance
from dicom_node.errors import DicomNodeError
from dicom_node.node.build import Node, build
from dicom_node.node.offline import read_folder

SETTLE_S = 1.0
STABLE_AFTER_S = 5.0
PHANTOM = (
    "--cohort", "untouched", "--label", "sarcoma", "--seed", "2", "--slices", "200", "--matrix", "256",
)  # fmt: skip
"""The generated study: as many images as a real one, on a matrix that is quick to make. An occult
sarcoma (the referral says leiomyoma) that the networks find; `evaluate` says how often they do."""
READY_WITHIN_S = 180.0
STANDSTILL_S = 120.0
"""A demo in which nothing has happened for so long has failed."""
LOOK_S = 0.1
_OURS = ("dicom", "previews", "index.html", "result.json", "node.log")


@dataclass(frozen=True)
class Sending:
    """What goes in."""

    subject: str
    """In a sentence without a person in it."""
    instances: tuple[StoredInstance, ...]

    @property
    def study_uid(self) -> UID:
        return self.instances[0].study_uid


def demo(input_: Path | None, out: Path) -> int:
    """Run it; 0 only when every result object that belongs to the verdict arrived.

    `input_`: a folder with one study of DICOM files, else a study is generated. `out`: a new
    folder, an empty one, or one that an earlier demo made.
    """
    console = Console(highlight=False)
    try:
        with ends_on_sigterm():
            return _run(console, input_, prepared(out, input_))
    except DicomNodeError as error:
        console.print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return 1


def prepared(out: Path, input_: Path | None = None) -> Path:
    """The folder, without what an earlier demo left. Refuses one that holds anything else, or the input."""
    if input_ is not None and not input_.exists():
        raise DicomNodeError(f"{input_} does not exist")
    if input_ is not None and any(input_.resolve().is_relative_to((out / name).resolve()) for name in _OURS):
        raise DicomNodeError(f"{input_} is a result of an earlier demo; name another folder with --out")
    config_file = out / "node.toml"
    ours = config_file.is_file() and config_file.read_text(errors="replace").startswith(WRITTEN_BY)
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise DicomNodeError(f"{out} is not empty and no demo made it; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    for name in _OURS if ours else ():
        shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink(missing_ok=True)
    return out.resolve()


def _run(console: Console, input_: Path | None, out: Path) -> int:
    console.print("[bold]dicom-node demo[/]  a node and a stand-in PACS on this machine")
    console.print("Research use only - not a medical device\n", style="yellow")
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dicom-node-demo-")))
        pacs = stack.enter_context(StandInPacs(out / "dicom", "STANDIN"))
        setup = Setup(
            "demo", data_dir / "data", pacs.port, SETTLE_S, STABLE_AFTER_S,
            intended_use="warn" if input_ else "enforce",
        )  # fmt: skip
        service = stack.enter_context(LoopbackNode(setup, out / "node.toml", out / "node.log"))
        with Stages(console) as stages:
            sending = _study(input_, out, stages)
            _wait_ready(service, stages)
            node = build(service.config)
            stack.callback(node.engine.dispose)
            _send(service, sending, stages)
            story = _follow(service, node, sending, stages)
            results = _collect(pacs, story, out)
        page = summary.page(node, _sent(sending, story), story, results, out)
    (out / "index.html").write_text(render(page), encoding="utf-8")
    (out / "result.json").write_text(json.dumps(summary.as_json(page), indent=2, default=str) + "\n")
    summary.print_tables(console, page, out)
    return 0


# ---- what goes in -----------------------------------------------------------------------


def _study(input_: Path | None, out: Path, stages: Stages) -> Sending:
    if input_ is None:
        return _generated(out / "study", stages)
    stages.update("study", f"reading {input_}")
    instances, skipped = read_folder(input_)
    series = len({item.series_uid for item in instances})
    note = f", {skipped} files that are no DICOM left out" if skipped else ""
    stages.done("study", f"{len(instances)} images in {series} series{note}")
    subject = f"A study of {len(instances)} images in {series} series, sent as it is"
    return Sending(subject, tuple(instances))


def _generated(folder: Path, stages: Stages) -> Sending:
    """A phantom by the project's own command; one that an earlier demo made is the same, and is kept."""
    recipe, wanted = folder / "recipe.json", json.dumps(PHANTOM)
    if not recipe.is_file() or recipe.read_text() != wanted:
        stages.update("study", "generating a phantom of a female pelvis (kept for the next demo)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        program = [sys.executable, "-m", "dicom_node.cli"]
        made = subprocess.run(  # noqa: S603 - our own interpreter and module
            [*program, "phantom", "--out", str(folder), *PHANTOM],
            capture_output=True, text=True, check=False, env=environment(),
        )  # fmt: skip
        if made.returncode != 0:
            raise DicomNodeError(f"no study could be generated: {made.stderr.strip()[-300:]}")
        recipe.write_text(wanted)
    instances, _ = read_folder(folder)
    series = len({item.series_uid for item in instances})
    what = f"{len(instances)} images in {series} series of a phantom"
    stages.done("study", f"{what}: generated, with a sarcoma in it; nobody was scanned for it")
    subject = f"A generated study, {what} with a sarcoma in it: nobody was scanned for it"
    return Sending(subject, tuple(instances))


def _sent(sending: Sending, story: Story) -> summary.Sent:
    last_resort = story.revision is not None and "last resort" in story.revision.because
    files = {str(item.sop_instance_uid): item.path for item in sending.instances}
    quiet_s = STABLE_AFTER_S if last_resort else SETTLE_S
    return summary.Sent(sending.study_uid, sending.subject, files, quiet_s)


# ---- the path ---------------------------------------------------------------------------


def _wait_ready(service: LoopbackNode, stages: Stages) -> None:
    where = f"{service.as_peer.host}:{service.as_peer.port}"
    stages.update("node", f"starting on {where}, loading the models")
    service.wait_until_ready(READY_WITHIN_S)
    stages.done("node", f"{service.as_peer.ae_title} accepts images on {where}, its models are loaded")


def _send(service: LoopbackNode, sending: Sending, stages: Stages) -> None:
    """C-STORE, every file as it is, over one association."""
    paths, taken = [item.path for item in sending.instances], 0
    refused: list[Sent] = []
    for sent in send(service.as_peer, "SCANNER", paths, 60.0):
        if sent.kind in (Kind.SUCCESS, Kind.WARNING):
            taken += 1
        else:
            refused.append(sent)
        done = taken + len(refused)
        stages.update("receive", f"{done}/{len(paths)} images", done / len(paths))
    if not taken:
        why = refused[0].sentence if refused else "nothing was sent"
        raise DicomNodeError(f"the node took no image: {why}; log: {service.log_file}")
    note = f"; {len(refused)} refused: {refused[0].sentence}" if refused else ""
    stages.done("receive", f"{taken}/{len(paths)} images acknowledged, each on disk before its answer{note}")


def _follow(service: LoopbackNode, node: Node, sending: Sending, stages: Stages) -> Story:
    """Watch the ledger until the results are delivered. Raises DicomNodeError when it does not get there."""
    before, changed_at = Story(), time.monotonic()
    while True:
        story = read_story(node.engine, sending.study_uid)
        _show(story, stages)
        if story.over:
            break
        if story != before:
            before, changed_at = story, time.monotonic()
        if time.monotonic() - changed_at > STANDSTILL_S:
            raise DicomNodeError(
                f"nothing has happened for {STANDSTILL_S:.0f} s {_where(story)}; log: {service.log_file}"
            )
        service.check()
        time.sleep(LOOK_S)
    if story.job is not None and story.job.state is State.FAILED:
        raise DicomNodeError(f"the job failed: {story.job.reason}; log: {service.log_file}")
    if story.delivered < len(story.sendings):
        reasons = "; ".join(f"{s.kind}: {s.reason}" for s in story.sendings if s.state is State.FAILED)
        raise DicomNodeError(f"not everything was delivered: {reasons}; log: {service.log_file}")
    return story


def _where(story: Story) -> str:
    if story.job is None:
        return f"with {story.received} images received and the study not complete"
    return f"while the job is {story.job.state} {story.job.reason}".rstrip()


def _show(story: Story, stages: Stages) -> None:
    if story.revision is None:
        stages.update("assemble", f"{story.received} images; waiting {SETTLE_S:g} s for a late one")
        return
    stages.done("assemble", f"complete: {story.revision.because}")
    job = story.job
    if job is None:
        return
    stages.done("route", summary.route_line(job.plan), 0.0)
    if job.state in (State.SCHEDULED, State.IN_PROGRESS):
        again = f"; attempt {job.attempts} ended: {job.reason}" if job.reason else ""
        stages.update("infer", f"{job.step or 'waiting for the worker'}{again}", job.progress)
    if job.state is State.COMPLETED:
        infer_s, encode_s = job.seconds.get("infer", 0.0), job.seconds.get("encode", 0.0)
        stages.done("infer", summary.infer_line(job), infer_s)
        stages.done("encode", f"{len(story.sendings)} result objects", encode_s)
        if story.delivered == len(story.sendings):
            stages.done("deliver", f"{story.delivered}/{len(story.sendings)} objects taken by the PACS")
        else:
            part = story.delivered / max(1, len(story.sendings))
            stages.update("deliver", f"{story.delivered}/{len(story.sendings)} objects", part)


# ---- what comes out ---------------------------------------------------------------------


def _collect(pacs: StandInPacs, story: Story, out: Path) -> Results:
    """The received files under names that say what they are; all forms that belong to the verdict."""
    wanted = {sending.sop_instance_uid for sending in story.sendings}
    arrived = _arrived(wanted)
    if not pacs.wait_for(lambda arrivals: arrived({a.sop_instance_uid for a in arrivals}), 10.0):
        raise DicomNodeError(f"the PACS did not get every result; log: {out / 'node.log'}")
    paths = []
    kept = {arrival.path: arrival for arrival in pacs.arrivals if arrival.path is not None}
    counts: dict[ResultKind, int] = {}
    for path in kept:
        kind = kind_of(dcmread(path, stop_before_pixels=True))
        if kind is None:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        paths.append(path.rename(path.with_name(f"{kind.value}-{counts[kind]}.dcm")))
    results = read_results(paths)
    whole = set(ResultKind) - BY_NAME_ONLY - OF_SLIDES
    needed = whole if results.reading.performed else {ResultKind.SR, ResultKind.SC}
    if missing := needed - set(counts):
        forms = ", ".join(sorted(kind.value.upper() for kind in missing))
        raise DicomNodeError(f"results of these forms did not arrive: {forms}; log: {out / 'node.log'}")
    return results


def _arrived(wanted: set[str]) -> Callable[[set[str]], bool]:
    return lambda have: wanted <= have
