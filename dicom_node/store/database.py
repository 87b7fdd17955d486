"""Open the ledger's database: SQLite or PostgreSQL, the same promises from both.

A commit that returned is on the disk. Errors of the driver become `LedgerUnavailable` or
`OutOfStorage` here, so nothing above knows a driver; values of rows never reach a message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Engine,
    Table,
    bindparam,
    create_engine,
    event,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dicom_node.config import Config
from dicom_node.errors import ConfigurationError, DicomNodeError, LedgerUnavailable, OutOfStorage

BUSY_S = 30
"""How long a writer waits for another one before the ledger counts as unavailable."""
_MIGRATIONS = Path(__file__).resolve().parent / "migrations"
_MIGRATION_LOCK = 0x44_49_43_4F_4D  # PostgreSQL advisory lock: any number, but always this one
_PG_DISK_FULL = "53100"
_POOL = {"pool_size": 8, "max_overflow": 64, "pool_timeout": BUSY_S}


def utc_now() -> datetime:
    return datetime.now(UTC)


def engine_for(config: Config) -> Engine:
    """The engine of `[store] database`; "sqlite" is `node.sqlite3` in data_dir.

    Raises ConfigurationError when the URL is not understood or the password file cannot be read.
    """
    if config.store.database == "sqlite":
        config.node.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return open_engine(f"sqlite:///{config.node.data_dir / 'node.sqlite3'}")
    return open_engine(config.store.database, password=_password(config.store.password_file))


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError) as error:
        raise ConfigurationError(f"store.password_file: cannot read a first line of {file}") from error


def open_engine(url: str, *, password: str | None = None) -> Engine:
    """An engine whose commits are durable. `password` wins over one in the URL.

    Raises ConfigurationError when the URL is neither SQLite nor PostgreSQL by psycopg.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("store.database is not a SQLAlchemy URL") from error
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    if password is not None:
        parsed = parsed.set(password=password)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "postgresql+psycopg":
        raise ConfigurationError(
            f"store.database: {parsed.drivername} is neither sqlite nor postgresql+psycopg"
        )
    return _open_postgresql(parsed)


def _open_sqlite(url: URL) -> Engine:
    # hide_parameters: a driver's message would quote the values of a row
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_S}, **_POOL)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not guessed by the driver
        connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # NORMAL loses acknowledged rows at power loss
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock before it reads: a lock taken later finds its snapshot stale and fails.
        writes = connection.get_execution_options().get("ledger_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_postgresql(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,  # a restarted server costs one ping, not one refused image
            connect_args={
                "options": "-c synchronous_commit=on -c timezone=UTC",
                "connect_timeout": BUSY_S,
                "application_name": "dicom-node",
            },
            **_POOL,
        )
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigurationError("store.database is not a URL that psycopg understands") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that changes the ledger: committed (durably) at the end, or nothing of it.

    A caller that wants nothing of it without an error calls `connection.rollback()`.
    Raises LedgerUnavailable or OutOfStorage.
    """
    with _translated(), engine.connect() as connection:
        connection = connection.execution_options(ledger_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent look at the ledger that never waits for a writer. Raises LedgerUnavailable."""
    with _translated(), engine.connect() as connection:
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise _ours(error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _ours(error) from error
        raise


@contextmanager
def driver_translated(engine: Engine) -> Iterator[None]:
    """As `writing` and `reading` do it, around calls of the driver itself."""
    driver = engine.dialect.loaded_dbapi
    with _translated():
        try:
            yield
        except (driver.OperationalError, driver.InterfaceError) as error:
            raise _ours(error) from error


def _ours(error: Exception) -> DicomNodeError:
    original = getattr(error, "orig", error)
    full = getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if full or getattr(original, "sqlstate", None) == _PG_DISK_FULL:
        return OutOfStorage("the database has no room; the sender should try again later")
    return LedgerUnavailable()


# Any: the rows' types are those of `table`
def insert_new(
    connection: Connection, table: Table, values: dict[str, Any], *returning: Any
) -> CursorResult[Any]:
    """INSERT a row unless a unique key says it is there; `returning` gives a row only where it was new."""
    statement = insert_statement(connection.dialect.name, table, tuple(values), *returning)
    return connection.execute(statement, values)


@cache  # Any: the columns' types; Insert or ReturningInsert
def insert_statement(dialect: str, table: Table, columns: tuple[str, ...], *returning: Any) -> Any:
    """INSERT ... ON CONFLICT DO NOTHING. Built once: building it takes longer than running it."""
    made = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    values: dict[str, Any] = {name: bindparam(name) for name in columns}
    insert = made.values(values).on_conflict_do_nothing()
    return insert.returning(*returning) if returning else insert.inline()


def migrate(engine: Engine) -> None:
    """Bring the schema to this version: all of it or nothing, also when several processes start at once.

    Raises ConfigurationError when the database was written by a newer version.
    """
    from alembic import command  # here: 10 MB that the receiver does not need
    from alembic.config import Config as AlembicConfig
    from alembic.util import CommandError

    with writing(engine) as connection:  # on SQLite the write lock is the mutual exclusion
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config = AlembicConfig()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise ConfigurationError("the database was made by a newer version of dicom-node") from error
