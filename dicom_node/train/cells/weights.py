"""A bundle's folder after training: weights, parity cases, metadata with digests, evaluation and card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_node.infer import parity
from dicom_node.infer.image import ImageInput
from dicom_node.infer.manifest import INFERENCE, METADATA, WEIGHTS, sha256
from dicom_node.train.cells.card import ABOUT, card
from dicom_node.train.cells.learn import as_seen, read_input, save

if TYPE_CHECKING:
    import torch

EVALUATION = "docs/evaluation.json"
ASIDE = {METADATA, "configs/train.json"}
"""Files that change nothing that runs."""


def write_bundle(
    folder: Path, network: torch.nn.Module, configs: Mapping[str, Mapping[str, Any]],
    document: dict[str, Any], version: str,
) -> None:  # fmt: skip  # Any: JSON-able
    """`configs` are further files of configs/, by name. inference.json and train.json are there already."""
    save(network, folder / WEIGHTS)
    for name, content in configs.items():
        write_json(folder / "configs" / f"{name}.json", content)
    write_json(folder / parity.CONFIG, _parity(network, folder))
    finish_bundle(folder, document, version)


def finish_bundle(folder: Path, document: dict[str, Any], version: str) -> None:  # Any: JSON-able
    """The evaluation, the card made of it, and the digests."""
    write_json(folder / EVALUATION, document)
    write_json(folder / METADATA, _metadata(folder, document, version))
    text = card(folder.name, document, version, read_input(folder))
    (folder / "docs" / "README.md").write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:  # Any: JSON-able
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _parity(network: torch.nn.Module, folder: Path) -> dict[str, Any]:  # Any: JSON-able
    seen: ImageInput = read_input(folder)
    images = parity.drawn(parity.CASES, seen.size_px, parity.SEED)
    logits = as_seen(network, folder, images)
    return {
        "seed": parity.SEED, "cases": parity.CASES,
        "logits": [[round(float(value), 6) for value in row] for row in logits],
    }  # fmt: skip


def _metadata(folder: Path, document: dict[str, Any], version: str) -> dict[str, Any]:  # Any: JSON-able
    about, seen = ABOUT[folder.name], read_input(folder)
    used = sorted([*folder.glob("configs/*.json"), folder / WEIGHTS])
    files = {path.relative_to(folder).as_posix(): path for path in used}
    return {
        "name": about["name"],
        "version": version,
        "changelog": {version: "see docs/README.md"},
        "monai_version": "1.5.2",
        "pytorch_version": "2.10",
        "numpy_version": "1.26",
        "required_packages_version": {"torchvision": "0.25", "safetensors": "0.4"},
        "task": about["description"],
        "description": about["description"],
        "authors": "dicom-node",
        "copyright": "Apache-2.0",
        "data_source": document["source"],
        "data_type": "jpeg",
        "image_classes": ", ".join(seen.classes),
        "intended_use": "Research only. Not for clinical use.",
        "trained_on": document["trained_on"],
        "limits": document["limits"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image", "format": "RGB", "modality": "SM", "num_channels": 3,
                    "spatial_shape": [seen.size_px, seen.size_px], "dtype": "uint8", "value_range": [0, 255],
                    "is_patch_data": False, "channel_def": {"0": "red", "1": "green", "2": "blue"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "logits", "format": "classes", "num_channels": len(seen.classes),
                    "spatial_shape": [], "dtype": "float32", "value_range": [], "is_patch_data": False,
                    "channel_def": {str(at): name for at, name in enumerate(seen.classes)},
                }
            },
        },
        "files": {name: sha256(path) for name, path in files.items() if name not in ASIDE},
    }  # fmt: skip


__all__ = ["EVALUATION", "INFERENCE", "finish_bundle", "write_bundle", "write_json"]
