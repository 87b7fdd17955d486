"""Decodes the pixels of one stack into a volume in patient space.

Promises (slices, rows, columns) float32 with each frame's own rescale applied (PS3.3
C.11.1.1.2) and no windowing, and an affine to LPS mm. Refuses, rather than guesses, what it
cannot decode faithfully: another frame size, truncated pixels, a transfer syntax without decoder;
and what would not fit in memory, before memory is taken.
"""

from __future__ import annotations

from collections import defaultdict
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_node.dicom import elements, frames, values
from dicom_node.dicom.inflate import MOST_HEADER_BYTES
from dicom_node.digest import is_digest_of
from dicom_node.domain.series import FrameRef, Stack, Volume
from dicom_node.errors import DicomNodeError, IntegrityError, UnfaithfulGeometry, UnreadableObject

_DESCRIPTION = (
    0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011,  # samples, photometric, frames, rows, columns
    0x00280100, 0x00280101, 0x00280102, 0x00280103,  # bits allocated, stored, high bit, representation
    0x00281052, 0x00281053, 0x52009229, 0x52009230,  # rescale, functional groups
    0x7FE00010,
)  # fmt: skip
_SAMPLES, _BITS = 0x00280002, 0x00280100
MOST_VOXELS = 1 << 29
"""Of one stack: 2 GiB as float32. 512 x 512 x 2048."""


def read_volume(stack: Stack) -> Volume:
    """The stack's pixels, slices in the stack's order.

    Raises UnreadableObject where pixels cannot be decoded, UnfaithfulGeometry where a frame
    has another size than the stack, IntegrityError where a file is not what was received.
    """
    _check_size(len(stack.frames), stack.rows, stack.columns)
    array = np.empty((len(stack.frames), stack.rows, stack.columns), dtype=np.float32)
    slices_of: dict[Path, list[tuple[int, FrameRef]]] = defaultdict(list)
    for k, frame in enumerate(stack.frames):
        slices_of[frame.path].append((k, frame))
    for path, wanted in slices_of.items():
        _read_into(array, path, wanted)
    return Volume(array, affine_of(stack), stack)


def affine_of(stack: Stack) -> npt.NDArray[np.float64]:
    """(4, 4) float64: (slice, row, column, 1) to patient LPS mm, PS3.3 C.7.6.2.1.1."""
    between_slices, between_rows, between_columns = stack.spacing_mm
    across = np.cross(stack.row_cosine, stack.column_cosine)
    affine = np.eye(4)
    affine[:3, 0] = across / np.linalg.norm(across) * between_slices
    affine[:3, 1] = np.asarray(stack.column_cosine) * between_rows
    affine[:3, 2] = np.asarray(stack.row_cosine) * between_columns
    affine[:3, 3] = stack.frames[0].position_mm
    return affine


def _read_into(array: npt.NDArray[np.float32], path: Path, wanted: list[tuple[int, FrameRef]]) -> None:
    _verify(path, wanted[0][1])
    try:
        data_set = dcmread(_plain(path), specific_tags=list(_DESCRIPTION))
        rescale = _rescales(data_set)
        indices = [frame.frame - 1 for _, frame in wanted]
        decoded = iter_pixels(data_set, indices=indices, raw=True)
        for (k, frame), pixels in zip(wanted, decoded, strict=True):
            if pixels.shape != array.shape[1:]:
                raise UnfaithfulGeometry(f"a frame is {pixels.shape}, the stack {array.shape[1:]}")
            slope, intercept = rescale[min(frame.frame, len(rescale)) - 1]
            np.multiply(pixels, np.float32(slope), out=array[k], dtype=np.float32, casting="unsafe")
            array[k] += np.float32(intercept)
    except (DicomNodeError, KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # the edge to decoders on hostile bytes; those in Rust panic with no Exception
        raise UnreadableObject(f"the pixels cannot be decoded ({type(error).__name__})") from error


def _check_size(slices: int, rows: int, columns: int) -> None:
    if min(slices, rows, columns) < 1:
        raise UnreadableObject(f"a volume of {slices} x {rows} x {columns} has no voxels")
    if slices * rows * columns > MOST_VOXELS:
        raise UnreadableObject(f"a volume of {slices} x {rows} x {columns} is larger than this node reads")


def _plain(path: Path) -> Path | BytesIO:
    """The file; a deflated one unfolded, and no further than its pixels can be long."""
    data_set, syntax = elements.parse_file(path, wanted=_DESCRIPTION)
    count, rows, columns = frames.number_of_frames(data_set), frames.rows(data_set), frames.columns(data_set)
    _check_size(count, rows, columns)
    if syntax != elements.DEFLATED:
        return path
    samples, bits = values.integer(data_set, _SAMPLES, "US") or 1, values.integer(data_set, _BITS, "US") or 8
    if not (0 < samples <= 4 and 0 < bits <= 64):
        raise UnreadableObject(f"pixels of {samples} samples of {bits} bits are not read")
    longest = MOST_HEADER_BYTES + count * rows * columns * samples * bits // 8
    return elements.unfolded_file(path, longest) or path


def _verify(path: Path, frame: FrameRef) -> None:
    try:
        same = is_digest_of(frame.digest, path)
    except OSError as error:
        raise UnreadableObject(f"a stored file cannot be read: {type(error).__name__}") from error
    if not same:
        raise IntegrityError


def _rescales(data_set: Dataset) -> list[tuple[float, float]]:
    """(slope, intercept) of each frame; one pair where all frames share it."""
    shared, per_frame = frames.read_frames(data_set)
    found = [(shared | facts).get("rescale", [1.0, 0.0]) for facts in per_frame]
    return [(float(slope), float(intercept)) for slope, intercept in found]
