"""Decodes one frame of a slide to sRGB as stored, at full size or reduced by 2, 4 or 8.

JPEG goes through libjpeg-turbo straight into the caller's memory, reduced in the cosine domain;
the other codecs are decoded whole and averaged. Decoders run without the interpreter's lock. No
memory is taken for a frame that is of another size than its header said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.errors import UnreadableObject
from dicom_node.slide import codestream
from dicom_node.slide.file import NATIVE

Image = npt.NDArray[np.uint8]

SCALES = (1, 2, 4, 8)

JPEG = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
JPEG_LOSSLESS = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
HTJ2K = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
"""High-Throughput JPEG 2000."""
JPEG_XL = frozenset({"1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"})
RLE = frozenset({"1.2.840.10008.1.2.5"})
READ = NATIVE | JPEG | JPEG_LOSSLESS | JPEG_LS | JPEG_2000 | HTJ2K | JPEG_XL | RLE
"""Transfer syntaxes of slides that are read."""

GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "XYB"})


@dataclass(frozen=True, slots=True)
class Coding:
    """How the frames of one instance are stored; 8 bits per sample."""

    syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int

    @property
    def native_bytes(self) -> int:
        """Of a frame that is not compressed."""
        subsampled = self.photometric == "YBR_FULL_422"
        return self.rows * self.columns * (2 if subsampled else self.samples)


def reduced(side: int, scale: int) -> int:
    """Pixels left of `side`; an incomplete last one counts."""
    return -(-side // scale)


def decode(frame: bytes, coding: Coding, scale: int, out: Image) -> None:
    """Fills `out`, (rows / scale, columns / scale, 3) and contiguous.

    Raises UnreadableObject where the frame cannot be decoded or has another size.
    """
    try:
        if coding.syntax in JPEG:
            _jpeg(frame, coding, out)
        else:
            out[:] = averaged(_whole(frame, coding), scale)
        if coding.photometric == "MONOCHROME1":
            np.subtract(255, out, out=out)
    except (UnreadableObject, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the edge to decoders on hostile bytes; those in Rust panic
        raise UnreadableObject(f"it cannot be decoded ({type(error).__name__})") from error


def _jpeg(frame: bytes, coding: Coding, out: Image) -> None:
    import simplejpeg  # here and below: decoders are loaded only where pixels are read

    if coding.photometric == "RGB":
        jpeg = codestream.read_jpeg(frame)
        if jpeg and jpeg.adobe_transform is None and codestream.is_rgb(jpeg, "RGB"):
            frame = codestream.as_libjpeg_reads_rgb(frame)
    rows, columns = out.shape[:2]
    found = simplejpeg.decode_jpeg(frame, min_height=rows, min_width=columns, min_factor=1, buffer=out)
    if found.shape != out.shape:
        raise UnreadableObject(f"it decodes to {found.shape[0]} x {found.shape[1]} pixels")


def _whole(frame: bytes, coding: Coding) -> Image:
    """(rows, columns, 3)."""
    if coding.syntax in NATIVE:
        return _coloured(_native(frame, coding), coding)
    if coding.syntax not in RLE:
        stated = codestream.size(frame)
        if stated != (coding.rows, coding.columns):
            size = f"{stated[0]} x {stated[1]} pixels" if stated else "no image"
            raise UnreadableObject(f"it decodes to {size}")
    if coding.syntax in JPEG_LS and not codestream.has_end(frame):
        raise UnreadableObject("its stream has no end")
    image = np.asarray(_decoder(coding.syntax)(frame, coding))
    if image.dtype != np.uint8 or image.shape[:2] != (coding.rows, coding.columns):
        raise UnreadableObject(f"it decodes to {image.dtype} {image.shape}")
    return _coloured(image, coding)


def _native(frame: bytes, coding: Coding) -> Image:
    if coding.photometric == "YBR_FULL_422":
        return _by_pydicom(frame, coding)
    pixels = np.frombuffer(frame, np.uint8)
    if coding.planar == 1 and coding.samples == 3:
        return np.moveaxis(pixels.reshape(3, coding.rows, coding.columns), 0, 2)
    return pixels.reshape(coding.rows, coding.columns, coding.samples)


def _coloured(image: Image, coding: Coding) -> Image:
    """As sRGB; what decoders leave in YCbCr is converted (PS3.3 C.7.6.3.1.2)."""
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if coding.photometric != "YBR_FULL" or coding.syntax in JPEG_XL:
        return image[..., :3]
    from pydicom.pixels.processing import convert_color_space

    return np.asarray(convert_color_space(image, "YBR_FULL", "RGB"), np.uint8)


def _imagecodecs(name: str) -> Callable[[bytes, Coding], Any]:  # Any: what the codec gives
    def decoded(frame: bytes, coding: Coding) -> Any:  # Any: as above
        import imagecodecs

        return getattr(imagecodecs, name)(frame)

    return decoded


def _lossless_jpeg(frame: bytes, coding: Coding) -> Any:  # Any: what the codec gives
    import imagecodecs

    return imagecodecs.ljpeg_decode(frame) if coding.samples == 1 else _by_pydicom(frame, coding)


def _by_pydicom(frame: bytes, coding: Coding) -> Image:
    """By whichever decoder is installed, as (rows, columns, samples); colours as stored, but not halved."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    native = coding.syntax in NATIVE
    options: dict[str, Any] = {  # Any: int or str, by name
        "rows": coding.rows, "columns": coding.columns, "number_of_frames": 1,
        "samples_per_pixel": coding.samples, "bits_allocated": 8, "bits_stored": 8,
        "pixel_representation": 0, "photometric_interpretation": coding.photometric,
        "planar_configuration": coding.planar, "pixel_keyword": "PixelData",
    }  # fmt: skip
    source = frame if native else encapsulate([frame])
    image, _ = get_decoder(UID(coding.syntax)).as_array(source, raw=not native, **options)
    return np.asarray(image, np.uint8)


_DECODERS: Mapping[frozenset[str], Callable[[bytes, Coding], Any]] = {  # Any: what the codec gives
    JPEG_2000 | HTJ2K: _imagecodecs("jpeg2k_decode"),  # htj2k_decode is twice as fast but hides errors
    JPEG_LS: _imagecodecs("jpegls_decode"),
    JPEG_XL: _imagecodecs("jpegxl_decode"),
    JPEG_LOSSLESS: _lossless_jpeg,
    RLE: _by_pydicom,
}


def _decoder(syntax: str) -> Callable[[bytes, Coding], Any]:  # Any: what the codec gives
    for syntaxes, decoder in _DECODERS.items():
        if syntax in syntaxes:
            return decoder
    raise UnreadableObject(f"transfer syntax {syntax} is not read")


def averaged(image: Image, scale: int) -> Image:
    """Each `scale` x `scale` square as its mean; incomplete ones at the edges of what is there."""
    if scale == 1:
        return image
    rows, columns = image.shape[:2]
    if rows % scale or columns % scale:
        image = np.pad(image, ((0, -rows % scale), (0, -columns % scale), (0, 0)), mode="edge")
    blocks = image.reshape(reduced(rows, scale), scale, reduced(columns, scale), scale, 3)
    sums = blocks.sum(axis=(1, 3), dtype=np.uint32)
    return np.asarray((sums + scale * scale // 2) // (scale * scale), np.uint8)
