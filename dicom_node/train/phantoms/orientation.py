"""Phantoms that show a turn, a swap or a mirror: nothing in them is like its mirror image.

An MR stack, doubly oblique, with more columns than rows and its own distance in each direction, in
which an F stands up from one slice to the next; and a slide with four corners of different colours,
none as far from its edges as another. `dicom-node check --selftest` sends them through the whole path.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, derived_uid
from dicom_node.domain.marks import Marked
from dicom_node.train.phantoms.slides.scene import CLEAR, Placed, Scene, Sprite
from dicom_node.train.phantoms.slides.spec import Layout, SlideSpec
from dicom_node.train.phantoms.slides.write import write_slide

BRIGHT, DARK = 1000, 100
"""Stored values of marked voxels and of all others."""
_SHAPE = (12, 48, 64)
"""Slices, rows, columns."""
_STEP_MM = (4.0, 1.25, 1.0)
"""Between slices, rows, columns."""
_ORIGIN_MM = (-40.0, 25.0, -60.0)


def mr(folder: Path) -> Marked:
    """A T2-weighted axial-oblique series with an F in it, written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    array = marked_voxels()
    row, column, normal = directions()
    files = []
    for k in range(_SHAPE[0]):
        position = np.array(_ORIGIN_MM) + k * _STEP_MM[0] * normal
        files.append(folder / f"{k:02d}.dcm")
        _mr_image(array[k], k, position, row, column).save_as(files[-1], enforce_file_format=True)
    slices, rows, columns = np.nonzero(array)
    places = (
        np.array(_ORIGIN_MM)
        + slices[:, None] * _STEP_MM[0] * normal
        + rows[:, None] * _STEP_MM[1] * column
        + columns[:, None] * _STEP_MM[2] * row
    )
    return Marked("MR", tuple(files), places, min(_STEP_MM))


def marked_voxels() -> npt.NDArray[np.bool_]:
    """(slices, rows, columns): an F, whose upper arm goes on into later slices."""
    array = np.zeros(_SHAPE, bool)
    array[3:6, 8:38, 12:18] = True  # stem
    array[3:6, 8:14, 12:40] = True  # upper arm
    array[3:6, 20:25, 12:30] = True  # lower arm
    array[6:9, 8:14, 30:40] = True  # only its end stands up
    return array


def directions() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unit vectors along a row, along a column, and from slice to slice: turned by 20 and by 10 degrees."""
    turn, tilt = np.deg2rad(20), np.deg2rad(10)
    row = np.array([np.cos(turn), np.sin(turn), 0.0])
    column = np.array([-np.sin(turn) * np.cos(tilt), np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    return row, column, np.cross(row, column)


def _mr_image(
    marked: npt.NDArray[np.bool_], k: int, position: npt.NDArray[np.float64], row: npt.NDArray[np.float64],
    column: npt.NDArray[np.float64],
) -> Dataset:  # fmt: skip
    """One MR image (PS3.3 A.4)."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName, ds.PatientID = "PHANTOM^ORIENTATION", "PHANTOM-ORIENTATION"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19800601", "F", "040Y"
    ds.StudyInstanceUID = derived_uid("orientation", "mr", "study")
    ds.SeriesInstanceUID = derived_uid("orientation", "mr", "series")
    ds.FrameOfReferenceUID = derived_uid("orientation", "mr", "frame of reference")
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, derived_uid("orientation", "mr", k)
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "100000"
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = "1", 1, k + 1, 1
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.PositionReferenceIndicator = "", "", ""
    ds.Modality, ds.SeriesDescription, ds.ProtocolName = "MR", "orientation", "orientation"
    ds.Manufacturer, ds.BodyPartExamined, ds.PatientPosition = "dicom-node", "PELVIS", "HFS"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "SK", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength, ds.FlipAngle = "5000", "100", 16, "90"
    ds.MagneticFieldStrength = "1.5"
    ds.ImagePositionPatient = [f"{v:.8f}"[:16] for v in position]
    ds.ImageOrientationPatient = [f"{v:.10f}" for v in (*row, *column)]
    ds.PixelSpacing, ds.SliceThickness = [str(v) for v in _STEP_MM[1:]], str(_STEP_MM[0])
    ds.SpacingBetweenSlices = str(_STEP_MM[0])
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = marked.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.where(marked, BRIGHT, DARK).astype("<u2").tobytes()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return ds


COLOURS = {"red": (215, 40, 40), "green": (40, 150, 60), "blue": (40, 60, 200), "black": (25, 25, 25)}
"""Of the marks in the corners of the slide: upper left, upper right, lower left, lower right."""
_MARK_PX = 48


class _Marks:
    """`Sprites`: a square of each colour, clear around."""

    name, background = "orientation marks", (235.0, 235.0, 235.0)
    classes = tuple(COLOURS)
    labels = np.arange(len(COLOURS), dtype=np.int32)
    sizes = np.full((len(COLOURS), 2), _MARK_PX, np.int32)

    def sprite(self, number: int) -> Sprite:
        light = np.full((_MARK_PX, _MARK_PX, 3), CLEAR, np.uint8)
        colour = np.array(list(COLOURS.values())[number]) / self.background
        light[2:-2, 2:-2] = np.rint(colour * CLEAR)
        return light


def slide(folder: Path, *, layout: Layout = Layout.FULL, planes: int = 1) -> Marked:
    """A slide with marks near its four corners, written to `folder`; lower levels have them too."""
    scene = marked_slide(layout=layout, planes=planes)
    files = write_slide(scene, folder)
    placed = scene.placed
    places = np.stack([placed.left + placed.width / 2, placed.top + placed.height / 2], axis=1)
    return Marked("slide", tuple(files), places, 1.0, tuple(COLOURS))


def marked_slide(*, layout: Layout = Layout.FULL, planes: int = 1) -> Scene:
    """Marks at other distances from each edge, on a slide wider than tall, not a whole number of tiles."""
    spec = SlideSpec(
        "orientation", width=1100, height=700, um_per_px=0.25, tile=256, levels=2, planes=planes,
        layout=layout, contents="orientation",
    )  # fmt: skip
    corners = list(_corners(spec))
    left, top = (np.array(axis, np.int64) for axis in zip(*corners, strict=True))
    n = len(corners)
    size, z_um = np.full(n, _MARK_PX, np.int32), np.zeros(n, np.float32)
    sprite = np.arange(n, dtype=np.int32)
    return Scene(spec, _Marks(), Placed(sprite, left, top, size, size, np.zeros(n, np.uint8), z_um))


def _corners(spec: SlideSpec) -> Iterator[tuple[int, int]]:
    """First column and row of each mark."""
    right, bottom = spec.width - _MARK_PX, spec.height - _MARK_PX
    yield from ((40, 90), (right - 150, 30), (220, bottom - 60), (right - 20, bottom - 170))
