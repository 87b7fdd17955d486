"""The one family of errors.

Every error the node raises on purpose is a `DicomNodeError`. The class docstring is the
sentence an operator reads when nothing more is known; the message names what offended,
unless that is about a person. Each class knows how the edges answer it: `dimse_status`
(PS3.4 B.2.3, PS3.7 Annex C), `http_status` and whether trying again can help (`retry`).
"""

from __future__ import annotations

from typing import ClassVar


class DicomNodeError(Exception):
    """Something went wrong in the node."""

    dimse_status: ClassVar[int] = 0x0110  # Processing failure, PS3.7 C.5.5
    http_status: ClassVar[int] = 500
    retry: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or " ".join((type(self).__doc__ or "").split("\n\n")[0].split()))


class ConfigurationError(DicomNodeError):
    """The configuration is not usable; the node does not start with it."""


class InvalidValue(DicomNodeError):
    """A value is not what the Standard allows here."""

    dimse_status = 0xC000  # Cannot understand, PS3.4 B.2.3
    http_status = 400


class DataSetMismatch(DicomNodeError):
    """The data set is not the SOP instance that the C-STORE request announced."""

    dimse_status = 0xA900  # Data Set does not match SOP Class, PS3.4 B.2.3
    http_status = 409


class UnreadableObject(DicomNodeError):
    """The object cannot be read as DICOM."""

    dimse_status = 0xC000  # Cannot understand
    http_status = 400


class StorageRefused(DicomNodeError):
    """This node does not take objects of this kind; its policy says so."""

    dimse_status = 0x0122  # SOP Class not supported, PS3.7 C.5.6
    http_status = 409


class OutOfStorage(DicomNodeError):
    """The archive has no room; the sender should try again later."""

    dimse_status = 0xA700  # Refused: Out of Resources, PS3.4 B.2.3
    http_status = 503
    retry = True


class LedgerUnavailable(DicomNodeError):
    """The database does not answer; nothing was acknowledged, and it is tried again."""

    dimse_status = 0xA700  # Refused: Out of Resources
    http_status = 503
    retry = True


class UnfaithfulGeometry(DicomNodeError):
    """The images do not make a regular volume, and the node does not guess the missing part."""


class IntegrityError(DicomNodeError):
    """A stored file is not what was received: its digest differs. It is not used."""


class LeaseLost(DicomNodeError):
    """Another worker holds this job now; what this one made is thrown away."""


class ModelError(DicomNodeError):
    """A model bundle is missing, damaged or not what its card says."""


class PipelineError(DicomNodeError):
    """A pipeline failed on this study."""


class JobTimeout(PipelineError):
    """The job ran past its time limit and was stopped."""

    retry = True


class WorkerDied(PipelineError):
    """The process that ran the job died; the job is tried again."""

    retry = True


class WorkerKilled(WorkerDied):
    """The process that ran the job was killed by the kernel or by a person; the job is tried again."""


class OutOfMemory(PipelineError):
    """The job went over its memory limit and was stopped."""

    retry = True


class DeliveryError(DicomNodeError):
    """A result could not be delivered."""

    retry = True


class PeerUnreachable(DeliveryError):
    """The peer does not answer; is it up, and are host and port right?"""


class PeerRefused(DeliveryError):
    """The peer answers but does not let this node in."""


class WorkItemRefused(DicomNodeError):
    """The worklist manager does not take this change of a work item."""

    retry = True


class DeliveryRefused(DeliveryError):
    """The peer looked at the object and will not take it; sending it again would not help."""

    retry = False


class NodeStopping(PipelineError):
    """The node is stopping; the job is done after the next start."""

    retry = True


class AuditError(DicomNodeError):
    """The audit trail could not be written or read; see its folder and the disk."""


class RetrieveError(DicomNodeError):
    """The peer could not be asked what it has, or did not give it."""

    retry = True


class QueryRefused(RetrieveError):
    """The peer answers no queries of this node; asking again changes nothing until it is allowed there."""
