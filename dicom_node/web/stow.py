"""STOW-RS: the store transaction of PS3.18 10.5, in front of the same ingest door as C-STORE.

A body is read no faster than it is written: each chunk goes to a thread, and the next is asked for
when it is on its way to the disk. Nobody's body is read who has not shown who he is. Whatever ends
a request (a drip, a lost client, a malformed part), what was kept before stays kept and is
answered, and what was not whole leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from dicom_node import audit, log
from dicom_node.config import Config, Peer
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError, InvalidValue
from dicom_node.receive.callers import Callers
from dicom_node.web import store_response
from dicom_node.web.multipart import Malformed, MediaType, boundary_of
from dicom_node.web.store_response import Outcome
from dicom_node.web.upload import Entrance, Upload

THREADS = 16
"""That write and commit, for all uploads together."""
RETRY_AFTER_S = 30
LINGER_S = 1.0
"""How long what a client still sends is read and dropped after an early answer: closing at once would
reset the connection, and the client might never see the answer (RFC 9112 9.6)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may come. Only time spent waiting for the client counts, not this node's own."""

    silence_s: float = 60.0
    """Longest wait for the next bytes."""
    slowest_bytes_per_s: int = 16_000
    grace_s: float = 30.0
    """Before the rate is looked at."""
    longest_s: float = 4 * 3600.0
    """Of one request, this node's own time included."""


class TooSlow(DicomNodeError):
    """The body came too slowly, and was cut off."""

    dimse_status: ClassVar[int] = 0x0110
    http_status: ClassVar[int] = 408
    retry = True


class Refusal(DicomNodeError):
    """The request is refused before its body is read."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class ClientGone(DicomNodeError):
    """The client closed the connection before its request was whole."""

    http_status: ClassVar[int] = 400


class Stow:
    """The ASGI endpoint of `POST /studies` and `POST /studies/{study}`.

    Mutable, touched by the event loop alone: how many uploads each peer has.
    """

    def __init__(
        self, entrance: Entrance, callers: Callers, config: Config, pace: Pace | None = None
    ) -> None:
        self._entrance = entrance
        self._callers = callers
        self._at_most = config.receive.max_associations
        self._pace = pace or Pace(silence_s=config.receive.network_timeout_s)
        self._uploads: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="stow")

    def close(self) -> None:
        """After the server has stopped."""
        self._threads.shutdown(wait=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        address = request.client.host if request.client else ""
        try:
            peer = self._admitted(request)
            by = "token" if request.headers.get("authorization") else "certificate"
            await self._record(audit.Admitted(peer.name, address, "STOW-RS", by))
            study_uid, boundary = _asked(request)
            with self._place(peer):
                answer = await self._store(request, peer, address, study_uid, boundary)
        except Refusal as refusal:
            log.problem("web.refused", status=refusal.status, address=address)
            if refusal.status in (401, 403):
                await self._record(audit.Refused(address, "", "STOW-RS", str(refusal)))
            answer = JSONResponse({"error": str(refusal)}, refusal.status, headers=refusal.headers)
            answer.headers["Connection"] = "close"
        except ClientGone:
            return
        await _send(answer, scope, receive, send)

    async def _record(self, event: audit.Event) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._entrance.trail.record, event)

    def _admitted(self, request: Request) -> Peer:
        """Raises Refusal: 401 for a stranger, 403 for a peer that may not send."""
        peer = self._callers.peer(
            request.headers.get("authorization", ""), request.scope.get("state", {}).get("certificate", "")
        )
        if peer is None:
            raise Refusal(401, "a peer's bearer token or certificate is needed", WWW_Authenticate="Bearer")
        if not peer.may_send:
            raise Refusal(403, "this peer may not send images (peer.may_send)")
        return peer

    @contextmanager
    def _place(self, peer: Peer) -> Iterator[None]:
        """Raises Refusal when there are as many uploads as may be."""
        if self._uploads[peer.name] >= peer.max_associations or self._uploads.total() >= self._at_most:
            raise Refusal(503, "as many uploads as may be are running; later again", Retry_After="5")
        self._uploads[peer.name] += 1
        try:
            yield
        finally:
            self._uploads[peer.name] -= 1

    async def _store(
        self, request: Request, peer: Peer, address: str, study_uid: UID | None, boundary: str
    ) -> Response:
        began, loop = time.monotonic(), asyncio.get_running_loop()
        upload = Upload(self._entrance, boundary, peer=peer.name, address=address, study_uid=study_uid)
        body = _Body(request.receive, self._pace)
        ended: DicomNodeError | None = None
        whole = False
        try:
            async for chunk in body:
                await loop.run_in_executor(self._threads, upload.feed, chunk)
            upload.finish()
            whole = True
        except DicomNodeError as error:
            ended = error
        finally:  # also when this task is cancelled: the thread may still be writing, so it waits its turn
            await asyncio.shield(loop.run_in_executor(self._threads, partial(upload.close, whole=whole)))
        stored = sum(outcome.error is None for outcome in upload.outcomes)
        log.event(
            "web.upload", peer=peer.name, stored=upload.new, refused=len(upload.outcomes) - stored,
            bytes=upload.size_bytes, ended=type(ended).__name__ if ended else "whole",
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip
        if isinstance(ended, ClientGone):
            raise ended
        return _answer(upload.outcomes, ended, close=not body.whole)


def _asked(request: Request) -> tuple[UID | None, str]:
    """The study named by the URL, and the body's boundary. Raises Refusal."""
    headers = request.headers
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "a Content-Encoding is not taken: send the parts as they are")
    media_type = MediaType.of(headers.get("content-type", ""))
    kind = media_type.parameters.get("type", "application/dicom").lower()
    if media_type.name != "multipart/related" or kind != "application/dicom":
        raise Refusal(415, 'taken is: multipart/related; type="application/dicom"; boundary=...')
    if not _acceptable(headers):
        raise Refusal(406, f"what can be answered is {store_response.MEDIA_TYPE}")
    try:
        study = request.path_params.get("study")
        return (UID(study) if study is not None else None), boundary_of(media_type)
    except (InvalidValue, Malformed) as error:
        raise Refusal(400, str(error)) from error


def _acceptable(headers: Headers) -> bool:
    """Whether JSON may be answered; without an Accept header it may."""
    asked = [MediaType.of(one) for line in headers.getlist("accept") for one in line.split(",")]
    names = {
        one.name for one in asked if one.parameters.get("q", "1").strip("0. ") or "q" not in one.parameters
    }
    taken = {store_response.MEDIA_TYPE, "application/json", "application/*", "*/*", ""}
    return not asked or bool(names & taken)


class _Body:
    """The chunks of a body. Mutable: `whole` once the last one was given out."""

    def __init__(self, receive: Receive, pace: Pace) -> None:
        self._receive, self._pace = receive, pace
        self.whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises TooSlow or ClientGone."""
        began, waited_s, size, pace = time.monotonic(), 0.0, 0, self._pace
        while not self.whole:
            asked = time.monotonic()
            message = await _next(self._receive, pace)
            now = time.monotonic()
            waited_s += now - asked
            if message["type"] == "http.disconnect":
                raise ClientGone
            size += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)
            if now - began > pace.longest_s:
                raise TooSlow("the request took longer than any may")
            if waited_s > pace.grace_s and size < waited_s * pace.slowest_bytes_per_s:
                raise TooSlow
            if message.get("body"):
                yield message["body"]


async def _next(receive: Receive, pace: Pace) -> Message:
    try:
        async with asyncio.timeout(pace.silence_s):
            return await receive()
    except TimeoutError as error:
        raise TooSlow from error


def _answer(outcomes: list[Outcome], ended: DicomNodeError | None, *, close: bool) -> Response:
    """What became of the parts; `ended` is why the request was not read or understood to its end, if so."""
    told = list(outcomes)
    if ended is not None and not any(type(one.error) is type(ended) for one in outcomes):
        told.append(Outcome(error=ended))
    status = store_response.http_status(told)
    if ended is not None and status != 202:
        status = ended.http_status
    answer = JSONResponse(store_response.content(told), status, media_type=store_response.MEDIA_TYPE)
    if status == 503:
        answer.headers["Retry-After"] = str(RETRY_AFTER_S)
    if close:
        answer.headers["Connection"] = "close"
    return answer


async def _send(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """As the response would, but one that closes the connection lets the client read it first."""
    if answer.headers.get("connection") != "close":
        await answer(scope, receive, send)
        return
    start: Message = {
        "type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers,
    }  # fmt: skip
    await send(start)
    await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})
    await _linger(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_S):
            message: Message = {"type": "http.request", "more_body": True}
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()
    except TimeoutError:
        return
