"""Small result files for delivery tests: file bytes as encoded results are, without their content."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, derived_uid
from support.scripted_scp import RESULT_CLASSES

MODALITY = {"sr": "SR", "seg": "SEG", "pm": "OT", "sc": "OT"}


def result_file(kind: str, number: int = 0, *, padding_bytes: int = 64, study: str = "study") -> bytes:
    """A PS3.10 file of the SOP class of `kind`; the same arguments give the same bytes."""
    ds = Dataset()
    ds.SOPClassUID = RESULT_CLASSES[kind]
    ds.SOPInstanceUID = derived_uid("test result", study, kind, number)
    ds.StudyInstanceUID = derived_uid("test study", study)
    ds.SeriesInstanceUID = derived_uid("test series", study, kind)
    ds.Modality = MODALITY[kind]
    ds.PatientName = "CANARY^DELIVERY"
    ds.PatientID = "CANARY-ID"
    ds.StudyDate = "20260101"
    ds.InstanceNumber = str(number + 1)
    ds.EncapsulatedDocument = bytes(index % 251 for index in range(padding_bytes + padding_bytes % 2))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def written(folder: Path, *contents: bytes) -> list[Path]:
    """The files under the sha256 of their bytes, as in the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / hashlib.sha256(content).hexdigest() for content in contents]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def data_set_bytes(content: bytes) -> bytes:
    """What of a PS3.10 file goes over the wire: everything after the file meta information."""
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]
