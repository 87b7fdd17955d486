"""What a compressed frame says of itself before it is decoded: its size, and its colours where it is a JPEG.

Decoders take memory for the size that is written in the stream, so it is read and compared first.
"""

from __future__ import annotations

from dataclasses import dataclass

_SOI, _SOS, _EOI = 0xD8, 0xDA, 0xD9
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""SOF markers of JPEG (ITU-T T.81 B.1.1.3) and JPEG-LS."""
_LONGEST_HEADER = 1 << 16
_MOST_COMPONENTS = 4
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""APP14 with transform 0: the components are R, G and B."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """The header of a JPEG or JPEG-LS stream."""

    rows: int
    columns: int
    precision: int
    components: tuple[int, ...]
    """Their identifiers."""
    subsampled: bool
    jfif: bool
    adobe_transform: int | None


def read_jpeg(stream: bytes) -> Jpeg | None:
    """None where it is no JPEG stream, or its frame header does not come soon."""
    if stream[:2] != b"\xff\xd8":
        return None
    at, jfif, transform, end = 2, False, None, min(len(stream) - 4, _LONGEST_HEADER)
    while at < end:
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (_SOI, _SOS, _EOI):
            return None
        length = stream[at + 2] << 8 | stream[at + 3]
        body = stream[at + 4 : at + 2 + length]
        if marker in _FRAME_HEADERS:
            return _frame_header(body, jfif, transform)
        if marker == 0xE0 and body.startswith(b"JFIF"):
            jfif = True
        if marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        at += 2 + length
    return None


def _frame_header(body: bytes, jfif: bool, transform: int | None) -> Jpeg | None:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        return None
    parts = [body[6 + 3 * k : 9 + 3 * k] for k in range(body[5])]
    return Jpeg(
        rows=body[1] << 8 | body[2],
        columns=body[3] << 8 | body[4],
        precision=body[0],
        components=tuple(part[0] for part in parts),
        subsampled=len({part[1] for part in parts}) > 1,
        jfif=jfif,
        adobe_transform=transform,
    )


def is_rgb(jpeg: Jpeg, photometric: str) -> bool:
    """Whether a stream of three components holds R, G and B and not Y, Cb and Cr.

    The stream's own word comes first (APP14, JFIF, letters as component identifiers, subsampling),
    the attribute Photometric Interpretation where it has none.
    """
    if jpeg.adobe_transform is not None and not jpeg.jfif:
        return jpeg.adobe_transform == 0
    if jpeg.components in ((82, 71, 66), (114, 103, 98)):
        return not jpeg.jfif
    return photometric == "RGB" and not jpeg.jfif and not jpeg.subsampled


def has_end(stream: bytes) -> bool:
    """Whether a JPEG or JPEG-LS stream ends as it should, before padding; decoders may search long for it."""
    return stream[-64:].rstrip(b"\0").endswith(b"\xff\xd9")


def as_libjpeg_reads_rgb(stream: bytes) -> bytes:
    """A stream of R, G and B marked as such; without a mark libjpeg takes it for Y, Cb and Cr."""
    return stream[:2] + _ADOBE_RGB + stream[2:]


def size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS, JPEG 2000 or JPEG XL stream; None where it is none of them."""
    if stream[:2] == b"\xff\xd8":
        jpeg = read_jpeg(stream)
        return (jpeg.rows, jpeg.columns) if jpeg and len(jpeg.components) <= _MOST_COMPONENTS else None
    if stream[:2] == b"\xff\x0a":
        return _jpeg_xl(stream[2:])
    if stream[:4] == b"\0\0\0\x0c":  # boxes, JP2 or JPEG XL
        return _boxed(stream)
    return _jpeg_2000(stream)


def _boxed(stream: bytes) -> tuple[int, int] | None:
    head = stream[:_LONGEST_HEADER]
    if stream[4:8] == b"JXL ":
        at = head.find(b"\xff\x0a", head.find(b"jxlc") if b"jxlc" in head else head.find(b"jxlp"))
        return _jpeg_xl(stream[at + 2 :]) if at >= 0 else None
    at = head.find(b"\xff\x4f\xff\x51")
    return _jpeg_2000(stream[at:]) if at >= 0 else None


def _jpeg_2000(stream: bytes) -> tuple[int, int] | None:
    """SIZ comes first, ITU-T T.800 A.5.1."""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 42:
        return None
    if not 0 < int.from_bytes(stream[40:42], "big") <= _MOST_COMPONENTS:
        return None
    right, bottom, left, top = (int.from_bytes(stream[8 + 4 * k : 12 + 4 * k], "big") for k in range(4))
    return bottom - top, right - left


_RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jpeg_xl(stream: bytes) -> tuple[int, int] | None:
    """SizeHeader, ISO/IEC 18181-1 D.2."""
    if len(stream) < 12:
        return None
    bits, at = int.from_bytes(stream[:12], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        value = bits >> at & ((1 << count) - 1)
        at += count
        return value

    def side(small: int) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    rows = side(small)
    across, by = _RATIOS[take(3)]
    return rows, rows * across // by if across else side(small)
