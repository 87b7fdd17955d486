"""Torch and its like load only where networks run.

The receiver stays small and `dicom-node --help` instant because nothing on their way loads
torch, monai, torchvision, highdicom or scipy. Asserted on what is loaded, not on time.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.source import ROOT, modules

HEAVY = ("torch", "torchvision", "monai", "highdicom", "scipy", "openvino", "ray")
LIGHT = ("assemble", "deliver", "dicom", "domain", "receive", "route", "scu", "store", "web", "worklist")


def loaded_after(code: str) -> list[str]:
    """Run code in a fresh interpreter; which heavy modules it loaded."""
    tail = f"\nimport sys, json; print('\\n' + json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("package", LIGHT)
def test_light_packages_load_nothing_heavy(package: str) -> None:
    """Importing every module of these packages loads no network library."""
    names = [
        module.name for module in modules(f"dicom_node/{package}")
        if not module.name.endswith((".env", "__main__")) and ".versions" not in module.name
    ]  # fmt: skip

    assert loaded_after("import " + ", ".join(names)) == []


def test_pipelines_load_nothing_heavy_when_looked_at() -> None:
    """Routing looks at every pipeline's needs; that must not cost a torch in the service process."""
    code = (
        "from dicom_node import config\n"
        "from dicom_node.infer.registry import pipelines\n"
        "assert pipelines(config.PROJECT / 'pipelines'), 'no pipeline found'"
    )

    assert loaded_after(code) == []


def test_the_command_line_loads_nothing_heavy() -> None:
    """`dicom-node --help` answers without loading what only a worker needs."""
    code = (
        "import sys\n"
        "from dicom_node.cli import main\n"
        "sys.argv = ['dicom-node', '--help']\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code"
    )

    assert loaded_after(code) == []
