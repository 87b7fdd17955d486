"""Run the pages: uvicorn in a thread of the service, on a socket bound before anything is said."""

from __future__ import annotations

import asyncio
import errno
import ssl
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from dicom_node import log
from dicom_node.errors import ConfigurationError
from dicom_node.web.protocol import BACKLOG, Listening, Loop, Protocol, listening

STARTS_WITHIN_S = 10.0
BINDS_WITHIN_S = 5.0
"""The port of a process killed a moment ago may need that moment."""
ENDS_WITHIN_S = 5.0


class Server:
    """A running server; `port` is the one bound, also when 0 was asked for."""

    def __init__(self, app: ASGIApp, bound: Listening, tls: ssl.SSLContext | None) -> None:
        self.port: int = bound.getsockname()[1]
        self._socket = bound
        config = uvicorn.Config(
            app,
            http=Protocol,
            ssl_context_factory=None if tls is None else lambda config, default: tls,
            log_config=None,
            log_level="critical",  # what we log, we log ourselves
            access_log=False,
            backlog=BACKLOG,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=16384,
        )
        self._uvicorn = uvicorn.Server(config)
        bound.protocols = self._uvicorn.server_state.connections
        bound.collects = tls is not None
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(self._uvicorn.serve(sockets=[self._socket]))

    def start(self) -> None:
        """Returns when requests are answered. Raises ConfigurationError when that takes too long."""
        self._thread.start()
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._uvicorn.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ConfigurationError(f"STOW-RS and the pages did not start on port {self.port}")
            time.sleep(0.01)
        log.event("web.started", port=self.port)

    def stop(self) -> None:
        """End requests in progress, then the thread; the port is free afterwards."""
        self._uvicorn.should_exit = True
        self._thread.join(ENDS_WITHIN_S)
        self._socket.close()


def start(app: ASGIApp, host: str, port: int, tls: ssl.SSLContext | None = None) -> Server:
    """Serve `app` on host and port (0: any free one). Raises ConfigurationError when the port is taken."""
    server = Server(app, _bound(host, port), tls)
    server.start()
    return server


def _bound(host: str, port: int) -> Listening:
    deadline = time.monotonic() + BINDS_WITHIN_S
    while True:
        try:
            return listening(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                where = f"http.host {host}, http.port {port}"
                raise ConfigurationError(f"cannot listen on {where}: {error.strerror}") from error
            time.sleep(0.1)
