"""What is served by HTTP: three pages without patient data and UIDs, and STOW-RS.

GET  /health            the process answers
GET  /ready             images are taken: receiver, database and disk; 503 with the reasons else
GET  /metrics           numbers for Prometheus
POST /studies           instances, see `stow`
POST /studies/{study}   instances of that study
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dicom_node.config import Config
from dicom_node.errors import LedgerUnavailable
from dicom_node.store.archive import Archive
from dicom_node.store.counts import reachable
from dicom_node.web.guard import Guard
from dicom_node.web.metrics import LedgerCollector
from dicom_node.web.single_flight import SingleFlight
from dicom_node.web.stow import Stow

DATABASE_ANSWERS_WITHIN_S = 3.0
"""A database that hangs would keep whoever asks /ready for half a minute."""


def create_app(
    engine: Engine,
    archive: Archive,
    config: Config,
    receiver_alive: Callable[[], bool],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    stow: Stow | None = None,
) -> Starlette:
    """The pages of one node, and STOW-RS. `receiver_alive` says whether associations are accepted."""
    database = SingleFlight(lambda: _database_sentence(engine))
    registry = CollectorRegistry()
    registry.register(LedgerCollector(engine, archive, config, receiver_alive, clock))

    # Plain functions: Starlette runs them in threads, where SQL may block.
    def health(request: Request) -> Response:
        return JSONResponse({"alive": True})

    def ready(request: Request) -> Response:
        reasons = not_ready_because(database, archive, config, receiver_alive)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    pages = [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
    studies = [Route(path, stow, methods=["POST"]) for path in ("/studies", "/studies/{study}") if stow]
    return Starlette(
        routes=[*pages, *studies],
        middleware=[Middleware(Guard)],
    )


def not_ready_because(
    database: SingleFlight[str], archive: Archive, config: Config, receiver_alive: Callable[[], bool]
) -> list[str]:
    """Why images would not be taken now, in sentences; empty when they would be."""
    looks = (
        _receiver_sentence(receiver_alive),
        database.within(DATABASE_ANSWERS_WITHIN_S, else_="the database does not answer"),
        _disk_sentence(archive, config.receive.reserve_mb),
    )
    return [sentence for sentence in looks if sentence]


def _receiver_sentence(receiver_alive: Callable[[], bool]) -> str:
    return "" if receiver_alive() else "the receiver does not accept associations"


def _database_sentence(engine: Engine) -> str:
    try:
        return "" if reachable(engine) else "the database gives wrong answers"
    except LedgerUnavailable:  # its text may hold host and user
        return "the database does not answer"


def _disk_sentence(archive: Archive, reserve_mb: int) -> str:
    try:
        free_mb = archive.free_bytes() / 1e6
    except OSError as error:
        return f"the archive's disk cannot be read: {error.strerror}"
    if free_mb < reserve_mb:
        return f"{free_mb:.0f} MB free, less than receive.reserve_mb = {reserve_mb}"
    return ""
