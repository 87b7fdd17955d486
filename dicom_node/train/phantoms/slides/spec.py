"""How large a generated slide is, how deep, and in which of DICOM's layouts it is stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.errors import InvalidValue


class Kind(StrEnum):
    """What is on the glass."""

    CYTOLOGY = "cytology"
    SMEAR = "smear"


STAINS = {Kind.CYTOLOGY: "papanicolaou", Kind.SMEAR: "may-gruenwald-giemsa"}


class Layout(StrEnum):
    """Where the focal planes of a level are kept (PS3.3 C.8.12.4, C.7.6.17.3)."""

    FULL = "full"
    """One TILED_FULL instance, Total Pixel Matrix Focal Planes = planes."""
    INSTANCES = "instances"
    """One TILED_FULL instance for each plane."""
    SPARSE = "sparse"
    """One TILED_SPARSE instance: every frame says its place and height; tiles without cells are absent."""


class OffsetTable(StrEnum):
    """How a reader finds the frames of encapsulated pixel data (PS3.5 A.4)."""

    NONE = "none"
    BASIC = "basic"
    EXTENDED = "extended"


@dataclass(frozen=True, slots=True)
class SlideSpec:
    """A slide before it is rendered. The same values give the same bytes. Raises InvalidValue."""

    name: str
    width: int
    height: int
    """Pixels of the finest level."""
    um_per_px: float = 0.25
    tile: int = 256
    """Rows and columns of a frame."""
    levels: int = 3
    """Each has half the resolution of the one before."""
    planes: int = 1
    pitch_um: float = 1.0
    """Between focal planes."""
    layout: Layout = Layout.FULL
    concatenate: int = 1
    """Instances that the finest level is cut into (PS3.3 C.7.6.16.2.2.4)."""
    offset_table: OffsetTable = OffsetTable.BASIC
    quality: int = 85
    """Of the JPEG baseline frames, 4:2:2."""
    stain: str = "papanicolaou"
    seed: int = 0
    contents: str = ""
    """Digest of what lies on it, so that slides with other cells have other UIDs."""

    def __post_init__(self) -> None:
        wrong = {
            "width": self.width < 1, "height": self.height < 1,
            "um_per_px": not 0.01 <= self.um_per_px <= 100,
            "tile": not 32 <= self.tile <= 4096 or self.tile % 16,
            "levels": not 1 <= self.levels <= 16, "planes": not 1 <= self.planes <= 99,
            "pitch_um": not 0 < self.pitch_um <= 100, "concatenate": not 1 <= self.concatenate <= 999,
            "quality": not 1 <= self.quality <= 100,
        }  # fmt: skip
        for field, bad in wrong.items():
            if bad:
                raise InvalidValue(f"a slide cannot have {field} = {getattr(self, field)}")

    def size(self, level: int) -> tuple[int, int]:
        """(rows, columns) of the total pixel matrix of a level."""
        step = 1 << level
        return -(-self.height // step), -(-self.width // step)

    def grid(self, level: int) -> tuple[int, int]:
        """(rows, columns) of tiles."""
        rows, columns = self.size(level)
        return -(-rows // self.tile), -(-columns // self.tile)

    def heights_um(self) -> tuple[float, ...]:
        """Height of each focal plane over the middle of the stack, ascending."""
        middle = (self.planes - 1) / 2
        return tuple((plane - middle) * self.pitch_um for plane in range(self.planes))

    def spacing_mm(self, level: int) -> float:
        return self.um_per_px * (1 << level) / 1000
