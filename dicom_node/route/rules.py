"""Which routes look at a study: those that name a peer it came from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_node.config import Route


def matching(routes: Sequence[Route], peers: Iterable[str]) -> list[int]:
    """Indices into `routes`, in the order of the file; each at most once per study."""
    sent = set(peers)
    return [at for at, route in enumerate(routes) if sent & set(route.from_)]
