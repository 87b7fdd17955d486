"""HTTP to a peer's DICOMweb service, for those who send to it and those who ask it.

Promises: no redirect is followed (objects and token go where the configuration says, nowhere else);
the environment's proxies are not asked; every wait ends. httpx loads only where a peer has a `url`.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from dicom_node.config import Peer, Tls
from dicom_node.errors import ConfigurationError, PeerUnreachable
from dicom_node.scu.association import name
from dicom_node.tls import client_context

if TYPE_CHECKING:
    import httpx

JSON = "application/dicom+json"


def client(peer: Peer, timeout_s: float, tls: Tls) -> httpx.Client:
    """Raises PeerUnreachable where the configuration does not let the node speak to it."""
    import httpx

    try:
        headers = {"Accept": JSON, **_authorisation(peer)}
        verify = _trust(peer, tls)
    except ConfigurationError as error:  # all waits until it is mended, as for a peer that is down
        raise PeerUnreachable(f"{name(peer)} cannot be spoken to: {error}") from error
    return httpx.Client(
        headers=headers, verify=verify, timeout=timeout_s, trust_env=False, follow_redirects=False
    )


def address(peer: Peer, *path: str) -> str:
    """Below the base of its service; `path` is ours, or a checked UID."""
    return "/".join(((peer.url or "").rstrip("/"), *path))


def not_reached(peer: Peer, error: Exception) -> str:
    """The library's text names no patient, but may be long; its kind says enough for most."""
    if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE" in str(error):
        return f"{name(peer)} ({peer.url}) came to no TLS connection: does tls.trusted know its certificate?"
    return f"{name(peer)} ({peer.url}) cannot be reached ({type(error).__name__}): is it up, is `url` right?"


def _trust(peer: Peer, tls: Tls) -> ssl.SSLContext | bool:
    """What [tls] says where it says something; else the authorities that this machine trusts."""
    if not (peer.url or "").startswith("https:"):
        return False  # no TLS at all: nothing to check
    if tls.certificate is not None:
        return client_context(tls)
    try:
        return ssl.create_default_context(cafile=str(tls.trusted) if tls.trusted else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"tls.trusted: {tls.trusted} cannot be used") from error


def _authorisation(peer: Peer) -> dict[str, str]:
    if peer.token_file is None:
        return {}
    try:
        token = peer.token_file.read_text(encoding="ascii").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"peer.token_file: cannot read a first line of {peer.token_file}") from error
    return {"Authorization": f"Bearer {token}"}
