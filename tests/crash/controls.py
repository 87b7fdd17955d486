"""Nodes that lose images, made in the child out of the real one: each must be caught by the gate.

And one that does not: `checkpoints_often`, so that SQLite's checkpoints come in runs as short as these.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any  # Any: stands for whatever the replaced function takes

from sqlalchemy import Engine, event

from dicom_node.config import Config
from dicom_node.errors import DicomNodeError
from dicom_node.node import build
from dicom_node.store import database
from dicom_node.store.catalog import Catalog, Recorded

_fsync = os.fsync
_engine_for = database.engine_for
_record = Catalog.record


def no_file_fsync() -> None:
    def fsync(fd: int) -> None:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            _fsync(fd)

    os.fsync = fsync  # type: ignore[assignment]


def no_folder_fsync() -> None:
    def fsync(fd: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            _fsync(fd)

    os.fsync = fsync  # type: ignore[assignment]


def synchronous_normal() -> None:
    _with_pragma("synchronous = NORMAL")


def acknowledged_before_commit() -> None:
    """Each row is committed when the next image comes."""
    late: list[tuple[Any, ...]] = []

    def record(self: Catalog, *arguments: Any) -> Recorded:
        while late:
            _record(self, *late.pop())
        late.append(arguments)
        return Recorded.NEW

    Catalog.record = record  # type: ignore[method-assign, assignment]


def success_after_an_error() -> None:
    def record(self: Catalog, *arguments: Any) -> Recorded:
        try:
            return _record(self, *arguments)
        except DicomNodeError:
            return Recorded.NEW

    Catalog.record = record  # type: ignore[method-assign, assignment]


def checkpoints_often() -> None:
    _with_pragma("wal_autocheckpoint = 6")


def _with_pragma(pragma: str) -> None:
    def engine_for(config: Config) -> Engine:
        engine = _engine_for(config)
        event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))
        return engine

    build.engine_for = engine_for  # type: ignore[attr-defined]


FAULTY = "success after an error"
"""Loses nothing until a call fails."""
CONTROLS: dict[str, Callable[[], None]] = {
    "no file fsync": no_file_fsync,
    "no folder fsync": no_folder_fsync,
    "synchronous = NORMAL": synchronous_normal,
    "acknowledged before commit": acknowledged_before_commit,
    FAULTY: success_after_an_error,
}
