"""A PACS that misbehaves by script, on real sockets.

`Script` says what happens to each C-STORE; anything not scripted is stored with 0x0000. Two
plain TCP listeners, `Silent` and `Dripping`, are peers that are no DICOM at all.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

RESULT_CLASSES = {
    "sr": "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "pm": "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
    "sc": "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
}
HANG, ABORT, DROP = "hang", "abort", "drop"
"""Never answer; A-ABORT; close the connection without a word."""

logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
logging.getLogger("pynetdicom").propagate = False


@dataclass
class ScriptedScp:
    """Answers C-STORE number n with `answers[n]`: a status, HANG, ABORT or DROP; then with `otherwise`."""

    answers: Sequence[int | str] = ()
    otherwise: int | str = 0x0000
    classes: Sequence[str] = tuple(RESULT_CLASSES.values())
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    ae_title: str = "PACS"
    calling: str | None = None
    """The only calling AE title it knows; None lets everybody in."""
    port: int = 0
    comment: str = ""
    max_pdu: int = 16382
    stalls: bool = False
    """Stops reading from the connection once the association stands: the sender's window fills up."""
    arrived: list[tuple[str, int | str]] = field(default_factory=list)
    """(SOP Instance UID, answer) in order of arrival."""
    data_sets: dict[str, bytes] = field(default_factory=dict)
    """The encoded data set of each stored instance, as it came off the wire."""
    associations: int = 0
    _let_go: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> ScriptedScp:
        ae = AE(ae_title=self.ae_title)
        ae.maximum_pdu_size = self.max_pdu
        ae.network_timeout = 30
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, [UID(s) for s in self.syntaxes])
        ae.add_supported_context(Verification)
        if self.calling is not None:
            ae.require_calling_aet = [self.calling]
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_ESTABLISHED, self._on_established)]
        if self.stalls:
            handlers.append((evt.EVT_DATA_RECV, self._on_data))
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._server.shutdown()

    def _on_established(self, event: Any) -> None:
        self.associations += 1

    def _on_data(self, event: Any) -> None:
        if event.assoc.is_established:
            self._let_go.wait(60)

    def _on_store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            at = len(self.arrived)
            answer = self.answers[at] if at < len(self.answers) else self.otherwise
            self.arrived.append((uid, answer))
        if isinstance(answer, int):
            if answer == 0 or 0xB000 <= answer < 0xC000:
                self.data_sets[uid] = event.request.DataSet.getvalue()
            return self._status(answer)
        return self._misbehave(event.assoc, answer)

    def _status(self, status: int) -> Any:
        if not self.comment:
            return status
        from pydicom.dataset import Dataset

        answer = Dataset()
        answer.Status = status
        answer.ErrorComment = self.comment
        return answer

    def _misbehave(self, association: Any, how: str) -> int:
        if how == HANG:
            self._let_go.wait(60)
        elif how == ABORT:
            association.abort()
        elif how == DROP:
            with contextlib.suppress(OSError):
                association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0xC001


@contextlib.contextmanager
def silent(reply: bytes = b"", *, drip: bool = False) -> Iterator[int]:
    """A TCP port that takes connections and says `reply` and no more; `drip`: five bytes a second."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)

    def serve() -> None:
        kept = []
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                kept.append(connection)
                for at in range(len(reply)):
                    if drip and stop.wait(0.2):
                        break
                    with contextlib.suppress(OSError):
                        connection.sendall(reply[at : at + 1])
        for connection in kept:
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        thread.join()
        listener.close()


def closed_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
