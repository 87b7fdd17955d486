"""What is answered to a store transaction: PS3.18 10.5.3 and Annex I.2, as application/dicom+json.

Pure: outcomes in, status and JSON (PS3.18 Annex F) out. Retrieve URL is empty (type 2): this node
gives no images back. There are no warnings, since nothing is coerced or discarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError, InvalidValue

MEDIA_TYPE = "application/dicom+json"

_CLASS, _INSTANCE, _REASON, _COMMENT = "00081150", "00081155", "00081197", "00000902"
_RETRIEVE_URL = "00081190"
_FAILED, _REFERENCED, _OTHER_FAILURES = "00081198", "00081199", "0008119A"
_COMMENT_CHARACTERS = 64  # LO, PS3.5 6.2


@dataclass(frozen=True, slots=True)
class Outcome:
    """One part of the request: stored, or why not. The UIDs are as sent, "" where unknown."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    error: DicomNodeError | None = None


Json = dict[str, object]


def http_status(outcomes: Sequence[Outcome]) -> int:
    """200 all stored, 202 some, 409 none; 503 when all that is wrong is a want of room, which may pass.

    An error that ended the request (too large, malformed, too slow) gives its own status where
    nothing was stored.
    """
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if not errors:
        return 200
    if len(errors) < len(outcomes):
        return 202
    if all(error.retry and error.dimse_status >> 8 == 0xA7 for error in errors):
        return 503
    return 409


def content(outcomes: Sequence[Outcome]) -> Json:
    """Table I.2-1. A part that could not be told to be an instance counts among Other Failures."""
    stored = [outcome for outcome in outcomes if outcome.error is None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    known = [outcome for outcome in failed if _known(outcome)]
    unknown = [outcome for outcome in failed if not _known(outcome)]
    answer: Json = {_RETRIEVE_URL: {"vr": "UR"}}
    if known:
        answer[_FAILED] = _sequence([{**_reference(one), **_failure(one)} for one in known])
    if stored:
        answer[_REFERENCED] = _sequence([{**_reference(one), _RETRIEVE_URL: {"vr": "UR"}} for one in stored])
    if unknown:
        answer[_OTHER_FAILURES] = _sequence([_failure(one) for one in unknown])
    return answer


def _known(outcome: Outcome) -> bool:
    try:
        UID(outcome.sop_class_uid), UID(outcome.sop_instance_uid)
    except InvalidValue:
        return False
    return True


def _reference(outcome: Outcome) -> Json:
    return {
        _CLASS: {"vr": "UI", "Value": [outcome.sop_class_uid]},
        _INSTANCE: {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _failure(outcome: Outcome) -> Json:
    """Failure Reason is the status that C-STORE would answer; Error Comment its reason in words."""
    error = outcome.error or DicomNodeError()
    words = str(error).encode("ascii", "replace").decode().replace("\\", "/")[:_COMMENT_CHARACTERS]
    return {
        _REASON: {"vr": "US", "Value": [error.dimse_status]},
        _COMMENT: {"vr": "LO", "Value": [words]},
    }


def _sequence(items: Sequence[Json]) -> Json:
    return {"vr": "SQ", "Value": list(items)}
