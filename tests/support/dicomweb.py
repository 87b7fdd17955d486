"""A DICOMweb server by script: keeps what is posted to `/dicom-web/studies`, answers as it is told."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUT, DRIP = 0, -1
"""Close the connection without an answer; answer 200, byte by byte."""


def told(failed: int | None = None, warning: int | None = None) -> dict[str, Any]:
    """A Store Instances Response, PS3.18 10.5.3.2, of one object."""
    item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
    if failed is not None:
        return {"00081198": {"vr": "SQ", "Value": [{**item, "00081197": {"vr": "US", "Value": [failed]}}]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


Answer = tuple[int, Any]
"""HTTP status, and JSON or bytes."""


@dataclass
class DicomWeb:
    """Answers request number n with `answers[n]`, then with `otherwise`."""

    answers: Sequence[Answer] = ()
    otherwise: Answer = (200, None)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    drips: float = 0.1
    """Seconds between two bytes of `DRIP`."""
    retry_after: str = ""
    """Goes with a 503."""
    shows: bool = True
    """Whether a search finds what was posted."""
    searches: list[str] = field(default_factory=list)
    search: int = 200
    """HTTP status of a search."""
    port: int = 0
    _let_go: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self.tls)}://127.0.0.1:{self.port}/dicom-web"

    def files(self) -> list[bytes]:
        """The object of each request: what stands between head and last boundary."""
        found = []
        for body in self.bodies:
            boundary = body.partition(b"\r\n")[0]
            found.append(body.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n" + boundary + b"--\r\n"))
        return found

    def __enter__(self) -> DicomWeb:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                script.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                script.headers.append({key.lower(): value for key, value in self.headers.items()})
                at = len(script.bodies) - 1
                status, said = script.answers[at] if at < len(script.answers) else script.otherwise
                if status == CUT:
                    self.close_connection = True
                    return
                if status == DRIP:
                    self._drip(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                    )
                    return
                content = said if isinstance(said, bytes) else json.dumps(said or told()).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                if status == 503 and script.retry_after:
                    self.send_header("Retry-After", script.retry_after)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _drip(self, content: bytes) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    for byte in content:
                        self.wfile.write(bytes([byte]))
                        if script._let_go.wait(script.drips):
                            return

            def do_GET(self) -> None:
                script.searches.append(self.path)
                uid = self.path.partition("SOPInstanceUID=")[2].partition("&")[0]
                posted = any(uid.encode() in file for file in script.files())
                found = [{"00080018": {"vr": "UI", "Value": [uid]}}] if posted and script.shows else []
                content = json.dumps(found).encode() if found and script.search == 200 else b""
                self.send_response(204 if script.search == 200 and not content else script.search)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_OPTIONS(self) -> None:
                self.send_response(script.otherwise[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
