"""STOW-RS as destination (PS3.18 10.5): one object per request, the stored bytes as they are.

Promises: every file gets exactly one `Sent`; no redirect is followed (the objects and the token
go where the configuration says, nowhere else); the environment's proxies are not asked. The
reasons in the answer are DIMSE statuses (PS3.18 Tables I.2-1 and I.2-2), read by `dicom/status.py`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any  # Any: JSON of a peer

from dicom_node.config import Peer, Tls
from dicom_node.deliver.scu import SLOWEST_BYTES_PER_S, Sent
from dicom_node.dicom.status import Kind, classify
from dicom_node.errors import PeerRefused, PeerUnreachable
from dicom_node.scu.association import name
from dicom_node.scu.web import address, client, not_reached

if TYPE_CHECKING:
    import httpx

LONGEST_ANSWER_BYTES = 1 << 20
CHUNK_BYTES = 1 << 20
LONGEST_PAUSE_S = 24 * 3600.0

_FAILED, _REFERENCED, _FAILURE_REASON, _WARNING_REASON = "00081198", "00081199", "00081197", "00081196"
_DUPLICATE = 0x0111
_PASSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
"""Answers that may be others another time."""
_SETTINGS = {
    401: "does not accept this node's token (401): see `token_file`",
    403: "lets this node in but not store (403): allow it there",
    404: "knows no such address (404): is `url` the base of its DICOMweb service, without `/studies`?",
    405: "does not take objects there (405): is `url` the base of its DICOMweb service?",
}
"""Answers that a person has to end, by the peer's settings or ours: all waits, as for a peer that is down."""
_REFUSALS = {
    400: "finds the request wrong (400)",
    406: "cannot answer in JSON (406)",
    413: "finds the object too large (413): raise its limit",
    415: "takes no objects of this kind (415): allow it there",
}


def send(
    peer: Peer, files: Sequence[Path], timeout_s: float, *, tls: Tls | None = None
) -> Generator[Sent, None, None]:
    """Store `files` at `peer.url`, one request each; yields one Sent per file as it is known."""
    import httpx  # here: only where a peer has a url

    waiting = list(files)
    try:
        with client(peer, timeout_s, tls or Tls()) as opened:
            while waiting:
                try:
                    sent = _store(opened, peer, waiting[0])
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    raise PeerUnreachable(not_reached(peer, error)) from error
                except (httpx.HTTPError, OSError) as error:
                    why = f"{name(peer)} did not answer this object ({type(error).__name__}): see its log"
                    sent = Sent(waiting[0], Kind.RETRY_LATER, None, why)
                del waiting[0]
                yield sent
                if sent.wait_s:
                    for path in waiting:
                        yield replace(sent, path=path, tried=False)
                    return
        return
    except (PeerUnreachable, PeerRefused) as error:
        why = str(error)
    yield from (Sent(path, Kind.RETRY_LATER, None, why, tried=False) for path in waiting)


def reach(peer: Peer, timeout_s: float, *, tls: Tls | None = None) -> None:
    """Whether somebody answers there and lets this node in; nothing is sent.

    Raises PeerUnreachable or PeerRefused with what to change.
    """
    import httpx

    with client(peer, timeout_s, tls or Tls()) as opened:
        try:
            answer = opened.request("OPTIONS", address(peer, "studies"))
        except (httpx.HTTPError, OSError) as error:
            raise PeerUnreachable(not_reached(peer, error)) from error
    if answer.status_code not in (404, 405):  # it may know the address and not the question
        _raise_for_settings(peer, answer.status_code)
    if answer.status_code >= 500:
        raise PeerUnreachable(f"{name(peer)} answers HTTP {answer.status_code}: see its log")


def _store(client: httpx.Client, peer: Peer, path: Path) -> Sent:
    boundary = f"dicom-node-{uuid.uuid4().hex}"
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    size = path.stat().st_size
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Content-Length": str(len(head) + size + len(tail)),
    }
    allowed_s = (client.timeout.read or 0.0) + size / SLOWEST_BYTES_PER_S
    with client.stream(
        "POST", address(peer, "studies"), content=_body(head, path, tail), headers=headers, timeout=allowed_s
    ) as answer:
        _raise_for_settings(peer, answer.status_code)
        sent = _meaning(peer, path, answer.status_code, _read(answer))
        return replace(sent, wait_s=_asked_pause_s(answer)) if answer.status_code in _PASSES else sent


def _asked_pause_s(answer: httpx.Response) -> float:
    """Retry-After, RFC 9110 10.2.3: seconds or a date; a day at most, 0 where it is neither."""
    said = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(int(said)) if said.isdecimal() else parsedate_to_datetime(said).timestamp() - time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_PAUSE_S)


def _body(head: bytes, path: Path, tail: bytes) -> Iterator[bytes]:
    yield head
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    yield tail


def _read(answer: httpx.Response) -> dict[str, Any]:
    """The Store Instances Response, PS3.18 10.5.3.2; empty where it is none, or too long."""
    encoded = bytearray()
    for chunk in answer.iter_bytes():
        encoded += chunk
        if len(encoded) > LONGEST_ANSWER_BYTES:
            return {}
    try:
        told = json.loads(encoded)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _raise_for_settings(peer: Peer, status: int) -> None:
    if 300 <= status < 400:
        raise PeerRefused(f"{name(peer)} redirects (HTTP {status}), which is not followed: correct `url`")
    if status in _SETTINGS:
        raise PeerRefused(f"{name(peer)} {_SETTINGS[status]}")


def _meaning(peer: Peer, path: Path, http: int, told: dict[str, Any]) -> Sent:
    """PS3.18 Table 10.5.3-1; the request held one object, so whatever is said is of this one."""
    if http in _PASSES:
        return Sent(path, Kind.RETRY_LATER, None, f"{name(peer)} answers HTTP {http}: see its log")
    if (failure := _reason(told, _FAILED, _FAILURE_REASON)) is not None:
        meaning = classify(failure)
        stored = meaning.kind in (Kind.SUCCESS, Kind.WARNING) and failure != _DUPLICATE
        kind = Kind.RETRY_LATER if stored else meaning.kind  # it stands among those that were not stored
        return Sent(path, kind, failure, f"{meaning.sentence} (HTTP {http})")
    if http == 200 or (http == 202 and told.get(_REFERENCED)):
        warning = _reason(told, _REFERENCED, _WARNING_REASON)
        if not warning:
            return Sent(path, Kind.SUCCESS, 0x0000, "")
        return Sent(path, Kind.WARNING, warning, classify(warning).sentence)
    if 200 <= http < 300:
        why = f"{name(peer)} does not say whether it stored the object (HTTP {http})"
        return Sent(path, Kind.RETRY_LATER, None, why)
    said = _REFUSALS.get(http, f"refuses the object (HTTP {http})")
    return Sent(path, Kind.REFUSED, None, f"{name(peer)} {said}; keep it, and see the peer's log")


def _reason(told: dict[str, Any], sequence: str, reason: str) -> int | None:
    """The number in the first item of a sequence, PS3.18 I.2; 0 where it has none, None without item."""
    try:
        items = told.get(sequence, {}).get("Value") or []
        if not items:
            return None
        number = int((items[0].get(reason, {}).get("Value") or [0])[0])
    except (AttributeError, TypeError, ValueError, KeyError, IndexError):
        return 0x0110 if sequence == _FAILED else None
    if sequence == _FAILED and number == 0:
        return 0x0110
    return number if 0 <= number <= 0xFFFF else 0x0110
