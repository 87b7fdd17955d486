"""The C-STORE and C-ECHO service: an application entity that only listed peers may speak to.

Everything about one data set is in `intake`, about who may come in `peers`, about what is taken
`policy`. The rest is pynetdicom, bettered where `transport` says.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt

from dicom_node import log
from dicom_node.config import Config
from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError
from dicom_node.receive.intake import Incoming, Intake
from dicom_node.receive.peers import Peers, Rejection
from dicom_node.receive.policy import contexts
from dicom_node.receive.transport import Door
from dicom_node.store.archive import Archive
from dicom_node.store.catalog import Catalog, Recorded

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
FIRST_WORD_S = 10.0
"""Seconds from the connection to its A-ASSOCIATE-RQ (the ARTIM timer, PS3.8 9.1.5)."""


class Receiver:
    """Accepts associations from `start` to `stop`. Raises OSError from `start` when it cannot listen."""

    def __init__(self, config: Config, archive: Archive, catalog: Catalog) -> None:
        self._config = config
        self._intake = Intake(config.receive, archive, catalog)
        self._door: Door | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 while it does not."""
        return 0 if self._door is None else int(self._door.server_address[1])

    def start(self) -> None:
        receive = self._config.receive
        self._peers = Peers.resolved(self._config.node.ae_title, self._config.peer)
        _quiet()
        ae = AE(ae_title=self._config.node.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        ae.maximum_pdu_size = receive.max_pdu_bytes
        ae.network_timeout = receive.network_timeout_s
        ae.dimse_timeout = receive.network_timeout_s
        ae.acse_timeout = min(FIRST_WORD_S, receive.network_timeout_s)
        ae.maximum_associations = 10_000  # counted in `Door`
        self._door = ae.make_server(
            (receive.host, receive.port),
            contexts=contexts(receive),
            evt_handlers=[(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_C_STORE, self._on_store)],
            server_class=Door,
            intake=self._intake,
            deadline_s=receive.network_timeout_s,
        )
        ae._servers.append(self._door)  # as AE.start_server does; `shutdown` takes it from there
        self._thread = threading.Thread(target=self._door.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        log.event("receive.listening", port=self.port, peers=len(self._peers.listed))

    def stop(self, grace_s: float) -> None:
        """Let nobody in any more; associations get `grace_s` to end, then they are aborted."""
        if self._door is None or self._thread is None:
            return
        door, self._door = self._door, None
        door.shutdown()
        self._thread.join()
        until = time.monotonic() + grace_s
        while door.associations and time.monotonic() < until:
            time.sleep(0.02)
        for association in door.associations:
            association.abort()
        while door.associations and time.monotonic() < until + FIRST_WORD_S:
            time.sleep(0.02)

    def _on_requested(self, event: Any) -> None:  # Any: pynetdicom's Event
        """A-ASSOCIATE-RQ: admitted, or rejected with the Standard's reason."""
        assoc = event.assoc
        request = assoc.requestor.primitive
        answer = self._peers.admit(request.calling_ae_title, request.called_ae_title, assoc.requestor.address)
        if not isinstance(answer, Rejection):
            limit = self._config.receive.max_associations
            if assoc._server.let_in(assoc, limit):
                assoc.dimse.peer = answer.name
                return
            answer = Rejection.FULL
        log.problem("receive.rejected", reason=answer.name.lower(), address=assoc.requestor.address)
        assoc.acse.send_reject(*answer.value)
        assoc.kill()

    def _on_store(self, event: Any) -> Dataset:  # Any: pynetdicom's Event
        """The edge: every error becomes a status, and only a committed row becomes success."""
        incoming: Incoming = event.request.incoming
        dimse = event.assoc.dimse
        try:
            recorded = incoming.keep()
        except DicomNodeError as error:
            dimse.refused += 1
            log.problem(
                "instance.refused", peer=dimse.peer, status=f"0x{error.dimse_status:04X}",
                error=type(error).__name__, bytes=incoming.size_bytes,
            )  # fmt: skip
            return _status(error.dimse_status, str(error))
        except Exception as error:  # noqa: BLE001 - the edge: the sender must get an answer, and no success
            dimse.refused += 1
            log.problem("instance.failed", peer=dimse.peer, error=type(error).__name__)
            return _status(PROCESSING_FAILURE, "something failed inside the node; its log says what")
        dimse.stored += recorded is Recorded.NEW
        dimse.stored_bytes += incoming.size_bytes
        log.detail("instance.stored", instance=UID(event.request.AffectedSOPInstanceUID), what=recorded.value)
        return _status(SUCCESS)


def _status(code: int, comment: str = "") -> Dataset:
    ds = Dataset()
    ds.Status = code
    if comment:  # LO: 64 characters, no backslash (PS3.5 6.2)
        ds.ErrorComment = comment.encode("ascii", "replace").decode().replace("\\", "/")[:64]
    return ds


def _quiet() -> None:
    """pynetdicom's own logs at WARNING, identifiers off: they would quote patients."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    logging.getLogger("pynetdicom").setLevel(logging.WARNING)
