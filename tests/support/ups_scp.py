"""Worklist managers on real sockets, by DICOM (pynetdicom) and by UPS-RS: one book, one state machine.

`trouble(what)` is asked before a request is looked at and after it was carried out, before the answer goes
out: it may return CUT, and the connection ends there without an answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_node.config import Peer
from support.ups_book import SUCCESS, UPS_PUSH, WRONG_UID, UpsBook

UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
CUT = "cut"
Trouble = Callable[[str], str]
"""Given "before N-SET", "after N-ACTION COMPLETED" ...; CUT, or "" for an answer."""


def no_trouble(what: str) -> str:
    return ""


@dataclass
class UpsScp:
    """UPS Pull as SCP."""

    book: UpsBook = field(default_factory=UpsBook)
    trouble: Trouble = no_trouble
    services: tuple[str, ...] = (UPS_PULL,)
    port: int = 0

    @property
    def peer(self) -> Peer:
        return Peer(name="ris", ae_title="RIS", host="127.0.0.1", port=self.port)

    def __enter__(self) -> UpsScp:
        ae = AE(ae_title="RIS")
        ae.network_timeout = ae.acse_timeout = ae.dimse_timeout = 10
        for service in (*self.services, "1.2.840.10008.1.1"):
            ae.add_supported_context(service, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        handlers = [
            (evt.EVT_C_FIND, self._on_find), (evt.EVT_N_GET, self._on_get), (evt.EVT_N_SET, self._on_set),
            (evt.EVT_N_ACTION, self._on_action),
        ]  # fmt: skip
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        if self._server in self._server.ae._servers:
            self._server.shutdown()

    def _cut(self, event: Any, when: str) -> bool:
        if self.trouble(when) != CUT:
            return False
        event.assoc.abort()
        return True

    def _on_find(self, event: Any) -> Iterator[Any]:
        if self._cut(event, "before C-FIND"):
            return
        for match in self.book.find(event.identifier):
            yield 0xFF00, match
        if not self._cut(event, "after C-FIND"):
            yield 0x0000, None

    def _on_get(self, event: Any) -> tuple[int, Dataset | None]:
        assert event.request.RequestedSOPClassUID == UPS_PUSH
        ds = (
            None if self._cut(event, "before N-GET") else self.book.get(event.request.RequestedSOPInstanceUID)
        )
        if ds is None:
            return 0xC307, None
        answer = Dataset()
        for tag in event.attribute_identifiers:
            if tag in ds:
                answer[tag] = ds[tag]
        self._cut(event, "after N-GET")
        return 0x0000, answer

    def _on_set(self, event: Any) -> tuple[int, Dataset | None]:
        assert event.request.RequestedSOPClassUID == UPS_PUSH
        if self._cut(event, "before N-SET"):
            return 0x0110, None
        status = self.book.update(event.request.RequestedSOPInstanceUID, event.modification_list)
        self._cut(event, "after N-SET")
        return status, Dataset()

    def _on_action(self, event: Any) -> tuple[int, Dataset | None]:
        assert (event.request.RequestedSOPClassUID, event.action_type) == (UPS_PUSH, 1)
        said = event.action_information
        what = f"N-ACTION {said.ProcedureStepState}"
        if self._cut(event, f"before {what}"):
            return 0x0110, None
        uid = event.request.RequestedSOPInstanceUID
        status = self.book.change_state(uid, said.TransactionUID, said.ProcedureStepState)
        self._cut(event, f"after {what}")
        return status, None


_WARNINGS = {
    WRONG_UID: "The Transaction UID is incorrect.",
    0xC300: "The submitted request is inconsistent with the state of the UPS Instance.",
    0xB304: "The UPS is already in the requested state of CANCELED.",
    0xB306: "The UPS is already in the requested state of COMPLETED.",
}  # PS3.18 11.7.3.2


@dataclass
class UpsRest:
    """UPS-RS as origin server (PS3.18 11), over the same book."""

    book: UpsBook = field(default_factory=UpsBook)
    trouble: Trouble = no_trouble
    answers: dict[str, int] = field(default_factory=dict)
    """HTTP statuses to answer in place of what is asked for, by method."""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def peer(self) -> Peer:
        url = f"http://127.0.0.1:{self.port}/dicom-web"
        return Peer(name="ris", ae_title="RIS", host="127.0.0.1", port=self.port, url=url)

    def __enter__(self) -> UpsRest:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: list[str], query: dict[str, str], body: Any) -> tuple[int, Any, str]:
        """(HTTP status, JSON, Warning)."""
        if method == "GET" and path == ["workitems"]:
            found = [ds.to_json_dict() for ds in self.book.find(_keys(query))]
            return (200, found, "") if found else (204, None, "")
        if method == "GET":
            ds = self.book.get(path[1])
            return (404, None, "") if ds is None else (200, [ds.to_json_dict()], "")
        ds = Dataset.from_json(body[0])
        if method == "PUT" and path[2:] == ["state"]:
            return _http(self.book.change_state(path[1], ds.TransactionUID, ds.ProcedureStepState))
        if method == "POST" and len(path) == 2:
            ds.TransactionUID = next(iter(query), "")  # PS3.18 11.6.1: ?{transaction-uid}
            return _http(self.book.update(path[1], ds))
        return 405, None, ""

    def name_of(self, method: str, body: Any) -> str:
        names = {"GET": "C-FIND or N-GET", "POST": "N-SET"}
        return names.get(method) or f"N-ACTION {body[0]['00741000']['Value'][0]}"


def _http(status: int) -> tuple[int, Any, str]:
    if status in (SUCCESS, 0xB304, 0xB306):
        return 200, None, _WARNINGS.get(status, "")
    if status == 0xC307:
        return 404, None, ""
    return 400 if status == WRONG_UID else 409, None, _WARNINGS.get(status, _WARNINGS[0xC300])


def _keys(query: dict[str, str]) -> Dataset:
    ds = Dataset()
    ds.SOPInstanceUID, ds.InputReadinessState, ds.ProcedureStepState = "", "", ""
    ds.ScheduledWorkitemCodeSequence, ds.ScheduledStationNameCodeSequence = [Dataset()], [Dataset()]
    for name, value in query.items():
        keyword, _, inner = name.partition(".")
        if inner:
            setattr(ds[keyword].value[0], inner, value)
        elif keyword in ("ProcedureStepState", "InputReadinessState"):
            setattr(ds, keyword, value)
    return ds


def _handler(script: UpsRest) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            where = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = json.loads(body) if body else None
            script.requests.append(f"{self.command} {unquote(self.path)}")
            what = script.name_of(self.command, said)
            if script.trouble(f"before {what}") == CUT:
                self.close_connection = True
                return
            path = where.path.split("/dicom-web/")[1].split("/")
            query = dict(parse_qsl(where.query, keep_blank_values=True))
            status, answer, warning = script.answer(self.command, path, query, said)
            status = script.answers.get(self.command, status)
            if script.trouble(f"after {what}") == CUT:
                self.close_connection = True
                return
            content = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            if warning:
                self.send_header("Warning", f"299 RIS: {warning}")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - name of the library
            pass

    return Handler
