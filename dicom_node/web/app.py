"""Health and metrics: three pages without patient data, without UIDs, without a way to change anything.

GET /health    the process answers
GET /ready     images are taken: receiver, database and disk; 503 with the reasons else
GET /metrics   numbers for Prometheus
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


def create_app(
    engine: Engine,
    archive: Archive,
    config: Config,
    receiver_alive: Callable[[], bool],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Starlette:
    """The pages of one node. `receiver_alive` says whether associations are accepted."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(engine, archive, config, receiver_alive, clock))

    # Plain functions: Starlette runs them in threads, where SQL may block.
    def health(request: Request) -> Response:
        return JSONResponse({"alive": True})

    def ready(request: Request) -> Response:
        reasons = not_ready_because(engine, archive, config, receiver_alive)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ],
        middleware=[Middleware(Guard)],
    )


def not_ready_because(
    engine: Engine, archive: Archive, config: Config, receiver_alive: Callable[[], bool]
) -> list[str]:
    """Why images would not be taken now, in sentences; empty when they would be."""
    looks = (
        _receiver_sentence(receiver_alive),
        _database_sentence(engine),
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
