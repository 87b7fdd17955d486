"""A hospital's certificates, made on the spot: an authority, its node and peers, and those to be refused.

Elliptic keys, so that a test has them at once. Each `Issued` is a pair of files; `authority.pem` is for
`tls.trusted`, `revoked.pem` for `tls.revoked`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicom_node.tls import fingerprint

DAY = dt.timedelta(days=1)
_USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
LISTS_AT = "http://ca.hospital.example/revoked.crl"
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Issued:
    """A certificate in a PEM file, and its key in another (mode 0600)."""

    certificate: Path
    private_key: Path

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(ssl.PEM_cert_to_DER_cert(self.certificate.read_text()))


class Authority:
    """A small CA that writes what it issues into `folder`."""

    def __init__(self, folder: Path, name: str = "authority", above: Authority | None = None) -> None:
        """A root, or an intermediate authority that `above` vouches for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        issuer = above or self
        self._certificate = _certificate(name, self._key, issuer.name, issuer._key, authority=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, hosts: Sequence[str] = LOOPBACK, begins: int = -1, ends: int = 30,
        strong: bool = True, uses: Sequence[str] = ("server", "client"),
    ) -> Issued:  # fmt: skip
        """A certificate for these uses, valid from day `begins` to day `ends` from now."""
        key = ec.generate_private_key(ec.SECP256R1()) if strong else _weak_key()
        made = _certificate(name, key, self.name, self._key, hosts=hosts, begins=begins, ends=ends, uses=uses)
        return _written(self.folder, name, made, key)

    def revoke(self, *issued: Issued, ends: int = 30) -> Path:
        """The file of this authority's revocation list, which names `issued` and is good until day `ends`."""
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(self.name))
        builder = builder.last_update(now - 2 * DAY).next_update(now + ends * DAY)
        for one in issued:
            serial = x509.load_pem_x509_certificate(one.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        path = self.folder / f"{self.name}.crl.pem"
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return path


def self_signed(folder: Path, name: str, *, begins: int = -1, ends: int = 30) -> Issued:
    """A device's own certificate, signed by nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _written(
        folder, name, _certificate(name, key, name, key, hosts=LOOPBACK, begins=begins, ends=ends), key
    )


@dataclass(frozen=True)
class Hospital:
    """The certificates most tests want; see `hospital`."""

    authority: Authority
    node: Issued
    peer: Issued
    other: Issued
    """Of another peer: as good a certificate as `peer`."""
    stranger: Issued
    """Of an authority that nobody here knows."""
    expired: Issued
    revoked: Issued
    revocations: Path

    def tls(self, **keys: object) -> dict[str, Any]:
        """The table [tls] of the node, without a port and without revocation lists unless given."""
        paths = {"certificate": self.node.certificate, "private_key": self.node.private_key}
        return {
            **{key: str(path) for key, path in paths.items()},
            "trusted": str(self.authority.file),
            **keys,
        }


def hospital(folder: Path) -> Hospital:
    authority = Authority(folder)
    expired, revoked = authority.issue("expired", begins=-30, ends=-1), authority.issue("revoked")
    stranger = Authority(folder / "elsewhere", "foreign").issue("stranger")
    return Hospital(
        authority, authority.issue("node", ends=300), authority.issue("peer"), authority.issue("other"),
        stranger, expired, revoked, authority.revoke(revoked),
    )  # fmt: skip


def _weak_key() -> Any:
    return rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is made to be refused


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    name: str, key: Any, issuer: str, issuer_key: Any, *,
    authority: bool = False, hosts: Sequence[str] = (), begins: int = -1, ends: int = 30,
    uses: Sequence[str] = ("server", "client"),
) -> x509.Certificate:  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(_name(issuer))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + begins * DAY).not_valid_after(now + ends * DAY)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=authority, path_length=1 if authority else None), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
        (_usage(authority), True),
    ]
    if not authority:
        where = x509.DistributionPoint([x509.UniformResourceIdentifier(LISTS_AT)], None, None, None)
        extensions.append((x509.ExtendedKeyUsage([_USES[use] for use in uses]), False))
        extensions.append((x509.CRLDistributionPoints([where]), False))
    if hosts:
        extensions.append((x509.SubjectAlternativeName([_general(host) for host in hosts]), False))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=authority, crl_sign=authority,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _written(folder: Path, name: str, certificate: x509.Certificate, key: Any) -> Issued:
    folder.mkdir(parents=True, exist_ok=True)
    issued = Issued(folder / f"{name}.crt", folder / f"{name}.key")
    issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    issued.private_key.touch(mode=0o600)
    pem = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    issued.private_key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *pem))
    return issued
