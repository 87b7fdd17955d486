"""What becomes of a work item, from what became of its jobs and their deliveries. Pure.

COMPLETED is a step whose outputs are where they belong, also where the output says "AI not performed,
because ...": the step was performed, and its report is the result (PS3.4 CC.1.1, IHE AIW-I). CANCELED is one
without an output that anybody could read: a job that FAILED, a destination that took nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_node.domain.job import Job, State
from dicom_node.domain.workitem import Output
from dicom_node.worklist.item import CANCELED, COMPLETED

_WAITING = (State.SCHEDULED, State.IN_PROGRESS)
BEFORE_JOBS, BEFORE_DELIVERY = 20, 90
"""Percent of the way that counts as done when the jobs begin, and when the results are made."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery of one of the results, as far as it came."""

    state: State
    reason: str
    output: Output
    superseded: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    percent: int
    words: str


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A later revision of the study has other jobs, or other results."""


@dataclass(frozen=True, slots=True)
class Ended:
    state: str
    reason: str
    outputs: tuple[Output, ...] = ()


def decide(
    jobs: Sequence[Job], delivered: Sequence[Delivered], newer: Sequence[Job], why_failed: Mapping[int, str]
) -> Waiting | Overtaken | Ended:
    """`newer` are all jobs of the same studies, `why_failed` sentences for FAILED jobs by their number."""
    if running := [job for job in jobs if job.state in _WAITING]:
        return _computing(jobs, running)
    if canceled := [job for job in jobs if job.state is State.CANCELED]:
        if all(any(_replaces(other, job) for other in newer) for job in canceled):
            return Overtaken()
        return Ended(CANCELED, "its job was canceled by a person")
    if failed := [job for job in jobs if job.state is State.FAILED]:
        return Ended(CANCELED, why_failed.get(failed[0].id, "its job failed"))
    if delivered and all(one.superseded for one in delivered):
        return Overtaken()
    return _by_deliveries([one for one in delivered if not one.superseded])


def _computing(jobs: Sequence[Job], running: Sequence[Job]) -> Waiting:
    done = sum(1.0 if job.state not in _WAITING else job.progress for job in jobs) / len(jobs)
    percent = BEFORE_JOBS + round((BEFORE_DELIVERY - BEFORE_JOBS) * done)
    started = any(job.state is State.IN_PROGRESS for job in running)
    return Waiting(percent, "the computation runs" if started else "waits for a worker")


def _replaces(other: Job, job: Job) -> bool:
    same = (other.subject_uid, other.pipeline) == (job.subject_uid, job.pipeline)
    return same and other.revision > job.revision


def _by_deliveries(delivered: Sequence[Delivered]) -> Waiting | Ended:
    if any(one.state in _WAITING for one in delivered):
        return Waiting(BEFORE_DELIVERY, "the results are being delivered")
    taken = tuple(one.output for one in delivered if one.state is State.COMPLETED)
    reached = {output.destination for output in taken}
    for one in delivered:
        if one.output.destination not in reached:
            why = one.reason or one.state.value
            return Ended(CANCELED, f"PACS {one.output.destination!r} took none of the results: {why}", taken)
    return Ended(COMPLETED, "", taken)
