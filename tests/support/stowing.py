"""STOW-RS with its store in this process, and multipart bodies made by code that a reader can follow."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydicom.dataset import Dataset

from dicom_node.audit import Trail
from dicom_node.config import Config
from dicom_node.receive.callers import Callers
from dicom_node.receive.intake import Intake
from dicom_node.web import server
from dicom_node.web.app import create_app
from dicom_node.web.stow import Pace, Stow
from dicom_node.web.upload import Entrance
from support.ledger import Books
from support.mr import file_bytes, mr_instance
from support.ports import free_port
from support.receiving import after_file_meta

TOKEN = "0123456789abcdef0123456789abcdef"
VIEWER_TOKEN = "fedcba9876543210fedcba9876543210"
BOUNDARY = "a-boundary-of-the-tests"
FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"


def configured(folder: Path, *, scanner: Mapping[str, object] | None = None, **receive: object) -> Config:
    """A scanner that may send and a viewer that may not, each with a token."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, token in (("scanner", TOKEN), ("viewer", VIEWER_TOKEN)):
        (folder / f"{name}.token").write_text(f"{token}\n", encoding="ascii")
    common = {"host": "127.0.0.1", "port": 104}
    return Config.model_validate(
        {
            "node": {"data_dir": str(folder)},
            "receive": {"reserve_mb": 0, **receive},
            "peer": [
                {"name": "scanner", "ae_title": "SCANNER", "token_file": str(folder / "scanner.token")}
                | common | dict(scanner or {}),
                {"name": "viewer", "ae_title": "VIEWER", "token_file": str(folder / "viewer.token"),
                 "may_send": False} | common,
            ],
        }
    )  # fmt: skip


@dataclass
class Stowing:
    """A door that is open. `client` shows the scanner's token."""

    port: int
    books: Books
    trail: Trail
    client: httpx.Client

    def post(
        self, *files: bytes | Dataset, study: str = "", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request with each file as a part."""
        path = f"/studies/{study}" if study else "/studies"
        return self.client.post(path, content=body(files), headers={**content_type(), **(headers or {})})

    def rows(self) -> list[tuple[Any, ...]]:
        with self.books.engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT sop_instance_uid, digest, peer, transfer_syntax_uid FROM instances ORDER BY id"
            )
            return [tuple(row) for row in found]

    def spooled(self) -> list[Path]:
        """Files of data sets that are still on their way."""
        return list((self.books.folder / "spool").iterdir())

    def data_sets(self) -> dict[str, bytes]:
        """SOP Instance UID -> the stored data set's bytes, read back from disk."""
        verified = self.books.archive.verified
        return {row[0]: after_file_meta(verified(row[1]).read_bytes()) for row in self.rows()}

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.settimeout(20)
        return connection


@contextmanager
def stowing(
    folder: Path, *, pace: Pace | None = None, scanner: Mapping[str, object] | None = None, **receive: object
) -> Iterator[Stowing]:
    config = configured(folder, scanner=scanner, **receive)
    books = Books(f"sqlite:///{folder / 'node.sqlite3'}", folder)
    trail = Trail(config.audit_folder, config.node.ae_title)
    entrance = Entrance.of(Intake.of(config, books.archive, books.catalog), trail)
    stow = Stow(entrance, Callers.of(config), config, pace)
    app = create_app(books.engine, books.archive, config, lambda: True, stow=stow)
    running = server.start(app, "127.0.0.1", 0)
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{running.port}", timeout=60, trust_env=False,
        headers={"Authorization": f"Bearer {TOKEN}"},
    )  # fmt: skip
    try:
        yield Stowing(running.port, books, trail, client)
    finally:
        client.close()
        running.stop()
        stow.close()
        books.engine.dispose()


def content_type(boundary: str = BOUNDARY) -> dict[str, str]:
    return {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}


def body(files: Iterable[bytes | Dataset], boundary: str = BOUNDARY) -> bytes:
    """A whole multipart body, one part each."""
    return b"".join(part(one, boundary) for one in files) + f"\r\n--{boundary}--\r\n".encode()


def part(file: bytes | Dataset, boundary: str = BOUNDARY, kind: str = "application/dicom") -> bytes:
    content = file_bytes(file) if isinstance(file, Dataset) else file
    return f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + content


def head(*, path: str = "/studies", token: str = TOKEN, length: int | None = None, **headers: str) -> bytes:
    """The head of a request, for sockets; chunked where no length is given."""
    fields = {"Host": "node", **content_type()}
    fields |= {"Authorization": f"Bearer {token}"} if token else {}
    fields |= {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def answered(connection: socket.socket, within_s: float = 20.0) -> bytes:
    """All that comes until the other side closes; what came so far where it does not close in time."""
    received, until = b"", time.monotonic() + within_s
    with contextlib.suppress(OSError):
        while left := max(until - time.monotonic(), 0):
            connection.settimeout(left)
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received


def reasons(answer: httpx.Response, sequence: str = FAILED) -> list[int]:
    """The Failure Reasons in a store response."""
    items = answer.json().get(sequence, {"Value": []})["Value"]
    return [item["00081197"]["Value"][0] for item in items]


def references(answer: httpx.Response, sequence: str = REFERENCED) -> list[str]:
    """The SOP Instance UIDs in a store response."""
    items = answer.json().get(sequence, {"Value": []})["Value"]
    return [item["00081155"]["Value"][0] for item in items]


@contextmanager
def web_process(folder: Path, **receive: object) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The node's `web` process by itself, as the supervisor starts it, with its port."""
    config = configured(folder, **receive)
    config = config.model_copy(update={"http": config.http.model_copy(update={"port": free_port()})})
    Books(f"sqlite:///{folder / 'node.sqlite3'}", folder).engine.dispose()
    with web_process_of(config) as process:
        yield process, config.http.port


@contextmanager
def web_process_of(config: Config) -> Iterator[subprocess.Popen[bytes]]:
    """The same on a folder that has its ledger."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dicom_node.service", "web"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(config.model_dump_json(by_alias=True).encode() + b"\n")
        process.stdin.flush()
        assert b"ready\n" == process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def up_to_pixels(size_bytes: int) -> bytes:
    """An MR image as a PS3.10 file up to its pixels, of which `size_bytes` have to follow."""
    whole = file_bytes(mr_instance(PixelData=b"\1\2\3\4"))
    return whole[:-8] + size_bytes.to_bytes(4, "little")  # OW: a length of four bytes, then the value
