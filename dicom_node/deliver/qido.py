"""QIDO-RS (PS3.18 10.6): whether a peer with a `url` shows an object that it took."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicom_node.config import Config, Peer
from dicom_node.domain.identity import UID
from dicom_node.errors import PeerRefused, PeerUnreachable, QueryRefused, RetrieveError
from dicom_node.scu.association import name
from dicom_node.scu.web import address, client, not_reached

if TYPE_CHECKING:
    import httpx

LONGEST_ANSWER_BYTES = 1 << 20
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


@contextmanager
def searching(config: Config, peer: Peer) -> Iterator[Callable[[UID, UID, UID], bool]]:
    """Questions, one after the other. Raises PeerUnreachable where the configuration has to be mended."""
    with client(peer, config.deliver.timeout_s, config.tls) as opened:
        yield _Search(opened, peer).shows


class _Search:
    """Questions to one peer, one after the other. Used by one thread."""

    def __init__(self, opened: httpx.Client, peer: Peer) -> None:
        self._client, self._peer = opened, peer

    def shows(self, study_uid: UID, series_uid: UID, sop_instance_uid: UID) -> bool:
        """PS3.18 10.6.1: among the instances of its series, else (404: it may not know the series) of all.

        Raises PeerUnreachable, PeerRefused or RetrieveError.
        """
        status, found = self._ask(f"studies/{study_uid}/series/{series_uid}/instances", sop_instance_uid)
        if status == 404:
            status, found = self._ask("instances", sop_instance_uid)
        if status in (200, 204):
            return sop_instance_uid in found
        if status in _LATER:
            raise RetrieveError(f"{name(self._peer)} answers a search with HTTP {status}: see its log")
        raise QueryRefused(
            f"{name(self._peer)} answers no search of this node (QIDO-RS, HTTP {status}): allow it there,"
            ' or set `confirm = "no"`'
        )

    def _ask(self, path: str, sop_instance_uid: UID) -> tuple[int, frozenset[str]]:
        import httpx

        wanted = {"SOPInstanceUID": sop_instance_uid}
        try:
            with self._client.stream("GET", address(self._peer, path), params=wanted) as answer:
                return answer.status_code, _found(answer)
        except (PeerUnreachable, PeerRefused):
            raise
        except (httpx.HTTPError, OSError) as error:
            raise PeerUnreachable(not_reached(self._peer, error)) from error


def _found(answer: httpx.Response) -> frozenset[str]:
    """The SOP Instance UIDs of the answer, PS3.18 F.2; none where it cannot be read, or is too long."""
    encoded = bytearray()
    for chunk in answer.iter_bytes():
        encoded += chunk
        if len(encoded) > LONGEST_ANSWER_BYTES:
            return frozenset()
    try:
        return frozenset(str(one["00080018"]["Value"][0]) for one in json.loads(encoded or b"[]"))
    except (ValueError, RecursionError, TypeError, LookupError):
        return frozenset()
