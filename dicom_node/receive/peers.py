"""Who may come in: a certificate, or else a calling AE title and an address, of one listed peer.

A certificate proves who calls; the peer that lists it is let in by TLS with it, under its own AE
title only, from any address, and in no other way. A peer without certificates is known by AE title and
address. Those are labels: they keep strangers and mistakes out, not an attacker on the network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dicom_node import log
from dicom_node.config import Peer


class Rejection(Enum):
    """A-ASSOCIATE-RJ as (result, source, reason), PS3.8 9.3.4."""

    CALLING = (1, 1, 3)
    """Permanent, service user: calling AE title not recognised. Also for a listed one from elsewhere, or
    without the certificate that belongs to it."""
    CONTEXT = (1, 1, 2)
    """Permanent, service user: application context name not supported."""
    CALLED = (1, 1, 7)
    """Permanent, service user: called AE title not recognised."""
    FULL = (2, 3, 2)
    """Transient, presentation: local limit exceeded."""

    @property
    def sentence(self) -> str:
        """For the audit trail."""
        return _SENTENCES[self]


_SENTENCES = {
    Rejection.CALLING: "no listed peer calls so, from there, with that certificate",
    Rejection.CONTEXT: "not the DICOM application context",
    Rejection.CALLED: "this node is called otherwise",
    Rejection.FULL: "as many associations as may be",
}


@dataclass(frozen=True, slots=True)
class Peers:
    """The listed peers, with the addresses their hosts had when the node started."""

    ae_title: str
    listed: tuple[tuple[Peer, frozenset[str]], ...]

    @staticmethod
    def resolved(ae_title: str, peers: Sequence[Peer]) -> Peers:
        return Peers(ae_title, tuple((peer, _addresses(peer)) for peer in peers if peer.may_send))

    def admit(self, calling: str, called: str, address: str, certificate: str | None) -> Peer | Rejection:
        """The peer that calls, or why it is rejected. AE titles count without padding.

        `certificate` is the fingerprint of the one shown by TLS (its chain checked already), None
        without TLS.
        """
        if called.strip() != self.ae_title:
            return Rejection.CALLED
        for peer, addresses in self.listed:
            if calling.strip() == peer.ae_title and _is_from(peer, addresses, address, certificate):
                return peer
        return Rejection.CALLING


def _is_from(peer: Peer, addresses: frozenset[str], address: str, certificate: str | None) -> bool:
    if peer.certificates or certificate is not None:
        return certificate in peer.certificates
    return _plain(address) in addresses or ("loopback" in addresses and _is_loopback(address))


def _addresses(peer: Peer) -> frozenset[str]:
    """All the host's addresses; "loopback" stands for every one of this machine's own."""
    try:
        found = {_plain(str(entry[4][0])) for entry in socket.getaddrinfo(peer.host, None)}
    except OSError:
        log.problem("peer.unknown_host", peer=peer.name)  # it cannot send until the node starts anew
        return frozenset()
    return frozenset(found | {"loopback"} if any(map(_is_loopback, found)) else found)


def _plain(address: str) -> str:
    """Without zone; an IPv4 address in IPv6 clothes as IPv4."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(_plain(address)).is_loopback
