"""What an object says of itself, read from untrusted bytes: `identify` and `read_header`.

`read_header` extracts, JSON-able, every fact that assembling, choosing and guarding need, in
one shape for classic and Enhanced MR: facts equal in all frames under `shared`, the others
per frame under `frames`. Slides have theirs under `slide`, photographs under `photograph`
(`slide_facts`). It promises a dict or UnreadableObject, and nothing else.
"""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.dicom import elements, frames, report, slide_facts, values, vendor
from dicom_node.dicom.identity import Identity, identify
from dicom_node.errors import UnreadableObject

__all__ = ["Identity", "identify", "read_header"]

VERSION = 2
"""Of the extract's shape; an archive indexed with another one is indexed again."""

_UIDS = {
    "sop_class_uid": 0x00080016,
    "sop_instance_uid": 0x00080018,
    "study_uid": 0x0020000D,
    "series_uid": 0x0020000E,
    "frame_of_reference_uid": 0x00200052,
}
_REQUIRED = {
    "sop_class_uid": "SOP Class UID (0008,0016)",
    "sop_instance_uid": "SOP Instance UID (0008,0018)",
    "study_uid": "Study Instance UID (0020,000D)",
    "series_uid": "Series Instance UID (0020,000E)",
}
_TEXTS = {
    "manufacturer": 0x00080070,
    "model": 0x00081090,
    "series_description": 0x0008103E,
    "protocol_name": 0x00181030,
    "study_description": 0x00081030,
}
_INTEGERS = {  # name: (tag, VR)
    "series_number": (0x00200011, "IS"),
    "instance_number": (0x00200013, "IS"),
    "acquisition_number": (0x00200012, "IS"),
    "images_in_acquisition": (0x00201002, "IS"),
    "temporal_positions": (0x00200105, "IS"),
    "number_of_frames": (0x00280008, "IS"),
    "samples_per_pixel": (0x00280002, "US"),
    "bits_allocated": (0x00280100, "US"),
    "echo_train_length": (0x00180091, "IS"),
}
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_REGION, _FRAME_ANATOMY, _PROCEDURE = 0x00082218, 0x00209071, 0x00081032
_AGENT, _AGENT_SEQUENCE, _AGENT_VOLUME, _ENHANCED_AGENT = 0x00180010, 0x00180012, 0x00181041, 0x00189337
_MODALITY, _BODY_PART, _PHOTOMETRIC, _CHARACTER_SET = 0x00080060, 0x00180015, 0x00280004, 0x00080005
_PATIENT_ID, _BIRTH_DATE, _SEX, _AGE = 0x00100020, 0x00100030, 0x00100040, 0x00101010
_DATES = (0x00080020, 0x00080021, 0x00080022, 0x00080023)  # study, series, acquisition, content

_SINGLE = frozenset(
    {
        _CHARACTER_SET, _REGION, _PROCEDURE, _AGENT, _AGENT_SEQUENCE, _AGENT_VOLUME, _ENHANCED_AGENT,
        _MODALITY, _BODY_PART, _PHOTOMETRIC, _PATIENT_ID, _BIRTH_DATE, _SEX, _AGE, *_DATES,
        _ROWS, _COLUMNS,
    }
)  # fmt: skip
_WANTED = _SINGLE.union(
    _UIDS.values(), _TEXTS.values(), (tag for tag, _ in _INTEGERS.values()),
    report.WANTED, vendor.WANTED, frames.WANTED, slide_facts.WANTED,
)  # fmt: skip
_SLIDE_WANTED = _WANTED - {frames.PER_FRAME}

_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def read_header(path: Path) -> dict[str, object]:
    """The facts of one stored object; absent ones have no key.

    Lengths are in mm, times in ms, b values in s/mm2, angles in degrees; `shared` and each
    of `frames` hold the facts listed in `frames.py`. Pixels are not read.

    Raises UnreadableObject where the bytes are no DICOM object with its four UIDs.
    """
    try:
        if _is_slide(path):
            data_set, syntax = elements.parse_file(path, stop=slide_facts.past_header, wanted=_SLIDE_WANTED)
        else:
            data_set, syntax = elements.parse_file(path, wanted=_WANTED)
        return _extract(data_set, syntax, path)
    except UnreadableObject:
        raise
    except RecursionError as error:
        raise UnreadableObject("sequences are nested too deeply") from error
    except Exception as error:  # the edge to a parser on hostile bytes, which raises anything
        raise UnreadableObject(f"the header cannot be read ({type(error).__name__})") from error


def _is_slide(path: Path) -> bool:
    """Whether it is a whole slide image, whose frames are too many to parse."""
    sop_class, _ = elements.parse_file(path, stop=_past_sop_class, wanted={_UIDS["sop_class_uid"]})
    return values.ascii_text(sop_class, _UIDS["sop_class_uid"]) == slide_facts.WHOLE_SLIDE


def _past_sop_class(tag: int, vr: str | None, length: int) -> bool:
    return tag > _UIDS["sop_class_uid"]


def _extract(data_set: Dataset, syntax: str, path: Path) -> dict[str, object]:
    found: dict[str, object] = {"version": VERSION, "transfer_syntax_uid": syntax}
    found |= {name: values.ascii_text(data_set, tag) for name, tag in _UIDS.items()}
    for name in _REQUIRED:
        if not found[name]:
            raise UnreadableObject(f"the object has no {_REQUIRED[name]}")
    found |= {name: values.text(data_set, tag, 256) for name, tag in _TEXTS.items()}
    found |= {name: values.integer(data_set, tag, vr) for name, (tag, vr) in _INTEGERS.items()}
    found["modality"] = next(iter(values.words(data_set, _MODALITY)), None)
    found["photometric"] = next(iter(values.words(data_set, _PHOTOMETRIC)), None)
    found["body_parts"] = sorted({*values.words(data_set, _BODY_PART), *_region_names(data_set)})
    found["procedure_codes"] = report.codes(data_set, _PROCEDURE)
    found["patient"] = _patient(data_set)
    found["referral"] = report.referral(data_set)
    found["report"] = report.report_text(data_set)
    found["contrast_agent"] = _contrast_agent(data_set)
    found["mosaic_images"] = vendor.mosaic_images(data_set)
    found["rows"], found["columns"] = frames.rows(data_set) or None, frames.columns(data_set) or None
    if found["sop_class_uid"] == slide_facts.WHOLE_SLIDE:
        found["slide"] = slide_facts.slide_facts(data_set, path)
    elif found["sop_class_uid"] in slide_facts.PHOTOGRAPHS:
        found["photograph"] = slide_facts.photograph_facts(data_set)
    elif found["rows"]:
        found["shared"], found["frames"] = frames.read_frames(data_set)
    return {name: value for name, value in found.items() if value not in (None, "", [], (), {})}


def _patient(data_set: Dataset) -> dict[str, object]:
    """Sex and age, and digests that tell two patients apart without naming either."""
    sex = next(iter(values.words(data_set, _SEX)), "")
    facts = {
        "sex": sex if sex in ("F", "M", "O") else None,
        "age_years": _age_years(data_set),
        "id_digest": _digest(values.text(data_set, _PATIENT_ID)),
        "birth_digest": _digest(values.ascii_text(data_set, _BIRTH_DATE)),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _digest(text: str) -> str | None:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else None


def _age_years(data_set: Dataset) -> float | None:
    """From Patient's Age (PS3.5 6.2, AS), else from birth date and the study's date."""
    stated = values.ascii_text(data_set, _AGE).upper()
    if len(stated) >= 2 and stated[:-1].isdecimal() and stated[-1] in _YEARS and len(stated) <= 4:
        return round(int(stated[:-1]) * _YEARS[stated[-1]], 2)
    born = _date(values.ascii_text(data_set, _BIRTH_DATE))
    day = next((d for tag in _DATES if (d := _date(values.ascii_text(data_set, tag)))), None)
    if born is None or day is None or day < born:
        return None
    return float(day.year - born.year - ((day.month, day.day) < (born.month, born.day)))


def _date(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def _region_names(data_set: Dataset) -> set[str]:
    sources = [data_set]
    for group in frames.functional_groups(data_set)[:2]:
        sources += values.items(group, _FRAME_ANATOMY)[:1]
    found = [meaning for source in sources for _, _, meaning in report.codes(source, _REGION)]
    return {meaning.upper() for meaning in found if meaning}


def _contrast_agent(data_set: Dataset) -> bool | None:
    agent = values.text(data_set, _AGENT, 64).upper()
    if agent in ("NONE", "NO", "WITHOUT", "N/A"):
        return None
    volume = values.number(data_set, _AGENT_VOLUME)
    given = bool(agent) or bool(volume) or bool(values.items(data_set, _AGENT_SEQUENCE))
    return given or bool(values.items(data_set, _ENHANCED_AGENT)) or None
