"""A `Graph` run by OpenVINO on the CPU: converted in this process, nothing read from or written to disk.

OpenVINO's Python package reports its use to its maker over the network unless told otherwise. A node
tells nobody anything: the reporting package is shut out before OpenVINO is loaded.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from dicom_node.errors import ModelError

if TYPE_CHECKING:
    from dicom_node.infer.graph import Graph

Arrays = tuple[npt.NDArray[np.float32], ...]
Images = npt.NDArray[np.uint8]
Tag = TypeVar("Tag")

PORTION = 4
"""Images per request. The feature maps of so few stay in the processor's cache: twice as fast as 16."""
_ALONE = 4
"""Up to so many threads each takes requests of its own: none waits for another."""
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
_CPU = Path("/proc/cpuinfo")


def has_bf16(cpu: Path = _CPU) -> bool:
    """Whether the processor multiplies bfloat16 itself."""
    return bool(_BFLOAT16 & set(_said(cpu, "flags").split()))


def processor(cpu: Path = _CPU) -> str:
    """The processor's name as it says it; `unknown processor` where it says none."""
    return _said(cpu, "model name") or "unknown processor"


def _said(cpu: Path, key: str) -> str:
    try:
        lines = cpu.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def openvino() -> Any:  # Any: a library whose types are incomplete
    """The library, without its telemetry. Raises ModelError where it is not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it fails, as intended
    try:
        import openvino as library
    except ImportError as error:
        raise ModelError("OpenVINO is not installed") from error
    return library


class OpenVino:
    """One graph, compiled. `precision` is f32 or bf16. Not for several threads at once.

    Requests of PORTION images run beside each other, a few in flight: while one is computed the next is
    filled. Every request has the same shape, the last one padded, so that an image's numbers do not
    depend on how many came with it.
    """

    def __init__(self, graph: Graph, size_px: int, precision: str, threads: int) -> None:
        library = openvino()
        shape = [PORTION, size_px, size_px, 3]
        self.library = f"OpenVINO {str(library.__version__).split('-')[0]}"
        self._compiled = _compiled(library, graph, shape, precision, threads)
        streams = int(self._compiled.get_property("NUM_STREAMS"))
        self._requests = [self._compiled.create_infer_request() for _ in range(streams + 1)]
        self._shapes = [tuple(output.shape)[1:] for output in self._compiled.outputs]

    def stream(self, batches: Iterable[tuple[Tag, Images]]) -> Iterator[tuple[Tag, Arrays]]:
        """(tag, outputs of its whole batch), in the order of the batches.

        A batch is copied when it is taken: its memory may be used again once the next one is asked for.
        """
        idle, busy = list(self._requests), deque[tuple[Any, _Batch[Tag], int, int]]()  # Any: OpenVINO's
        under_way: deque[_Batch[Tag]] = deque()
        try:
            for tag, images in batches:
                one = _Batch(tag, len(images), self._shapes)
                under_way.append(one)
                for start in range(0, len(images), PORTION):
                    request = idle.pop() if idle else _finished(busy)
                    count = min(PORTION, len(images) - start)
                    given = request.get_input_tensor().data
                    given[:count] = images[start : start + count]
                    given[count:] = 0
                    request.start_async()
                    busy.append((request, one, start, count))
                while under_way and not under_way[0].missing:
                    yield under_way.popleft().closed()
            while under_way:
                while under_way[0].missing:
                    _finished(busy)
                yield under_way.popleft().closed()
        finally:
            for request, *_ in busy:  # somebody stopped listening; the next stream finds all idle
                request.wait()


class _Batch(Generic[Tag]):
    """The outputs of one batch while they come in. Mutable: `missing`, images not yet computed."""

    def __init__(self, tag: Tag, images: int, shapes: list[tuple[int, ...]]) -> None:
        self.missing = images
        self._tag = tag
        self._outputs = tuple(np.empty((images, *shape), np.float32) for shape in shapes)

    def put(self, start: int, count: int, request: Any) -> None:  # Any: OpenVINO's
        for at, output in enumerate(self._outputs):
            output[start : start + count] = request.get_output_tensor(at).data[:count]
        self.missing -= count

    def closed(self) -> tuple[Tag, Arrays]:
        return self._tag, self._outputs


def _finished(busy: deque[tuple[Any, _Batch[Tag], int, int]]) -> Any:  # Any: OpenVINO's
    """The request that was started first, computed and its outputs put away."""
    request, one, start, count = busy.popleft()
    request.wait()
    one.put(start, count, request)
    return request


def _compiled(
    library: Any, graph: Graph, shape: list[int], precision: str, threads: int
) -> Any:  # Any: OpenVINO's
    import torch

    example = torch.zeros([1, *shape[1:]], dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, about Python values that are constants here
            model = library.convert_model(graph, example_input=example, input=shape)
        return library.Core().compile_model(
            model, "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": threads if threads <= _ALONE else threads // 2,
            },
        )  # fmt: skip
    except Exception as error:  # the edge to a library that raises RuntimeError and its own kinds
        raise ModelError(f"OpenVINO cannot run the network: {type(error).__name__}") from error
