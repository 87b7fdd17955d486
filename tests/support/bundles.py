"""Small untrained bundles, made by code: the same form as those in models/, another content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from dicom_node.infer.manifest import METADATA, WEIGHTS, sha256
from support.source import ROOT

FILTER = "uterine_tumor_filter"
EVALUATOR = "uterine_sarcoma_evaluator"
FUSION = {
    "top_fraction": 0.5,
    "at_least": 3,
    "sequences": {
        need: {"slope": 1.0, "intercept": 0.0, "weight": 1.0}
        for need in ("t2_axial", "t2_sagittal", "dwi_b1000", "adc")
    },
    "slope": 1.0,
    "intercept": 0.0,
    "operating_point": {"threshold": 0.5, "low": 0.3, "high": 0.7, "chosen_on": "nothing: a test."},
}


def uterine_bundles(models: Path, *, keep_from: float = 0.0, **fusion: Any) -> Path:
    """Both bundles of the uterine pipeline with random weights and a narrow network; returns `models`."""
    bundle(models, FILTER, extra={"threshold": {"keep_from": keep_from, "chosen_on": "nothing"}}, seed=1)
    bundle(models, EVALUATOR, extra={"fusion": FUSION | fusion}, seed=2)
    return models


def bundle(models: Path, name: str, *, extra: dict[str, Any], seed: int) -> Path:
    """A bundle with the configuration of the one in models/, but a third as wide and untrained."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    folder = models / name
    for inner in ("configs", "models"):
        (folder / inner).mkdir(parents=True)
    inference = json.loads((ROOT / "models" / name / "configs" / "inference.json").read_text())
    definition = inference["network_def"]
    definition["width_mult"] = 0.35
    torch.manual_seed(seed)
    network = mobilenet_v2(**{key: value for key, value in definition.items() if key != "_target_"})
    with torch.no_grad():
        network.classifier[1].weight.normal_(0, 1.0)  # random maps, not almost zero ones
    save_file(network.state_dict(), folder / WEIGHTS)
    for config, content in {"inference": inference, **extra}.items():
        (folder / "configs" / f"{config}.json").write_text(json.dumps(content))
    return seal(folder)


def seal(folder: Path) -> Path:
    """Write metadata.json with the digests of what is in the folder now."""
    files = [path for inner in ("configs", "models") for path in (folder / inner).iterdir()]
    metadata = {
        "name": folder.name, "version": "0.0.1", "description": "A test.", "trained_on": "nothing",
        "limits": "Not for use.",
        "files": {
            path.relative_to(folder).as_posix(): sha256(path)
            for path in sorted(files) if path.relative_to(folder).as_posix() != METADATA
        },
    }  # fmt: skip
    (folder / METADATA).write_text(json.dumps(metadata))
    return folder


def copied(folder: Path, to: Path) -> Path:
    """A copy of a bundle to damage."""
    return Path(shutil.copytree(folder, to / folder.name))
