"""What every result object has in common: identity, dates, equipment, and its bytes.

highdicom builds an object around sources that name no patient (`images.py`); here it gets
the patient, the study and everything that must be the same whenever it is made again: no
clock, no random UID. PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1; PS3.10 7.1.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import charset, dcmwrite, uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag

from dicom_node.dicom import provenance
from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, derived_uid
from dicom_node.domain.codebook import Swaps
from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Findings
from dicom_node.domain.identity import UID
from dicom_node.domain.job import Predecessor, ResultKind, ResultObject
from dicom_node.domain.series import Study
from dicom_node.domain.slide import Reading
from dicom_node.encode.source import Source

SERIES_NUMBERS = {
    ResultKind.SR: 9000, ResultKind.SC: 9010, ResultKind.ROI: 9020, ResultKind.GSPS: 9030,
    ResultKind.KOS: 9080, ResultKind.REJECT: 9090, ResultKind.SEG: 9100, ResultKind.PM: 9200,
    ResultKind.ANN: 9300, ResultKind.FSEG: 9400, ResultKind.WSI: 9500,
}  # fmt: skip
"""First Series Number of each kind: behind the scanner's own, and the same in every study."""
_SIDED = {ResultKind.SC, ResultKind.ANN, ResultKind.PM}
"""Kinds that must say a side or that it is unknown, unless they show a specimen (PS3.3 C.7.3.1, Type 2C)."""
_FOREIGN = {Tag("ProcedureCodeSequence"), Tag("DeidentificationMethodCodeSequence")}
"""Sequences that came with the source, and stay as they are."""
_CAUTION = " - not for diagnostic use"
_TYPOGRAPHY = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "≥": ">=", "≤": "<=", "×": "x",
     "·": "-", "…": "...", "±": "+/-", "\u00a0": " ", "≈": "~", "→": "->"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One run's findings on their way into objects."""

    findings: Findings
    study: Study
    source: Source
    input_key: str
    pipeline: str
    title: str
    equipment: provenance.Equipment
    predecessors: tuple[Predecessor, ...]
    """What these results replace."""
    swaps: Swaps
    """The site's own codes for the node's."""

    def uid(self, *role: object) -> UID:
        """The UID of a part of the results. The node's version is in it: another may write other bytes."""
        return derived_uid(self.input_key, provenance.SOFTWARE_VERSION, *role)


def plain(text: str) -> str:
    """The text without control characters and in the typography that every character set has."""
    text = text.translate(_TYPOGRAPHY).replace("\\", "/")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def clipped(text: str, size: int = 64) -> str:
    """At most `size` characters, cut at a word where one is near."""
    text = plain(text)
    if len(text) <= size:
        return text
    cut = text[: size - 3]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) > size // 2 else cut) + "..."


def series_description(what: str) -> str:
    """LO: what it is, and always what it is not for."""
    return clipped(f"AI {what}", 64 - len(_CAUTION)) + _CAUTION


def nobody(data_set: Dataset) -> None:
    """Patient and study attributes that highdicom insists on, empty; it looks at its first source only."""
    for keyword in ("PatientID", "PatientName", "PatientSex", "AccessionNumber", "StudyID", "Manufacturer"):
        setattr(data_set, keyword, "")
    data_set.PatientBirthDate = data_set.StudyDate = data_set.StudyTime = None


@contextmanager
def quiet_library() -> Iterator[None]:
    """highdicom and pydicom may quote values in warnings and log lines; none of it leaves here."""
    loggers = [logging.getLogger(name) for name in ("highdicom", "pydicom")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def finish(
    data_set: Dataset, run: Run, kind: ResultKind, role: Sequence[object], *, series_number: int, what: str,
    number: int = 1,
) -> ResultObject:  # fmt: skip
    """Give an object its identity and write it as a PS3.10 file, Explicit VR Little Endian.

    What has the same role and another `number` is in one series: the levels of a pyramid.
    """
    data_set.SOPInstanceUID = run.uid(kind, *role, "instance", *([number] if number > 1 else []))
    data_set.SeriesInstanceUID = run.uid(kind, *role, "series")
    data_set.SeriesNumber = series_number
    data_set.InstanceNumber = number
    data_set.SeriesDescription = series_description(what)
    _set_dates(data_set, run.source, kind)
    data_set.SeriesTime = _series_time(run.source, series_number)
    _set_equipment(data_set, run)
    if kind in _SIDED and run.findings.readings and "ContainerIdentifier" not in data_set:
        data_set.Laterality = None
    _set_patient_and_study(data_set, run)
    _swap_codes(data_set, {(ours.value, ours.scheme): theirs for ours, theirs in run.swaps.items()})
    if "DimensionOrganizationSequence" in data_set:
        _set_dimension_organization(data_set, run.uid(kind, *role, "dimensions"))
    return ResultObject(
        kind=kind,
        sop_class_uid=UID(data_set.SOPClassUID),
        sop_instance_uid=UID(data_set.SOPInstanceUID),
        series_uid=UID(data_set.SeriesInstanceUID),
        content=_written(data_set),
    )


def _swap_codes(data_set: Dataset, swaps: Mapping[tuple[str, str], Code]) -> None:
    """The site's own codes in place of the node's, in our own items, however deep (PS3.3 8.8)."""
    if not swaps:
        return
    theirs = swaps.get((str(data_set.get("CodeValue")), str(data_set.get("CodingSchemeDesignator"))))
    if theirs is not None:
        data_set.CodeValue, data_set.CodingSchemeDesignator = theirs.value, theirs.scheme
        data_set.CodeMeaning = theirs.meaning
    for tag in data_set.keys() - _FOREIGN:
        if data_set.get_item(tag).VR == "SQ":
            for item in data_set[tag].value:
                _swap_codes(item, swaps)


def _set_dates(data_set: Dataset, source: Source, kind: ResultKind) -> None:
    """All dates are those of the newest source image: made again on another day, the bytes are the same."""
    own = "PresentationCreation" if kind is ResultKind.GSPS else "Content"
    for name in ("InstanceCreation", "Series", own):
        setattr(data_set, f"{name}Date", source.date)
        setattr(data_set, f"{name}Time", source.time)


def _series_time(source: Source, series_number: int) -> str:
    """The second of the newest source image and, as its fraction, the order to be read in: viewers list
    reports and overlays by Series Time, the latest first, and by UID where these are the same."""
    return f"{source.time[:6]}.{max(0, 9999 - series_number):06d}"


def _set_equipment(data_set: Dataset, run: Run) -> None:
    equipment = run.equipment
    data_set.Manufacturer = equipment.manufacturer
    data_set.ManufacturerModelName = equipment.model
    data_set.DeviceSerialNumber = equipment.serial_number
    data_set.SoftwareVersions = list(equipment.software_versions)
    data_set.DeviceUID = equipment.device_uid
    if run.source.body_part:
        data_set.BodyPartExamined = run.source.body_part
    if run.source.laterality in ("L", "R"):
        data_set.Laterality = run.source.laterality
    items = list(provenance.contributing(run.findings.algorithms))
    if len(run.source.acquisition):
        items.insert(0, provenance.acquisition(run.source.acquisition))
    data_set.ContributingEquipmentSequence = items


def _set_patient_and_study(data_set: Dataset, run: Run) -> None:
    """The patient's text goes in as bytes with its own character set, unless our own text needs another."""
    source = run.source
    data_set.pop(Tag("SpecificCharacterSet"), None)
    if source.character_set is not None:
        data_set[0x00080005] = source.character_set
    terms = data_set.get("SpecificCharacterSet") or ""
    if not _encodable(_own_text(run), terms):
        _set_as_unicode(data_set, source, terms)
        return
    for element in source.patient_and_study:
        data_set[element.tag] = element


def _set_as_unicode(data_set: Dataset, source: Source, terms: Any) -> None:  # Any: CS, one or several
    decoded = Dataset()
    decoded.SpecificCharacterSet = terms
    for element in source.patient_and_study:
        decoded[element.tag] = element
    for element in decoded:  # iterating decodes
        data_set[element.tag] = DataElement(element.tag, element.VR, element.value)
    data_set.SpecificCharacterSet = "ISO_IR 192"


def _own_text(run: Run) -> str:
    findings, verdict = run.findings, run.findings.verdict
    own = [run.title, findings.limits]
    own += [region.label for region in findings.regions] + [heat.label for heat in findings.maps]
    own += [part.need for part in findings.sequences]
    own += [text for reading in findings.readings for text in _texts(reading)]
    for model in findings.algorithms:
        own += [model.name, model.version, model.description, model.trained_on, model.limits]
    if findings.not_performed:
        own.append(findings.not_performed.because)
    if verdict:
        own += [verdict.statement, verdict.operating_point.chosen_on, *verdict.warnings]
        own += [code.meaning for code in (verdict.finding, verdict.site, verdict.diagnosis)]
        own += [verdict.positive_class.meaning, verdict.negative_class.meaning]
        own += [text for score in verdict.scores for text in (score.name.meaning, score.explanation)]
    return plain(" ".join(own))


def _texts(reading: Reading) -> Iterator[str]:
    yield reading.triage
    if reading.adequacy:
        yield from (reading.adequacy.statement, reading.adequacy.code.meaning)
    for kind in reading.cells.classes:
        yield from (kind.label, kind.code.meaning, kind.count_code.meaning if kind.count_code else "")
    for heat in reading.maps:
        yield from (*heat.labels, heat.quantity.meaning, *(one.meaning for one in heat.codes))


def _encodable(text: str, terms: Any) -> bool:  # Any: CS, one or several
    if text.isascii():
        return True
    try:
        encodings = charset.convert_encodings(terms)
        return charset.decode_bytes(charset.encode_string(text, encodings), encodings, set()) == text
    except (LookupError, UnicodeError, ValueError):
        return False


def _set_dimension_organization(data_set: Dataset, organization: UID) -> None:
    data_set.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in data_set.get("DimensionIndexSequence", ()):
        index.DimensionOrganizationUID = organization


def _written(data_set: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid.UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    data_set.file_meta = meta
    if "PixelData" in data_set:  # uncompressed: OW, and of 8 bits and fewer also OB (PS3.5 A.2), as we write
        data_set["PixelData"].VR = "OB" if data_set.BitsAllocated <= 8 else "OW"
    # pydicom writes undecoded elements as they are only where it believes they came in this encoding.
    data_set.set_original_encoding(False, True, data_set._character_set)
    buffer = BytesIO()
    dcmwrite(buffer, data_set, enforce_file_format=True)
    return buffer.getvalue()
