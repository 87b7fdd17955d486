"""How this process computes: threads, device, where the models are. Set once, before models load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicom_node.config import PROJECT


@dataclass(frozen=True, slots=True)
class Runtime:
    """Set by the process that runs pipelines; `Bundle` reads it where its arguments leave it open."""

    models_dir: Path = PROJECT / "models"
    device: str = "cpu"
    threads: int = 1
    engine: str = "auto"
    """What runs networks on microscope images: `auto`, `torch` or `openvino`, see `engine.py`."""
    precision: str = "auto"
    """Of them: `auto`, `f32` or `bf16`."""


_current = Runtime()  # the one mutable thing here; written by `use`, before any model is loaded


def current() -> Runtime:
    return _current


def use(runtime: Runtime) -> None:
    """Make this the process's runtime: sets torch's threads and its repeatable kernels."""
    global _current
    import torch

    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    _current = runtime


def choose_device(wanted: str) -> str:
    """`auto` is a GPU where torch sees one, else the CPU; anything else is taken at its word."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
