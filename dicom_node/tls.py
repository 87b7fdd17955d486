"""TLS as PS3.15 B.12 wants it: the non-downgrading BCP 195 profile (RFC 8996, RFC 9325), mutual.

Promises: TLS 1.2 or 1.3 with forward secrecy and authenticated encryption only, no compression,
no renegotiation; both sides show a certificate, expired and revoked ones are refused. Refuses,
with a ConfigurationError that names the key, files that cannot be used for that.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dicom_node.config import Peer, Tls
from dicom_node.errors import ConfigurationError

SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2 (RFC 9325 4.2); those of 1.3 are all of this kind. Level 2: keys of 112 bits of strength and
more, no SHA-1 signature."""

Ask = Literal["require", "optional"]


def server_context(tls: Tls, *, ask: Ask = "require") -> ssl.SSLContext:
    """For a listening port. With `optional` a client may come without a certificate, never with a wrong one.

    No resumption in TLS 1.3 and no tickets in 1.2, so a certificate is looked at anew for each
    connection. (A 1.2 client may resume by session id within minutes, at the process it spoke
    with; its certificate is kept with the session.) Raises ConfigurationError.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    context.verify_mode = ssl.CERT_REQUIRED if ask == "require" else ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """For connecting to a peer, with this node's certificate at hand where the peer asks for one.

    The host name is checked; a caller that pins the peer's certificate takes that check away
    (`check_hostname = False`), since certificates of PACS seldom carry the name or address they
    are reached by. Raises ConfigurationError.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls)


def fingerprint(der: bytes) -> str:
    """SHA-256 of a DER certificate, lower case hex, as in `peer.certificates`."""
    return hashlib.sha256(der).hexdigest()


def holder(peers: Iterable[Peer], der: bytes) -> Peer | None:
    """The peer that lists this certificate: its AE title and its rights are all the certificate gives."""
    shown = fingerprint(der)
    return next((peer for peer in peers if shown in peer.certificates), None)


def _context(protocol: int, tls: Tls) -> ssl.SSLContext:
    """What both sides share. Not X509_STRICT: it refuses certificates for what they lack as documents
    (key identifiers, mostly), and those of modalities and PACS, pinned or not, often lack it."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.set_ciphers(SUITES)
    # What stands in tls.trusted is trusted as it stands: an intermediate, or a peer's own certificate, too
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _load_trusted(context, _given("trusted", tls.trusted))
    if tls.revoked is not None:
        _load_revoked(context, tls.revoked)
    _load_own(context, _given("certificate", tls.certificate), _given("private_key", tls.private_key))
    return context


def _given(key: str, path: Path | None) -> Path:
    """The file of `tls.<key>`, once it can be read."""
    if path is None:
        raise ConfigurationError(f"tls.{key} is not given")
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ConfigurationError(f"tls.{key}: cannot read {path}: {error.strerror}") from error


def _load_trusted(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"tls.trusted: {path} holds no certificates in PEM form") from error


def _load_revoked(context: ssl.SSLContext, path: Path) -> None:
    """OpenSSL would take certificates in this file for trusted ones: there must be none."""
    before = context.cert_store_stats()["x509"]
    try:
        context.load_verify_locations(cafile=_given("revoked", path))
    except ssl.SSLError as error:
        raise ConfigurationError(f"tls.revoked: {path} holds no revocation lists in PEM form") from error
    loaded = context.cert_store_stats()
    if loaded["x509"] != before or not loaded["crl"]:
        raise ConfigurationError(f"tls.revoked: {path} may hold nothing but revocation lists")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _load_own(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    _check_private(private_key)
    try:
        context.load_cert_chain(
            certificate, private_key, password=lambda: ""
        )  # never a prompt at the terminal
    except ssl.SSLError as error:
        raise ConfigurationError(_own_trouble(error, certificate, private_key)) from error


def _own_trouble(error: ssl.SSLError, certificate: Path, private_key: Path) -> str:
    text = private_key.read_text(encoding="ascii", errors="replace")
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"tls.private_key: {private_key} is not the key of the certificate in {certificate}"
    if "ENCRYPTED" in text:
        return (
            f"tls.private_key: {private_key} has a passphrase, which nobody can enter at a start: take it off"
        )
    if "PRIVATE KEY" not in text:
        return f"tls.private_key: {private_key} holds no private key in PEM form"
    if "BEGIN CERTIFICATE" not in certificate.read_text(encoding="ascii", errors="replace"):
        return f"tls.certificate: {certificate} holds no certificate in PEM form"
    said = (error.reason or str(error)).replace("_", " ").lower()
    return f"tls.certificate: {certificate} with key {private_key} cannot be used: {said}"


def _check_private(path: Path) -> None:
    """As PostgreSQL has it: 0600, or 0640 where root is the owner and the node's user in the group."""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    others = 0o037 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
    if mode & others:
        raise ConfigurationError(
            f"tls.private_key: others than its owner may read {path} (mode {mode:04o}): chmod 0600 it"
        )
