"""A stand-in PACS for `dicom-node demo`: takes results over C-STORE and keeps them as files.

Not an archive: no database, no query. It takes every storage class pynetdicom knows in the
uncompressed transfer syntaxes and those results come in, from anybody on loopback.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any  # Any: pynetdicom ships no types

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

from dicom_node.errors import OutOfStorage

_config.LOG_HANDLER_LEVEL = "none"  # the standard handlers write identifiers and a page per PDU

SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless,
    JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrival:
    """One C-STORE request and what was answered. `path` is None where nothing was kept."""

    at: datetime
    sop_class_uid: str
    sop_instance_uid: str
    status: int
    path: Path | None


class StandInPacs:
    """`with StandInPacs(folder, "PACS") as pacs:` listens on loopback at `pacs.port`.

    Files are named by the sha256 of their bytes, so that the same object twice is one file.
    """

    def __init__(
        self, folder: Path, ae_title: str, port: int = 0, *, host: str = "127.0.0.1",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self.folder, self.ae_title, self.port, self.host = folder, ae_title, port, host
        self._clock = clock
        # mutable state: arrivals, guarded by _changed, which is notified of each
        self._arrivals: list[Arrival] = []
        self._changed = threading.Condition()
        self._server: Any = None

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        with self._changed:
            return tuple(self._arrivals)

    def wait_for(self, enough: Callable[[tuple[Arrival, ...]], bool], timeout_s: float) -> bool:
        """Wait until what arrived is `enough`; False when it is not within `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: enough(tuple(self._arrivals)), timeout_s)

    def start(self) -> StandInPacs:
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.ae_title)
        ae.maximum_pdu_size = 131072
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, list(SYNTAXES))
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = ae.start_server((self.host, self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def __enter__(self) -> StandInPacs:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _store(self, event: Any) -> int:
        content: bytes = event.encoded_dataset()  # as it came, with file meta information before it
        path, status = self._keep(content)
        request = event.request
        arrival = Arrival(
            self._clock(), str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), status, path
        )
        with self._changed:
            self._arrivals.append(arrival)
            self._changed.notify_all()
        return status

    def _keep(self, content: bytes) -> tuple[Path | None, int]:
        path = self.folder / f"{hashlib.sha256(content).hexdigest()}.dcm"
        try:
            path.write_bytes(content)
        except OSError:
            return None, OutOfStorage.dimse_status
        return path, 0x0000
