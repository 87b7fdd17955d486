"""STOW-RS by TLS: a peer is known by its certificate, or by its token (PS3.15 B.12, RFC 6750)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from dicom_node.config import Config
from dicom_node.web import protocol
from dicom_node.web.door import open_door
from support.certificates import Hospital, Issued, hospital
from support.ledger import Books
from support.mr import mr_instance
from support.ports import free_port
from support.stowing import TOKEN, body, content_type, web_process_of


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital(tmp_path_factory.mktemp("certificates"))


@dataclass
class Secured:
    port: int
    books: Books
    certificates: Hospital

    def post(self, shown: Issued | None = None, token: str = "") -> httpx.Response:
        """One instance, sent by a client that shows a certificate or a token, both, or neither."""
        context = ssl.create_default_context(cafile=str(self.certificates.authority.file))
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.private_key)
        headers = content_type() | ({"Authorization": f"Bearer {token}"} if token else {})
        with httpx.Client(verify=context, trust_env=False, timeout=30) as client:
            url = f"https://127.0.0.1:{self.port}/studies"
            return client.post(url, content=body([mr_instance()]), headers=headers)

    def peers(self) -> list[str]:
        with self.books.engine.connect() as connection:
            return [row[0] for row in connection.exec_driver_sql("SELECT peer FROM instances")]


def configured(folder: Path, certificates: Hospital) -> Config:
    (folder / "token").write_text(TOKEN + "\n", encoding="ascii")
    common = {"host": "127.0.0.1", "port": 104}
    listed, revoked = [certificates.peer.fingerprint], [certificates.revoked.fingerprint]
    return Config.model_validate(
        {
            "node": {"data_dir": str(folder)},
            "receive": {"reserve_mb": 0},
            "tls": certificates.tls(revoked=str(certificates.revocations)),
            "http": {"tls": True, "port": free_port()},
            "peer": [
                {"name": "scanner", "ae_title": "A", "certificates": listed} | common,
                {"name": "gateway", "ae_title": "B", "token_file": str(folder / "token")} | common,
                {"name": "old", "ae_title": "C", "certificates": revoked} | common,
            ],
        }
    )  # fmt: skip


@contextmanager
def secured(folder: Path, certificates: Hospital) -> Iterator[Secured]:
    config = configured(folder, certificates)
    books = Books(f"sqlite:///{folder / 'node.sqlite3'}", folder)
    door = open_door(config, lambda: True)
    try:
        yield Secured(door.server.port, books, certificates)
    finally:
        door.close()
        books.engine.dispose()


@pytest.fixture
def door(tmp_path: Path, certificates: Hospital) -> Iterator[Secured]:
    with secured(tmp_path, certificates) as opened:
        yield opened


def test_a_certificate_says_who_it_is(door: Secured) -> None:
    """A fingerprint of peer.certificates is enough, and the instance is that peer's."""
    answer = door.post(door.certificates.peer)

    assert (answer.status_code, door.peers()) == (200, ["scanner"])


def test_a_token_says_who_it_is(door: Secured) -> None:
    """By TLS without a certificate, a token still does."""
    answer = door.post(token=TOKEN)

    assert (answer.status_code, door.peers()) == (200, ["gateway"])


def test_a_good_certificate_of_nobody_is_401(door: Secured) -> None:
    """The authority vouches for it, but no peer lists it."""
    assert 401 == door.post(door.certificates.other).status_code
    assert 401 == door.post().status_code
    assert [] == door.peers()


def test_a_certificate_and_a_token_of_two_peers_are_401(door: Secured) -> None:
    """Who shows two names has none."""
    assert 401 == door.post(door.certificates.peer, token=TOKEN).status_code


@pytest.mark.parametrize("which", ["stranger", "expired", "revoked"])
def test_a_bad_certificate_gets_no_connection(door: Secured, which: str) -> None:
    """The handshake fails; a token does not help."""
    with pytest.raises(httpx.TransportError):
        door.post(getattr(door.certificates, which), token=TOKEN)

    assert [] == door.peers()


def test_a_silent_handshake_is_cut(
    tmp_path: Path, certificates: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS client that says nothing is let go, and keeps nobody out meanwhile."""
    monkeypatch.setattr(protocol, "HANDSHAKE_S", 0.5)
    with secured(tmp_path, certificates) as door:
        silent = socket.create_connection(("127.0.0.1", door.port), timeout=20)
        assert 200 == door.post(certificates.peer).status_code
        assert b"" == silent.recv(1)
        silent.close()


def test_silent_handshakes_take_little_memory(tmp_path: Path, certificates: Hospital) -> None:
    """Hundreds of them, one after another: those that made room for others are not kept."""
    config = configured(tmp_path, certificates)
    Books(f"sqlite:///{tmp_path / 'node.sqlite3'}", tmp_path).engine.dispose()
    with web_process_of(config) as process, ExitStack() as silent:
        for number in range(600):
            source = (f"127.0.0.{2 + number % 4}", 0)
            silent.enter_context(
                closing(socket.create_connection(("127.0.0.1", config.http.port), 20, source))
            )
        context = ssl.create_default_context(cafile=str(certificates.authority.file))
        url = f"https://127.0.0.1:{config.http.port}/health"
        assert 200 == httpx.get(url, verify=context, trust_env=False, timeout=30).status_code

        assert psutil.Process(process.pid).memory_info().rss < 200_000_000
        assert psutil.Process(process.pid).num_fds() < 200
