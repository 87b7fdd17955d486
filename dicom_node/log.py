"""Operational log: one JSON line per transition on stderr, ids and counts only.

No patient name, id, birth date, accession or free text ever goes in; UIDs only at DEBUG.
Library warnings quote values of data sets, so they are reduced to their kind and place.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any, TextIO

import structlog

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
        library.handlers[:] = [_ReducedHandler(logging.WARNING)]
        library.propagate = False
    warnings.showwarning = _show_warning


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
    """Lets through that a library spoke and where, not what it said: it may have quoted a patient."""

    def emit(self, record: logging.LogRecord) -> None:
        problem("library.warning", library=record.name, where=f"{record.module}:{record.lineno}")


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: TextIO | None = None, line: str | None = None,
) -> None:  # fmt: skip
    detail("python.warning", kind=category.__name__, where=f"{filename.rsplit('/', 1)[-1]}:{lineno}")
