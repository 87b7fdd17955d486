"""Put the HTTP side together: STOW-RS and the pages, from one configuration, listening when returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from dicom_node.audit import Trail
from dicom_node.config import Config
from dicom_node.receive.callers import Callers
from dicom_node.receive.intake import Intake
from dicom_node.store.archive import Archive
from dicom_node.store.catalog import Catalog
from dicom_node.store.database import engine_for
from dicom_node.tls import server_context
from dicom_node.web.app import create_app
from dicom_node.web.server import Server, start
from dicom_node.web.stow import Stow
from dicom_node.web.upload import Entrance


@dataclass(frozen=True, slots=True)
class HttpDoor:
    """What listens, and what it holds."""

    server: Server
    stow: Stow
    engine: Engine

    def close(self) -> None:
        """End what runs; the port is free afterwards."""
        self.server.stop()
        self.stow.close()
        self.engine.dispose()


def open_door(config: Config, receiver_alive: Callable[[], bool], port: int | None = None) -> HttpDoor:
    """Raises ConfigurationError: tokens, TLS files, a port that is taken. `port` wins over http.port."""
    callers = Callers.of(config)
    tls = server_context(config.tls, ask="optional") if config.http.tls else None
    engine = engine_for(config)
    archive = Archive(config.node.data_dir)
    intake = Intake.of(config, archive, Catalog(engine, archive))
    entrance = Entrance.of(intake, Trail(config.audit_folder, config.node.ae_title))
    stow = Stow(entrance, callers, config)
    app = create_app(engine, archive, config, receiver_alive, stow=stow)
    return HttpDoor(
        start(app, config.http.host, config.http.port if port is None else port, tls), stow, engine
    )
