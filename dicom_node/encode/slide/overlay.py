"""A small slide with heatmap and marks drawn in: for viewers of slides that lay nothing over a slide.

On the same frame of reference, in a series of its own and under an optical path of its own, so that
no viewer takes it for a level of the slide it was made of. PS3.3 A.32.8, C.8.12.4, C.8.12.5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from dicom_node.dicom import elements
from dicom_node.dicom.provenance import code_item
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.codebook import code
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.slide import Reading, Slide
from dicom_node.encode import canvas
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish
from dicom_node.encode.slide import ground
from dicom_node.encode.source import copied, picture_key
from dicom_node.encode.words import CAUTION

_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
_PATH = "AI"
"""Optical Path Identifier: scanners count theirs."""
_TILE = 256
_HEAT = ((255, 240, 0), (255, 190, 0), (255, 110, 0), (255, 0, 0))
"""From weak to strong: more saturated than any stain, and seen on the white ground of a slide."""
_BRIGHTFIELD = code("brightfield")
_FULL_SPECTRUM = code("full-spectrum")
Pixels = npt.NDArray[np.uint8]


def overlay(run: Run, reading: Reading, place: int) -> tuple[ResultObject, ...]:
    """The slide's thumbnail with what was found; nothing where the reading brought none."""
    slide, picture = reading.picture, reading.thumbnail
    if not isinstance(slide, Slide) or picture is None:
        return ()
    data_set = _slide(run, slide, drawn(reading, slide, picture))
    return (
        finish(
            data_set, run, ResultKind.WSI, (picture_key(slide),),
            series_number=SERIES_NUMBERS[ResultKind.WSI] + place,
            what=f"overlay, series {slide.series_number}",
        ),
    )  # fmt: skip


def drawn(reading: Reading, slide: Slide, picture: Pixels) -> Pixels:
    """The worst map over the picture, a ring around each cell of the gallery, and what it is not for."""
    heat = _heat(reading, slide, picture.shape[:2])
    cover = (heat**0.8 * 0.65)[..., None]
    ramp = np.linspace(0.0, 1.0, len(_HEAT))
    colours = np.stack([np.interp(heat, ramp, channel) for channel in zip(*_HEAT, strict=True)], axis=-1)
    mixed = np.round(picture * (1 - cover) + colours * cover).astype(np.uint8)
    image = Image.fromarray(mixed)
    pen = ImageDraw.Draw(image)
    rows, columns = picture.shape[:2]
    scale = np.array([columns / slide.base.columns, rows / slide.base.rows])
    thick = max(1, max(rows, columns) // 500)
    for shown in reversed(reading.gallery):
        x, y = (reading.cells.centre_px[shown.cell] * scale).tolist()
        radius = max(5.0 * thick, float((reading.cells.size_px[shown.cell] * scale).max()))
        colour = reading.cells.classes[int(reading.cells.label[shown.cell])].colour
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=thick)
    size = min(max(12, columns // 60), 24)
    if canvas.width(CAUTION, size) + 16 < columns:
        pen.rectangle((0, 0, canvas.width(CAUTION, size) + 16, size + 12), fill=canvas.CAUTION)
        pen.text((8, 4), CAUTION, font=canvas.font(size), fill=canvas.BACKGROUND)
    return np.asarray(image, dtype=np.uint8)


def _heat(reading: Reading, slide: Slide, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """(rows, columns) of the picture: the last, worst channel of the first map, each pixel as its square."""
    heat = np.zeros(shape, np.float32)
    if not reading.maps:
        return heat
    one = reading.maps[0]
    rows = (np.arange(shape[0]) + 0.5) * slide.base.rows / shape[0] - one.origin_px[1]
    columns = (np.arange(shape[1]) + 0.5) * slide.base.columns / shape[1] - one.origin_px[0]
    down, across = (np.floor(of / one.step_px).astype(np.intp) for of in (rows, columns))
    values = np.clip(one.values[-1], 0.0, 1.0)
    inside = [(of >= 0) & (of < size) for of, size in zip((down, across), values.shape, strict=True)]
    heat[np.ix_(*inside)] = values[np.ix_(down[inside[0]], across[inside[1]])]
    return heat


def _slide(run: Run, slide: Slide, pixels: Pixels) -> Dataset:
    rows, columns = pixels.shape[:2]
    step = slide.base.rows / rows, slide.base.columns / columns
    grid = ground.grid_of(slide, (rows, columns), step)
    made = ground.stand_in(run, slide, grid, _TILE)
    header = ground.header_of(run, slide)
    made.PositionReferenceIndicator = "SLIDE_CORNER"
    made.VolumetricProperties = "VOLUME"
    made.FocusMethod = elements.text(header, 0x00480011) or "AUTO"
    made.ExtendedDepthOfField, made.SpecimenLabelInImage, made.BurnedInAnnotation = "NO", "NO", "YES"
    made.AcquisitionDateTime = elements.text(header, 0x0008002A) or run.source.date + run.source.time
    made.AcquisitionContextSequence = []
    made.RecognizableVisualFeatures = "NO"
    made.DerivationDescription = f"Heatmap and cells drawn into the slide by software. {CAUTION}."
    made.SourceImageSequence = ground.references(slide)
    made.ReferencedSeriesSequence = ground.referenced_series(slide)
    ground.lossy(run, slide, made)
    made.update(_specimen(run, slide))
    organization = Dataset()
    organization.DimensionOrganizationUID = "2.25.1"
    made.DimensionOrganizationSequence = [organization]
    made.OpticalPathSequence = [_optical_path(header)]
    groups = made.SharedFunctionalGroupsSequence[0]
    kind, path = Dataset(), Dataset()
    kind.FrameType, path.OpticalPathIdentifier = made.ImageType, _PATH
    groups.WholeSlideMicroscopyImageFrameTypeSequence = [kind]
    groups.OpticalPathIdentificationSequence = [path]
    _set_pixels(made, pixels)
    return made


def _specimen(run: Run, slide: Slide) -> Dataset:
    """The slide's own; here it must be there (PS3.3 A.32.8.3), so an unnamed one where the slide has none."""
    module = ground.specimen(run, slide)
    if "ContainerIdentifier" not in module:
        item = Dataset()
        item.SpecimenIdentifier, item.SpecimenUID = "UNKNOWN", derived_uid("specimen", slide.series_uid)
        item.IssuerOfTheSpecimenIdentifierSequence, item.SpecimenPreparationSequence = [], []
        module.ContainerIdentifier = "UNKNOWN"
        module.IssuerOfTheContainerIdentifierSequence = []
        module.ContainerTypeCodeSequence = []
        module.SpecimenDescriptionSequence = [item]
    return module


def _optical_path(header: Dataset) -> Dataset:
    """The slide's own light and colours, under another identifier."""
    item = copied(header.OpticalPathSequence[0]) if header.get("OpticalPathSequence") else Dataset()
    item.OpticalPathIdentifier = _PATH
    item.OpticalPathDescription = "AI overlay, not for diagnostic use"
    if "IlluminationTypeCodeSequence" not in item:
        item.IlluminationTypeCodeSequence = [code_item(_BRIGHTFIELD)]
    if "IlluminationColorCodeSequence" not in item and "IlluminationWaveLength" not in item:
        item.IlluminationColorCodeSequence = [code_item(_FULL_SPECTRUM)]
    if "ICCProfile" not in item:
        item.ICCProfile, item.ColorSpace = _srgb(), "SRGB"
    return item


def _srgb() -> bytes:
    """Colour pixels need a profile (PS3.3 C.8.12.5); made by code, with no date of its making in it."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes((7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))
    profile[84:100] = bytes(16)
    return bytes(profile)


def _set_pixels(made: Dataset, pixels: Pixels) -> None:
    """Tiles in the order of TILED_FULL; beyond the edge they are white."""
    rows, columns = pixels.shape[:2]
    down, across = -(-rows // _TILE), -(-columns // _TILE)
    whole = np.full((down * _TILE, across * _TILE, 3), 255, np.uint8)
    whole[:rows, :columns] = pixels
    tiles = whole.reshape(down, _TILE, across, _TILE, 3).swapaxes(1, 2)
    made.SamplesPerPixel, made.PlanarConfiguration = 3, 0
    made.PhotometricInterpretation, made.PixelRepresentation = "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.NumberOfFrames = down * across
    made.PixelData = tiles.tobytes()
