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
from dicom_node.domain.pipeline import (
    AnyNeed,
    Case,
    IntendedUse,
    Need,
    PhotographNeed,
    Pipeline,
    Progress,
    SlideNeed,
)
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
from dicom_node.infer.cells import (
    CERVICAL,
    WHITE_CELLS,
    Finder,
    Nuclei,
    attention_in_cell,
    cell_mask,
    cut,
    find_nuclei,
    fitted,
    red_cell_scale,
    sharpness,
    shrunk,
    spread,
    white_of,
)
from dicom_node.infer.engine import Engine
from dicom_node.infer.looking import (
    CROPS_AT_A_TIME,
    SHARPEST,
    exact_interval,
    find_on_slide,
    slide_crops,
    softmax,
)
from dicom_node.infer.resume import Resume, sweep

__all__ = [
    "CERVICAL", "CROPS_AT_A_TIME", "SHARPEST", "WHITE_CELLS", "Adequacy", "Algorithm", "AnyNeed",
    "Bundle", "Case", "CellClass", "Cells", "Certainty", "Code", "Contrast", "Engine", "Finder",
    "Findings", "FrameRef", "GalleryCell", "HeatMap", "IntendedUse", "Level", "ModelError", "Need",
    "NotPerformed", "Nuclei", "OpenSlide", "OperatingPoint", "Patient", "Photograph", "PhotographNeed",
    "Pipeline", "PipelineError", "Plane", "Progress", "Reading", "Region", "Resume", "Score",
    "SequenceScore", "Share", "SliceScore", "Slide", "SlideLevel", "SlideNeed", "Stack", "Study",
    "TileMap", "Verdict", "Volume", "attention_in_cell", "cell_mask", "code", "cut", "exact_interval",
    "find_nuclei", "find_on_slide", "fitted", "red_cell_scale", "sharpness", "shrunk", "slide_crops",
    "softmax", "spread", "sweep", "white_of",
]  # fmt: skip
