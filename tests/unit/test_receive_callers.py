"""Who may send by HTTP: tokens, and the configurations that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import Config
from dicom_node.errors import ConfigurationError
from dicom_node.receive.callers import Callers

ONE, OTHER = "one-" + "1" * 32, "other-" + "2" * 32


def configured(folder: Path, tokens: dict[str, str], **http: object) -> Config:
    for name, token in tokens.items():
        (folder / name).write_text(token, encoding="utf-8")
    peers = [
        {"name": name, "ae_title": name.upper(), "host": "127.0.0.1", "token_file": str(folder / name)}
        for name in tokens
    ]
    return Config.model_validate({"http": http, "peer": peers})


@pytest.mark.parametrize(
    ("authorization", "peer"),
    [
        (f"Bearer {ONE}", "one"),
        (f"bearer {OTHER}", "other"),
        (f"Bearer  {ONE} ", "one"),
        (f"Bearer {ONE}x", None),
        (f"Bearer {ONE[:-1]}", None),
        (f"Basic {ONE}", None),
        (ONE, None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
    ],
)
def test_a_token_names_its_peer(tmp_path: Path, authorization: str, peer: str | None) -> None:
    """The scheme's case does not count (RFC 9110 11.1), every character of the token does."""
    callers = Callers.of(configured(tmp_path, {"one": f"{ONE}\nnote", "other": OTHER}))

    found = callers.peer(authorization, "")

    assert peer == (found.name if found else None)


def test_an_empty_fingerprint_is_nobody(tmp_path: Path) -> None:
    """A client without a certificate is not taken for a peer without one."""
    assert Callers.of(configured(tmp_path, {"one": ONE})).peer("", "") is None


@pytest.mark.parametrize("token", ["", "short", "\n" + ONE, f"with a space in it {ONE}", "ü" * 40])
def test_a_token_that_is_none_stops_the_start(tmp_path: Path, token: str) -> None:
    """The sentence names the key and the peer, and does not quote the token."""
    with pytest.raises(ConfigurationError, match=r"peer\.token_file of 'one'") as caught:
        Callers.of(configured(tmp_path, {"one": token}))

    assert ONE not in str(caught.value)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    """A peer whose token cannot be read is not one without a token."""
    config = configured(tmp_path, {"one": ONE})
    (tmp_path / "one").unlink()

    with pytest.raises(ConfigurationError, match=r"peer\.token_file of 'one'"):
        Callers.of(config)


def test_two_peers_with_one_token_stop_the_start(tmp_path: Path) -> None:
    """Who would it be?"""
    with pytest.raises(ConfigurationError, match="two peers have the same token"):
        Callers.of(configured(tmp_path, {"one": ONE, "other": ONE}))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "node.hospital.example", "::"])  # noqa: S104
def test_tokens_never_travel_in_clear(tmp_path: Path, host: str) -> None:
    """A token, a network and no TLS: the node does not start."""
    with pytest.raises(ConfigurationError, match="tokens would travel in clear"):
        Callers.of(configured(tmp_path, {"one": ONE}, host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_tls(tmp_path: Path, host: str) -> None:
    """A proxy on the same machine may speak TLS to the world."""
    assert Callers.of(configured(tmp_path, {"one": ONE}, host=host)).tokens


def test_without_tokens_any_host_will_do() -> None:
    """The pages alone may be served anywhere, as in a container."""
    assert Callers.of(Config.model_validate({"http": {"host": "0.0.0.0"}})) == Callers((), ())  # noqa: S104


def test_check_says_who_may_send(tmp_path: Path) -> None:
    """In words, by name, without a token."""
    assert "one by token" == str(Callers.of(configured(tmp_path, {"one": ONE})))
    assert str(Callers((), ())).startswith("nobody may send by STOW-RS")
