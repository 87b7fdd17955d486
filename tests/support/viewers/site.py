"""A web server on loopback for one page application and the archive behind it.

The application and DICOMweb have one origin, so there is no cross-origin question, and the
page is isolated (COOP, COEP) as viewers want it for shared memory.
"""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

_TYPES = {
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8",
    ".json": "application/json", ".wasm": "application/wasm", ".svg": "image/svg+xml",
}  # fmt: skip
_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


class Site:
    """Serves `root`, what is `made` by path, and what lies under the prefixes of `proxied` from there.

    A path that is none of them answers `index.html`: applications keep their own addresses.
    """

    def __init__(
        self, root: Path, *, made: Mapping[str, bytes] | None = None, proxied: Mapping[str, str] | None = None
    ) -> None:
        self._root, self._made, self._proxied = root, dict(made or {}), dict(proxied or {})
        self._client = httpx.Client(trust_env=False, timeout=60.0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="site", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._client.close()

    def file(self, path: str) -> tuple[str, bytes]:
        """(media type, content) of what is not proxied."""
        if path in self._made:
            return _type(path), self._made[path]
        wanted = (self._root / path.lstrip("/")).resolve()
        if not (wanted.is_relative_to(self._root.resolve()) and wanted.is_file()):
            if "/index.html" in self._made:
                return _type("/index.html"), self._made["/index.html"]
            wanted = self._root / "index.html"
        return _type(wanted.name), wanted.read_bytes()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                behind = next((to for at, to in site._proxied.items() if path.startswith(at)), None)
                try:
                    if behind is None:
                        kind, content = site.file(path)
                        self._answer(200, {"Content-Type": kind}, content)
                    else:
                        self._pass_on(behind)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the page was left while it loaded

            do_POST = do_GET

            def _pass_on(self, behind: str) -> None:
                """With the browser's own Host: an archive makes the addresses it hands out from it."""
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() != "connection"
                }
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = site._client.request(self.command, behind + self.path, headers=headers, content=body)
                kept = {n: v for n, v in answer.headers.items() if n.lower() not in _HOP_BY_HOP}
                self._answer(answer.status_code, kept, answer.content)

            def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in {**headers, **_ISOLATED, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:  # Any: a format and its values
                """Nothing: a request names the study."""

        return Handler


def _type(path: str) -> str:
    suffix = Path(path).suffix
    return _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")
