"""Stored instances for tests of what happens after receiving, without archive and ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.dicom.header import read_header
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.series import StoredInstance
from dicom_node.errors import UnreadableObject
from support import mr


def stored(instances: Iterable[Dataset], folder: Path) -> tuple[StoredInstance, ...]:
    """Data sets as the ledger hands them out: written to `folder`, headers read."""
    return tuple(stored_file(path) for path in mr.write(instances, folder))


def stored_files(paths: Iterable[Path]) -> tuple[StoredInstance, ...]:
    """Files that are DICOM, as the ledger hands them out; the others are left out."""
    found = []
    for path in sorted(paths):
        try:
            found.append(stored_file(path))
        except UnreadableObject:
            continue
    return tuple(found)


def stored_file(path: Path) -> StoredInstance:
    header = read_header(path)
    content = path.read_bytes()
    return StoredInstance(
        sop_instance_uid=UID(str(header["sop_instance_uid"])),
        sop_class_uid=UID(str(header["sop_class_uid"])),
        transfer_syntax_uid=UID(str(header["transfer_syntax_uid"])),
        study_uid=UID(str(header["study_uid"])),
        series_uid=UID(str(header["series_uid"])),
        digest=Digest(hashlib.sha256(content).hexdigest()),
        size_bytes=len(content),
        path=path,
        header=header,
    )
