"""Where untrusted pixels are decoded and networks run: a process of its own, which may die.

The worker speaks to it in JSON lines: an order goes in, progress and one outcome come out.
It has no database and no network; result files go to a folder the worker names. Over its
time or memory limit it is killed, and the next order gets a fresh one.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil

from dicom_node import errors, log
from dicom_node.config import Config
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import Predecessor, ResultKind
from dicom_node.domain.series import StoredInstance
from dicom_node.errors import DicomNodeError, JobTimeout, OutOfMemory, PipelineError, WorkerDied, WorkerKilled

STARTS_WITHIN_S = 180.0
"""Loading torch and the models on a slow disk; past it the sandbox counts as dead."""
_LINE_BYTES = 1 << 26  # longest line either side reads


@dataclass(frozen=True, slots=True)
class Order:
    """What the sandbox is asked to do."""

    pipeline: str
    intended_use: str
    input_key: str
    subject_uid: UID
    study_uid: UID
    revision: int
    instances: tuple[StoredInstance, ...]
    folder: Path
    failure: str = ""
    """With the word for why a job failed (`failure.py`) the order is to say so, and nothing is computed."""
    predecessors: tuple[Predecessor, ...] = ()
    """What the results replace."""
    resume: Path | None = None
    """A folder of the job's own, which the next attempt finds as this one left it."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Order:
        raw = json.loads(text)
        instances = tuple(_instance(item) for item in raw.pop("instances"))
        return cls(
            pipeline=raw["pipeline"], intended_use=raw["intended_use"], input_key=raw["input_key"],
            subject_uid=UID(raw["subject_uid"]), study_uid=UID(raw["study_uid"]),
            revision=int(raw["revision"]), instances=instances, folder=Path(raw["folder"]),
            failure=raw["failure"], predecessors=tuple(_predecessor(item) for item in raw["predecessors"]),
            resume=Path(raw["resume"]) if raw["resume"] else None,
        )  # fmt: skip


def _predecessor(raw: dict[str, str]) -> Predecessor:
    return Predecessor(
        ResultKind(raw["kind"]),
        UID(raw["sop_class_uid"]),
        UID(raw["sop_instance_uid"]),
        UID(raw["series_uid"]),
    )


def _instance(raw: dict[str, Any]) -> StoredInstance:  # Any: parsed JSON, checked by the types below
    return StoredInstance(
        sop_instance_uid=UID(raw["sop_instance_uid"]), sop_class_uid=UID(raw["sop_class_uid"]),
        transfer_syntax_uid=UID(raw["transfer_syntax_uid"]), study_uid=UID(raw["study_uid"]),
        series_uid=UID(raw["series_uid"]), digest=Digest(raw["digest"]),
        size_bytes=int(raw["size_bytes"]), path=Path(raw["path"]), header=raw["header"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A result object the sandbox left in the folder."""

    kind: ResultKind
    sop_class_uid: UID
    sop_instance_uid: UID
    series_uid: UID
    path: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an order that went well."""

    results: tuple[ResultFile, ...]
    seconds: dict[str, float]
    peak_mb: float


OnProgress = Callable[[float, str], None]


class Sandbox:
    """One child process that takes orders, one at a time; started again when it has died."""

    def __init__(self, config: Config, pipelines: Sequence[str]) -> None:
        self._config = config
        self._pipelines = tuple(pipelines)
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stop()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.poll() is None else None

    def start(self) -> None:
        """Start the child and wait until its models are loaded. Raises WorkerDied."""
        if self.pid is not None:
            return
        self.stop()
        setup = {"config": self._config.model_dump_json(by_alias=True), "pipelines": self._pipelines}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "dicom_node.node.sandboxed"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(self._config), bufsize=0,
        )  # fmt: skip
        self._say(json.dumps(setup))
        message = self._listen(time.monotonic() + STARTS_WITHIN_S, lambda fraction, step: None)
        if message.get("is") != "ready":
            self.stop()
            raise _error(message)

    def stop(self) -> None:
        """End the child now."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream:
                stream.close()
        self._child = None

    def run(self, order: Order, on_progress: OnProgress) -> Outcome:
        """Carry out an order.

        `on_progress` is called at least once a second; what it raises stops the child.
        Raises PipelineError and its like as the child reports them, JobTimeout, OutOfMemory, WorkerDied.
        """
        self.start()
        try:
            self._say(order.to_json())
            message = self._listen(time.monotonic() + self._config.infer.job_time_limit_s, on_progress)
        except BaseException:
            self.stop()  # whatever it still does belongs to nobody
            raise
        if message.get("is") != "done":
            raise _error(message)
        results = tuple(
            ResultFile(
                ResultKind(item["kind"]), UID(item["sop_class_uid"]), UID(item["sop_instance_uid"]),
                UID(item["series_uid"]), order.folder / Path(item["file"]).name,
            )
            for item in message["results"]
        )  # fmt: skip
        return Outcome(results, dict(message["seconds"]), float(message["peak_mb"]))

    def _say(self, line: str) -> None:
        child = self._child
        if child is None or child.stdin is None:
            raise WorkerDied
        try:
            _write_all(child.stdin, line.encode() + b"\n")
        except (BrokenPipeError, OSError) as error:
            raise WorkerDied from error

    def _listen(self, deadline: float, on_progress: OnProgress) -> dict[str, Any]:  # Any: parsed JSON
        """The outcome message; limits are watched meanwhile."""
        child = self._child
        if child is None or child.stdout is None:
            raise WorkerDied
        process, buffer, last = psutil.Process(child.pid), b"", (0.0, "")
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=0.5):
                    chunk = os.read(child.stdout.fileno(), 1 << 16)
                    if not chunk:
                        raise _death(child.wait())
                    buffer += chunk
                    if len(buffer) > _LINE_BYTES:
                        raise WorkerDied("the process that ran the job sent an endless line")
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    message: dict[str, Any] = json.loads(line)
                    if message.get("is") != "progress":
                        return message
                    last = (float(message["fraction"]), str(message["step"]))
                on_progress(*last)
                if time.monotonic() > deadline:
                    raise JobTimeout(
                        f"the job ran past {self._config.infer.job_time_limit_s:.0f} s and was stopped"
                    )
                self._check_memory(process)

    def _check_memory(self, process: psutil.Process) -> None:
        try:
            used_mb = process.memory_info().rss / 1e6
        except psutil.NoSuchProcess:
            return  # its end is seen on the pipe
        limit_mb = self._config.infer.memory_limit_mb
        if used_mb > limit_mb:
            raise OutOfMemory(f"the job used {used_mb:.0f} MB, the limit is {limit_mb} MB; it was stopped")


def _death(code: int) -> WorkerDied:
    """SIGKILL comes from outside (a person, the kernel short of memory); anything else from the job."""
    if code == -signal.SIGKILL:
        return WorkerKilled()
    return WorkerDied(f"the process that ran the job ended with code {code}")


def _write_all(stream: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]


def _environment(config: Config) -> dict[str, str]:
    """The child's environment: no secrets of the node, threads limited before torch is loaded."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith("DICOM_NODE_")}
    count = str(threads(config))
    return keep | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}


def threads(config: Config) -> int:
    """Threads a worker's networks may use."""
    return config.infer.threads or max(1, (os.cpu_count() or 1) // config.infer.workers)


def _error(message: dict[str, Any]) -> DicomNodeError:  # Any: parsed JSON
    """The error the child reported, as the same class here."""
    kind = getattr(errors, str(message.get("error", "")), PipelineError)
    known = isinstance(kind, type) and issubclass(kind, DicomNodeError)
    log.problem("sandbox.failed", error=message.get("error"))
    return (kind if known else PipelineError)(str(message.get("message", "")) or None)
