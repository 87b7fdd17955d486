"""Small whole slide images in every layout, made from pictures whose pixels are known.

One `Scan` says what the slide shows and how it is written; `write` makes its files, `picture` gives
the pixels that any reader must find in them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.filewriter import dcmwrite
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import UID, generate_uid

from dicom_node.domain.series import StoredInstance
from dicom_node.domain.slide import Photograph, Slide
from dicom_node.node.offline import stored

Image = npt.NDArray[np.uint8]

EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
JPEG, RLE, JPEG_LS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80"
JPEG_2000, JPEG_XL = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.110"
HTJ2K = "1.2.840.10008.1.2.4.201"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
LOSSLESS = (EXPLICIT, IMPLICIT, DEFLATED, RLE, JPEG_LS, JPEG_2000, HTJ2K, JPEG_XL)
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Scan:
    """A slide and how it is written."""

    rows: int = 70
    columns: int = 100
    tile: tuple[int, int] = (32, 32)
    levels: int = 1
    planes: int = 1
    paths: tuple[str, ...] = ("1",)
    layout: str = "full"
    """`full` (all planes in one instance), `planes` (one instance each) or `sparse`."""
    parts: int = 1
    """Of the concatenation that each instance is cut into."""
    syntax: str = EXPLICIT
    table: str = "basic"
    """`basic`, `extended` or `none`."""
    fragments: int = 1
    undefined_lengths: bool = False
    """Of the per-frame functional groups, their items and what is in them."""
    step_um: float = 1.0
    heights_in_mm: bool = False
    left_out: tuple[int, ...] = ()
    """Frames, by number, that a sparse slide does not have."""
    shuffled: bool = False
    """Whether sparse frames stand in disorder."""
    series: int = 3
    container: str = "S-CANARY-1"
    frame_of_reference: str = "2.25.77"
    pyramid: str = ""
    flavour: str = "VOLUME"
    seed: int = 1

    @property
    def grid(self) -> tuple[int, int]:
        return -(-self.rows // self.tile[0]), -(-self.columns // self.tile[1])


@cache
def picture(scan: Scan, level: int = 0, plane: int = 0, path: int = 0) -> Image:
    """(rows, columns, 3) of one focal plane and optical path of a level."""
    rows, columns = size(scan, level)
    rng = np.random.default_rng((scan.seed, level, plane, path))
    y, x = np.mgrid[:rows, :columns]
    waves = [np.sin(x / a + y / b + c) for a, b, c in rng.uniform(3.0, 12.0, (3, 3))]
    made = 128 + 90 * np.stack(waves, axis=2) + rng.normal(0.0, 4.0, (rows, columns, 3))
    return np.clip(made, 0, 255).astype(np.uint8)


def size(scan: Scan, level: int) -> tuple[int, int]:
    return max(1, scan.rows >> level), max(1, scan.columns >> level)


def write(scan: Scan, folder: Path) -> list[Path]:
    """The files of a slide, finest level first, parts and planes in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, content in enumerate(files(scan)):
        path = folder / f"{scan.series}-{k:03d}.dcm"
        path.write_bytes(content)
        paths.append(path)
    return paths


def read(paths: Iterable[Path]) -> tuple[StoredInstance, ...]:
    return tuple(stored(path) for path in paths)


def slides_of(paths: Iterable[Path]) -> tuple[tuple[Slide, ...], tuple[Photograph, ...], list[str]]:
    """(slides, photographs, sentences of refusals) of some files."""
    from dicom_node.assemble.slides import read_slides

    slides, photographs, refusals = read_slides(read(paths))
    return slides, photographs, [refusal.why for refusal in refusals]


def slide_of(paths: Iterable[Path]) -> Slide:
    slides, _, refusals = slides_of(paths)
    assert ([], 1) == (refusals, len(slides))
    return slides[0]


# ---- files ----------------------------------------------------------------------------------------


def files(scan: Scan) -> list[bytes]:
    """The content of each file of a slide."""
    return [
        one
        for level in range(scan.levels)
        for planes in (
            [(k,) for k in range(scan.planes)] if scan.layout == "planes" else [range(scan.planes)]
        )
        for one in _instances(scan, level, tuple(planes))
    ]


def _instances(scan: Scan, level: int, planes: tuple[int, ...]) -> list[bytes]:
    rows, columns = size(scan, level)
    down, across = -(-rows // scan.tile[0]), -(-columns // scan.tile[1])
    places = list(product(range(len(scan.paths)), planes, range(down), range(across)))
    if scan.layout == "sparse":
        places = [place for k, place in enumerate(places) if k not in scan.left_out]
        if scan.shuffled:
            places = [places[k] for k in np.random.default_rng(scan.seed).permutation(len(places))]
    cuts = np.linspace(0, len(places), min(scan.parts, len(places)) + 1).astype(int).tolist()
    concatenation = str(generate_uid(entropy_srcs=[str((scan, level, planes))]))
    made = []
    for number, (begin, end) in enumerate(pairwise(cuts), start=1):
        ds = data_set(scan, level, planes, places[begin:end])
        if len(cuts) > 2:
            ds.ConcatenationUID, ds.InConcatenationNumber = concatenation, number
            ds.InConcatenationTotalNumber, ds.ConcatenationFrameOffsetNumber = len(cuts) - 1, begin
        ds.SOPInstanceUID = generate_uid(entropy_srcs=[str((scan, level, planes, number))])
        made.append(
            file_of(scan, ds, [_encoded(scan, _tile(scan, level, *place)) for place in places[begin:end]])
        )
    return made


def data_set(
    scan: Scan, level: int, planes: Sequence[int], places: Sequence[tuple[int, int, int, int]]
) -> Dataset:
    """The header of an instance with frames at `places`: path, plane, row and column of tiles."""
    rows, columns = size(scan, level)
    um = 0.25 * scan.rows / rows
    unit = 0.001 if scan.heights_in_mm else 1.0
    ds = Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY", scan.flavour, "RESAMPLED" if level else "NONE"]
    ds.SOPClassUID, ds.Modality, ds.PatientID = WHOLE_SLIDE, "SM", "CANARY-ID"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.5", f"2.25.5{scan.series}"
    ds.SeriesNumber, ds.InstanceNumber = scan.series, level + 1
    ds.FrameOfReferenceUID, ds.ContainerIdentifier = scan.frame_of_reference, scan.container
    if scan.pyramid:
        ds.PyramidUID = scan.pyramid
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, photometric(scan.syntax)
    ds.PlanarConfiguration, ds.PixelRepresentation = 0, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.Rows, ds.Columns, ds.NumberOfFrames = *scan.tile, len(places)
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = rows, columns
    ds.TotalPixelMatrixFocalPlanes = 1 if scan.layout == "planes" else len(planes)
    ds.NumberOfOpticalPaths = len(scan.paths)
    ds.OpticalPathSequence = [_item(OpticalPathIdentifier=path) for path in scan.paths]
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixOriginSequence = [
        _item(
            XOffsetInSlideCoordinateSystem=20.0,
            YOffsetInSlideCoordinateSystem=40.0,
            ZOffsetInSlideCoordinateSystem=unit * scan.step_um * planes[0],
        )
    ]
    measures = _item(PixelSpacing=[um / 1000, um / 1000], SliceThickness=0.001)
    if scan.planes > 1:
        measures.SpacingBetweenSlices = scan.step_um / 1000
    ds.SharedFunctionalGroupsSequence = [_item(PixelMeasuresSequence=[measures])]
    ds.DimensionOrganizationType = "TILED_SPARSE" if scan.layout == "sparse" else "TILED_FULL"
    if scan.layout == "sparse":
        ds.PerFrameFunctionalGroupsSequence = [_group(scan, unit, *place) for place in places]
        if scan.undefined_lengths:
            _undefine(ds["PerFrameFunctionalGroupsSequence"])
    return ds


def photometric(syntax: str) -> str:
    return {JPEG: "YBR_FULL_422", JPEG_2000: "YBR_RCT", HTJ2K: "YBR_RCT"}.get(syntax, "RGB")


def _group(scan: Scan, unit: float, path: int, plane: int, row: int, column: int) -> Dataset:
    place = _item(
        XOffsetInSlideCoordinateSystem=round(20.0 - 0.008 * row, 6),
        YOffsetInSlideCoordinateSystem=round(40.0 - 0.008 * column, 6),
        ZOffsetInSlideCoordinateSystem=unit * scan.step_um * plane,
        ColumnPositionInTotalImagePixelMatrix=column * scan.tile[1] + 1,
        RowPositionInTotalImagePixelMatrix=row * scan.tile[0] + 1,
    )
    group = _item(
        FrameContentSequence=[_item(DimensionIndexValues=[column + 1, row + 1, plane + 1])],
        PlanePositionSlideSequence=[place],
    )
    if len(scan.paths) > 1:
        group.OpticalPathIdentificationSequence = [_item(OpticalPathIdentifier=scan.paths[path])]
    return group


def _undefine(element: Any) -> None:  # Any: a sequence element
    element.is_undefined_length = True
    for item in element.value:
        item.is_undefined_length_sequence_item = True
        for inner in item:
            if inner.VR == "SQ":
                _undefine(inner)


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


# ---- frames ---------------------------------------------------------------------------------------


def _tile(scan: Scan, level: int, path: int, plane: int, row: int, column: int) -> Image:
    """One frame; what is beyond the edge is black, so that a reader that shows it is found out."""
    height, width = scan.tile
    cut = picture(scan, level, plane, path)[row * height :, column * width :][:height, :width]
    tile = np.zeros((height, width, 3), np.uint8)
    tile[: cut.shape[0], : cut.shape[1]] = cut
    return tile


def _encoded(scan: Scan, tile: Image) -> bytes:
    if scan.syntax == JPEG:
        return bytes(simplejpeg.encode_jpeg(tile, 90, colorspace="RGB", colorsubsampling="422"))
    if scan.syntax == JPEG_2000:
        return bytes(imagecodecs.jpeg2k_encode(tile, codecformat="j2k", reversible=True, mct=True))
    if scan.syntax == HTJ2K:
        return bytes(imagecodecs.htj2k_encode(tile))
    if scan.syntax == JPEG_LS:
        return bytes(imagecodecs.jpegls_encode(tile))
    if scan.syntax == JPEG_XL:
        return bytes(imagecodecs.jpegxl_encode(tile, lossless=True, usecontainer=False))
    if scan.syntax == RLE:
        return bytes(RLELosslessEncoder.encode(
            tile.tobytes(), rows=tile.shape[0], columns=tile.shape[1], samples_per_pixel=3, bits_allocated=8,
            bits_stored=8, photometric_interpretation="RGB", pixel_representation=0, planar_configuration=0,
            number_of_frames=1,
        ))  # fmt: skip
    return tile.tobytes()


def frame_of(scan: Scan) -> bytes:
    """The first frame as it is stored."""
    return _encoded(scan, _tile(scan, 0, 0, 0, 0, 0))


def file_of(scan: Scan, ds: Dataset, frames: Sequence[bytes]) -> bytes:
    """A PS3.10 file of a header and its frames."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(scan.syntax)
    ds.file_meta = meta
    if scan.syntax in (EXPLICIT, IMPLICIT, DEFLATED):
        ds.PixelData = b"".join(frames) + b"\0" * (sum(map(len, frames)) % 2)
        ds["PixelData"].VR = "OB" if scan.syntax != IMPLICIT else "OW"
    elif scan.table == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(
            list(frames)
        )
    else:
        ds.PixelData = encapsulate(list(frames), scan.fragments, has_bot=scan.table == "basic")
    if ds["PixelData"].VR != "OW":
        ds["PixelData"].VR = "OB"
    if scan.syntax not in (EXPLICIT, IMPLICIT, DEFLATED):
        ds["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def large_index(path: Path, frames: int, each: int, *, table: str, sparse: bool = False) -> Path:
    """A file of very many frames without pixels: holes where they would be, to measure indexes on.

    Per-frame groups, where `sparse`, are of undefined length.
    """
    side = int(np.ceil(np.sqrt(frames)))
    scan = Scan(rows=side * 256, columns=side * 256, tile=(256, 256), syntax=JPEG, container="LARGE")
    scan = replace(scan, layout="sparse" if sparse else "full", undefined_lengths=sparse)
    places = [(0, 0, 0, 0)] if sparse else []
    ds = data_set(scan, 0, (0,), places)
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[str((frames, each, table, sparse))])
    ds.NumberOfFrames = frames
    if sparse:
        del ds.PerFrameFunctionalGroupsSequence
    else:
        ds.TotalPixelMatrixRows = 256 * -(-frames // side)
    content = file_of(replace(scan, table="none"), ds, [b"\xff\xd8"])
    head = content[: content.rindex(b"\xe0\x7f\x10\x00")]
    with path.open("wb") as file:
        file.write(head)
        if sparse:
            file.write(_many_groups(frames, side))
        if table == "extended":
            offsets = (np.arange(frames, dtype="<u8") * (each + 8)).tobytes()
            lengths = np.full(frames, each, "<u8").tobytes()
            file.write(struct.pack("<HH2sHL", 0x7FE0, 1, b"OV", 0, len(offsets)) + offsets)
            file.write(struct.pack("<HH2sHL", 0x7FE0, 2, b"OV", 0, len(lengths)) + lengths)
        basic = (np.arange(frames, dtype="<u4") * (each + 8)).tobytes() if table == "basic" else b""
        file.write(struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, UNDEFINED))
        file.write(struct.pack("<HHL", 0xFFFE, 0xE000, len(basic)) + basic)
        item = struct.pack("<HHL", 0xFFFE, 0xE000, each)
        for _ in range(frames):
            file.write(item)
            file.seek(each, io.SEEK_CUR)
        file.write(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
    return path


def _many_groups(frames: int, side: int) -> bytes:
    """Per-Frame Functional Groups Sequence, everything of undefined length."""
    end, over = struct.pack("<HHL", 0xFFFE, 0xE00D, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)

    def short(group: int, element: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, element, vr, len(value)) + value

    def sequence(group: int, element: int) -> bytes:
        return struct.pack("<HH2sHL", group, element, b"SQ", 0, UNDEFINED) + item

    content, position = sequence(0x0020, 0x9111), sequence(0x0048, 0x021A)
    out = [struct.pack("<HH2sHL", 0x5200, 0x9230, b"SQ", 0, UNDEFINED)]
    for k in range(frames):
        row, column = divmod(k, side)
        x, y = f"{20 - row * 0.064:.6f}".encode(), f"{40 - column * 0.064:.6f}".encode()
        out += [
            item,
            content, short(0x0020, 0x9157, b"UL", struct.pack("<LL", column + 1, row + 1)), end, over,
            position,
            short(0x0040, 0x072A, b"DS", x + b" " * (len(x) % 2)),
            short(0x0040, 0x073A, b"DS", y + b" " * (len(y) % 2)),
            short(0x0040, 0x074A, b"DS", b"0 "),
            short(0x0048, 0x021E, b"SL", struct.pack("<l", column * 256 + 1)),
            short(0x0048, 0x021F, b"SL", struct.pack("<l", row * 256 + 1)),
            end, over, end,
        ]  # fmt: skip
    return b"".join([*out, over])
