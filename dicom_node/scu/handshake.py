"""The TLS handshake with a peer (PS3.15 B.12), and what went wrong in it as a sentence.

Promises: a peer is who its certificate says. Where `peer.certificates` lists fingerprints, its own
certificate must be one of them; where it lists none, the certificate must carry the peer's `host`.
In both cases it must be valid, and issued by what `tls.trusted` holds.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from dicom_node.config import Peer, Tls
from dicom_node.tls import client_context, fingerprint


class WrongCertificate(ssl.SSLError):
    """The peer's certificate is a good one, but not one that stands in its `certificates`."""


@dataclass(frozen=True)
class Handshake:
    """All that a connection to `peer` needs to become a TLS one. Raises ConfigurationError when made."""

    peer: Peer
    context: ssl.SSLContext

    @classmethod
    def of(cls, peer: Peer, tls: Tls) -> Handshake:
        """The files are read anew for each association: a renewed certificate needs no restart."""
        context = client_context(tls)
        context.check_hostname = not peer.certificates
        return cls(peer, context)

    def wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection, before the handshake; the plain one is gone."""
        return self.context.wrap_socket(
            connection, server_hostname=self.peer.host, do_handshake_on_connect=False
        )

    def shake(self, connection: ssl.SSLSocket) -> None:
        """Raises OSError: an SSLError, or what the network did."""
        connection.do_handshake()
        shown = fingerprint(connection.getpeercert(binary_form=True) or b"")
        if self.peer.certificates and shown not in self.peer.certificates:
            raise WrongCertificate(f"sha256 {shown}")


_OTHER = "shows a certificate that is not in `certificates` of this peer ({shown}): enter it if it is new"
_ENDED = "ended the connection in the TLS handshake: does it speak TLS on port {port}?"
_ENDED_LATER = (
    "ended the TLS connection instead of answering: does it know the certificate in tls.certificate?"
    " is it a DICOM port?"
)

# X509_V_ERR_* of OpenSSL (x509_vfy.h) -> what is wrong with the peer's certificate, and what to do.
_UNKNOWN = "shows a certificate that tls.trusted does not know: add its authority there"
_OTHER_NAME = (
    "shows a certificate for other names than {host!r}: correct `{key}`, or list its fingerprint here"
)
_VERIFICATION = {
    2: _UNKNOWN, 18: _UNKNOWN, 19: _UNKNOWN, 20: _UNKNOWN, 21: _UNKNOWN,
    3: "shows a certificate whose authority has no list in tls.revoked: add its list there",
    9: "shows a certificate that is not valid yet: compare the clocks",
    10: "shows a certificate that has expired: it needs a new one",
    11: "cannot be checked: a list in tls.revoked is not valid yet: compare the clocks",
    12: "cannot be checked: a list in tls.revoked is out of date: get the authority's new one",
    23: "shows a certificate that tls.revoked says is revoked: it needs a new one",
    26: "shows a certificate that is not meant for a server (extended key usage): it needs another",
    62: _OTHER_NAME,
    64: _OTHER_NAME,
    66: "shows a certificate with too weak a key: it needs a new one",
    67: "shows a certificate of an authority with too weak a key: it needs a new one",
    68: "shows a certificate signed with too weak a digest: it needs a new one",
}  # fmt: skip

# The alert a peer ends the handshake with (RFC 8446 6.2), or what came instead of one, as OpenSSL names it.
_NOT_KNOWN_THERE = (
    "wants a certificate of this node and does not know the one in tls.certificate: enter its authority there"
)
_NO_TLS = "does not speak TLS on port {port}: is it the right port? else {off}"
_OLD = "speaks no TLS of version 1.2 or 1.3 on port {port}: it must be updated"
_REASONS = {
    "WRONG_VERSION_NUMBER": _NO_TLS, "UNEXPECTED_MESSAGE": _NO_TLS, "HTTP_REQUEST": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS, "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _OLD, "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _NOT_KNOWN_THERE, "TLSV1_ALERT_UNKNOWN_CA": _NOT_KNOWN_THERE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _NOT_KNOWN_THERE, "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_KNOWN_THERE,
    "TLSV1_ALERT_ACCESS_DENIED": _NOT_KNOWN_THERE, "TLSV1_ALERT_DECRYPT_ERROR": _NOT_KNOWN_THERE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "says that the certificate in tls.certificate has expired: renew it",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "says that the certificate in tls.certificate is revoked: get another",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE":
        "says that tls.certificate is not meant for a client (extended key usage): get another",
    "SSLV3_ALERT_HANDSHAKE_FAILURE":
        "finds nothing in common: it must allow TLS 1.2 or 1.3 with ECDHE and AES-GCM or ChaCha20",
}  # fmt: skip


def why(failure: OSError | None, peer: Peer, *, secured: bool) -> str:
    """What went wrong in the handshake, or (`secured`) after it; goes on from the peer's name."""
    facts = {
        "host": peer.host, "port": peer.port, "key": "url" if peer.url else "host",
        "off": "its `url` is http" if peer.url else "take `tls` from this peer",
    }  # fmt: skip
    if isinstance(failure, WrongCertificate):
        return _OTHER.format(shown=failure.args[0])
    if isinstance(failure, ssl.SSLCertVerificationError):
        said = f"shows a certificate that is refused: {failure.verify_message}"
        return _VERIFICATION.get(failure.verify_code, said).format(**facts)
    if isinstance(failure, ssl.SSLError) and failure.reason and not isinstance(failure, ssl.SSLEOFError):
        said = f"came to no TLS connection with this node: {failure.reason.replace('_', ' ').lower()}"
        return _REASONS.get(failure.reason, said).format(**facts)
    return (_ENDED_LATER if secured else _ENDED).format(**facts)
