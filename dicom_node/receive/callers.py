"""Who sends by HTTP: the peer whose bearer token (RFC 6750) or client certificate is shown.

Tokens are read once, at the start, and kept as digests; they are compared in constant time and
never logged. Refuses to start with a token that is too short to be one, and where tokens would
travel in clear.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from dicom_node.config import Config, Peer
from dicom_node.errors import ConfigurationError

SHORTEST_TOKEN = 32
"""Characters; `openssl rand -hex 32` makes 64."""


@dataclass(frozen=True, slots=True)
class Callers:
    """The peers that can show who they are."""

    tokens: tuple[tuple[bytes, Peer], ...]
    """sha256 of the token."""
    certificates: tuple[tuple[str, Peer], ...]
    """Fingerprints; empty unless the pages are served by TLS."""

    @staticmethod
    def of(config: Config) -> Callers:
        """Raises ConfigurationError for a token file that cannot be used, and for tokens in clear."""
        tokens = tuple(
            (_token(peer.name, peer.token_file), peer) for peer in config.peer if peer.token_file is not None
        )
        if len({digest for digest, _ in tokens}) < len(tokens):
            raise ConfigurationError("peer.token_file: two peers have the same token")
        if tokens and not config.http.tls and not _is_loopback(config.http.host):
            raise ConfigurationError(
                f"http.host {config.http.host} is not loopback, http.tls is off and peer"
                f" {tokens[0][1].name!r} has a token_file: tokens would travel in clear."
                " Set http.tls = true, or listen on 127.0.0.1 behind a proxy that speaks TLS"
            )
        certificates = tuple((digest, peer) for peer in config.peer for digest in peer.certificates)
        return Callers(tokens, certificates if config.http.tls else ())

    def peer(self, authorization: str, certificate: str) -> Peer | None:
        """Who shows this Authorization header and this certificate ("" for none); None for a stranger.

        Where both are shown, both must name the same peer.
        """
        scheme, _, token = authorization.partition(" ")
        by_token = self._by_token(token.strip()) if scheme.lower() == "bearer" else None
        by_certificate = dict(self.certificates).get(certificate)
        if authorization and by_token is None:
            return None
        if by_token is not None and by_certificate is not None and by_token != by_certificate:
            return None
        return by_token or by_certificate

    def __str__(self) -> str:
        """For a person: who may come this way."""
        names = [f"{peer.name} by token" for _, peer in self.tokens if peer.may_send]
        names += [f"{peer.name} by certificate" for _, peer in self.certificates if peer.may_send]
        return (
            ", ".join(names)
            or "nobody may send by STOW-RS: no peer has a token, or a certificate and http.tls"
        )

    def _by_token(self, token: str) -> Peer | None:
        shown = _digest(token)
        found = None
        for digest, peer in self.tokens:  # all of them: the time tells nothing of which one it was
            if hmac.compare_digest(shown, digest):
                found = peer
        return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _token(peer: str, file: Path) -> bytes:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"peer.token_file of {peer!r}: cannot read a line of ASCII in {file}"
        ) from error
    token = lines[0].strip() if lines else ""
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"peer.token_file of {peer!r}: the first line of {file} must be at least {SHORTEST_TOKEN}"
            " characters without spaces"
        )
    return _digest(token)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
