"""All a pipeline author needs. See docs/writing-a-pipeline.md.

Importing this is cheap; `Bundle` loads torch when it is constructed.
"""

from dicom_node.domain.codebook import code
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import (
    Algorithm,
    Certainty,
    Findings,
    HeatMap,
    NotPerformed,
    OperatingPoint,
    Region,
    Score,
    SequenceScore,
    SliceScore,
    Verdict,
)
from dicom_node.domain.job import Level
from dicom_node.domain.pipeline import Case, IntendedUse, Need, PhotographNeed, Pipeline, SlideNeed
from dicom_node.domain.series import Contrast, FrameRef, Patient, Plane, Stack, Study, Volume
from dicom_node.domain.slide import (
    Adequacy,
    CellClass,
    Cells,
    GalleryCell,
    OpenSlide,
    Photograph,
    Reading,
    Share,
    Slide,
    SlideLevel,
    TileMap,
)
from dicom_node.errors import ModelError, PipelineError
from dicom_node.infer.bundle import Bundle

__all__ = [
    "Adequacy", "Algorithm", "Bundle", "Case", "CellClass", "Cells", "Certainty", "Code", "Contrast",
    "Findings", "FrameRef", "GalleryCell", "HeatMap", "IntendedUse", "Level", "ModelError", "Need",
    "NotPerformed", "OpenSlide", "OperatingPoint", "Patient", "Photograph", "PhotographNeed", "Pipeline",
    "PipelineError", "Plane", "Reading", "Region", "Score", "SequenceScore", "Share", "SliceScore", "Slide",
    "SlideLevel", "SlideNeed", "Stack", "Study", "TileMap", "Verdict", "Volume", "code",
]  # fmt: skip
