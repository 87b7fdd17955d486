"""Why a job failed, in words for a radiologist: "AI not performed, because ...".

One fixed sentence per kind of error. What the error itself says stays in the ledger: it may
quote a data set, and its numbers differ from run to run, while a result must repeat.
"""

from __future__ import annotations

import hashlib

from dicom_node.domain.findings import NotPerformed
from dicom_node.domain.pipeline import Plan
from dicom_node.errors import (
    DicomNodeError,
    IntegrityError,
    InvalidValue,
    JobTimeout,
    ModelError,
    OutOfMemory,
    UnfaithfulGeometry,
    UnreadableObject,
    WorkerDied,
)

_KINDS: tuple[tuple[type[DicomNodeError], str], ...] = (
    (JobTimeout, "time"),
    (OutOfMemory, "memory"),
    (WorkerDied, "stopped"),
    (ModelError, "model"),
    (UnfaithfulGeometry, "images"),
    (UnreadableObject, "images"),
    (IntegrityError, "images"),
    (InvalidValue, "images"),
)
_BECAUSE = {
    "time": "the computation took longer than this node allows",
    "memory": "the computation needed more memory than this node allows",
    "stopped": "the program that computes it stopped unexpectedly",
    "model": "its model is missing or damaged",
    "images": "the images cannot be read",
    "error": "the computation met an error",
}


def kind_of(error: DicomNodeError) -> str:
    """The stable word for an error; `error` for one that no other word fits."""
    return next((word for kind, word in _KINDS if isinstance(error, kind)), "error")


def refusal(pipeline: str, version: str, failure: str) -> Plan:
    """A plan that says why there is no result; `failure` is a word of `kind_of`."""
    because = _BECAUSE.get(failure, _BECAUSE["error"])
    return Plan(pipeline, version, (), not_performed=NotPerformed(because, "failed"))


def notice_key(input_key: str, failure: str) -> str:
    """What the notice's UIDs derive from: other ones than the result's, the same for the same reason."""
    return hashlib.sha256(f"{input_key} not performed: {failure}".encode()).hexdigest()
