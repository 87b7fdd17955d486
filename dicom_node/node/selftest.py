"""`dicom-node check --selftest`: marks go through the whole path, and are looked for in what comes out.

A node of its own, in a folder that is removed, receives the marked images over the network,
assembles, routes, infers with a threshold instead of a model (`markers/`) and encodes; nothing is
delivered. The result objects are read as the Standard says, by code of this module alone, and every
mark must be where it was put, within a pixel: a turn, a swap or a mirror anywhere in the path fails.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.config import Config, Infer, Peer, Receive, Route
from dicom_node.config import Node as NodeTable
from dicom_node.deliver.scu import send
from dicom_node.dicom.status import Kind
from dicom_node.domain.job import State
from dicom_node.domain.marks import Marked
from dicom_node.errors import PipelineError
from dicom_node.node import flow
from dicom_node.node.build import Node, build
from dicom_node.node.sandbox import Sandbox
from dicom_node.node.ticker import Ticker
from dicom_node.node.worker import Worker
from dicom_node.store.database import migrate, utc_now

MARKERS = Path(__file__).with_name("markers")
"""The folder of pipelines that find marks."""
TITLE = "SELFTEST"
PIPELINES = {"MR": "marked_voxels", "slide": "marked_corners"}
OUTLINES = "outlines"
_TIMEOUT_S = 60.0
_QUIET_S = 3600.0
"""How far the clock is put forward so that a study counts as complete."""

Points = npt.NDArray[np.float64]
Mark = Callable[[Path], Marked]
"""Writes marked images into a folder."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where the marks are in one object that came out."""

    form: str
    """`SEG`, `PM`, ..."""
    centre_off: float
    """From the centre of the marks to that of the truth, in the unit of `Marked.places`."""
    farthest: float
    """From any mark to the nearest of the truth, or the other way round."""

    def in_place(self, pixel: float) -> bool:
        """Within a pixel; where outlines go along edges, a corner may be a little farther."""
        return self.centre_off <= pixel and self.farthest <= 1.5 * pixel


def selftest(mark: Mark) -> str:
    """One kind of images through the whole path; a sentence. Raises DicomNodeError where a mark is lost."""
    with TemporaryDirectory(prefix="dicom-node-selftest-") as folder:
        marked = mark(Path(folder) / "images")
        objects = through(marked, Path(folder))
        located = locate(marked, objects)
    said = ", ".join(f"{one.form} off by {one.centre_off / marked.pixel:.2f}" for one in located)
    if wrong := [one for one in located if not one.in_place(marked.pixel)]:
        worst = max(wrong, key=lambda one: one.farthest)
        raise PipelineError(
            f"marks are not where they were put: {worst.form} has one {worst.farthest / marked.pixel:.1f} "
            f"pixels away ({said} pixels)"
        )
    return f"{len(marked.places)} marks in place after the whole path: {said} pixels"


def through(marked: Marked, folder: Path) -> list[Dataset]:
    """The result objects of the path; what `flow` says, one step after the other."""
    pipeline, shift = PIPELINES[marked.what], timedelta()

    def clock() -> datetime:
        return utc_now() + shift

    config = _config(folder / "node", pipeline)
    with ExitStack() as running:
        node = build(config, clock=clock)
        running.callback(node.engine.dispose)
        migrate(node.engine)
        receiver = flow.receive_and_store(node)
        receiver.start()
        running.callback(receiver.stop, 1.0)
        _send(marked.files, receiver.port)
        while flow.read_headers(node):
            pass
        shift = timedelta(seconds=_QUIET_S)
        ticker = Ticker(node, threading.Event())
        while ticker.tick():
            pass
        with Sandbox(config, (pipeline,)) as sandbox:
            Worker(node, threading.Event()).work_once(sandbox)
        return _results(node, marked.what)


def _results(node: Node, what: str) -> list[Dataset]:
    jobs = node.queue.jobs()
    done = [job for job in jobs if job.state is State.COMPLETED]
    if not done:
        became = f"the job is {jobs[0].state.value}" if jobs else "no job was made of them"
        raise PipelineError(f"nothing was found on the marked {what} images: {became}")
    stored = [result for job in done for result in node.ledger.results(job.id)]
    return [dcmread(node.archive.verified(result.digest)) for result in stored]


def _config(folder: Path, pipeline: str) -> Config:
    route = {"pipeline": pipeline, "from": ["scanner"], "to": ["pacs"]}
    return Config(
        node=NodeTable(data_dir=folder, ae_title=TITLE, pipelines_dir=MARKERS),
        receive=Receive(host="127.0.0.1", port=_free_port(), unwanted="store", reserve_mb=0),
        infer=Infer(threads=1),
        peer=(
            Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1"),
            Peer(name="pacs", ae_title="NOBODY", host="127.0.0.1", port=104),  # nothing is delivered
        ),
        route=(Route.model_validate(route),),
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _send(files: Sequence[Path], port: int) -> None:
    node = Peer(name="node", ae_title=TITLE, host="127.0.0.1", port=port)
    for sent in send(node, "SCANNER", files, _TIMEOUT_S):
        if sent.kind is not Kind.SUCCESS:
            raise PipelineError(f"the node did not take its own marked images: {sent.sentence}")


def locate(marked: Marked, objects: Sequence[Dataset]) -> list[Located]:
    """Where each object that says places has the marks. Raises PipelineError where none says any."""
    of = {"MR": _in_patient, "slide": _on_slide}[marked.what]
    located = [
        _compared(form, np.concatenate(points), marked)
        for form, points in sorted(_by_form(objects, of, marked).items())
    ]
    if not located:
        raise PipelineError(f"none of {len(objects)} result objects says where the marks are")
    return located


def _by_form(
    objects: Sequence[Dataset], of: Callable[[Dataset, Marked], tuple[str, Points] | None], marked: Marked
) -> dict[str, list[Points]]:
    found: dict[str, list[Points]] = {}
    for ds in objects:
        if (one := of(ds, marked)) is not None:
            found.setdefault(one[0], []).append(one[1])
    return found


def _compared(form: str, points: Points, marked: Marked) -> Located:
    """Marks that have a name are compared one by one, others as a cloud: each with the nearest."""
    truth = marked.places
    if not len(points):
        raise PipelineError(f"{form} has no mark")
    if marked.labels:
        apart = np.linalg.norm(points - truth, axis=1)
        return Located(form, float(np.linalg.norm((points - truth).mean(axis=0))), float(apart.max()))
    distances = np.linalg.norm(points[:, None] - truth[None], axis=2)
    if form == OUTLINES:  # they go around the marks and have nothing inside
        middle, own = (_middle(cloud) for cloud in (truth, points))
        return Located(form, float(np.linalg.norm(own - middle)), float(distances.min(axis=1).max()))
    farthest = max(float(distances.min(axis=1).max()), float(distances.min(axis=0).max()))
    return Located(form, float(np.linalg.norm(points.mean(axis=0) - truth.mean(axis=0))), farthest)


def _middle(points: Points) -> Points:
    """Of the box around them."""
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)


def _in_patient(ds: Dataset, marked: Marked) -> tuple[str, Points] | None:
    """Centres of all pixels that a SEG or Parametric Map marks, LPS mm (PS3.3 C.7.6.2.1.1)."""
    if ds.Modality == "SR":
        return _outlines(ds, marked)
    if ds.Modality == "SEG":
        pixels = np.asarray(ds.pixel_array) > 0
    elif "FloatPixelData" in ds:
        shape = (int(ds.NumberOfFrames), int(ds.Rows), int(ds.Columns))
        pixels = np.frombuffer(ds.FloatPixelData, "<f4").reshape(shape) > 0.5
    else:
        return None
    pixels = pixels.reshape(-1, int(ds.Rows), int(ds.Columns))
    parts = [_frame_points(ds, frame, pixels[frame]) for frame in range(len(pixels)) if pixels[frame].any()]
    return ds.Modality if ds.Modality == "SEG" else "PM", np.concatenate(parts) if parts else np.empty((0, 3))


def _outlines(ds: Dataset, marked: Marked) -> tuple[str, Points] | None:
    """Corners of the outlines that a report draws on the images it names, LPS mm (PS3.3 C.10.5.1.2)."""
    images = {image.SOPInstanceUID: image for image in map(_header, marked.files)}
    parts = []
    for item in _all_items(ds):
        if item.get("ValueType") == "SCOORD":
            image = images[item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
            columns, rows = np.reshape(item.GraphicData, (-1, 2)).T - 0.5
            parts.append(_in_space(image, image, image, rows, columns))
    return (OUTLINES, np.concatenate(parts)) if parts else None


def _header(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


def _frame_points(ds: Dataset, frame: int, pixels: npt.NDArray[np.bool_]) -> Points:
    own, shared = ds.PerFrameFunctionalGroupsSequence[frame], ds.SharedFunctionalGroupsSequence[0]

    def group(name: str) -> Dataset:
        item: Dataset = (own if name in own else shared)[name][0]
        return item

    rows, columns = (axis.astype(float) for axis in np.nonzero(pixels))
    places = group("PlanePositionSequence"), group("PlaneOrientationSequence"), group("PixelMeasuresSequence")
    return _in_space(*places, rows, columns)


def _in_space(
    position: Dataset, orientation: Dataset, measures: Dataset, rows: Points, columns: Points
) -> Points:
    """Pixels, the first one's centre at 0, as LPS mm (PS3.3 C.7.6.2.1.1)."""
    first = np.array(position.ImagePositionPatient, float)
    directions = np.array(orientation.ImageOrientationPatient, float)
    between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
    along, down = directions[:3] * between_columns, directions[3:] * between_rows
    return np.asarray(first + columns[:, None] * along + rows[:, None] * down, np.float64)


def _on_slide(ds: Dataset, marked: Marked) -> tuple[str, Points] | None:
    """Centre of the annotation of each colour in pixels of the slide, in the order of `marked.labels`."""
    if ds.Modality != "ANN":
        return None
    centres = {}
    for group in ds.AnnotationGroupSequence:
        size = 2 if ds.AnnotationCoordinateType == "2D" or "CommonZCoordinateValue" in group else 3
        corners = np.frombuffer(group.PointCoordinatesData, "<f4").reshape(-1, size)[:, :2].astype(float)
        if ds.AnnotationCoordinateType == "3D":
            corners = _pixels_of(corners, _header(marked.files[0]))
        centres[str(group.AnnotationGroupLabel)] = corners.mean(axis=0)
    if missing := set(marked.labels) - set(centres):
        raise PipelineError(f"the annotations lack the marks {', '.join(sorted(missing))}")
    return "ANN", np.array([centres[label] for label in marked.labels])


def _pixels_of(places_mm: Points, image: Dataset) -> Points:
    """Slide coordinates, x and y in mm, as column and row of the image (PS3.3 C.8.12.2.1.1)."""
    first = image.TotalPixelMatrixOriginSequence[0]
    origin = np.array([first.XOffsetInSlideCoordinateSystem, first.YOffsetInSlideCoordinateSystem], float)
    row, column = np.array(image.ImageOrientationSlide, float).reshape(2, 3)[:, :2]
    measures = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    between_rows, between_columns = (float(v) for v in measures.PixelSpacing)
    away = places_mm - origin
    return np.stack([away @ row / between_columns, away @ column / between_rows], axis=1) + 0.5


def _all_items(ds: Dataset) -> Iterator[Dataset]:
    """A document and everything in its content tree."""
    yield ds
    for item in ds.get("ContentSequence") or ():
        yield from _all_items(item)
