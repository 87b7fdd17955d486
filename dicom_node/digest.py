"""The digest of stored bytes: BLAKE3, 256 bits.

It names every file of the archive and is checked at every reading. BLAKE3 rather than sha256 since it
runs at memory speed on any processor, also on those without instructions for SHA, and the
receiver hashes each image before it answers. `b3sum FILE` prints it.
https://github.com/BLAKE3-team/BLAKE3-specs
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from blake3 import blake3

from dicom_node.domain.identity import Digest

_PIECE_BYTES = 1 << 20


def hasher() -> Any:  # Any: an object with `update` and `hexdigest`, as of hashlib
    return blake3()


def file_digest(path: Path) -> Digest:
    """Raises OSError."""
    return Digest(_hashed(path, blake3()))


def is_digest_of(digest: Digest, path: Path) -> bool:
    """Whether the file's bytes are those the digest was made of. Raises OSError.

    Archives that were begun before BLAKE3 hold files under their sha256; those are as good.
    """
    return digest == file_digest(path) or digest == _hashed(path, hashlib.sha256())


def _hashed(path: Path, running: Any) -> str:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            running.update(piece)
    return str(running.hexdigest())
