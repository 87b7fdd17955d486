"""The page as Secondary Capture: the one form that every viewer shows. PS3.3 A.8.1, C.8.6.1, C.8.6.2."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_node.dicom.provenance import MANUFACTURER
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.encode.document import SERIES_NUMBERS, Run, finish
from dicom_node.encode.images import references
from dicom_node.encode.page import draw
from dicom_node.encode.slide.ground import specimen
from dicom_node.encode.slide.page import draw as draw_slides
from dicom_node.encode.source import picture_key
from dicom_node.encode.words import CAUTION


def secondary_capture(run: Run) -> ResultObject:
    """One RGB page. It bears words about the image but no identity, so it may leave with the pixels."""
    if run.findings.readings:
        pixels = draw_slides(run.findings, title=run.title)
    else:
        pixels = draw(run.findings, run.study, title=run.title)
    data_set = capture_of(pixels, run.source.study_uid)
    data_set.PatientOrientation = None
    data_set.ConversionType = "WSD"
    data_set.BurnedInAnnotation = "YES"
    data_set.RecognizableVisualFeatures = "NO"
    data_set.LossyImageCompression = "00"
    data_set.DateOfSecondaryCapture, data_set.TimeOfSecondaryCapture = run.source.date, run.source.time
    data_set.DerivationDescription = f"Summary page drawn by software. {CAUTION}."
    _refer(data_set, run)
    pictures = {picture_key(reading.picture): reading.picture for reading in run.findings.readings}
    if len(pictures) == 1:
        data_set.update(specimen(run, *pictures.values()))
    what = "not performed" if run.findings.verdict is None else f"summary {run.title}"
    return finish(data_set, run, ResultKind.SC, (), series_number=SERIES_NUMBERS[ResultKind.SC], what=what)


def capture_of(pixels: npt.NDArray[np.uint8], study_uid: str) -> Dataset:
    """The pixels as highdicom's Secondary Capture, without identity."""
    captured: Dataset = hd.sc.SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # highdicom wants one; the page lies in no plane of the patient, so it is emptied (PS3.3 C.7.6.1).
        patient_orientation=("L", "P"),
        study_instance_uid=study_uid,
        series_instance_uid="2.25.1",
        series_number=1,
        sop_instance_uid="2.25.1",
        instance_number=1,
        manufacturer=MANUFACTURER,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
    )
    return captured


def _refer(data_set: Dataset, run: Run) -> None:
    """To the kept slices, or to all sources where none was kept."""
    frames = [score.frame for part in run.findings.sequences for score in part.slices if score.kept]
    items = references(frames)
    if not items:
        for _, sop_class, sop_instance in run.source.instances:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
            items.append(item)
    data_set.SourceImageSequence = items
