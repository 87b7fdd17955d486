"""The Non-Downgrading BCP 195 TLS profile (PS3.15 B.12) and mutual authentication, tried from outside.

RFC 8996 takes TLS 1.0 and 1.1 away, RFC 9325 4.1 and 4.2 the suites below: typed in by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.config import Tls
from dicom_node.tls import server_context
from support.certificates import Authority, Hospital, hospital, self_signed
from support.tls_port import ALERT, GREETING, HANDSHAKE, answer_to_hello, s_client, tls_port

LET_IN = GREETING.decode()
TLS_1_0, TLS_1_1, TLS_1_2 = 0x0301, 0x0302, 0x0303
ECDHE_ECDSA_AES_128_GCM = 0xC02B

CARELESS = ("-cipher", "ALL:@SECLEVEL=0")
"""A client that would show any key and take any: what is refused, the port refuses."""

TAKEN = {"ECDHE-ECDSA-AES128-GCM": 0xC02B, "ECDHE-ECDSA-AES256-GCM": 0xC02C, "ECDHE-ECDSA-CHACHA20": 0xCCA9}
REFUSED = {
    "NULL-SHA": 0x0002, "NULL-SHA256": 0x003B, "ECDHE-ECDSA-NULL-SHA": 0xC006,
    "RC4-SHA": 0x0005, "ECDHE-ECDSA-RC4-SHA": 0xC007, "ECDHE-RSA-RC4-SHA": 0xC011,
    "DES-CBC3-SHA": 0x000A, "ECDHE-ECDSA-3DES": 0xC008, "EXP-RC4-MD5": 0x0003,
    "ADH-AES128-SHA": 0x0034, "AECDH-AES128-SHA": 0xC018,
    "AES128-SHA": 0x002F, "AES128-GCM without ECDHE": 0x009C, "DHE-RSA-AES128-SHA": 0x0033,
    "ECDHE-ECDSA-AES128-SHA": 0xC009, "ECDHE-ECDSA-AES256-SHA": 0xC00A,
    "ECDHE-ECDSA-AES128-SHA256": 0xC023, "ECDHE-ECDSA-AES256-SHA384": 0xC024, "ECDHE-ECDSA-CAMELLIA": 0xC072,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return hospital(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def port(made: Hospital) -> Iterator[int]:
    with tls_port(server_context(Tls(**made.tls()))) as opened:
        yield opened


@pytest.mark.parametrize("version", [TLS_1_0, TLS_1_1], ids=["1.0", "1.1"])
def test_old_versions_are_refused(port: int, version: int) -> None:
    """RFC 8996: also to a caller that knows nothing newer."""
    assert ALERT == answer_to_hello(port, version, [*TAKEN.values(), 0xC009, 0xC00A, 0x002F])


@pytest.mark.parametrize("suite", REFUSED.values(), ids=REFUSED.keys())
def test_weak_suites_are_refused(port: int, suite: int) -> None:
    """No encryption, broken encryption, no forward secrecy, or CBC: an alert."""
    assert ALERT == answer_to_hello(port, TLS_1_2, [suite])


@pytest.mark.parametrize("suite", TAKEN.values(), ids=TAKEN.keys())
def test_strong_suites_are_taken(port: int, suite: int) -> None:
    """ECDHE with AES-GCM or ChaCha20 (and so the refusals above are not for the hand-made hello)."""
    assert HANDSHAKE == answer_to_hello(port, TLS_1_2, [*REFUSED.values(), suite])


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_peer_with_its_certificate_is_let_in(made: Hospital, port: int, version: str) -> None:
    """Both versions, both sides authenticated."""
    written = s_client(port, made.peer, version, "-CAfile", str(made.authority.file))

    assert LET_IN in written
    assert "Verify return code: 0 (ok)" in written


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("which", ["none", "stranger", "expired", "revoked", "early", "self-signed", "weak"])
def test_who_shows_no_good_certificate_is_not(
    made: Hospital, tmp_path: Path, which: str, version: str
) -> None:
    """None, of an unknown authority, expired, revoked, not valid yet, its own, or with a weak key."""
    shown = {
        "none": None, "stranger": made.stranger, "expired": made.expired, "revoked": made.revoked,
        "early": made.authority.issue("early", begins=1), "self-signed": self_signed(tmp_path, "alone"),
        "weak": made.authority.issue("weak", strong=False),
    }[which]  # fmt: skip

    with tls_port(server_context(Tls(**made.tls(revoked=str(made.revocations))))) as opened:
        assert LET_IN in s_client(opened, made.peer, version, *CARELESS)
        assert LET_IN not in s_client(opened, shown, version, *CARELESS)


@pytest.mark.parametrize("trusted", ["itself", "its authority in the middle"])
def test_what_stands_in_trusted_is_enough(made: Hospital, tmp_path: Path, trusted: str) -> None:
    """A device's own certificate, or an intermediate authority without its root."""
    if trusted == "itself":
        device = self_signed(tmp_path, "device")
        known = device.certificate
    else:
        middle = Authority(tmp_path, "middle", above=made.authority)
        device, known = middle.issue("device"), middle.file

    with tls_port(server_context(Tls(**made.tls(trusted=str(known))))) as opened:
        assert LET_IN in s_client(opened, device)
        assert LET_IN not in s_client(opened, made.peer)


def test_an_expired_certificate_is_refused_although_it_is_trusted_itself(
    made: Hospital, tmp_path: Path
) -> None:
    """A pin does not make a certificate younger."""
    device = self_signed(tmp_path, "device", begins=-9, ends=-1)

    with tls_port(server_context(Tls(**made.tls(trusted=str(device.certificate))))) as opened:
        assert LET_IN not in s_client(opened, device)


def test_whom_no_list_speaks_of_is_refused(made: Hospital, tmp_path: Path) -> None:
    """With tls.revoked every issuer needs a list, a device that is its own issuer too: fail closed."""
    device = self_signed(tmp_path, "device")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(made.authority.file.read_text() + device.certificate.read_text())
    tls = made.tls(trusted=str(trusted))

    with tls_port(server_context(Tls(**tls))) as without:
        assert LET_IN in s_client(without, device)
    with tls_port(server_context(Tls(**tls, revoked=str(made.revocations)))) as opened:
        assert LET_IN not in s_client(opened, device)
        assert LET_IN in s_client(opened, made.peer)


def test_optional_means_none_or_a_good_one(made: Hospital) -> None:
    """The pages let a browser in without a certificate, but nobody with a wrong one."""
    with tls_port(server_context(Tls(**made.tls()), ask="optional")) as opened:
        assert LET_IN in s_client(opened, None)
        assert LET_IN in s_client(opened, made.peer)
        assert LET_IN not in s_client(opened, made.stranger)


def test_nothing_is_negotiated_twice(made: Hospital, port: int) -> None:
    """RFC 9325 3.5: a client that wants to renegotiate (R in s_client) is told no."""
    written = s_client(port, made.peer, "-tls1_2", typed="R\n")

    assert LET_IN in written
    assert "RENEGOTIATING" in written
    assert "no renegotiation" in written


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_no_tickets_are_given(made: Hospital, port: int, version: str) -> None:
    """A ticket would let a client in later without its certificate being looked at."""
    written = s_client(port, made.peer, version)

    assert LET_IN in written
    assert "session ticket" not in written.lower()
