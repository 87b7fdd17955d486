"""What `dicom-node check` says of TLS: the files, how long they are good, and who gets in by what."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicom_node.config import Config
from dicom_node.errors import ConfigurationError
from dicom_node.tls import client_context, server_context

SOON_DAYS = 30
"""A certificate that ends earlier is to be renewed."""


def wanted(config: Config) -> bool:
    """Whether [tls] says anything: else there is nothing to look at."""
    return config.tls.certificate is not None or bool(config.tls.port)


def certificates(config: Config, now: datetime) -> str:
    """The sentence of a [tls] that works. Raises ConfigurationError naming the key of one that does not."""
    server_context(config.tls)
    client_context(config.tls)
    own = _certificates("certificate", config.tls.certificate)[0]
    _check_valid(own, config, now)
    _check_use(own, config)
    trusted = _certificates("trusted", config.tls.trusted)
    if config.tls.revoked is not None:
        _check_lists(config.tls.revoked, trusted, now)
    days = (own.not_valid_after_utc - now).days
    left = f"the certificate is good for {days} days, until {own.not_valid_after_utc:%Y-%m-%d}"
    sentences = [left + (": renew it now" if days < SOON_DAYS else ""), *_ended(trusted, now)]
    return "; ".join(sentences)


def who_gets_in(config: Config) -> str:
    """How the peers that may send are known: by certificate, or by what is no proof."""
    senders = [peer for peer in config.peer if peer.may_send]
    proven = [peer.name for peer in senders if peer.certificates]
    named = [peer.name for peer in senders if not peer.certificates]
    sentences = [f"{', '.join(proven)} by certificate"] if proven else []
    if named:
        forged = ", which anybody on that network can forge: give it a certificate"
        outside = "" if _is_loopback(config.receive.host) else forged
        sentences.append(f"{', '.join(named)} by AE title and address{outside}")
    return "; ".join(sentences) or "nobody may send"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _certificates(key: str, path: Path | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes() if path else b"")
    except (OSError, ValueError) as error:  # OpenSSL took it a moment ago
        raise ConfigurationError(f"tls.{key}: a certificate in {path} cannot be read") from error


def _check_valid(own: x509.Certificate, config: Config, now: datetime) -> None:
    path = config.tls.certificate
    if own.not_valid_after_utc < now:
        raise ConfigurationError(
            f"tls.certificate: {path} expired on {own.not_valid_after_utc:%Y-%m-%d}: "
            "nobody takes it any more, renew it"
        )
    if own.not_valid_before_utc > now:
        raise ConfigurationError(
            f"tls.certificate: {path} is not valid before {own.not_valid_before_utc:%Y-%m-%d}: "
            "is the clock right?"
        )


def _check_use(own: x509.Certificate, config: Config) -> None:
    """Extended key usage, where a certificate has it: a server's for a port, a client's for delivering."""
    try:
        uses = set(own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return
    needs: list[tuple[bool, x509.ObjectIdentifier, str]] = [
        (bool(config.tls.port) or config.http.tls, ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
        (any(peer.tls for peer in config.peer), ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
    ]
    for needed, use, name in needs:
        if needed and use not in uses:
            raise ConfigurationError(
                f"tls.certificate: {config.tls.certificate} lacks {name} in its extended key usage: "
                "peers will refuse it, have it issued with that"
            )


def _check_lists(path: Path, trusted: Sequence[x509.Certificate], now: datetime) -> None:
    """Each issuer needs a list, and a list that is not out of date: else all it issued is refused."""
    parts = path.read_bytes().split(b"-----BEGIN X509 CRL-----")[1:]
    lists = [x509.load_pem_x509_crl(b"-----BEGIN X509 CRL-----" + part) for part in parts]
    for one in lists:
        if one.next_update_utc is not None and one.next_update_utc < now:
            raise ConfigurationError(
                f"tls.revoked: the list of {_name(one.issuer)!r} was to be renewed by "
                f"{one.next_update_utc:%Y-%m-%d}: until it is, whoever it vouches for is refused"
            )
    listing = {one.issuer for one in lists}
    for certificate in trusted:
        if certificate.subject not in listing:
            raise ConfigurationError(
                f"tls.revoked: {path} has no list of {_name(certificate.subject)!r} in tls.trusted: "
                "whoever it vouches for is refused"
            )


def _ended(trusted: Sequence[x509.Certificate], now: datetime) -> Iterator[str]:
    for certificate in trusted:
        if certificate.not_valid_after_utc < now:
            yield f"{_name(certificate.subject)!r} in tls.trusted has expired, and all it vouches for"


def _name(name: x509.Name) -> str:
    """The common name; else all of it."""
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()
