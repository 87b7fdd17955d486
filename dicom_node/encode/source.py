"""What results take over from the images they were made of, read once and cheaply.

Text of the patient and the study is carried as the bytes it came in, together with the
character set that explains them (PS3.5 6.1): nothing is decoded, so nothing is harmed and no
library gets to quote a name in a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from dicom_node.dicom import elements
from dicom_node.domain.findings import Findings
from dicom_node.domain.identity import UID
from dicom_node.domain.series import FrameRef, Stack, StoredInstance, Study
from dicom_node.domain.slide import Photograph, Picture
from dicom_node.errors import UnreadableObject

_PATIENT_AND_STUDY = (
    # Patient, PS3.3 C.7.1.1
    "PatientName", "PatientID", "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthDate",
    "PatientBirthTime", "PatientSex", "OtherPatientNames", "EthnicGroup", "PatientComments",
    "PatientSpeciesDescription",
    "PatientBreedDescription", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "QualityControlSubject",
    # General Study, C.7.2.1
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription",
    "ReferringPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "ProcedureCodeSequence",
    # Patient Study, C.7.2.2
    "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "PregnancyStatus",
    "Occupation", "AdditionalPatientHistory", "PatientState",
    # Clinical Trial Subject and Study, C.7.1.3 and C.7.2.3
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
    # SOP Common, C.12.1
    "TimezoneOffsetFromUTC", "LongitudinalTemporalInformationModified",
)  # fmt: skip
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Type 2: written empty where the source has none."""
_EQUIPMENT = (
    "Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName", "DeviceSerialNumber",
    "SoftwareVersions",
)  # fmt: skip
_PER_FRAME_GROUPS, _SHARED_GROUPS = 0x52009230, 0x52009229
_NOWHEN = ("19000101", "000000")
"""The date of a result whose sources carry none: visibly not a date, and the same on every day."""


StackKey = tuple[UID, int]
"""SOP Instance UID and frame number of a stack's first frame."""


@dataclass(frozen=True, slots=True)
class Source:
    """All that the result objects of one run have in common with their study."""

    study_uid: UID
    patient_and_study: tuple[DataElement | RawDataElement, ...]
    character_set: DataElement | RawDataElement | None
    body_part: str
    laterality: str
    acquisition: Dataset
    """Item of Contributing Equipment Sequence; empty where the source names no manufacturer."""
    date: str
    """DA of the newest source image."""
    time: str
    """TM of the newest source image."""
    instances: tuple[tuple[UID, UID, UID], ...]
    """(series, SOP class, SOP instance) of every source image, in order of stacks and slices, then of
    slides and photographs."""
    slice_thickness_mm: dict[UID, float]
    """By SOP Instance UID of a stack's first frame."""
    pictures: dict[UID, Dataset]
    """Headers up to the per-frame groups, by SOP Instance UID of a slide's first part, or a photograph's."""


def read_source(findings: Findings, study: Study) -> Source:
    """Read what is needed of the files behind `findings`; of the study's first instance if it used none.

    Raises UnreadableObject when a study has no instances at all, or when its files are gone.
    """
    stacks, parts = used_stacks(findings), used_parts(findings)
    frames = _first_of_each_instance(stacks)
    used = [frame.path for _, frame in frames] + [path for _, path in parts.values()]
    first = min(study.instances, key=lambda instance: instance.sop_instance_uid, default=None)
    template_path = first.path if first else next(iter(used), None)
    if template_path is None:
        raise UnreadableObject("the study has no instance to take its patient and study from")
    headers = {stack.frames[0].sop_instance_uid: _header(stack.frames[0].path) for stack in stacks}
    pictures = {uid: _header(parts[uid][1]) for uid in map(picture_key, used_pictures(findings))}
    template = _header(template_path)
    date, time = max((_moment(path) for path in used or [template_path]), default=_NOWHEN)
    imaging = next(iter([*headers.values(), *pictures.values()]), template)
    return Source(
        study_uid=study.uid,
        patient_and_study=tuple(_patient_and_study(template)),
        character_set=_typed(template, 0x00080005),
        body_part=_body_part(imaging),
        laterality=elements.text(imaging, 0x00200060),
        acquisition=_acquisition(imaging),
        date=date,
        time=time,
        instances=_references(frames, parts, first),
        slice_thickness_mm={uid: _thickness(header) for uid, header in headers.items()},
        pictures=pictures,
    )


def used_stacks(findings: Findings) -> tuple[Stack, ...]:
    """The stacks the findings speak of, each once: as scored, then as marked, then as mapped."""
    stacks: dict[StackKey, Stack] = {}
    spoken_of = [part.stack for part in findings.sequences]
    spoken_of += [region.stack for region in findings.regions] + [heat.stack for heat in findings.maps]
    for stack in spoken_of:
        stacks.setdefault(stack_key(stack), stack)
    return tuple(stacks.values())


def stack_key(stack: Stack) -> StackKey:
    """What tells one stack of a study from another, the same on every run."""
    return stack.frames[0].sop_instance_uid, stack.frames[0].frame


def used_pictures(findings: Findings) -> tuple[Picture, ...]:
    """The slides and photographs that were read, each object once."""
    return tuple({picture_key(reading.picture): reading.picture for reading in findings.readings}.values())


def used_parts(findings: Findings) -> dict[UID, tuple[tuple[UID, UID, UID], Path]]:
    """SOP Instance UID -> (its reference, file): photographs, and every part of the slides' finest levels."""
    parts: dict[UID, tuple[tuple[UID, UID, UID], Path]] = {}
    for picture in used_pictures(findings):
        if isinstance(picture, Photograph):
            names = picture.series_uid, picture.sop_class_uid, picture.sop_instance_uid
            parts[picture.sop_instance_uid] = names, picture.path
            continue
        for part in picture.base.parts:
            names = part.series_uid, part.sop_class_uid, part.sop_instance_uid
            parts[part.sop_instance_uid] = names, part.path
    return parts


def picture_key(picture: Picture) -> UID:
    """What tells one picture of a study from another, the same on every run."""
    if isinstance(picture, Photograph):
        return picture.sop_instance_uid
    return picture.base.parts[0].sop_instance_uid


def _first_of_each_instance(stacks: Sequence[Stack]) -> list[tuple[Stack, FrameRef]]:
    firsts: dict[UID, tuple[Stack, FrameRef]] = {}
    for stack in stacks:
        for frame in stack.frames:
            firsts.setdefault(frame.sop_instance_uid, (stack, frame))
    return list(firsts.values())


def _references(
    frames: Sequence[tuple[Stack, FrameRef]],
    parts: Mapping[UID, tuple[tuple[UID, UID, UID], Path]],
    first: StoredInstance | None,
) -> tuple[tuple[UID, UID, UID], ...]:
    of_stacks = tuple((stack.series_uid, f.sop_class_uid, f.sop_instance_uid) for stack, f in frames)
    if of_stacks or parts:
        return (*of_stacks, *(names for names, _ in parts.values()))
    return ((first.series_uid, first.sop_class_uid, first.sop_instance_uid),) if first else ()


def _header(path: Path) -> Dataset:
    """A file's header up to the per-frame groups, which may be thousands and are not needed."""
    data_set, _ = elements.parse_file(path, stop=lambda tag, vr, length: tag >= _PER_FRAME_GROUPS)
    return data_set


def _moment(path: Path) -> tuple[str, str]:
    """(DA, TM) of an instance's content, or its acquisition, series, study; in that order."""
    data_set, _ = elements.parse_file(path, stop=lambda tag, vr, length: tag > 0x00080033)
    both = elements.text(data_set, 0x0008002A)
    pairs = [(0x00080023, 0x00080033), (0x00080022, 0x00080032), (0x00080021, 0x00080031)]
    stamps = [(elements.text(data_set, date), elements.text(data_set, time)) for date, time in pairs]
    stamps.insert(1, (both[:8], both[8:]))
    stamps.append((elements.text(data_set, 0x00080020), elements.text(data_set, 0x00080030)))
    return next((moment for stamp in stamps if (moment := _valid_moment(*stamp))), _NOWHEN)


def _valid_moment(date: str, time: str) -> tuple[str, str] | None:
    """The pair made regular (a time may be cut short or be absent), or None where there is no date."""
    digits = re.split(r"\D", time, maxsplit=1)[0][:6]
    clock = digits[: len(digits) // 2 * 2].ljust(6, "0")
    fraction = re.fullmatch(r"\d{6}(\.\d{1,6})", time)
    try:
        datetime.strptime(date + clock, "%Y%m%d%H%M%S")  # noqa: DTZ007  DICOM's own clock time
    except ValueError:
        return None
    return (date, clock + (fraction.group(1) if fraction else "")) if re.fullmatch(r"\d{8}", date) else None


def _patient_and_study(header: Dataset) -> Iterable[DataElement | RawDataElement]:
    for keyword in _PATIENT_AND_STUDY:
        tag = Tag(keyword)
        if (element := _typed(header, tag)) is not None:
            yield element
        elif keyword in _REQUIRED:
            yield DataElement(tag, dictionary_VR(tag), None)


def _typed(header: Dataset, tag: int) -> DataElement | RawDataElement | None:
    """The element as it stands in the file, with its VR also where the file has none (implicit VR)."""
    if tag not in header:
        return None
    vr = dictionary_VR(tag)
    if vr == "SQ":
        return DataElement(tag, "SQ", [copied(item) for item in header[tag].value])
    raw: Any = header.get_item(tag)  # Any: RawDataElement | DataElement, alike here
    if not raw.is_raw:
        return DataElement(tag, vr, raw.value)
    if vr == "US" and not raw.is_little_endian:
        return DataElement(tag, vr, header[tag].value)
    return RawDataElement(BaseTag(tag), vr, len(raw.value or b""), raw.value or b"", 0, False, True, True)


def copied(item: Dataset) -> Dataset:
    """A copy that no longer remembers the file's encoding."""
    copy = Dataset()
    for element in item:
        if element.tag.is_private:
            continue
        value = [copied(nested) for nested in element.value] if element.VR == "SQ" else element.value
        copy.add(DataElement(element.tag, element.VR, value))
    return copy


def _body_part(header: Dataset) -> str:
    text = elements.text(header, 0x00180015).upper()
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else ""


def _acquisition(header: Dataset) -> Dataset:
    """The scanner, PS3.3 C.12.1 with (109101, DCM, "Acquisition Equipment"); ASCII values only."""
    item = Dataset()
    for keyword in _EQUIPMENT:
        tag = tag_for_keyword(keyword)
        text = elements.text(header, tag) if tag is not None else ""
        # LO's 64 characters; a value in another character set is left to the source images.
        if text and text.isprintable() and text.isascii() and len(text) <= 64:
            setattr(item, keyword, text.split("\\") if "\\" in text else text)
    return item if "Manufacturer" in item else Dataset()


def _thickness(header: Dataset) -> float:
    """Slice Thickness, mm, classic or of the shared Pixel Measures; 0 where there is none."""
    try:
        if text := elements.text(header, 0x00180050):
            return float(text)
        shared = header[_SHARED_GROUPS].value[0]
        return float(shared.PixelMeasuresSequence[0].SliceThickness)
    except (KeyError, AttributeError, IndexError, TypeError, ValueError):
        return 0.0
