"""The most suspicious cells as regions in Comprehensive 3D SR, which viewers of slides draw and list.

Titled (126000, DCM, "Imaging Measurement Report"), planar regions only (TID 1410), the specimen as
its subject: closed polygons in millimetres of the slide coordinate system (SCOORD3D), and on a
photograph, which has none, polylines in its pixels (SCOORD). PS3.16 TID 1410; PS3.3 C.18.9.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
import numpy.typing as npt

from dicom_node.domain.codebook import code
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.slide import GalleryCell, Photograph, Reading
from dicom_node.encode.document import SERIES_NUMBERS, Run, clipped, finish, plain
from dicom_node.encode.images import concept
from dicom_node.encode.slide import ground
from dicom_node.encode.slide import words as said
from dicom_node.encode.slide.report import frames_of, subject
from dicom_node.encode.source import picture_key
from dicom_node.encode.structure import PERCENT, PROBABILITY, algorithm, document, meant, rounded, separate

MOST = 200
"""Regions in one report: viewers list every one of them."""
_TITLE = code("imaging-measurement-report")
_RING = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])


def region_reports(run: Run) -> tuple[ResultObject, ...]:
    """One report for each slide, and one for all photographs; none where nothing is shown."""
    slides = [[reading] for reading in run.findings.readings if not isinstance(reading.picture, Photograph)]
    fields = [reading for reading in run.findings.readings if isinstance(reading.picture, Photograph)]
    groups = [some for some in [*slides, fields] if any(reading.gallery for reading in some)]
    return tuple(_report(run, some, place) for place, some in enumerate(groups))


def _report(run: Run, readings: Sequence[Reading], place: int) -> ResultObject:
    groups = [_group(run, reading, shown) for reading, shown in said.gallery(readings)[:MOST]]
    data_set = document(run, ResultKind.ROI, _TITLE, groups, subject=subject(run, readings))
    separate(data_set)
    return finish(
        data_set, run, ResultKind.ROI, (picture_key(readings[0].picture),),
        series_number=SERIES_NUMBERS[ResultKind.ROI] + place, what="most suspicious cells",
    )  # fmt: skip


def _group(
    run: Run, reading: Reading, shown: GalleryCell
) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:  # fmt: skip
    cells, models, verdict = reading.cells, run.findings.algorithms, run.findings.verdict
    name, place = f"cell {shown.cell}", said.place(reading, shown)
    kind = cells.classes[int(cells.label[shown.cell])]
    value = rounded(100.0 * said.probability(reading, shown))
    measurement = hd.sr.Measurement(name=PROBABILITY, value=value, unit=PERCENT)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=run.uid("cell", *key(reading), shown.cell), identifier=clipped(f"{kind.label}, {name}")
        ),
        referenced_region=_region(reading, shown),
        finding_type=concept(kind.code),
        finding_sites=[hd.sr.FindingSite(anatomic_location=concept(verdict.site))] if verdict else None,
        algorithm_id=algorithm(models[-1]) if models else None,
        measurements=[meant(measurement, f"Probability of {plain(kind.label)}, {place}")],
    )


def key(reading: Reading) -> tuple[object, ...]:
    frame = reading.picture.frame if isinstance(reading.picture, Photograph) else 1
    return picture_key(reading.picture), frame


def _region(reading: Reading, shown: GalleryCell) -> hd.sr.ImageRegion | hd.sr.ImageRegion3D:
    picture, cells = reading.picture, reading.cells
    ring: npt.NDArray[np.float64] = cells.centre_px[shown.cell] + _RING * cells.size_px[shown.cell]
    if not isinstance(picture, Photograph):
        planes = np.full(len(ring), int(cells.plane[shown.cell]))
        places = ground.places_mm(picture, ring, planes)
        glass = ground.frame_of_reference(picture)
        return hd.sr.ImageRegion3D(graphic_type="POLYGON", graphic_data=places, frame_of_reference_uid=glass)
    return hd.sr.ImageRegion(
        graphic_type="POLYLINE",
        graphic_data=np.clip(ring, 0.0, (picture.columns, picture.rows)),
        source_image=hd.sr.SourceImageForRegion(
            referenced_sop_class_uid=picture.sop_class_uid,
            referenced_sop_instance_uid=picture.sop_instance_uid,
            referenced_frame_numbers=frames_of(picture),
        ),
    )
