"""Results read by dcmqi (QIICR), built on DCMTK and ITK; skipped aloud where it is absent."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

_TYPES = {"short": "<i2", "unsigned char": "u1", "unsigned short": "<u2", "float": "<f4", "double": "<f8"}


@dataclass(frozen=True)
class Grid:
    """An image in patient space: `array` is (slices, rows, columns), `affine` (4, 4) to LPS mm."""

    array: np.ndarray
    affine: np.ndarray

    def on(self, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The same image on another grid of the same voxels; zero where this one has none.

        Fails where a voxel lies more than a hundredth of its size beside the other grid's.
        """
        indices = np.argwhere(self.array != 0)
        places = indices @ self.affine[:3, :3].T + self.affine[:3, 3]
        back = np.linalg.inv(affine)
        exact = places @ back[:3, :3].T + back[:3, 3]
        assert np.abs(exact - np.round(exact)).max(initial=0.0) < 0.01
        there = np.zeros(shape, self.array.dtype)
        there[tuple(np.round(exact).astype(int).T)] = self.array[tuple(indices.T)]
        assert np.count_nonzero(there) == len(indices)
        return there


def segments(path: Path, folder: Path) -> list[Grid]:
    """Each segment of a Segmentation, by number."""
    _run("segimage2itkimage", path, folder, "--outputDirectory", folder, "-t", "nrrd", "-p", "seg")
    return [_nrrd(file) for file in sorted(folder.glob("seg-*.nrrd"))]


def parametric_map(path: Path, folder: Path) -> Grid:
    """The map, float32."""
    _run("paramap2itkimage", path, folder, "--outputDirectory", folder, "-t", "nrrd", "-n", "map")
    return _nrrd(next(folder.glob("map*.nrrd")))


def report(path: Path, folder: Path) -> dict[str, Any]:
    """A TID 1500 report as dcmqi's own JSON."""
    target = folder / "report.json"
    _run("tid1500reader", path, folder, "--outputMetadata", target)
    read: dict[str, Any] = json.loads(target.read_text())
    return read


def _run(program: str, path: Path, folder: Path, *options: str | Path) -> None:
    command = Path(sys.executable).with_name(program)
    if not command.exists():
        pytest.skip("no dcmqi: pip install dcmqi")
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [command, "--inputDICOM", path, *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stdout + done.stderr


def _nrrd(path: Path) -> Grid:
    """dcmqi's NRRD: little endian, gzip or raw, with its space in LPS."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(re.findall(r"^([\w ]+): (.*)$", head.decode("ascii"), re.M))
    assert "left-posterior-superior" == fields["space"]
    data = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    columns, rows, slices = map(int, fields["sizes"].split())
    array = np.frombuffer(data, _TYPES[fields["type"]]).reshape(slices, rows, columns)
    across, down, through = (_vector(part) for part in re.findall(r"\(.*?\)", fields["space directions"]))
    affine = np.eye(4)
    affine[:3, :3] = np.stack([through, down, across], axis=1)
    affine[:3, 3] = _vector(fields["space origin"])
    return Grid(array, affine)


def _vector(text: str) -> np.ndarray:
    return np.array([float(part) for part in text.strip("()").split(",")])
