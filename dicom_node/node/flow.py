"""The path of an image, on one page.

    PACS/scanner --C-STORE--> receive > store > assemble > route > infer > encode > deliver --> PACS
                              `--- T1 ---'     `---- T2 ----'  `---- T3 ----'   `- T4 -'

Four transactions, and nothing durable outside them. After a crash at any point the step
runs again; what it had half done is either invisible or the same as what the repeat makes:

    T1  file on disk (fsync, rename, fsync folder), then its row, only then 0x0000
    T2  study revision n and its jobs, together; unique per (subject, revision, pipeline, version)
    T3  result files on disk, then results + deliveries + job done, guarded by the lease token
    T4  the delivery is done, with the peer's status
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.assemble.completeness import Told, judge
from dicom_node.assemble.indexer import index
from dicom_node.assemble.study import read_study
from dicom_node.config import Route
from dicom_node.deliver.deliverer import Deliverer
from dicom_node.dicom.photograph import read_photograph
from dicom_node.dicom.volume import read_volume
from dicom_node.domain.codebook import NO_SWAPS, Swaps
from dicom_node.domain.findings import Findings
from dicom_node.domain.identity import UID
from dicom_node.domain.job import BY_NAME_ONLY, Job, Level, Predecessor, ResultKind, ResultObject
from dicom_node.domain.pipeline import Pipeline, Plan, Progress
from dicom_node.domain.series import StoredInstance, Study
from dicom_node.domain.slide import OpenSlide, Slide
from dicom_node.errors import ConfigurationError
from dicom_node.node import recover
from dicom_node.node.build import Node
from dicom_node.node.failure import notice_key, refusal
from dicom_node.node.fetch import counted
from dicom_node.receive.scp import Receiver
from dicom_node.route.plan import describe, input_key, plan
from dicom_node.route.rules import matching
from dicom_node.store.catalog import PendingStudy, PlannedJob

HEADERS_AT_A_TIME = 200
"""Headers read per tick, so that a tick stays short while a large study arrives."""


def receive_and_store(node: Node) -> Receiver:
    """T1: every instance a listed peer sends, acknowledged only when it cannot be lost."""
    return Receiver(node.config, node.archive, node.catalog, node.trail, node.commitments)


def read_headers(node: Node) -> int:
    """Between T1 and T2: what the headers say, kept beside the rows. Derived, hence repeatable."""
    return index(node.catalog, HEADERS_AT_A_TIME)


def assemble_and_route(
    node: Node, pending: PendingStudy, *, quiet_s: float, awaited: Sequence[str] = ()
) -> bool:
    """T2: when the study is complete (and because of what), its next revision and the jobs for it.

    `awaited` names the peers whose answer about it, or whose images of it, are on the way.
    """
    study = assemble(pending.study_uid, 0, node.catalog.instances(pending.study_uid))
    routes = [(at, node.config.route[at]) for at in matching(node.config.route, senders(node, pending))]
    needs = [node.pipelines[route.pipeline].needs for _, route in routes]
    told = Told(
        node.expectations.of(pending.study_uid), counted(study.instances, node.config.receive),
        pending.last_received_at, awaited,
    )  # fmt: skip
    judgement = judge(study, study.instances, needs, quiet_s, node.config.receive, told)
    if not judgement.complete:
        return False
    jobs = [job for at, route in routes for job in planned_jobs(node, study, at, route)]
    done = node.catalog.complete(
        pending.study_uid, judgement.because, jobs, expected_new=pending.new_instances
    )
    return done is not None  # None: a late image came in between; it is judged again


def senders(node: Node, pending: PendingStudy) -> tuple[str, ...]:
    """Who sent the study; anybody may have, where that was lost with its row (see `recover.py`).

    Anybody but who manages a worklist and has no images: in a route's `from` it asks, by work items.
    """
    if recover.PEER not in pending.peers:
        return pending.peers
    peers = node.config.peers.values()
    return tuple(peer.name for peer in peers if peer.may_send or peer.retrieve != "no")


def assemble(study_uid: UID, revision: int, instances: Sequence[StoredInstance]) -> Study:
    return read_study(study_uid, revision, instances)


def planned_jobs(node: Node, study: Study, at: int, route: Route) -> list[PlannedJob]:
    """The jobs of one route on one revision: one for a study-level pipeline, one per series else."""
    pipeline = node.pipelines[route.pipeline]
    jobs = []
    for subject_uid, subject in subjects(pipeline, study):
        planned = plan(pipeline, subject, route.intended_use)
        key = input_key(planned, subject, route.intended_use, node.digests(pipeline), subject_uid)
        jobs.append(
            PlannedJob(
                subject_uid=subject_uid, level=pipeline.level, pipeline=pipeline.name,
                version=pipeline.version, route=at, input_key=key, plan=describe(planned, subject),
            )
        )  # fmt: skip
    return jobs


def subjects(pipeline: type[Pipeline], study: Study) -> list[tuple[UID, Study]]:
    """What the pipeline is asked about: the study, or each of its series or slides by itself."""
    if pipeline.level is Level.STUDY:
        return [(study.uid, study)]
    if pipeline.level is Level.SLIDE:
        return [(slide.series_uid, of_subject(study, slide.series_uid)) for slide in study.slides] or [
            (study.uid, study)
        ]
    series = sorted({instance.series_uid for instance in study.instances})
    return [(uid, of_subject(study, uid)) for uid in series]


def of_subject(study: Study, subject_uid: UID) -> Study:
    """The study itself, or no more of it than the slide or the series of that UID."""
    if subject_uid == study.uid:
        return study
    slide = next((slide for slide in study.slides if slide.series_uid == subject_uid), None)
    parts = {part.sop_instance_uid for level in slide.levels for part in level.parts} if slide else set()
    instances = [
        one for one in study.instances if one.series_uid == subject_uid or one.sop_instance_uid in parts
    ]
    return assemble(study.uid, study.revision, instances)


@dataclass(frozen=True, slots=True)
class Work:
    """What T3 makes before anything is durable."""

    plan: Plan
    study: Study
    findings: Findings
    results: tuple[ResultObject, ...]
    seconds: dict[str, float]


def infer_and_encode(
    pipeline: Pipeline, study: Study, *, intended_use: str, key: str, device: str, progress: Progress,
    failure: str = "", predecessors: Sequence[Predecessor] = (), swaps: Swaps = NO_SWAPS,
    resume: Path | None = None,
) -> Work:  # fmt: skip
    """The computing part of T3; runs in a sandbox process and in `dicom-node run`. Nothing durable.

    `predecessors` are the results it replaces, `swaps` the site's own codes, `resume` a folder for what
    an attempt leaves to the next.
    With `failure`, a word of `failure.py`, nothing is computed: the results say that the job failed.
    """
    from dicom_node.encode.results import encode  # highdicom: only where results are made
    from dicom_node.infer.run import Readers, infer
    from dicom_node.node.stopwatch import Stopwatch

    watch = Stopwatch()
    if failure:
        planned, key = refusal(pipeline.name, pipeline.version, failure), notice_key(key, failure)
    else:
        planned = plan(type(pipeline), study, intended_use)
    watch.lap("plan")
    readers = Readers(read_volume, _open_slide, read_photograph)
    findings = infer(pipeline, planned, study, readers, progress, device, resume)
    watch.lap("infer")
    progress(0.9, "encode")
    results = encode(
        findings, study, input_key=key, pipeline=pipeline.name,
        pipeline_version=pipeline.version, title=pipeline.title, predecessors=predecessors, swaps=swaps,
    )  # fmt: skip
    watch.lap("encode")
    return Work(planned, study, findings, results, watch.seconds | dict(findings.seconds or {}))


def _open_slide(slide: Slide) -> AbstractContextManager[OpenSlide]:
    from dicom_node.slide import open_slide  # decoders: only where pixels of slides are read

    return open_slide(slide)


def destinations(node: Node, job: Job, made: Sequence[ResultKind]) -> dict[str, tuple[ResultKind, ...]]:
    """Which result goes where, by the route that asked for the job."""
    route = route_of(node, job)
    wanted = set(ResultKind) - BY_NAME_ONLY if route.outputs == "auto" else set(route.outputs)
    kinds = tuple(kind for kind in made if kind in wanted)
    return dict.fromkeys(route.to, kinds)


def chosen_by_destination(node: Node, job: Job) -> bool:
    """Whether a form that a destination does not accept is withheld there: `outputs = "auto"`."""
    return route_of(node, job).outputs == "auto"


def route_of(node: Node, job: Job) -> Route:
    """The route that asked for the job, also after an edit moved it in the file."""
    routes = node.config.route
    if job.route < len(routes) and routes[job.route].pipeline == job.pipeline:
        return routes[job.route]
    for route in routes:
        if route.pipeline == job.pipeline:
            return route
    raise ConfigurationError(f"no route asks for pipeline {job.pipeline!r} any more")


def deliver(node: Node) -> Deliverer:
    """T4: every result object to every destination, each on its own thread, once."""
    return Deliverer(
        node.config, node.archive, node.ledger, node.capabilities, node.commitments, node.sightings,
        node.trail, node.clock,
    )  # fmt: skip


def result_name(result: ResultObject, number: int) -> Path:
    """A file name that says the form and nothing about a person: `02-seg.dcm`."""
    return Path(f"{number:02d}-{result.kind.value}.dcm")
