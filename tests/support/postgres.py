"""Debian's PostgreSQL on a loopback port of its own, for tests: started once, an empty database per test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

BINARIES = Path("/usr/lib/postgresql")
USER = "node"


class CannotStart(Exception):
    """A command of PostgreSQL failed."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """The server's URL without database; the test is skipped aloud where it cannot start."""
    found = sorted(BINARIES.glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL: no initdb in /usr/lib/postgresql (Debian package: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    data, port = folder / "data", _free_port()
    user = _ordinary_user()
    try:
        if user is not None:
            shutil.chown(folder, user)
        _run(user, found[-1], "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        control = found[-1].with_name("pg_ctl")
        _run(user, control, "start", "--wait", "-D", data, "-l", folder / "log", "-o", options)
        try:
            yield f"postgresql+psycopg://{USER}@127.0.0.1:{port}"
        finally:
            _run(user, control, "stop", "--wait", "-m", "immediate", "-D", data)
    except CannotStart as error:
        pytest.skip(f"PostgreSQL does not start here: {error}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """The URL of a database that nobody used before."""
    name = f"t{uuid.uuid4().hex}"
    admin = sa.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield f"{server}/{name}"
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def _ordinary_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return pytest.skip("PostgreSQL refuses root, and there is no ordinary user to run it as")


def _run(user: str | None, *command: object) -> None:
    """Raises CannotStart with the end of what the command said."""
    group = "nogroup" if user == "nobody" else user
    become = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--"]
    # A file, not a pipe: the server inherits it, and a pipe would stay open as long as it runs.
    with tempfile.TemporaryFile("w+") as said:
        status = subprocess.run(
            [*become, *map(str, command)], check=False, cwd="/", timeout=60,
            stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        ).returncode  # fmt: skip
        if status:
            said.seek(0)
            raise CannotStart(said.read()[-300:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
