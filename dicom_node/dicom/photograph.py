"""Decodes a photograph: one frame of a colour or grey image, as sRGB.

Promises (rows, columns, 3) uint8. Refuses, rather than guesses, what is no 8-bit image, what has
another size than its header said, and what would not fit in memory, before memory is taken.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from dicom_node.digest import is_digest_of
from dicom_node.domain.slide import Photograph
from dicom_node.errors import DicomNodeError, IntegrityError, UnreadableObject

MOST_PIXELS = 1 << 28
"""Of one photograph: 16,384 x 16,384."""
_KINDS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "MONOCHROME2", "PALETTE COLOR"}


def read_photograph(photograph: Photograph) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3) uint8.

    Raises UnreadableObject where it cannot be decoded, IntegrityError where the file is not what
    was received.
    """
    if not 0 < photograph.rows * photograph.columns <= MOST_PIXELS:
        raise UnreadableObject(f"{photograph.label} is larger than this node reads")
    try:
        if not is_digest_of(photograph.digest, photograph.path):
            raise IntegrityError
        return _decoded(photograph)
    except (DicomNodeError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the edge to decoders on hostile bytes; those in Rust panic
        raise UnreadableObject(f"{photograph.label} cannot be decoded ({type(error).__name__})") from error


def _decoded(photograph: Photograph) -> npt.NDArray[np.uint8]:
    data_set = dcmread(photograph.path)
    kind, bits = str(data_set.get("PhotometricInterpretation", "")), data_set.get("BitsAllocated")
    if kind not in _KINDS or bits != 8:
        raise UnreadableObject(f"{photograph.label}: {bits}-bit {kind or 'unstated'} pixels are not read")
    pixels = pixel_array(data_set, index=photograph.frame - 1)
    if kind == "PALETTE COLOR":
        pixels = np.right_shift(apply_color_lut(pixels, data_set), 8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.shape != (photograph.rows, photograph.columns, 3):
        raise UnreadableObject(f"{photograph.label} decodes to {pixels.shape}")
    return np.ascontiguousarray(pixels, dtype=np.uint8)
