"""What is sent: many small instances, very many tiny ones, or a single large one, as PS3.10 files.

Promises files that differ in their UIDs and numbers alone, written fast: one encoded header is
patched in place for each instance, and the pixels are one block of noise, written again and again.
The files lie in `PARTS` folders of equal size, so that 1, 2, 4 or 8 associations share them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import PYDICOM_ROOT_UID, UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

PARTS = 8
"""Folders the files of a case are spread over: the most associations that can share them."""
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4.1"
WHOLE_SLIDE_IMAGE = "1.2.840.10008.5.1.4.1.1.77.1.6"
LARGEST_NATIVE_BYTES = 4_000_000_000
"""A longer value needs encapsulated pixel data: a length has 32 bits (PS3.5 7.1.1)."""

_SERIES_OF = 100
_NUMBER_DIGITS = 6
_FIRST = 1_000_000_000
_PLACE_OF_INSTANCE = f"{PYDICOM_ROOT_UID}9000000001"
_PLACE_OF_SERIES = f"{PYDICOM_ROOT_UID}9000000002"
_PLACE_OF_NUMBER = "9" * _NUMBER_DIGITS
_FRAGMENT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of sending: `instances` images of `rows` x `columns` x `frames`, 16 bits a pixel."""

    name: str
    instances: int
    rows: int
    columns: int
    frames: int = 1

    @property
    def pixel_bytes(self) -> int:
        return self.rows * self.columns * self.frames * 2

    @property
    def is_slide(self) -> bool:
        """Too long for a native value: sent as an encapsulated whole slide image."""
        return self.pixel_bytes > LARGEST_NATIVE_BYTES

    @property
    def sop_class_uid(self) -> str:
        if self.is_slide:
            return WHOLE_SLIDE_IMAGE
        return MR_IMAGE if self.frames == 1 else ENHANCED_MR_IMAGE

    @property
    def sentence(self) -> str:
        size = self.pixel_bytes
        text = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e3:.0f} kB"
        return f"{self.instances:,} x {text.replace('.0 ', ' ')}"


@dataclass(frozen=True, slots=True)
class Material:
    """A case on disk."""

    case: Case
    parts: tuple[Path, ...]
    """Folders that hold the files and nothing else; empty ones are left out."""
    file_bytes: int


def small(instances: int = 1000) -> Case:
    """Slices of 512 x 512 x 16 bits: 525 kB."""
    return Case("small", instances, 512, 512)


def tiny(instances: int = 5000) -> Case:
    """Slices of 40 kB, where the work per instance is all there is."""
    return Case("tiny", instances, 128, 156)


def large(gigabytes: float = 1.0) -> Case:
    """One instance; past 4 GB an encapsulated one."""
    return Case("large", 1, 512, 512, max(2, round(gigabytes * 1e9 / (512 * 512 * 2))))


def write(case: Case, folder: Path) -> Material:
    """The files of `case`, below `folder`."""
    parts = [folder / f"part{number}" for number in range(min(PARTS, case.instances))]
    for part in parts:
        part.mkdir(parents=True)
    template, noise = header(case), os.urandom(min(case.pixel_bytes, _FRAGMENT_BYTES))
    written = 0
    for number in range(case.instances):
        path = parts[number % len(parts)] / f"{number:06d}.dcm"
        with path.open("wb") as file:
            file.write(patched(template, number))
            _write_pixels(file.write, case, noise)
            written += file.tell()
    return Material(case, tuple(parts), written)


def header(case: Case) -> bytes:
    """Everything of a file before its pixel data, with places for the UIDs and the number."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if case.is_slide else ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(case.sop_class_uid)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(_PLACE_OF_INSTANCE)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20240102", "101500", "BENCH"
    ds.Modality, ds.Manufacturer = "SM" if case.is_slide else "MR", "Benchmark"
    ds.StudyDescription, ds.SeriesDescription = "Measured reception", "Noise"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "BENCH^MARK", "BENCH", "", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{PYDICOM_ROOT_UID}{_FIRST}", _PLACE_OF_SERIES
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = "1", 1, _PLACE_OF_NUMBER
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    if case.frames > 1:
        ds.NumberOfFrames = case.frames
    ds.Rows, ds.Columns = case.rows, case.columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    encoded = BytesIO()
    dcmwrite(encoded, ds, enforce_file_format=True)
    return encoded.getvalue()


def patched(template: bytes, number: int) -> bytes:
    """The header of instance `number`; every value keeps its length, so every length field stays right."""
    series = number // _SERIES_OF
    return (
        template.replace(_PLACE_OF_INSTANCE.encode(), f"{PYDICOM_ROOT_UID}{_FIRST + 1 + number}".encode())
        .replace(_PLACE_OF_SERIES.encode(), f"{PYDICOM_ROOT_UID}{2 * _FIRST + series}".encode())
        .replace(_PLACE_OF_NUMBER.encode(), f"{number + 1:0{_NUMBER_DIGITS}d}".encode())
    )


def _write_pixels(write_bytes: Callable[[bytes], object], case: Case, noise: bytes) -> None:
    """Pixel Data (7FE0,0010): OW, or encapsulated with one fragment a MB (PS3.5 A.4)."""
    tag, left = struct.pack("<HH", 0x7FE0, 0x0010), case.pixel_bytes
    if case.is_slide:
        write_bytes(tag + b"OB\0\0" + b"\xff" * 4 + struct.pack("<HHI", 0xFFFE, 0xE000, 0))
    else:
        write_bytes(tag + b"OW\0\0" + struct.pack("<I", left))
    while left:
        piece = noise[:left]
        if case.is_slide:
            write_bytes(struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)))
        write_bytes(piece)
        left -= len(piece)
    if case.is_slide:
        write_bytes(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
