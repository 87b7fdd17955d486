"""At start: files that no row speaks of join the ledger again.

A process killed between rename and commit (T1) leaves one; a database restored from an older
backup leaves many. The sender of the first saw no success and sends again, which is then the
same image; those of the second were acknowledged and must not be lost.
"""

from __future__ import annotations

from dicom_node import log
from dicom_node.dicom.header import read_header
from dicom_node.domain.identity import UID, Digest
from dicom_node.errors import DicomNodeError, UnreadableObject
from dicom_node.node.build import Node
from dicom_node.receive.policy import made_by_a_node
from dicom_node.store.catalog import Arrival, Recorded

PEER = "recovered"
"""Stands in for the sender, who is not known any more: every route looks at such a study. A result
that was made before is made again with the same UIDs and bytes, so the PACS holds it once."""
_HEAD_BYTES = 65536


def adopt_orphans(node: Node) -> int:
    """Give images without a row their row back; how many. The node's own results are left alone."""
    adopted = sum(_adopted(node, digest) for digest in node.catalog.orphans())
    if adopted:
        log.problem("archive.adopted", instances=adopted)
    return adopted


def _adopted(node: Node, digest: Digest) -> bool:
    try:
        path = node.archive.verified(digest)
        arrival = _arrival(read_header(path))
    except UnreadableObject:
        return False
    except DicomNodeError as error:  # damaged: it stays where it is, and `check` counts it
        log.problem("archive.not_adopted", error=type(error).__name__)
        return False
    with path.open("rb") as file:
        if made_by_a_node(arrival.sop_class_uid, file.read(_HEAD_BYTES)):
            return False
    return node.catalog.record(arrival, digest, path.stat().st_size) is Recorded.NEW


def _arrival(header: dict[str, object]) -> Arrival:
    names = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_uid", "series_uid")
    return Arrival(**{name: UID(str(header[name])) for name in names}, peer=PEER)
