"""A TLS port as the node opens them, with nothing behind it; `openssl s_client`; and a ClientHello by hand.

What OpenSSL no longer speaks (RC4, 3DES, NULL, TLS 1.0 ...) can only be offered by hand.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from support.certificates import Issued

GREETING = b"let in"


@contextmanager
def tls_port(context: ssl.SSLContext) -> Iterator[int]:
    """Greets whoever comes through the handshake, takes what follows, and answers the end with its end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        over = threading.Event()
        accepting = threading.Thread(target=_accept, args=(listening, context, over), daemon=True)
        accepting.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            over.set()
            accepting.join(10.0)


def _accept(listening: socket.socket, context: ssl.SSLContext, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError):
            connection, _ = listening.accept()
            connection.settimeout(5.0)
            threading.Thread(target=_greet, args=(connection, context), daemon=True).start()


def _greet(connection: socket.socket, context: ssl.SSLContext) -> None:
    with connection, suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
        secured.sendall(GREETING)
        while secured.recv(4096):
            pass


def s_client(port: int, issued: Issued | None, *options: str, typed: str = "Q\n") -> str:
    """All that `openssl s_client` writes. It shows `issued`; once greeted it is told `typed` (Q: to end)."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    own = ["-cert", str(issued.certificate), "-key", str(issued.private_key)] if issued else []
    command = [program, "s_client", "-connect", f"127.0.0.1:{port}", *own, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        limit = threading.Timer(30.0, process.kill)
        limit.start()
        written, told = b"", False
        while more := process.stdout.read(65536):
            written += more
            if GREETING in written and not told:
                process.stdin.write(typed.encode())
                told = True
        limit.cancel()
    return written.decode(errors="replace")


ALERT, HANDSHAKE = 21, 22
"""Content types of a TLS record, RFC 8446 5.1."""


def answer_to_hello(port: int, version: int, suites: Sequence[int]) -> int:
    """The content type of the first record sent back to a ClientHello of `version` (0x0303 is TLS 1.2)."""
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as connection:
        connection.sendall(client_hello(version, suites))
        return (connection.recv(1) or b"\0")[0]


def client_hello(version: int, suites: Sequence[int]) -> bytes:
    """RFC 5246 7.4.1.2, with the extensions a suite with elliptic curves asks for."""
    offered = b"".join(suite.to_bytes(2, "big") for suite in suites)
    extensions = b"".join((
        _extension(10, _sized(b"\x00\x17\x00\x1d")),  # supported groups: P-256, X25519
        _extension(11, b"\x01\x00"),  # point formats: uncompressed
        _extension(13, _sized(b"\x04\x03\x08\x04\x04\x01\x02\x03\x02\x01")),  # signatures, SHA-1 among them
    ))  # fmt: skip
    body = (
        version.to_bytes(2, "big") + bytes(range(32)) + b"\0" + _sized(offered) + b"\1\0" + _sized(extensions)
    )
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + _sized(message)


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(2, "big") + content


def _extension(number: int, content: bytes) -> bytes:
    return number.to_bytes(2, "big") + _sized(content)
