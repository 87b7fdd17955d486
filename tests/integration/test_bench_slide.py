"""`dicom-node bench slide`, as a person starts it; nothing is asserted about how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dicom_node.train.phantoms.slides.command import slide as phantom
from support.image_bundles import image_bundle
from support.source import ROOT


def test_the_node_and_its_peers_say_the_same_of_the_same_patches(tmp_path: Path) -> None:
    """All that is installed runs, on the same patches, and names the classes that torch names."""
    image_bundle(tmp_path / "models", kind="resnet18")
    phantom(out=tmp_path / "slide", width=768, count=4)

    done = subprocess.run(
        [
            sys.executable, "-m", "dicom_node.cli", "bench", "slide", "--tiny", "--json", "--slide",
            str(tmp_path / "slide"), "--models", str(tmp_path / "models"), "--model", "cells",
        ],
        capture_output=True, text=True, cwd=ROOT, timeout=290, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"node, f32", "node, f32, empty glass left out", "node, torch"} <= set(rows)
    assert {"openslide", "wsidicom"} == {name.split(" + ")[0] for name in rows if " + " in name}
    assert all(row["tiles_per_s"] > 0 and row["cpu_ms"] > 0 and row["peak_mb"] > 100 for row in rows.values())
    assert all(row["tiles"] == 64 for name, row in rows.items() if "glass" not in name)
    assert rows["node, f32, empty glass left out"]["tiles"] < 64
    for name, row in rows.items():
        assert row["same_class"] == 1.0 or "bf16" in name, name
    assert rows["node, f32"]["apart"] <= 1e-4
    assert rows["node, f32"]["times"] > 0
    assert all(row["times"] is None for name, row in rows.items() if " + " in name)
