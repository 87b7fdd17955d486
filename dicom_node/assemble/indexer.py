"""Reads the headers of what was received: the only part of assembling that touches files.

An object that cannot be read keeps its place in the archive and the reason in the ledger;
it joins no stack, and it never stops the others.
"""

from __future__ import annotations

from dicom_node import log
from dicom_node.dicom.header import read_header
from dicom_node.domain.identity import UID
from dicom_node.errors import UnreadableObject
from dicom_node.store.catalog import Catalog

BATCH = 200


def index(catalog: Catalog, limit: int = BATCH) -> int:
    """Read at most `limit` headers that are still unread and keep them; how many there were."""
    waiting = catalog.unread(limit)
    headers: dict[UID, dict[str, object]] = {}
    unreadable: dict[UID, str] = {}
    for instance in waiting:
        try:
            headers[instance.sop_instance_uid] = read_header(instance.path)
        except UnreadableObject as error:
            unreadable[instance.sop_instance_uid] = str(error)
    if waiting:
        catalog.keep_headers(headers, unreadable)
    if unreadable:
        log.problem("index.unreadable", instances=len(unreadable))
    return len(waiting)
