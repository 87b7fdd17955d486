"""A bundle's network on microscope images, as fast as this machine can and may.

The reference is torch in float32. On a CPU OpenVINO is several times faster, in bfloat16 where the
processor has it; on a GPU torch runs in bfloat16. What is faster is used only where it passes the gate
(`parity.py`) when it is loaded; what was chosen, and why, goes into the results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from dicom_node import log
from dicom_node.domain.findings import Algorithm
from dicom_node.errors import ModelError
from dicom_node.infer import parity
from dicom_node.infer.bundle import Bundle
from dicom_node.infer.image import ImageInput
from dicom_node.infer.runtime import current

if TYPE_CHECKING:
    import torch

    from dicom_node.infer.graph import Graph

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Tag = TypeVar("Tag")


class Runner(Protocol):
    """What runs a graph: torch, or OpenVINO."""

    library: str

    def stream(self, batches: Iterable[tuple[Tag, Images]]) -> Iterator[tuple[Tag, tuple[Floats, ...]]]:
        """As `Engine.stream`."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs a network here."""

    runtime: str
    """`torch` or `openvino`."""
    precision: str
    """`f32` or `bf16`."""
    library: str
    """With its version."""
    processor: str
    because: str = ""
    """Why it is not the fastest there is; "" where it is."""

    @property
    def sentence(self) -> str:
        """As results say it. The same on the same machine with the same software: part of result UIDs."""
        said = f"{self.library}, {self.precision}, {self.processor}"
        return f"{said}; {self.because}" if self.because else said


class Engine:
    """`Engine(Bundle("name")).run(images)`. Loading takes seconds; not for several threads at once.

    `runtime`, `precision` and `threads` default to those of the process, see `runtime.py`. Raises
    ModelError for a bundle without `image`, or whose network says other things here than when released.
    """

    def __init__(
        self, bundle: Bundle, *, runtime: str | None = None, precision: str | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        if bundle.image is None:
            raise ModelError(f"bundle {bundle.name} has no `image`: it is not for microscope images")
        from dicom_node.infer.graph import Graph

        process = current()
        self.bundle = bundle
        self.image: ImageInput = bundle.image
        self._graph = Graph(bundle.network, self.image, bundle.gradcam)
        self._graph.eval()
        self._reference = Torch(self._graph, bundle.device, "f32", bundle.batch_size)
        ways, why = _ways(
            self._graph, self.image, bundle, runtime or process.engine, precision or process.precision,
            threads or process.threads,
        )  # fmt: skip
        self._runner, self.choice = Gate(bundle, self.image, self._reference).first(ways, why)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.image.classes

    def algorithm(self) -> Algorithm:
        """The bundle as results name it, and what runs it."""
        return replace(self.bundle.algorithm(), runtime=self.choice.sentence)

    def run(self, images: Images) -> Floats:
        """(n, size, size, 3) uint8 sRGB -> logits (n, classes)."""
        return self._outputs(images)[0]

    def explain(self, images: Images) -> tuple[Floats, Floats]:
        """(logits (n, classes), Grad-CAM maps (n, classes, r, c), at least 0), see `graph.Graph`."""
        outputs = self._outputs(images)
        if len(outputs) < 2:
            raise ModelError(f"bundle {self.bundle.name} says nothing of Grad-CAM in its inference.json")
        return outputs[0], outputs[1]

    def stream(self, batches: Iterable[tuple[Tag, Images]]) -> Iterator[tuple[Tag, tuple[Floats, ...]]]:
        """(tag, (logits, maps where the bundle has Grad-CAM)) of each batch, in order.

        The next batches are fetched while this one is computed; a batch's memory may be used again
        once the one after it is asked for.
        """
        return self._runner.stream((tag, self._checked(images)) for tag, images in batches)

    def _outputs(self, images: Images) -> tuple[Floats, ...]:
        ((_, outputs),) = self.stream([(None, images)])
        return outputs

    def _checked(self, images: Images) -> Images:
        size = self.image.size_px
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise ModelError(f"bundle {self.bundle.name} wants uint8 images of {size} px, not {images.shape}")
        return images


class Torch:
    """A graph run by torch, in channels-last memory; bfloat16 is for GPUs."""

    def __init__(self, graph: Graph, device: str, precision: str, portion: int) -> None:
        import torch

        self.library = f"torch {torch.__version__.split('+')[0]}"
        self._graph, self._device, self._portion = graph, device, portion
        self._dtype = torch.bfloat16 if precision == "bf16" else None

    def stream(self, batches: Iterable[tuple[Tag, Images]]) -> Iterator[tuple[Tag, tuple[Floats, ...]]]:
        """As `Engine.stream`."""
        for tag, images in batches:
            starts = range(0, max(1, len(images)), self._portion)
            parts = [self._outputs(images[start : start + self._portion]) for start in starts]
            yield tag, tuple(np.concatenate(output) for output in zip(*parts, strict=True))

    def _outputs(self, images: Images) -> list[Floats]:
        import torch

        given = torch.from_numpy(np.ascontiguousarray(images)).to(self._device, non_blocking=True)
        with torch.inference_mode(), self._precision():
            return [output.float().cpu().numpy() for output in self._graph(given)]

    def _precision(self) -> torch.autocast:
        import torch

        kind = self._device.partition(":")[0]
        return torch.autocast(kind, self._dtype or torch.bfloat16, enabled=self._dtype is not None)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run a network, not made yet."""

    runtime: str
    precision: str
    make: Callable[[], Runner]


class Gate:
    """The cases of one bundle, and what the reference says of them."""

    def __init__(self, bundle: Bundle, image: ImageInput, reference: Torch) -> None:
        said = bundle.config("parity") if parity.CONFIG in bundle.files else {}
        self._name = bundle.name
        self._cases = parity.cases(said, bundle.files.get(parity.IMAGES), image.size_px)
        self._reference = reference
        ((_, self._expected),) = reference.stream([(None, self._cases)])
        parity.check_released(said, self._expected[0], bundle.name)

    def first(self, ways: Iterable[Way], why: list[str]) -> tuple[Runner, Choice]:
        """The first that passes, else the reference; `why` holds what is already known to stand aside."""
        from dicom_node.infer.openvino import processor

        for way in ways:
            began = time.perf_counter()
            runner, objection = self._tried(way)
            if runner is not None:
                choice = Choice(way.runtime, way.precision, runner.library, processor(), "; ".join(why))
                seconds = round(time.perf_counter() - began, 2)
                log.event("engine.chosen", bundle=self._name, runtime=choice.sentence, seconds=seconds)
                return runner, choice
            why.append(f"not {way.runtime} {way.precision}: {objection}")
            log.problem(
                "engine.refused",
                bundle=self._name,
                runtime=way.runtime,
                precision=way.precision,
                why=objection,
            )
        choice = Choice("torch", "f32", self._reference.library, processor(), "; ".join(why))
        log.event("engine.chosen", bundle=self._name, runtime=choice.sentence, seconds=0.0)
        return self._reference, choice

    def _tried(self, way: Way) -> tuple[Runner | None, str]:
        try:
            runner = way.make()
            ((_, outputs),) = runner.stream([(None, self._cases)])
        except ModelError as error:
            return None, str(error)
        objection = parity.compare(self._expected, outputs).objection(parity.LIMITS[way.precision])
        return (None, objection) if objection else (runner, "")


def _ways(
    graph: Graph, image: ImageInput, bundle: Bundle, runtime: str, precision: str, threads: int
) -> tuple[list[Way], list[str]]:
    """What may be faster than the reference here, the fastest first; and what cannot be, in words."""
    from dicom_node.infer.openvino import OpenVino, has_bf16

    wanted = ["bf16", "f32"] if precision == "auto" else [precision]
    if bundle.device != "cpu":
        return [
            Way("torch", one, partial(Torch, graph, bundle.device, one, bundle.batch_size))
            for one in wanted if one != "f32"
        ], []  # fmt: skip
    if runtime == "torch":
        return [], ["asked for"]
    why = []
    if "bf16" in wanted and not has_bf16():
        why.append("not openvino bf16: this processor has no bfloat16")
        log.event("engine.no_bfloat", bundle=bundle.name)
        wanted = ["f32"]
    return [
        Way("openvino", one, partial(OpenVino, graph, image.size_px, one, threads)) for one in wanted
    ], why


def released(bundle: Bundle) -> dict[str, Any]:  # Any: JSON-able
    """configs/parity.json for a bundle as it is now; written when it is released, see `parity.py`."""
    engine = Engine(bundle, runtime="torch", precision="f32")
    stored = bundle.files.get(parity.IMAGES)
    images = parity.cases({}, stored, engine.image.size_px)
    drawn = {} if stored else {"seed": parity.SEED, "cases": parity.CASES}
    return drawn | {"logits": [[round(float(x), 6) for x in row] for row in engine.run(images)]}
