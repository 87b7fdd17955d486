"""A PACS that answers C-FIND, C-GET and C-MOVE by script, on real sockets, well or badly."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.dimse_messages import C_STORE_RSP

from dicom_node.config import Peer
from dicom_node.receive.retrieve import STUDY_ROOT_GET, STUDY_ROOT_MOVE
from dicom_node.scu.find import STUDY_ROOT_FIND
from support.mr import MR_IMAGE

HANG, ABORT, DROP, FLOOD = "hang", "abort", "drop", "flood"
"""Never answer; A-ABORT; close the connection without a word; send a PDU of 4 GiB."""
Step = int | str | Dataset
"""A final status, a way to misbehave, or a match or an instance with 0xFF00."""

logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
logging.getLogger("pynetdicom").propagate = False


def matches(held: Sequence[Dataset], level: str, asked: Dataset) -> Iterator[Dataset]:
    """What an honest archive answers at one level of Study Root, PS3.4 C.6.2."""
    keys = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
    seen = set()
    for ds in held:
        wanted = [asked.get(key) for key in ("StudyInstanceUID", "SeriesInstanceUID")]
        there = [ds.get(key) for key in ("StudyInstanceUID", "SeriesInstanceUID")]
        if any(want and want != has for want, has in zip(wanted, there, strict=True)):
            continue
        if ds[keys[level]].value not in seen:
            seen.add(ds[keys[level]].value)
            yield answer_to(asked, ds)


def answer_to(asked: Dataset, ds: Dataset) -> Dataset:
    match = Dataset()
    match.QueryRetrieveLevel = asked.QueryRetrieveLevel
    for element in asked:
        if element.keyword.startswith("NumberOf"):
            setattr(match, element.keyword, 1)
        elif element.keyword in ds:
            setattr(match, element.keyword, ds[element.keyword].value)
    return match


def put_anyhow(ds: Dataset, keyword: str, value: str) -> None:
    """Set a value that pydicom would warn about."""
    vr = "UI" if dictionary_VR(keyword) == "UI" else "LO"  # goes out as implicit VR
    ds[keyword] = DataElement(keyword, vr, value, validation_mode=config.IGNORE)


@dataclass
class ScriptedPacs:
    """Holds `held`. `find` and `get`, where given, replace what an honest archive would answer."""

    held: Sequence[Dataset] = ()
    find: Callable[[str, Dataset], Iterable[Step]] | None = None
    get: Callable[[Dataset], Iterable[Step]] | None = None
    move: Sequence[Step] = ()
    services: Sequence[str] = (STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE)
    classes: Sequence[str] = (MR_IMAGE,)
    on_stored: Callable[[int], None] = lambda status: None
    asked: list[str] = field(default_factory=list)
    """The level of each query."""
    destinations: list[str] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    let_in: bool = True
    """False: the association is accepted, and aborted at once."""
    flooded_bytes: int = 0
    """How much of a PDU of 4 GiB could be sent."""
    port: int = 0
    _let_go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> ScriptedPacs:
        ae = AE(ae_title="ORTHANC")
        ae.network_timeout = 30
        for service in self.services:
            ae.add_supported_context(service, [ImplicitVRLittleEndian])
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, [ExplicitVRLittleEndian], scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_C_FIND, self._on_find), (evt.EVT_C_GET, self._on_get), (evt.EVT_C_MOVE, self._on_move),
            (evt.EVT_DIMSE_RECV, self._on_message), (evt.EVT_ESTABLISHED, self._on_established),
        ]  # fmt: skip
        self._server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=self.tls
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._server.shutdown()

    @property
    def peer(self) -> Peer:
        return Peer(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=self.port, retrieve="get")

    def pause(self, seconds: float) -> None:
        """Let time pass, but no longer than the test takes."""
        self._let_go.wait(seconds)

    def _on_established(self, event: Any) -> None:
        if not self.let_in:
            event.assoc.abort()

    def _on_find(self, event: Any) -> Iterator[Any]:
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        self.asked.append(level)
        steps = self.find(level, asked) if self.find else matches(self.held, level, asked)
        yield from self._played(event, steps)

    def _on_get(self, event: Any) -> Iterator[Any]:
        asked = event.identifier
        steps = list(self.get(asked) if self.get else self._wanted(asked))
        given = [step for step in steps if isinstance(step, Dataset)]
        for ds in given:
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        fails = [step for step in steps if not isinstance(step, Dataset) and step != 0x0000]
        yield len(given) + len(fails)  # what fails was promised too
        yield from self._played(event, steps)

    def _on_move(self, event: Any) -> Iterator[Any]:
        self.destinations.append(event.move_destination)
        yield None, None  # destination unknown: 0xA801

    def _wanted(self, asked: Dataset) -> list[Dataset]:
        uids = asked.get("SOPInstanceUID")
        named = [uids] if isinstance(uids, str) else list(uids or [])
        series = asked.get("SeriesInstanceUID")
        return [
            ds for ds in self.held
            if (ds.SOPInstanceUID in named if named else ds.SeriesInstanceUID == series)
        ]  # fmt: skip

    def _played(self, event: Any, steps: Iterable[Step]) -> Iterator[Any]:
        for step in steps:
            if isinstance(step, Dataset):
                yield 0xFF00, step
            elif isinstance(step, int):
                yield step, None
                return
            else:
                self._misbehave(event.assoc, step)
                return

    def _misbehave(self, association: Any, how: str) -> None:
        if how == HANG:
            self._let_go.wait(60)
        elif how == ABORT:
            association.abort()
        elif how == DROP:
            with contextlib.suppress(OSError):
                association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        elif how == FLOOD:
            with contextlib.suppress(OSError):
                self._flood(association.dul.socket.socket)

    def _flood(self, connection: socket.socket) -> None:
        """P-DATA-TF, PS3.8 9.3.5, until the other side has enough."""
        connection.sendall(b"\x04\0" + b"\xff" * 4)
        while self.flooded_bytes < 1 << 28:
            self.flooded_bytes += connection.send(bytes(1 << 16))

    def _on_message(self, event: Any) -> None:
        if isinstance(event.message, C_STORE_RSP):
            self.on_stored(event.message.command_set.Status)
