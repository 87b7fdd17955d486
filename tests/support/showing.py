"""A PACS by script that stores, and answers C-FIND at IMAGE level with what it shows of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_node.scu.find import STUDY_ROOT_FIND
from support.scripted_scp import RESULT_CLASSES

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
logging.getLogger("pynetdicom").propagate = False


def match(uid: str) -> tuple[int, Dataset]:
    ds = Dataset()
    ds.QueryRetrieveLevel, ds.SOPInstanceUID = "IMAGE", uid
    return 0xFF00, ds


@dataclass
class Showing:
    """`answer` says what follows a question; without it, what is stored and not in `hidden`."""

    queries: bool = True
    answer: Callable[[Dataset], Iterator[tuple[int, Dataset | None] | str]] | None = None
    hidden: set[str] = field(default_factory=set)
    hides: bool = False
    """Shows nothing at all."""
    stored: list[str] = field(default_factory=list)
    data_sets: list[bytes] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)
    port: int = 0
    _let_go: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Showing:
        ae = AE(ae_title="PACS")
        for uid in RESULT_CLASSES.values():
            ae.add_supported_context(uid, SYNTAXES)
        if self.queries:
            ae.add_supported_context(STUDY_ROOT_FIND, SYNTAXES)
        handlers = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_C_FIND, self._on_find)]
        self._server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._server.shutdown()

    def _on_store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        self.data_sets.append(event.request.DataSet.getvalue())
        return 0x0000

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        for step in (self.answer or self._honest)(event.identifier):
            if step == "hang":
                self._let_go.wait(30)
            elif step == "abort":
                event.assoc.abort()
            else:
                assert not isinstance(step, str)
                yield step

    def _honest(self, asked: Dataset) -> Iterator[tuple[int, Dataset | None]]:
        uid = str(asked.SOPInstanceUID)
        if uid in self.stored and uid not in self.hidden and not self.hides:
            yield match(uid)
