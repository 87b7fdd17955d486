"""Pixels come out in the stack's order, rescaled, and the affine says where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from dicom_node.assemble.stacks import stacks
from dicom_node.dicom.volume import read_volume
from dicom_node.domain.series import Stack
from dicom_node.errors import IntegrityError, UnreadableObject
from support import mr
from support.stored import stored, stored_file


def only_stack(instances: Iterable[Dataset], folder: Path) -> Stack:
    ((stack,), refused) = stacks(stored(instances, folder / "files"))
    assert () == refused
    return stack


@pytest.mark.parametrize("orientation", [mr.AXIAL, mr.SAGITTAL, mr.CORONAL])
def test_every_voxel_is_where_its_slice_says(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    """The ramp is different in every slice, row and column: a flip or swap anywhere would show."""
    series = mr.mr_series(slices=4, orientation=orientation)

    volume = read_volume(only_stack(reversed(series), tmp_path))

    assert ((4, 32, 24), np.float32) == (volume.array.shape, volume.array.dtype)
    assert [mr.ramp(32, 24, k).tolist() for k in range(4)] == volume.array.astype(int).tolist()
    place = np.array(series[2].ImagePositionPatient, float)
    place += 5 * 2.0 * np.array(orientation[3:]) + 7 * 1.5 * np.array(orientation[:3])
    assert np.allclose(place, (volume.affine @ [2, 5, 7, 1])[:3])


def test_rescale_is_applied_image_by_image(tmp_path: Path) -> None:
    """Philips writes another slope into every image."""
    series = mr.mr_series(slices=3)
    for k, ds in enumerate(series):
        ds.RescaleSlope, ds.RescaleIntercept = 0.5 * (k + 1), -10

    array = read_volume(only_stack(series, tmp_path)).array

    expected = [mr.ramp(32, 24, k)[3, 4] * 0.5 * (k + 1) - 10 for k in range(3)]
    assert expected == array[:, 3, 4].tolist()


def test_signed_pixels_stay_signed(tmp_path: Path) -> None:
    series = mr.mr_series(slices=2, PixelRepresentation=1)
    for ds in series:
        ds.PixelData = (mr.ramp(32, 24, 0).astype(np.int16) - 100).tobytes()

    assert -100.0 == read_volume(only_stack(series, tmp_path)).array[0, 0, 0]


def test_frames_of_an_enhanced_object_are_read_by_number(tmp_path: Path) -> None:
    """Two b values in one object: the second stack is the second half of its frames."""
    ds = mr.enhanced_mr(mr.DWI, 3, b_values=(0.0, 800.0))
    frames = [np.full((32, 24), 100 * n, np.uint16) for n in range(6)]
    ds.PixelData = b"".join(frame.tobytes() for frame in frames)

    (low, high), _ = stacks(stored([ds], tmp_path / "files"))

    assert [0, 100, 200] == read_volume(low).array[:, 0, 0].tolist()
    assert [300, 400, 500] == read_volume(high).array[:, 0, 0].tolist()


def test_compressed_pixels_are_decoded(tmp_path: Path) -> None:
    expected = read_volume(only_stack(mr.mr_series(slices=2), tmp_path / "plain")).array
    series = mr.mr_series(slices=2)
    members = []
    for k, ds in enumerate(series):
        mr.file_bytes(ds)  # gives it file meta
        ds.compress(RLELossless, generate_instance_uid=False)
        path = tmp_path / f"{k}.dcm"
        path.write_bytes(mr.file_bytes(ds, RLELossless))
        members.append(stored_file(path))

    ((stack,), _) = stacks(members)

    assert expected.tolist() == read_volume(stack).array.tolist()


def test_truncated_pixels_are_refused(tmp_path: Path) -> None:
    """Half a slice is not padded."""
    series = mr.mr_series(slices=2)
    series[1].PixelData = series[1].PixelData[:100]

    with pytest.raises(UnreadableObject, match="the pixels cannot be decoded"):
        read_volume(only_stack(series, tmp_path))


def test_a_file_that_changed_on_disk_is_not_used(tmp_path: Path) -> None:
    stack = only_stack(mr.mr_series(slices=2), tmp_path)
    path = stack.frames[1].path
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(IntegrityError):
        read_volume(stack)


def test_a_vanished_file_is_named_by_its_error_only(tmp_path: Path) -> None:
    stack = only_stack(mr.mr_series(slices=1), tmp_path)
    gone = replace(stack, frames=(replace(stack.frames[0], path=tmp_path / "gone"),))

    with pytest.raises(UnreadableObject, match="FileNotFoundError"):
        read_volume(gone)


@pytest.mark.parametrize(
    ("slices", "rows", "columns"), [(1, 65535, 65535), (3000, 512, 512), (100_000, 65535, 65535)]
)
def test_a_volume_that_would_not_fit_is_refused_before_memory_is_taken(
    tmp_path: Path, slices: int, rows: int, columns: int
) -> None:
    """More than 2^29 voxels."""
    stack = only_stack(mr.mr_series(slices=1), tmp_path)
    huge = replace(stack, frames=stack.frames * slices, rows=rows, columns=columns)

    with pytest.raises(
        UnreadableObject, match=f"{slices} x {rows} x {columns} is larger than this node reads"
    ):
        read_volume(huge)


@pytest.mark.parametrize(("rows", "columns"), [(0, 24), (32, 0), (-1, 24), (32, -(2**31))])
def test_a_volume_without_voxels_is_refused(tmp_path: Path, rows: int, columns: int) -> None:
    stack = replace(only_stack(mr.mr_series(slices=1), tmp_path), rows=rows, columns=columns)

    with pytest.raises(UnreadableObject, match="has no voxels"):
        read_volume(stack)
