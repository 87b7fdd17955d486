"""What a model bundle says about itself, and whether its files are what it says. No torch.

A bundle is a folder in the form of a MONAI Bundle:

    configs/metadata.json    version, description, data; `files`: sha256 of every file below that is used
    configs/inference.json   network, preprocessing, inferer, postprocessing (see `configuration.py`)
    models/model.safetensors weights
    docs/README.md           model card

The digests find damage and mix-ups. They are no signature: whoever can write metadata.json can
write them, so `models/` belongs to the operator and to nobody else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.domain.findings import Algorithm
from dicom_node.domain.identity import Digest
from dicom_node.errors import InvalidValue, ModelError

METADATA = "configs/metadata.json"
INFERENCE = "configs/inference.json"
WEIGHTS = "models/model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE = re.compile(r"(configs|models)/[A-Za-z0-9][A-Za-z0-9_.-]*")
_DESCRIBED = ("version", "description", "trained_on", "limits", "files")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle whose files were checked."""

    name: str
    folder: Path
    digest: Digest
    """sha256 of metadata.json, which holds the digests of all other files: changes when anything changes."""
    metadata: Mapping[str, Any]  # Any: parsed JSON
    files: Mapping[str, Digest]

    @property
    def version(self) -> str:
        return str(self.metadata["version"])

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def algorithm(self) -> Algorithm:
        """The bundle as results name it (TID 4019)."""
        return Algorithm(
            name=str(self.metadata.get("name", self.name)),
            version=self.version,
            digest=self.files[WEIGHTS],
            description=str(self.metadata["description"]),
            trained_on=str(self.metadata["trained_on"]),
            limits=str(self.metadata["limits"]),
        )

    def config(self, name: str) -> dict[str, Any]:  # Any: parsed JSON
        """`configs/<name>.json`; only files the manifest lists, so nothing unchecked is read."""
        where = f"configs/{name}.json"
        if where not in self.files:
            raise ModelError(f"bundle {self.name} lists no {where}")
        return read_json(self.folder / where, self.name)


def read_manifest(name: str, models_dir: Path) -> Manifest:
    """Read metadata.json and check every file it lists. Raises ModelError naming bundle and file."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"not the name of a bundle: {name!r}")
    folder = models_dir / name
    if not (folder / METADATA).is_file():
        raise ModelError(f"there is no bundle {name!r} in {models_dir}: {METADATA} is missing")
    metadata = read_json(folder / METADATA, name)
    if lacking := [word for word in _DESCRIBED if word not in metadata]:
        raise ModelError(f"bundle {name}: {METADATA} lacks {', '.join(lacking)}")
    files = _listed(metadata["files"], name)
    for where, digest in files.items():
        _verify(folder / where, digest, name)
    return Manifest(name, folder, sha256(folder / METADATA), metadata, files)


def bundle_digests(names: Iterable[str], models_dir: Path) -> dict[str, Digest]:
    """The digest of each bundle by name; part of every input key. Raises ModelError."""
    return {name: read_manifest(name, models_dir).digest for name in names}


def sha256(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def read_json(path: Path, bundle: str) -> dict[str, Any]:  # Any: parsed JSON
    """Raises ModelError naming the bundle and the file."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        kind = type(error).__name__
        raise ModelError(f"bundle {bundle}: {path.name} is not readable JSON ({kind})") from error
    if not isinstance(parsed, dict):
        raise ModelError(f"bundle {bundle}: {path.name} holds no JSON object")
    return parsed


def _listed(files: object, name: str) -> dict[str, Digest]:
    if not isinstance(files, dict) or not {INFERENCE, WEIGHTS} <= set(files):
        raise ModelError(f"bundle {name}: `files` in {METADATA} must list {INFERENCE} and {WEIGHTS}")
    for where in files:
        if not _FILE.fullmatch(where):
            raise ModelError(f"bundle {name}: {where!r} is not in configs/ or models/; nothing else is used")
    try:
        return {where: Digest(digest) for where, digest in files.items()}
    except InvalidValue as error:
        raise ModelError(f"bundle {name}: {error}") from error


def _verify(path: Path, digest: Digest, name: str) -> None:
    if not path.is_file():
        raise ModelError(f"bundle {name}: {path.parent.name}/{path.name} is missing")
    if (found := sha256(path)) != digest:
        raise ModelError(
            f"bundle {name}: {path.parent.name}/{path.name} is not the file its metadata names "
            f"(sha256 {found[:12]}, expected {digest[:12]}); it is not used"
        )
