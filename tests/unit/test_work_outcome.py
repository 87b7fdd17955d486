"""What becomes of a work item: decided from jobs and deliveries alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicom_node.config import Receive
from dicom_node.domain.identity import UID
from dicom_node.domain.job import Job, Level, State
from dicom_node.domain.workitem import Input, Output
from dicom_node.node.work_inputs import taken
from dicom_node.node.work_outcome import Delivered, Ended, Overtaken, Waiting, decide

STUDY = UID("1.2")
JOB = Job(1, STUDY, STUDY, Level.STUDY, 1, "p", "1", 0, State.COMPLETED, 1)
SR = Output("pacs", STUDY, UID("1.3"), UID("1.4"), UID("1.5"))
SEG = replace(SR, sop_instance_uid=UID("1.6"))
ELSEWHERE = replace(SR, destination="archive")


def delivered(state: State, output: Output = SR, reason: str = "", *, superseded: bool = False) -> Delivered:
    return Delivered(state, reason, output, superseded)


TABLE = [
    ("waits", [replace(JOB, state=State.SCHEDULED)], [], Waiting(20, "waits for a worker")),
    (
        "runs", [replace(JOB, state=State.IN_PROGRESS, progress=0.5)], [],
        Waiting(55, "the computation runs"),
    ),
    (
        "one of two is done", [JOB, replace(JOB, id=2, state=State.SCHEDULED)], [],
        Waiting(55, "waits for a worker"),
    ),
    (
        "delivers", [JOB], [delivered(State.COMPLETED), delivered(State.SCHEDULED, SEG)],
        Waiting(90, "the results are being delivered"),
    ),
    ("delivered", [JOB], [delivered(State.COMPLETED)], Ended("COMPLETED", "", (SR,))),
    (
        "one form is withheld", [JOB], [delivered(State.COMPLETED), delivered(State.CANCELED, SEG)],
        Ended("COMPLETED", "", (SR,)),
    ),
    ("nothing to deliver", [JOB], [], Ended("COMPLETED", "", ())),
    (
        "one destination took nothing", [JOB],
        [delivered(State.COMPLETED), delivered(State.FAILED, ELSEWHERE, "no room")],
        Ended("CANCELED", "PACS 'archive' took none of the results: no room", (SR,)),
    ),
    (
        "the job failed", [replace(JOB, state=State.FAILED)], [],
        Ended("CANCELED", "AI not performed, because it failed"),
    ),
    (
        "a person canceled the job", [replace(JOB, state=State.CANCELED)], [],
        Ended("CANCELED", "its job was canceled by a person"),
    ),
    ("replaced after it was made", [JOB], [delivered(State.CANCELED, superseded=True)], Overtaken()),
]  # fmt: skip


@pytest.mark.parametrize(("jobs", "found", "expected"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_what_becomes_of_it(
    jobs: list[Job], found: list[Delivered], expected: Waiting | Overtaken | Ended
) -> None:
    assert expected == decide(jobs, found, jobs, {1: "AI not performed, because it failed"})


def test_a_job_that_a_later_revision_replaced_is_followed_there() -> None:
    """Only a later revision of the same subject and pipeline counts."""
    gone = replace(JOB, state=State.CANCELED)
    other = replace(JOB, id=2, revision=2, pipeline="q")

    assert Overtaken() == decide([gone], [], [gone, replace(JOB, id=2, revision=2)], {})
    assert isinstance(decide([gone], [], [gone, other], {}), Ended)


def test_what_the_node_would_refuse_is_not_waited_for() -> None:
    """A work item may name a PDF beside the images: it would never come."""
    mr, pdf = (UID("1.1"), "1.2.840.10008.5.1.4.1.1.4"), (UID("1.2"), "1.2.840.10008.5.1.4.1.1.104.1")
    both, only_pdf = Input(STUDY, UID("1.3"), (mr, pdf)), Input(STUDY, UID("1.4"), (pdf,))
    whole = Input(STUDY, UID("1.5"), ())

    assert (replace(both, instances=(mr,)), whole) == taken((both, only_pdf, whole), Receive())
    assert (both, only_pdf, whole) == taken((both, only_pdf, whole), Receive(unwanted="store"))
