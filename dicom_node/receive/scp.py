"""The C-STORE and C-ECHO service: two doors, plain and TLS, that only listed peers get through.

door         accepts; a thread per connection
places       how many may be here, and who makes room
wire         bytes with deadlines; TLS or not
visit        one connection from accept to close: handshake, first words, admission, audit
negotiation  A-ASSOCIATE, by pynetdicom's PDUs;  peers  who may come in;  policy  what is taken
association  the messages of one association
intake       T1: one data set to the disk and the ledger, and only then success
commitment   what a destination reports on storage commitment
"""

from __future__ import annotations

import logging
import time
from functools import partial

from pynetdicom import _config

from dicom_node import log
from dicom_node.audit import Trail
from dicom_node.config import Config
from dicom_node.receive import commitment
from dicom_node.receive.door import Door
from dicom_node.receive.intake import Intake
from dicom_node.receive.peers import Peers
from dicom_node.receive.places import Places
from dicom_node.receive.policy import contexts
from dicom_node.receive.visit import House, serve
from dicom_node.store.archive import Archive
from dicom_node.store.catalog import Catalog
from dicom_node.store.commitments import Commitments
from dicom_node.tls import server_context


class Receiver:
    """Accepts associations from `start` to `stop`. Raises OSError from `start` when it cannot listen."""

    def __init__(
        self, config: Config, archive: Archive, catalog: Catalog, trail: Trail,
        commitments: Commitments | None = None,
    ) -> None:  # fmt: skip
        self._config = config
        self._intake = Intake.of(config, archive, catalog)
        self._trail = trail
        self._commitments = commitments if any(peer.commitment for peer in config.peer) else None
        self._places = Places(config.receive.max_associations)
        self._plain: Door | None = None
        self._secure: Door | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 while it does not."""
        return self._plain.port if self._plain else 0

    @property
    def tls_port(self) -> int:
        """Where it listens for TLS; 0 while it does not."""
        return self._secure.port if self._secure else 0

    def start(self) -> None:
        """Raises ConfigurationError when the TLS files are not what they should be."""
        config = self._config
        _quiet()
        house = House(
            config.receive, Peers.resolved(config.node.ae_title, config.peer), self._places, self._intake,
            self._trail, [*contexts(config.receive), *([commitment.context()] if self._commitments else [])],
            self._commitments,
        )  # fmt: skip
        host = config.receive.host
        tls = server_context(config.tls) if config.tls.port else None
        if tls is not None:
            self._secure = Door(host, config.tls.port, partial(serve, house, tls), "tls")
        try:
            self._plain = Door(host, config.receive.port, partial(serve, house, None), "plain")
        except OSError:
            self._close()
            raise
        log.event("receive.listening", port=self.port, tls_port=self.tls_port, peers=len(house.peers.listed))

    def stop(self, grace_s: float) -> None:
        """Let nobody in any more; associations get `grace_s` to end, then their connections are closed."""
        self._close()
        self._wait(grace_s)
        self._places.end_all()
        self._wait(grace_s)

    def _close(self) -> None:
        for door in (self._secure, self._plain):
            if door is not None:
                door.close()
        self._secure = self._plain = None

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._places.empty() and time.monotonic() < until:
            time.sleep(0.02)


def _quiet() -> None:
    """pynetdicom's own logs at WARNING, identifiers off: they would quote patients."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    logging.getLogger("pynetdicom").setLevel(logging.WARNING)
