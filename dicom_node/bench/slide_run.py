"""One reader with one runtime over the patches of one slide, in a process of its own.

Takes what to do as JSON, writes the logits, says what it took as JSON. The peers do what MONAI's
PatchWSIDataset does: read a region, stack regions into batches by a DataLoader, run torch on them. All
take the same patches with the same weights, and begin to count when the network is loaded and warm.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import DicomNodeError

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Task:
    """What one process is to do."""

    reader: str
    """`node`, `openslide` or `wsidicom`."""
    runtime: str
    """`torch` or `openvino`."""
    precision: str
    workers: int
    """Processes of a DataLoader; 0 reads in the one that computes."""
    slide: str
    """Folder of the slide's files."""
    models: str
    model: str
    out: str
    threads: int
    patches: int = 0
    """At most so many; 0 is all."""
    masked: bool = False


def main() -> None:
    """Reads a Task as JSON from the first argument."""
    task = Task(**json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(task.threads)
    done = _node(task) if task.reader == "node" else _peer(task)
    np.savez(task.out, places=done.pop("places"), logits=done.pop("logits"))
    sys.stdout.write(json.dumps(done | {"peak_mb": _peak_mb(task.workers)}) + "\n")


def slide_in(folder: Path) -> Any:  # Any: a Slide; assembling is only loaded here
    """The one slide in a folder. Raises DicomNodeError."""
    from dicom_node.assemble.slides import read_slides
    from dicom_node.node.offline import stored

    files = sorted(path for path in folder.iterdir() if path.suffix == ".dcm")
    slides, _, refusals = read_slides([stored(path) for path in files])
    if len(slides) != 1:
        why = refusals[0].why if refusals else f"{len(slides)} slides"
        raise DicomNodeError(f"{folder.name} holds no slide to measure on: {why}")
    return slides[0]


def corners(slide: Any, size_px: int, most: int) -> npt.NDArray[np.int64]:  # Any: a Slide
    """Upper left corners of whole patches of the finest level side by side, the first `most`."""
    y, x = np.meshgrid(
        np.arange(0, slide.base.rows - size_px + 1, size_px),
        np.arange(0, slide.base.columns - size_px + 1, size_px),
        indexing="ij",
    )
    return np.stack([x.ravel(), y.ravel()], axis=1)[: most or None]


def _node(task: Task) -> dict[str, Any]:  # Any: arrays and numbers
    from dicom_node.infer.bundle import Bundle
    from dicom_node.infer.engine import Engine
    from dicom_node.slide import open_slide
    from dicom_node.slide.plan import find
    from dicom_node.slide.work import crops

    slide = slide_in(Path(task.slide))
    engine = Engine(
        Bundle(task.model, Path(task.models), "cpu"),
        runtime=task.runtime, precision=task.precision, threads=task.threads,
    )  # fmt: skip
    size = engine.image.size_px
    places = corners(slide, size, task.patches)
    engine.run(np.zeros((_BATCH, size, size, 3), np.uint8))
    clock = _Clock()
    with open_slide(slide) as reader:
        if task.masked:
            x, y = places.astype(np.float64).T
            places = places[find(reader).touches(x, y, size, size)]
        batches = ((at, images[:, 0]) for at, images in crops(reader, 0, places + size / 2, (0,), size, size))
        logits = np.empty((len(places), len(engine.classes)), np.float32)
        for at, outputs in engine.stream(batches):
            logits[at] = outputs[0]
    said = {"choice": engine.choice.sentence, "precision": engine.choice.precision}
    return clock.told(len(places)) | said | {"places": places, "logits": logits}


def _peer(task: Task) -> dict[str, Any]:  # Any: arrays and numbers
    import torch

    from dicom_node.infer.bundle import Bundle

    slide = slide_in(Path(task.slide))
    bundle = Bundle(task.model, Path(task.models), "cpu")
    image = bundle.image
    if image is None:
        raise DicomNodeError(f"bundle {task.model} is not for microscope images")
    places = corners(slide, image.size_px, task.patches)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (image.mean, image.std))

    def forward(batch: Any) -> Any:  # Any: tensors
        given = batch.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
        return bundle.network(given.contiguous(memory_format=torch.channels_last))

    data = _Patches(task.reader, task.slide, places.tolist(), image.size_px)
    with torch.inference_mode():
        forward(torch.zeros((_BATCH, image.size_px, image.size_px, 3), dtype=torch.uint8))
        clock = _Clock()
        loader: Any = torch.utils.data.DataLoader(data, batch_size=_BATCH, num_workers=task.workers)  # type: ignore[arg-type]
        logits = np.concatenate([forward(batch).numpy() for batch in loader])
        del loader
    return clock.told(len(places)) | {
        "places": places,
        "logits": logits,
        "precision": "f32",
        "choice": "torch",
    }


class _Patches:
    """A map-style data set of regions; the slide is opened once in each process that reads."""

    def __init__(self, reader: str, folder: str, places: Sequence[Sequence[int]], size_px: int) -> None:
        self._reader, self._folder, self._places, self._size = reader, folder, places, size_px
        self._slide: Any = None  # Any: another library's

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: int) -> npt.NDArray[np.uint8]:
        if self._slide is None:
            self._slide = _opened(self._reader, Path(self._folder))
        (x, y), size = self._places[at], (self._size, self._size)
        if self._reader == "openslide":
            return np.asarray(self._slide.read_region((x, y), 0, size).convert("RGB"))
        return np.asarray(self._slide.read_region((x, y), 0, size))


def _opened(reader: str, folder: Path) -> Any:  # Any: another library's
    if reader == "openslide":
        import openslide

        return openslide.OpenSlide(next(_finest(folder)))
    import wsidicom

    return wsidicom.WsiDicom.open(folder)


def _finest(folder: Path) -> Iterator[str]:
    """The largest file: OpenSlide finds the others of its series beside it."""
    yield str(max(folder.glob("*.dcm"), key=lambda path: path.stat().st_size))


class _Clock:
    def __init__(self) -> None:
        self._loaded_mb = _peak_mb(0)
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def told(self, tiles: int) -> dict[str, Any]:  # Any: numbers
        return {
            "tiles": tiles, "seconds": time.perf_counter() - self._wall, "cpu_s": _cpu_seconds() - self._cpu,
            "loaded_mb": self._loaded_mb,
        }  # fmt: skip


def _cpu_seconds() -> float:
    """Of this process and its children that ended."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def _peak_mb(workers: int) -> float:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round((own + workers * child) * 1024 / 1e6, 1)


__all__ = ["Task", "asdict", "main"]

if __name__ == "__main__":
    main()
