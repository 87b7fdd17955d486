"""npm packages as they are published, fetched once and checked against the integrity pinned here.

Nothing of them is in the repository. `DICOM_NODE_VIEWERS` names another cache than
`~/.cache/dicom-node/viewers`; a machine without network is given a filled one.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Package:
    """A published version; `integrity` as npm writes it, `sha512-` and base64."""

    name: str
    version: str
    integrity: str

    @property
    def folder(self) -> str:
        return f"{self.name.strip('@').replace('/', '-')}-{self.version}"


def published(package: Package, inside: str) -> Path:
    """The folder `inside` a package; the test is skipped aloud where it cannot be had."""
    home = Path(os.environ.get("DICOM_NODE_VIEWERS", Path.home() / ".cache" / "dicom-node" / "viewers"))
    kept = home / package.folder
    if not kept.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            unpacked = _unpacked(_packed(package, Path(scratch)), package, Path(scratch) / "files")
            try:
                unpacked.rename(kept)
            except OSError:  # another run was faster, and its copy was checked as well
                assert kept.is_dir()
    return kept / "package" / inside


def _packed(package: Package, scratch: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"no npm to get {package.name} with, and it is not in the cache")
    command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    try:
        done = subprocess.run(
            command, cwd=scratch, capture_output=True, text=True, timeout=240, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm does not get {package.name} {package.version} within 240 s")
    packed = sorted(scratch.glob("*.tgz"))
    if done.returncode or not packed:
        pytest.skip(f"npm does not get {package.name} {package.version}: exit status {done.returncode}")
    return packed[0]


def _unpacked(packed: Path, package: Package, target: Path) -> Path:
    digest = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
    assert package.integrity == f"sha512-{digest}", f"{package.name} is not what was published"
    with tarfile.open(packed) as archive:
        archive.extractall(target, filter="data")
    return target
