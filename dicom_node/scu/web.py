"""HTTP to a peer's DICOMweb service, for those who send to it and those who ask it.

Promises: no redirect is followed (objects and token go where the configuration says, nowhere else);
the environment's proxies are not asked; a request ends by its timeout, and the peer is who its
certificate says (`line.py`). httpx loads only where a peer has a `url`.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dicom_node.config import Peer, Tls
from dicom_node.errors import ConfigurationError, PeerUnreachable
from dicom_node.scu.association import name
from dicom_node.scu.handshake import Handshake

if TYPE_CHECKING:
    import httpx

JSON = "application/dicom+json"


def client(peer: Peer, timeout_s: float, tls: Tls) -> httpx.Client:
    """`timeout_s` is for a request and its answer together, connecting included.

    Raises PeerUnreachable where the configuration does not let the node speak to it. So does a request
    that does not reach the peer; it raises PeerRefused where the peer's certificate is not right.
    """
    import httpx

    from dicom_node.scu.line import Transport

    try:
        headers = {"Accept": JSON, "Accept-Encoding": "identity", **_authorisation(peer)}
        transport = Transport(peer, _handshake(peer, tls))
    except ConfigurationError as error:  # all waits until it is mended, as for a peer that is down
        raise PeerUnreachable(f"{name(peer)} cannot be spoken to: {error}") from error
    return httpx.Client(
        headers=headers, transport=transport, timeout=timeout_s, trust_env=False, follow_redirects=False
    )


def address(peer: Peer, *path: str) -> str:
    """Below the base of its service; `path` is ours, or a checked UID."""
    return "/".join(((peer.url or "").rstrip("/"), *path))


def not_reached(peer: Peer, error: Exception) -> str:
    """The library's text names no patient, but may be long; its kind says enough for most."""
    return f"{name(peer)} ({peer.url}) cannot be reached ({type(error).__name__}): is it up, is `url` right?"


def _handshake(peer: Peer, tls: Tls) -> Handshake | None:
    """What [tls] says where it says something; else the authorities that this machine trusts."""
    where = urlsplit(peer.url or "")
    if where.scheme != "https":
        return None  # no TLS at all: nothing to check
    there = peer.model_copy(update={"host": where.hostname or "", "port": where.port or 443})
    if tls.certificate is not None:
        return Handshake.of(there, tls)
    try:
        context = ssl.create_default_context(cafile=str(tls.trusted) if tls.trusted else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"tls.trusted: {tls.trusted} cannot be used") from error
    context.check_hostname = not peer.certificates
    return Handshake(there, context)


def _authorisation(peer: Peer) -> dict[str, str]:
    if peer.token_file is None:
        return {}
    try:
        token = peer.token_file.read_text(encoding="ascii").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"peer.token_file: cannot read a first line of {peer.token_file}") from error
    return {"Authorization": f"Bearer {token}"}
