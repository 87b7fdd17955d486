"""Stored instances for tests of what happens after receiving, without archive and ledger."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.domain.series import StoredInstance
from dicom_node.errors import UnreadableObject
from dicom_node.node.offline import stored as stored_file
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
