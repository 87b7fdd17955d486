"""What `dicom-node check` says of certificates, and of who gets in without one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Config
from dicom_node.errors import ConfigurationError
from dicom_node.node.certificates import certificates, wanted, who_gets_in
from support.certificates import Hospital, hospital, self_signed

NOW = datetime.now(UTC) + timedelta(hours=6)
"""A little after the certificates are made."""


@pytest.fixture
def made(tmp_path: Path) -> Hospital:
    return hospital(tmp_path)


def configured(tls: dict[str, Any], *peers: dict[str, Any], host: str = "127.0.0.1") -> Config:
    listed = [{"ae_title": "PACS", "host": "127.0.0.1", **peer} for peer in peers]
    return Config.model_validate({"receive": {"host": host}, "tls": tls, "peer": listed})


def wrong(config: Config, now: datetime = NOW) -> str:
    with pytest.raises(ConfigurationError) as raised:
        certificates(config, now)
    return str(raised.value)


def test_a_good_certificate_says_how_long(made: Hospital) -> None:
    """Days left, and the day; a month before the end it says to renew."""
    config = configured(made.tls(port=2762, revoked=str(made.revocations)))

    assert wanted(config)
    assert certificates(config, NOW).startswith("the certificate is good for 299 days, until 20")
    config = configured(made.tls(port=2762))
    assert certificates(config, NOW + timedelta(days=275)).split("; ")[0].endswith(": renew it now")


def test_an_expired_certificate_is_wrong(made: Hospital) -> None:
    """The node would start with it, and every peer would refuse it."""
    tls = made.tls(certificate=str(made.expired.certificate), private_key=str(made.expired.private_key))

    assert "expired on" in wrong(configured(tls))
    assert "is the clock right?" in wrong(configured(made.tls()), NOW - timedelta(days=30))


def test_a_key_of_another_certificate_is_wrong(made: Hospital) -> None:
    """The sentence of the start, before it is one."""
    assert "is not the key of" in wrong(configured(made.tls(private_key=str(made.peer.private_key))))


def test_a_list_out_of_date_is_wrong(made: Hospital) -> None:
    """OpenSSL refuses everybody then, rightly."""
    config = configured(made.tls(revoked=str(made.authority.revoke(ends=-1))))

    assert wrong(config).startswith("tls.revoked: the list of 'authority' was to be renewed by")


def test_an_issuer_without_a_list_is_wrong(made: Hospital, tmp_path: Path) -> None:
    """Also a device's own certificate: it is its own issuer."""
    trusted = tmp_path / "trusted.pem"
    device = self_signed(tmp_path, "device")
    trusted.write_text(made.authority.file.read_text() + device.certificate.read_text())
    config = configured(made.tls(trusted=str(trusted), revoked=str(made.revocations)))

    assert "has no list of 'device' in tls.trusted" in wrong(config)


def test_a_certificate_must_be_meant_for_its_use(made: Hospital) -> None:
    """One for servers only does not deliver to a peer that asks for a certificate."""
    server = made.authority.issue("server", uses=("server",))
    tls = made.tls(certificate=str(server.certificate), private_key=str(server.private_key))

    assert "lacks clientAuth" in wrong(configured(tls, {"name": "pacs", "tls": True}))
    assert certificates(configured(tls | {"port": 2762}), NOW)


def test_an_expired_authority_is_told(made: Hospital, tmp_path: Path) -> None:
    """Not wrong by itself: another one may be in use."""
    trusted = tmp_path / "trusted.pem"
    old = self_signed(tmp_path, "old", begins=-9, ends=-1)
    trusted.write_text(made.authority.file.read_text() + old.certificate.read_text())

    assert "'old' in tls.trusted has expired" in certificates(configured(made.tls(trusted=str(trusted))), NOW)


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "mr by certificate; pacs by AE title and address"),
        ("::1", "mr by certificate; pacs by AE title and address"),
        ("0.0.0.0", "mr by certificate; pacs by AE title and address, which anybody on that network can"  # noqa: S104
         " forge: give it a certificate"),
    ],
)  # fmt: skip
def test_who_gets_in_by_a_mere_name_is_told(made: Hospital, host: str, said: str) -> None:
    """An AE title and an address are labels; on a network they are no proof."""
    mr = {"name": "mr", "certificates": [made.peer.fingerprint]}

    config = configured(made.tls(), mr, {"name": "pacs"}, {"name": "away", "may_send": False}, host=host)

    assert said == who_gets_in(config)


def test_without_tls_nothing_is_said_of_it() -> None:
    """A node on loopback with plain peers has no line about certificates."""
    assert not wanted(Config())
    assert "nobody may send" == who_gets_in(Config())
