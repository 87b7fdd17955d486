"""A listening port: accepts, and gives each connection a thread of its own. Nothing slow happens here.

TLS handshakes and first words are the connection's thread's business, so that no client can keep
another one waiting by saying nothing.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable

from dicom_node import log

BACKLOG = 1024
PAUSE_S = 0.1
"""After an accept that failed for want of descriptors or memory."""

Serve = Callable[[socket.socket, str], None]


class Door:
    """Open from construction to `close`. Raises OSError when the port cannot be had."""

    def __init__(self, host: str, port: int, serve: Serve, name: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.port: int = self._listening.getsockname()[1]
        self._serve = serve
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name=f"door {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody is let in any more; those inside stay."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._thread.join()
        self._listening.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, address = self._listening.accept()
            except OSError as error:
                if self._closing or error.errno == errno.EBADF:
                    return
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.problem("receive.connection_failed", error=error.strerror)
                    time.sleep(PAUSE_S)  # it waits in the backlog until others have left
                continue
            self._start(connection, str(address[0]))

    def _start(self, connection: socket.socket, address: str) -> None:
        try:
            threading.Thread(target=self._visit, args=(connection, address), daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # no more threads
            log.problem("receive.connection_failed", error=type(error).__name__)
            connection.close()

    def _visit(self, connection: socket.socket, address: str) -> None:
        try:
            self._serve(connection, address)
        except Exception as error:  # noqa: BLE001 - the edge: one connection must not end the others
            log.problem("receive.connection_failed", error=type(error).__name__)
        finally:
            connection.close()
