"""Operational log: one JSON line per transition on stderr, ids and counts only.

No patient name, id, birth date, accession or free text ever goes in; UIDs only at DEBUG.
Library warnings quote values of data sets, so they are reduced to their kind and place.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import structlog

_SAME_AGAIN_S = 60.0
_LIBRARIES = ("pynetdicom", "pydicom", "highdicom", "monai", "sqlalchemy", "alembic")


def start(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Configure logging of this process; call once, first."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers[:] = [_ReducedHandler()]
        library.propagate = False
    warnings.showwarning = _show_warning


def withhold() -> None:
    """Let nothing else of this process speak on stderr: loggers nobody named, and exceptions nobody caught.

    Their texts may quote a patient. For processes of the node; a command at a terminal shows its traceback.
    """
    logging.getLogger().handlers[:] = [_ReducedHandler()]
    logging.raiseExceptions = False  # else a record that cannot be formatted is printed with its arguments
    sys.excepthook = lambda kind, error, trace: crashed(error)
    threading.excepthook = lambda args: crashed(args.exc_value, thread=args.thread and args.thread.name)
    sys.unraisablehook = lambda args: crashed(args.exc_value)


def crashed(error: BaseException | None, **facts: Any) -> None:
    """An exception that nobody caught, by kind and place."""
    if not isinstance(error, KeyboardInterrupt | SystemExit | None):
        problem("process.exception", error=type(error).__name__, where=_place(error.__traceback__), **facts)


def _place(trace: TracebackType | None) -> str:
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"


def event(name: str, **facts: Any) -> None:  # Any: whatever JSON can hold
    """Log one transition, e.g. `event("series.complete", series=12, instances=200)`."""
    structlog.get_logger().info(name, **facts)


def problem(name: str, **facts: Any) -> None:
    """Log something an operator should look at."""
    structlog.get_logger().warning(name, **facts)


def detail(name: str, **facts: Any) -> None:
    """Log at DEBUG; the only level at which a UID may stand."""
    structlog.get_logger().debug(name, **facts)


class _ReducedHandler(logging.Handler):
    """Lets through that a library spoke and where, not what it said: it may have quoted a patient.

    A library that says the same of every image is heard once a minute. Mutable: `_heard`, when and how
    often since, under the handler's own lock, which `emit` holds.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._heard: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        key, now = (record.name, f"{record.module}:{record.lineno}"), time.monotonic()
        at, more = self._heard.get(key, (now - _SAME_AGAIN_S, 0))
        if now - at < _SAME_AGAIN_S:
            self._heard[key] = (at, more + 1)
            return
        self._heard[key] = (now, 0)
        problem("library.warning", library=key[0], where=key[1], more=more)


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    detail("python.warning", kind=category.__name__, where=f"{filename.rsplit('/', 1)[-1]}:{lineno}")
