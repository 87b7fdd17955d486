"""Programs by others that judge DICOM objects: dicom3tools, PixelMed, DCMTK. Skipped aloud where absent."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_PIXELMED = Path("/usr/share/java/pixelmed.jar")
_JAXP = [f"-Djdk.xml.{limit}=0" for limit in ("xpathExprOpLimit", "xpathExprGrpLimit", "xpathTotalOpLimit")]
"""Since Java 17 the limits on XPath stop PixelMed's own style sheets."""


def dciodvfy_errors(path: Path) -> list[str]:
    """What dicom3tools' dciodvfy calls an error against PS3.3."""
    done = subprocess.run(
        [_dicom3("dciodvfy"), "-new", path], capture_output=True, text=True, timeout=60, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def pixelmed_errors(path: Path) -> list[str]:
    """What PixelMed's DicomSRValidator calls an error against PS3.16; the AI Results profile's own gate."""
    _require("java", "default-jre-headless")
    if not _PIXELMED.is_file():
        pytest.skip("no PixelMed: install libpixelmed-java")
    command = ["java", *_JAXP, "-Xss16m", "-cp", _PIXELMED, "com.pixelmed.validate.DicomSRValidator", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert "IOD" in done.stdout + done.stderr, "PixelMed did not get to look at the object"
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def dcentvfy_errors(paths: Iterable[Path]) -> list[str]:
    """Where dicom3tools' dcentvfy finds files at odds about patient, study, series or frame of reference.

    What they refer to need not be among them.
    """
    done = subprocess.run(
        [_dicom3("dcentvfy"), *paths], capture_output=True, text=True, timeout=120, check=False
    )
    said = (done.stdout + done.stderr).splitlines()
    return [line for line in said if line.startswith("Error") and "that was referenced" not in line]


def dcmpschk_errors(path: Path) -> list[str]:
    """What DCMTK's checker of presentation states finds wrong; it says so where it finds nothing."""
    _require("dcmpschk", "dcmtk")
    done = subprocess.run(["dcmpschk", path], capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).splitlines()
    return [] if any("Test passed" in line for line in said) else said or ["dcmpschk says nothing"]


def grey_by_state(state: Path, image: Path, folder: Path) -> np.ndarray:
    """(rows, columns) uint8: an image as DCMTK shows it under a presentation state."""
    _require("dcmp2pgm", "dcmtk")
    target = folder / "shown.pgm"
    command = ["dcmp2pgm", "-p", state, image, target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return np.asarray(Image.open(target))


def dsrdump(path: Path) -> str:
    """The report as DCMTK's dsrdump prints it, values in full."""
    _require("dsrdump", "dcmtk")
    done = subprocess.run(["dsrdump", "+Pl", path], capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    return done.stdout


def _dicom3(program: str) -> str:
    """The one beside this Python where the wheel is installed: a distribution's may not know new objects."""
    own = Path(sys.executable).with_name(program)
    if own.is_file():
        return str(own)
    _require(program, "dicom3tools")
    return program


def _require(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: install {package}")
