"""A MONAI Bundle as something to call: `Bundle("name").infer(volume)`.

Importing this is cheap; torch and MONAI load when a `Bundle` is constructed. Weights are
safetensors only, and every file is checked against the manifest before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.domain.findings import Algorithm
from dicom_node.domain.identity import Digest
from dicom_node.domain.series import Volume
from dicom_node.errors import ModelError
from dicom_node.infer.configuration import parse
from dicom_node.infer.image import image_input
from dicom_node.infer.manifest import INFERENCE, bundle_digests, read_manifest
from dicom_node.infer.preprocessing import Preprocessing
from dicom_node.infer.runtime import current

if TYPE_CHECKING:
    import torch

__all__ = ["Bundle", "bundle_digests"]

Image = Volume | npt.NDArray[np.float32]


class Bundle:
    """One network with its preprocessing, ready to run.

    `models_dir` and `device` default to those of the process, see `runtime.py`. `inference.json` may hold

        network_def      the network's class and arguments
        preprocessing    a MONAI Compose on (slices, rows, columns); `preprocessing_ADC` and the like,
                         named by contrast, go before it for stacks of that kind
        inferer          a MONAI inferer
        postprocessing   a MONAI Compose on the network's output
        batch_size       images per forward pass
        field            of 2-D networks with Grad-CAM: `size` (pixels) and `spacing_mm` of their input
        gradcam          `layer`, `head`, `of_class`, and where the layer's cells are: `first_px`, `step_px`
        image            of networks on microscope images, which need neither `preprocessing` nor `inferer`:
                         `size_px` and `um_per_px` of their input, `mean` and `std` of its channels on the
                         scale 0 to 1, `classes` in the order of their outputs; `engine.Engine` runs them

    Raises ModelError when the bundle is missing, damaged, or not what its configuration says.
    """

    def __init__(self, name: str, models_dir: Path | None = None, device: str | None = None) -> None:
        runtime = current()
        self.name = name
        self.device = device or runtime.device
        self._manifest = read_manifest(name, models_dir or runtime.models_dir)
        self._raw = self._manifest.config("inference")
        self._parser = parse(self._raw, f"bundle {name}: {INFERENCE}")
        self.network = self._load_network()
        self.image = image_input(self._raw, name)
        self.batch_size = int(self._raw.get("batch_size", 16))
        self._channels = int(self._raw.get("channels", 1))
        if self.image is None:  # what is not right is said now
            _ = self.inferer, self.prepare
        self._postprocessing = self._part("postprocessing") if "postprocessing" in self._raw else None

    @cached_property
    def inferer(self) -> Any:  # Any: MONAI's, of a library without types
        return self._part("inferer")

    @cached_property
    def prepare(self) -> Preprocessing:
        keys = [key for key in self._raw if key.startswith("preprocessing")]
        return Preprocessing({key: self._part(key) for key in keys})

    @property
    def gradcam(self) -> dict[str, Any]:  # Any: parsed JSON
        """What `inference.json` says of Grad-CAM; empty where it says nothing."""
        wanted = self._raw.get("gradcam")
        return wanted if isinstance(wanted, dict) else {}

    @property
    def files(self) -> Mapping[str, Path]:
        """Every checked file of the bundle, by its place in it."""
        return {where: self._manifest.folder / where for where in self._manifest.files}

    @property
    def digest(self) -> Digest:
        """Changes when weights or any configuration of the bundle change."""
        return self._manifest.digest

    @property
    def version(self) -> str:
        return self._manifest.version

    def algorithm(self) -> Algorithm:
        """The bundle as results name it."""
        return self._manifest.algorithm()

    def config(self, name: str) -> dict[str, Any]:  # Any: parsed JSON
        """A further checked file of the bundle, `configs/<name>.json`."""
        return self._manifest.config(name)

    def preprocess(self, image: Image) -> torch.Tensor:
        """The network's input: (slices, channels, rows, columns) float32, on the CPU.

        A Volume brings its spacing and its contrast; a bare array (slices, rows, columns) has 1 mm pixels.
        """
        if isinstance(image, Volume):
            stack = image.stack
            prepared = self.prepare(image.array, stack.spacing_mm[1:], stack.contrast)
        else:
            prepared = self.prepare(image, (1.0, 1.0), None)
        return prepared[:, None].expand(-1, self._channels, -1, -1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """The network's output for a prepared input, in portions of `batch_size`; float32, on the CPU."""
        import torch

        parts = [self._forward(portion).float().cpu() for portion in self._portions(batch)]
        return torch.cat(parts) if parts else torch.zeros(0, 1)

    def explain(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs, Grad-CAM maps (slices, r, c)) for a prepared input, see `gradcam.GradCam`."""
        import torch

        from dicom_node.infer.gradcam import GradCam

        wanted = self.gradcam
        if not wanted:
            raise ModelError(f"bundle {self.name} says nothing of Grad-CAM in {INFERENCE}")
        gradcam = GradCam(self.network, str(wanted["layer"]), str(wanted["head"]))
        of_class = int(wanted.get("of_class", 0))
        outputs, maps = [], []
        for portion in self._portions(batch):
            output, cam = gradcam(self._forward, portion, of_class)
            outputs.append(output.float().cpu())
            maps.append(cam.float().cpu())
        if not outputs:
            return torch.zeros(0, 1), torch.zeros(0, 1, 1)
        return torch.cat(outputs), torch.cat(maps)

    def onto_source(self, maps: Any, volume: Volume) -> npt.NDArray[np.float32]:  # Any: array or tensor
        """Maps of the network's field of view on the volume's own grid: (slices, rows, columns)."""
        from dicom_node.infer.gradcam import Lattice, onto_grid

        field, cam = self._raw.get("field"), self._raw.get("gradcam")
        if not isinstance(field, dict) or not isinstance(cam, dict):
            raise ModelError(f"bundle {self.name} has no `field` or no `gradcam` in {INFERENCE}")
        lattice = Lattice(
            int(field["size"]), float(field["spacing_mm"]), float(cam["first_px"]), float(cam["step_px"])
        )
        _, rows, columns = volume.array.shape
        return onto_grid(maps, lattice, rows=rows, columns=columns, spacing_mm=volume.stack.spacing_mm[1:])

    def infer(self, image: Image) -> npt.NDArray[np.float32]:
        """Preprocess, run and postprocess: one output per slice, e.g. (slices, 1) probabilities."""
        import torch

        output = self.forward(self.preprocess(image))
        with torch.inference_mode():
            done = self._postprocessing(output) if self._postprocessing else output
        result: npt.NDArray[np.float32] = torch.as_tensor(done).numpy().astype(np.float32, copy=False)
        return result

    def _portions(self, batch: torch.Tensor) -> Iterator[torch.Tensor]:
        import torch

        for start in range(0, batch.shape[0], self.batch_size):
            portion = batch[start : start + self.batch_size].to(self.device)
            yield portion.contiguous(memory_format=torch.channels_last) if portion.dim() == 4 else portion

    def _forward(self, portion: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            output: torch.Tensor = self.inferer(portion, self.network)
            return output

    def _part(self, key: str) -> Any:  # Any: whatever object the configuration makes
        if key not in self._raw:
            raise ModelError(f"bundle {self.name} has no `{key}` in {INFERENCE}")
        try:
            return self._parser.get_parsed_content(key)
        except Exception as error:  # MONAI and the classes it constructs raise anything
            raise ModelError(f"bundle {self.name}: `{key}` in {INFERENCE} cannot be made: {error}") from error

    def _load_network(self) -> torch.nn.Module:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = self._part("network_def")
        if not isinstance(network, torch.nn.Module):
            raise ModelError(f"bundle {self.name}: `network_def` is no network")
        try:
            network.load_state_dict(load_file(self._manifest.weights))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise ModelError(f"bundle {self.name}: the weights do not fit the network: {error}") from error
        network.requires_grad_(False)
        folded = fold_batch_norm(network.eval()).to(self.device)
        return folded.to(memory_format=torch.channels_last)


def fold_batch_norm(network: torch.nn.Module) -> torch.nn.Module:
    """Make each convolution that is followed by a batch norm one operation; same outputs, a fifth faster."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for at in range(len(module) - 1):
            first, second = module[at], module[at + 1]
            if type(first) is nn.Conv2d and type(second) is nn.BatchNorm2d:
                module[at] = fuse_conv_bn_eval(first, second)
                module[at + 1] = nn.Identity()
    return network
