"""A worker: takes jobs from the ledger, has them computed in a sandbox, commits T3.

It holds the lease and beats the heart; the sandbox computes. Whatever the sandbox does
(hang, crash, eat memory), the worker lives to say what became of the job.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil

from dicom_node import log
from dicom_node.domain.identity import Digest
from dicom_node.domain.job import Job, Lease, ResultObject
from dicom_node.errors import DicomNodeError, LeaseLost, NodeStopping, OutOfStorage, WorkerKilled
from dicom_node.node.build import Node
from dicom_node.node.failure import kind_of
from dicom_node.node.flow import chosen_by_destination, destinations, route_of
from dicom_node.node.sandbox import Order, Outcome, Sandbox
from dicom_node.node.stopwatch import Stopwatch

HOST = socket.gethostname()[:40]
IDLE_S = 0.2
"""Pause between two looks at an empty queue."""
SPACE_RETRY_S = 60.0
"""A job that found no room for its results waits this long; it does not use up its attempts."""
RESUME = "resume"
"""Folder of data_dir with what unfinished jobs have done so far, by job."""
KILLED_TOO_OFTEN = 25
"""Attempts after which even kills from outside count against the job: the kernel out of memory kills too."""


class Worker:
    """Runs until `stop` is set. `name` tells operators which process held a lease."""

    def __init__(self, node: Node, stop: threading.Event) -> None:
        self._node = node
        self._stop = stop
        self.name = f"{HOST}:{os.getpid()}"

    def run(self) -> None:
        names = sorted({route.pipeline for route in self._node.config.route})
        self._release_the_dead()
        with Sandbox(self._node.config, names) as sandbox:
            while not self._stop.is_set():
                if not self._ready(sandbox) or not (self.work_once(sandbox) or self.tell_once(sandbox)):
                    self._stop.wait(IDLE_S)

    def _release_the_dead(self) -> None:
        """Jobs of workers of this machine that are no more need not wait for their lease to lapse."""
        for name in filter(gone, self._node.queue.holders()):
            log.event("job.released", jobs=self._node.queue.release(name), worker=name)
        sweep_scratch(self._node.config.node.data_dir)
        sweep_resume(self._node.config.node.data_dir, self._node.queue.unfinished())

    def _ready(self, sandbox: Sandbox) -> bool:
        """Models are loaded before a job is taken, so that a lease never waits for them."""
        if sandbox.pid is not None:
            return True
        try:
            sandbox.start()
        except DicomNodeError as error:
            log.problem("worker.models_failed", worker=self.name, error=type(error).__name__, why=str(error))
            self._stop.wait(5.0)
            return False
        log.event("worker.ready", worker=self.name)
        return True

    def work_once(self, sandbox: Sandbox) -> bool:
        """Take one job and bring it to an end; False when there was none."""
        infer = self._node.config.infer
        claimed = self._node.queue.claim(self.name, infer.lease_s)
        if claimed is None:
            return False
        job, lease = claimed
        log.event(
            "job.started", job=job.id, pipeline=job.pipeline, revision=job.revision, attempt=job.attempts
        )
        try:
            with scratch(self._node.config.node.data_dir, self.name) as folder:
                outcome = self._compute(sandbox, job, lease, folder)
                self._commit(job, lease, outcome)  # T3
            self._forget(job)
        except LeaseLost:
            log.problem("job.lease_lost", job=job.id, worker=self.name)
        except DicomNodeError as error:
            self._failed(job, lease, error)
        return True

    def _resume(self, job: Job) -> Path:
        """Where attempts of a job leave what the next need not compute again."""
        return self._node.config.node.data_dir / RESUME / str(job.id)

    def _forget(self, job: Job) -> None:
        shutil.rmtree(self._resume(job), ignore_errors=True)

    def tell_once(self, sandbox: Sandbox) -> bool:
        """Make the notice of one failed job, for its destinations to see; False when none is due."""
        claimed = self._node.notices.claim(self.name, self._node.config.infer.lease_s)
        if claimed is None:
            return False
        job, lease, failure = claimed
        try:
            with scratch(self._node.config.node.data_dir, self.name) as folder:
                order = replace(self._order(job, folder), failure=failure, predecessors=())
                made = self._kept(sandbox.run(order, lambda fraction, step: None))
            where = destinations(self._node, job, [result.kind for result, _ in made])
            stored = self._node.notices.finish(
                lease, made, where, auto=chosen_by_destination(self._node, job)
            )
            log.event("job.failure_told", job=job.id, pipeline=job.pipeline, results=len(stored))
        except LeaseLost:
            log.problem("job.lease_lost", job=job.id, worker=self.name)
        except DicomNodeError as error:  # the claim counted it; the last one leaves the job as it is
            log.problem("job.failure_untold", job=job.id, error=type(error).__name__)
        return True

    def _compute(self, sandbox: Sandbox, job: Job, lease: Lease, folder: Path) -> Outcome:
        lease_s = self._node.config.infer.lease_s
        beat = Heartbeat(lease_s / 4)

        def on_progress(fraction: float, step: str) -> None:
            if self._stop.is_set():
                raise NodeStopping
            if beat.due(fraction, step):
                self._node.queue.heartbeat(lease, lease_s, fraction, step)

        return sandbox.run(self._order(job, folder), on_progress)

    def _order(self, job: Job, folder: Path) -> Order:
        instances = self._node.catalog.instances(job.study_uid, job.revision)
        return Order(
            pipeline=job.pipeline, intended_use=route_of(self._node, job).intended_use,
            input_key=self._node.queue.input_key(job.id), subject_uid=job.subject_uid,
            study_uid=job.study_uid, revision=job.revision, instances=instances, folder=folder,
            predecessors=self._node.queue.predecessors(job), resume=self._resume(job),
        )  # fmt: skip

    def _commit(self, job: Job, lease: Lease, outcome: Outcome) -> None:
        """T3: result files are durable first; then results, deliveries and the finished job, together."""
        watch = Stopwatch()
        made = self._kept(outcome)
        watch.lap("store")
        where = destinations(self._node, job, [result.kind for result, _ in made])
        seconds = outcome.seconds | watch.seconds | {"peak_mb": outcome.peak_mb}
        stored = self._node.queue.finish(
            lease, made, where, seconds, auto=chosen_by_destination(self._node, job)
        )
        log.event("job.completed", job=job.id, pipeline=job.pipeline, results=len(stored), seconds=seconds)

    def _kept(self, outcome: Outcome) -> list[tuple[ResultObject, Digest]]:
        """The result files, durable in the archive."""
        made = []
        for item in outcome.results:
            content = item.path.read_bytes()
            result = ResultObject(
                item.kind, item.sop_class_uid, item.sop_instance_uid, item.series_uid, content
            )
            made.append((result, self._node.archive.put(content)))
        return made

    def _failed(self, job: Job, lease: Lease, error: DicomNodeError) -> None:
        """IN PROGRESS -> SCHEDULED while another attempt can help, else -> FAILED with the reason."""
        now, infer = self._node.clock(), self._node.config.infer
        again = error.retry and job.attempts < infer.max_attempts
        wait_s = infer.retry_after_s * 2 ** (job.attempts - 1)
        if isinstance(error, WorkerKilled):
            again, wait_s = job.attempts < KILLED_TOO_OFTEN, min(1.0, infer.retry_after_s)
        if isinstance(error, OutOfStorage | NodeStopping):
            again, wait_s = True, SPACE_RETRY_S if isinstance(error, OutOfStorage) else 0.0
        retry_at = now + timedelta(seconds=wait_s) if again else None
        reason = str(error)
        try:
            self._node.queue.fail(lease, reason, retry_at=retry_at, failure=kind_of(error))
        except LeaseLost:
            log.problem("job.lease_lost", job=job.id, worker=self.name)
            return
        if not again:
            self._forget(job)
        name = "job.will_be_repeated" if again else "job.failed"
        log.problem(name, job=job.id, attempt=job.attempts, error=type(error).__name__)


class Heartbeat:
    """When to tell the ledger: on a new step, and every `every_s` anyway."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._watch = Stopwatch()
        self._since = 0.0
        self._step = ""

    def due(self, fraction: float, step: str) -> bool:
        self._since += self._watch.lap("beat")
        if step == self._step and self._since < self._every_s:
            return False
        self._step, self._since = step, 0.0
        return True


def gone(worker: str) -> bool:
    """Whether this is the name of a worker of this machine whose process has ended."""
    host, _, pid = worker.rpartition(":")
    return host == HOST and not psutil.pid_exists(int(pid))


@contextmanager
def scratch(data_dir: Path, worker: str) -> Iterator[Path]:
    """A folder for one job's result files, on the archive's disk, gone afterwards. Raises OutOfStorage."""
    parent = data_dir / "scratch" / worker
    try:
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        why = f"the folder for a job's results cannot be made: {error.strerror}"
        raise OutOfStorage(why) from error
    try:
        yield parent
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def sweep_scratch(data_dir: Path) -> None:
    """Remove what killed workers of this machine left."""
    for folder in (data_dir / "scratch").glob("*"):
        if gone(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def sweep_resume(data_dir: Path, unfinished: frozenset[int]) -> None:
    """Remove what was kept for jobs that are finished, failed or canceled."""
    for folder in (data_dir / RESUME).glob("*"):
        if not folder.name.isdecimal() or int(folder.name) not in unfinished:
            shutil.rmtree(folder, ignore_errors=True)
