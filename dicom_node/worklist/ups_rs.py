"""A worklist manager by DICOMweb: UPS-RS as user agent (PS3.18 11.5 to 11.7, 11.9).

The Transaction UID of an update stands in the query, as PS3.18 11.6.1 writes it and as `transaction`, and in
the data set, as PS3.4 CC.2.6.2 wants it: servers look here or there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any  # Any: JSON of a peer

from pydicom.dataset import Dataset

from dicom_node import log
from dicom_node.config import Peer, Tls
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import Item
from dicom_node.errors import PeerRefused, PeerUnreachable, UnreadableObject
from dicom_node.scu.association import name
from dicom_node.scu.web import JSON, address, client, not_reached
from dicom_node.worklist.item import change, read
from dicom_node.worklist.manager import MOST_ITEMS, Reply, Said, Sought

if TYPE_CHECKING:
    import httpx

LONGEST_ANSWER_BYTES = 32 << 20
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others another time."""
_SETTINGS = {
    401: "does not accept this node's token (401): see `token_file`",
    403: "lets this node in but not do that (403): allow it there",
    405: "has no UPS-RS at that address (405): is `url` the base of its DICOMweb service?",
}
_NO_SERVICE = "has no UPS-RS at that address (404): is `url` the base of its DICOMweb service?"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    warning: str
    body: Any  # Any: JSON; None where it is none


@dataclass(frozen=True)
class RestManager:
    """Raises PeerUnreachable, or PeerRefused with what to change there."""

    peer: Peer
    timeout_s: float
    tls: Tls

    def search(self, sought: Sought) -> Sequence[Item]:
        answer = self._ask("GET", "workitems", query=list(_query(sought)))
        if answer.status == 404:
            raise PeerRefused(f"{name(self.peer)} {_NO_SERVICE}")
        if answer.status == 204:
            return []
        self._check(answer)
        return list(self._items(answer.body))

    def _items(self, body: Any) -> Iterator[Item]:  # Any: JSON of a peer
        for one in (body if isinstance(body, list) else [])[:MOST_ITEMS]:
            try:
                yield read(_data_set(one))
            except UnreadableObject as error:
                log.problem("worklist.unreadable", peer=self.peer.name, why=str(error))

    def get(self, uid: UID) -> Item | None:
        answer = self._ask("GET", "workitems", uid)
        if answer.status in (404, 410):
            return None
        self._check(answer)
        one = answer.body[0] if isinstance(answer.body, list) and answer.body else answer.body
        return read(_data_set(one), uid)

    def update(self, uid: UID, transaction_uid: UID, changes: Dataset) -> Reply:
        ds = Dataset()
        ds.update(changes)
        ds.TransactionUID = transaction_uid
        query = [(transaction_uid, ""), ("transaction", transaction_uid)]
        return self._reply(self._ask("POST", "workitems", uid, query=query, ds=ds))

    def change_state(self, uid: UID, transaction_uid: UID, state: str) -> Reply:
        ds = change(state, transaction_uid)
        return self._reply(self._ask("PUT", "workitems", uid, "state", ds=ds))

    def _ask(
        self, method: str, *path: str, query: Sequence[tuple[str, str]] = (), ds: Dataset | None = None
    ) -> _Answer:
        import httpx

        content = None if ds is None else json.dumps([ds.to_json_dict()]).encode()
        headers = {} if ds is None else {"Content-Type": JSON}
        try:
            with (
                client(self.peer, self.timeout_s, self.tls) as opened,
                opened.stream(
                    method, address(self.peer, *path), params=list(query), content=content, headers=headers
                ) as response,
            ):
                answer = _Answer(
                    response.status_code, " ".join(response.headers.get_list("warning")), _json(response)
                )
        except (httpx.HTTPError, OSError) as error:
            raise PeerUnreachable(not_reached(self.peer, error)) from error
        self._check_let_in(answer.status)
        return answer

    def _check_let_in(self, status: int) -> None:
        if 300 <= status < 400:
            raise PeerRefused(
                f"{name(self.peer)} redirects (HTTP {status}), which is not followed: correct `url`"
            )
        if status in _SETTINGS:
            raise PeerRefused(f"{name(self.peer)} {_SETTINGS[status]}")
        if status in _LATER:
            raise PeerUnreachable(f"{name(self.peer)} answers HTTP {status}: see its log")

    def _check(self, answer: _Answer) -> None:
        if answer.status != 200 or answer.body is None:
            raise PeerRefused(f"{name(self.peer)} answers HTTP {answer.status}, no work items: see its log")

    def _reply(self, answer: _Answer) -> Reply:
        """PS3.18 Tables 11.6.3-1 and 11.7.3-1; which conflict it is only the Warning header says."""
        said = _meaning(answer)
        if said is Said.DONE:
            return Reply(said)
        return Reply(said, f"{name(self.peer)} answers HTTP {answer.status}: {said.value}")


def _meaning(answer: _Answer) -> Said:
    if 200 <= answer.status < 300:
        return Said.DONE
    if answer.status in (404, 410):
        return Said.GONE
    if answer.status not in (400, 409):
        return Said.REFUSED
    words = answer.warning.lower()
    if "transaction uid" in words and ("incorrect" in words or "missing" in words or "not provided" in words):
        return Said.NOT_OURS
    return Said.CONFLICT


def _query(sought: Sought) -> Iterator[tuple[str, str]]:
    """PS3.18 11.9.1: matching by attribute paths."""
    yield "ProcedureStepState", "SCHEDULED"
    for keyword, wanted in (
        ("ScheduledWorkitemCodeSequence", sought.workitem),
        ("ScheduledStationNameCodeSequence", sought.station),
    ):
        if wanted is not None:
            yield f"{keyword}.CodeValue", wanted[0]
            yield f"{keyword}.CodingSchemeDesignator", wanted[1]
    yield "includefield", "ScheduledWorkitemCodeSequence"
    yield "includefield", "ScheduledStationNameCodeSequence"
    yield "limit", str(MOST_ITEMS)


def _json(response: httpx.Response) -> Any:  # Any: JSON of a peer
    """None where it is none, or too long."""
    encoded = bytearray()
    for chunk in response.iter_bytes():
        encoded += chunk
        if len(encoded) > LONGEST_ANSWER_BYTES:
            return None
    try:
        return json.loads(encoded)
    except (ValueError, RecursionError):
        return None


def _data_set(said: Any) -> Dataset:  # Any: JSON of a peer
    """Raises UnreadableObject, whatever is wrong with it. Bulk data is not fetched."""
    try:
        return Dataset.from_json(said)
    except Exception as error:  # the edge to a decoder on a peer's bytes, which raises anything
        raise UnreadableObject(f"no work item that can be read ({type(error).__name__})") from error
