"""What `pip install` puts on a machine: built as the image builds it, from the same files, then used."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("pyproject.toml", "README.md", "LICENSE", "dicom_node", "pipelines", "models")
"""What docker/Dockerfile copies; tests/guard/test_docker.py compares the two."""
LOOK = """
import json
from dicom_node import config
from dicom_node.infer.registry import pipelines
loaded = config.Config()
print(json.dumps({
    "project": str(config.PROJECT),
    "pipelines": sorted(pipelines(loaded.node.pipelines_dir)),
    "models": sorted(path.name for path in loaded.node.models_dir.iterdir() if (path / "configs").is_dir()),
}))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the image copies."""
    folder = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what the image copies, unpacked as pip unpacks it."""
    pytest.importorskip("hatchling", reason="the build backend is not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    pip("install", "--no-deps", "--target", folder / "site", wheel)
    return folder / "site"


def pip(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def digests(folder: Path) -> dict[str, str]:
    """sha256 by relative path, of everything that is not derived."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("folder", ["dicom_node", "pipelines", "models"])
def test_the_wheel_holds_every_file(source: Path, installed: Path, folder: str) -> None:
    """Code, migrations, templates, pipelines, weights and cards arrive byte for byte."""
    assert digests(installed / folder) == digests(source / folder)


def test_the_wheel_holds_nothing_else(installed: Path) -> None:
    """No tests, no data, no configuration of a machine."""
    found = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}

    assert found - {"bin"} == {"dicom_node", "pipelines", "models"}


def test_the_licence_comes_along(installed: Path) -> None:
    """Whoever gets the wheel gets its licence."""
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


def test_the_installed_node_finds_pipelines_and_models(installed: Path, tmp_path: Path) -> None:
    """Installed without the repository, the defaults still point at pipelines and models."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["project"] == str(installed)
    assert "uterine_mri" in found["pipelines"]
    here = {path.name for path in (ROOT / "models").iterdir() if (path / "configs").is_dir()}
    assert found["models"] == sorted(here)


def test_the_installed_program_starts(installed: Path, tmp_path: Path) -> None:
    """The entry point `dicom-node` of the wheel shows its help."""
    done = subprocess.run(
        [sys.executable, installed / "bin" / "dicom-node", "--help"], cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
