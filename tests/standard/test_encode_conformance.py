"""Every result object obeys the Standard, as judged by programs of others."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.findings import CANARY, enhanced, folder_study, found, pelvis, refused
from support.validators import dcentvfy_errors, dciodvfy_errors, dcmpschk_errors, dsrdump, pixelmed_errors


def encoded(findings: Findings, study: Study, key: str = "k") -> tuple[ResultObject, ...]:
    return encode(
        findings,
        study,
        input_key=key,
        pipeline="uterine_mri",
        pipeline_version="1.0.0",
        title="Uterine MRI",
    )


def errors(folder: Path, objects: tuple[ResultObject, ...]) -> list[str]:
    """dciodvfy's errors on all objects."""
    return [error for path in written(folder, objects) for error in dciodvfy_errors(path)]


def all_errors(
    folder: Path, objects: tuple[ResultObject, ...], study: Study, *, templates: bool = True
) -> list[str]:
    """dciodvfy's and PixelMed's errors, dcentvfy's over sources and results; dsrdump reads each report."""
    paths = written(folder, objects)
    documents = [path for path, made in zip(paths, objects, strict=True) if made.kind in ("sr", "roi", "kos")]
    for path in documents:
        assert "<contains" in dsrdump(path)
    sources = list(dict.fromkeys(instance.path for instance in study.instances))
    states = [path for path, made in zip(paths, objects, strict=True) if made.kind is ResultKind.GSPS]
    if not templates:
        documents = []
    return [
        *(error for path in paths for error in dciodvfy_errors(path)),
        *(error for path in documents for error in pixelmed_errors(path)),
        *(error for path in states for error in dcmpschk_errors(path)),
        *dcentvfy_errors([*sources, *paths]),
    ]


def written(folder: Path, objects: tuple[ResultObject, ...]) -> list[Path]:
    paths = [folder / f"{number}_{result.kind}.dcm" for number, result in enumerate(objects)]
    for path, result in zip(paths, objects, strict=True):
        path.write_bytes(result.content)
    return paths


@pytest.mark.parametrize("which", ["classic", "enhanced", "indeterminate", "not performed"])
def test_reports_follow_their_template(tmp_path: Path, which: str) -> None:
    """TID 1500, 2010 and what they include, by PixelMed: the gate of the IHE AI Results profile."""
    study = enhanced(tmp_path / "study") if which == "enhanced" else pelvis(tmp_path / "study")
    verdict = found(study, probability=0.5 if which == "indeterminate" else 0.9)
    findings = refused() if which == "not performed" else verdict

    objects = encoded(findings, study)
    documents = [
        path for path, result in zip(written(tmp_path, objects), objects, strict=True)
        if result.kind in ("sr", "roi", "kos")
    ]  # fmt: skip

    assert (1 if which == "not performed" else 3) == len(documents)
    assert [] == [error for path in documents for error in pixelmed_errors(path)]


def test_results_of_a_classic_study_are_valid(tmp_path: Path) -> None:
    """A SEG, a Parametric Map and a presentation state for each of three stacks, and one of the others."""
    study = pelvis(tmp_path / "study")

    objects = encoded(found(study, warnings=("The referral names leiomyoma.",)), study)

    kinds = ["sr", "sc", *["seg"] * 3, *["pm"] * 3, "roi", *["gsps"] * 3, "kos"]
    assert kinds == [result.kind for result in objects]
    assert [] == errors(tmp_path, objects)


def test_results_of_an_enhanced_object_are_valid(tmp_path: Path) -> None:
    """Two stacks interleaved in one Enhanced MR object."""
    study = enhanced(tmp_path / "study")

    assert [] == all_errors(tmp_path, encoded(found(study), study), study, templates=False)


def test_an_object_at_odds_with_its_study_is_found(tmp_path: Path) -> None:
    """What the tests here rely on: dcentvfy sees a patient, a study, a frame of reference that differs."""
    study = pelvis(tmp_path / "study")
    *_, path = written(tmp_path, encoded(found(study), study))
    data_set = pydicom.dcmread(path)
    data_set.PatientName = "OTHER^NAME"
    data_set.save_as(path)

    assert dcentvfy_errors([study.instances[0].path, path])


@pytest.mark.parametrize("probability", [0.02, 0.5, 1.0])
def test_negative_and_indeterminate_reports_are_valid(tmp_path: Path, probability: float) -> None:
    study = pelvis(tmp_path / "study")

    objects = encoded(found(study, probability=probability), study)

    assert [] == errors(tmp_path, objects[:2])


def test_a_report_of_not_performed_is_valid(tmp_path: Path) -> None:
    """The reason goes out as SR and as page, and nothing else does."""
    study = pelvis(tmp_path / "study")

    objects = encoded(refused(), study)

    assert ["sr", "sc"] == [result.kind for result in objects]
    assert [] == errors(tmp_path, objects)


def test_a_source_without_optional_attributes_gives_valid_results(tmp_path: Path) -> None:
    """No patient, no study date, no body part, no manufacturer, no character set, no dates of content."""
    absent = dict.fromkeys(
        ["PatientName", "PatientID", "PatientSex", "PatientBirthDate", "AccessionNumber", "StudyID",
         "ReferringPhysicianName", "StudyDate", "StudyTime", "SeriesDate", "ContentDate", "ContentTime",
         "AcquisitionDateTime", "Manufacturer", "SpecificCharacterSet", "SliceThickness",
         "PositionReferenceIndicator"]
    )  # fmt: skip
    study = pelvis(tmp_path / "study", **absent)

    assert [] == errors(tmp_path, encoded(found(study), study))


@pytest.mark.real
def test_results_of_a_real_pelvis_are_valid(real_data: Path, tmp_path: Path) -> None:
    """ProstateX-0000: T2 sagittal and axial, diffusion, ADC."""
    patient = real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0000"
    if not patient.is_dir():
        pytest.skip("no mr_prostatex")
    wanted = ("3.", "4.", "7.")
    study = folder_study(path for path in patient.rglob("*.dcm") if path.parent.name.startswith(wanted))
    findings = replace(found(study), lead=study.stacks[1])

    assert [] == all_errors(tmp_path, encoded(findings, study), study)


REAL_ENHANCED = {
    "Siemens XA10": "mr_dcm_qa_enh/In/Siemens/XA10/6_1.dcm",
    "Philips": "mr_dcm_qa_enh/In/Philips/IM_0027_fMAP.dcm",
    "Siemens XA30": "mr_dcm_qa_xa30/In/8_gre_field_mapping/"
    "0002_1.3.12.2.1107.5.2.43.67093.2022071112105956926705109.dcm",
    "Canon": "mr_dcm_qa_canon/In/enh/10000.dcm.gz",
}


@pytest.fixture(params=REAL_ENHANCED)
def real_enhanced(request: pytest.FixtureRequest, real_data: Path, tmp_path: Path) -> Iterator[Path]:
    path = real_data / REAL_ENHANCED[request.param]
    if not path.is_file():
        pytest.skip(f"no {request.param} Enhanced MR")
    if path.suffix == ".gz":
        with gzip.open(path) as packed, (tmp_path / "source.dcm").open("wb") as plain:
            shutil.copyfileobj(packed, plain)
        path = tmp_path / "source.dcm"
    yield path


@pytest.mark.real
def test_results_of_real_enhanced_objects_are_valid(real_enhanced: Path, tmp_path: Path) -> None:
    """They refer to the frames of the object they came from, and only to those of the stack."""
    study = folder_study([real_enhanced])

    objects = encoded(found(study), study)

    (tmp_path / "out").mkdir()
    # PixelMed takes seconds for each region, so the templates of one vendor's are looked at.
    templates = "xa30" in real_enhanced.parts[-4]
    assert [] == all_errors(tmp_path / "out", objects, study, templates=templates)
    frames = {frame.frame for frame in study.stacks[0].frames}
    maps = [result for result in objects if result.kind is ResultKind.PM]
    (tmp_path / "pm.dcm").write_bytes(maps[0].content)
    groups = pydicom.dcmread(tmp_path / "pm.dcm").PerFrameFunctionalGroupsSequence
    sources = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in groups]
    assert frames == {source.ReferencedFrameNumber for source in sources}
    assert {study.instances[0].sop_instance_uid} == {source.ReferencedSOPInstanceUID for source in sources}


def test_the_patient_is_where_the_standard_puts_it_and_nowhere_else(tmp_path: Path) -> None:
    """Name and id stand in (0010,0010) and (0010,0020) only; the pixels of the page do not depend on them."""
    one = encoded(*_with(pelvis(tmp_path / "one")))
    other = encoded(*_with(pelvis(tmp_path / "other", name="OTHER^NAME")))

    for result, twin in zip(one, other, strict=True):
        assert 1 == result.content.count(CANARY.encode())
        assert 1 == result.content.count(b"CANARY-ID")
        # What differs is the name and, with its length, nothing: the rest is the same bytes.
        assert _without_name(result.content) == _without_name(twin.content)


def _with(study: Study) -> tuple[Findings, Study]:
    return found(study), study


def _without_name(content: bytes) -> bytes:
    at = content.index(b"\x10\x00\x10\x00PN")
    length = int.from_bytes(content[at + 6 : at + 8], "little")
    return content[:at] + content[at + 8 + length :]
