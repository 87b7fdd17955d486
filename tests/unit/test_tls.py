"""What `dicom_node.tls` takes as configuration, and what it says of the rest: always with the key's name."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from dicom_node.config import Peer, Tls
from dicom_node.errors import ConfigurationError
from dicom_node.tls import client_context, fingerprint, holder, server_context
from support.certificates import Hospital, hospital


@pytest.fixture
def made(tmp_path: Path) -> Hospital:
    return hospital(tmp_path)


def refusal(made: Hospital, **keys: object) -> str:
    with pytest.raises(ConfigurationError) as raised:
        server_context(Tls.model_validate(made.tls(**keys)))
    return str(raised.value)


def test_what_is_offered_is_the_profile(made: Hospital) -> None:
    """BCP 195: 1.2 and 1.3 only, every suite with forward secrecy and authenticated encryption."""
    for context in (server_context(Tls(**made.tls())), client_context(Tls(**made.tls()))):
        offered = [suite["description"] for suite in context.get_ciphers()]

        assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
        assert all("Mac=AEAD" in line and ("Kx=ECDH" in line or "Kx=any" in line) for line in offered)
        assert 6 <= len(offered)


def test_who_must_show_a_certificate(made: Hospital) -> None:
    """The DICOM port requires one, a page may do without; the node checks the PACS's, and its host name."""
    tls = Tls(**made.tls())

    assert ssl.CERT_REQUIRED == server_context(tls).verify_mode
    assert ssl.CERT_OPTIONAL == server_context(tls, ask="optional").verify_mode
    assert (ssl.CERT_REQUIRED, True) == (client_context(tls).verify_mode, client_context(tls).check_hostname)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_others_may_read_is_refused(made: Hospital, mode: int) -> None:
    """A key that was readable is a key that may be anywhere: the operator hears it before it is used."""
    made.node.private_key.chmod(mode)

    assert f"tls.private_key: others than its owner may read {made.node.private_key}" in refusal(made)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"private_key": "{peer.private_key}"}, "tls.private_key: {peer.private_key} is not the key of"),
        ({"private_key": "{folder}/none.key"}, "tls.private_key: cannot read {folder}/none.key: No such"),
        ({"private_key": "{folder}/empty"}, "tls.private_key: {folder}/empty holds no private key"),
        ({"private_key": "{folder}/locked"}, "tls.private_key: {folder}/locked has a passphrase"),
        ({"certificate": "{folder}/empty"}, "tls.certificate: {folder}/empty holds no certificate"),
        ({"certificate": "{folder}/none.crt"}, "tls.certificate: cannot read {folder}/none.crt"),
        ({"certificate": None}, "tls.certificate is not given"),
        ({"trusted": "{folder}/empty"}, "tls.trusted: {folder}/empty holds no certificates"),
        ({"revoked": "{folder}/empty"}, "tls.revoked: {folder}/empty holds no revocation lists"),
        ({"revoked": "{peer.certificate}"}, "tls.revoked: {peer.certificate} may hold nothing but"),
        ({"revoked": "{folder}/mixed"}, "tls.revoked: {folder}/mixed may hold nothing but revocation lists"),
        ({"revoked": "{folder}/none.pem"}, "tls.revoked: cannot read {folder}/none.pem"),
    ],
)  # fmt: skip
def test_unusable_files_are_named(made: Hospital, tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    """Key, file and reason, in one sentence; a passphrase is never asked for at the terminal."""
    mixed = made.revocations.read_text() + made.stranger.certificate.read_text()
    for name, text in (("empty", ""), ("locked", LOCKED), ("mixed", mixed)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    facts: dict[str, Any] = {"folder": tmp_path, "peer": made.peer}

    sentence = refusal(made, **{key: path and path.format(**facts) for key, path in keys.items()})

    assert sentence.startswith(said.format(**facts))


LOCKED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHjME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAiU
-----END ENCRYPTED PRIVATE KEY-----
"""


def test_a_certificate_names_one_peer(made: Hospital) -> None:
    """By its fingerprint, as `openssl x509 -fingerprint -sha256` prints it; its subject says nothing."""
    text = made.peer.fingerprint.upper()
    colons = ":".join(text[at : at + 2] for at in range(0, 64, 2))
    pacs = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", certificates=(colons,))
    der = ssl.PEM_cert_to_DER_cert(made.peer.certificate.read_text())

    assert (fingerprint(der),) == pacs.certificates
    assert pacs == holder([pacs], der)
    assert holder([pacs], ssl.PEM_cert_to_DER_cert(made.other.certificate.read_text())) is None
