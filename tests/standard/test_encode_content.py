"""What the result objects say: round trip by readers of others, identity, series, references."""

from __future__ import annotations

import logging
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.findings import (
    LEIOMYOMA,
    MODELS,
    PELVIS,
    SARCOMA,
    blob,
    enhanced,
    found,
    lone,
    pelvis,
    refused,
)
from support.validators import dsrdump


def encoded(
    findings: Findings, study: Study, key: str = "k", title: str = "Uterine MRI"
) -> list[ResultObject]:
    return list(
        encode(findings, study, input_key=key, pipeline="uterine_mri", pipeline_version="1.0.0", title=title)
    )


def read(result: ResultObject) -> pydicom.Dataset:
    return pydicom.dcmread(BytesIO(result.content))


def of(kind: ResultKind, objects: list[ResultObject]) -> list[ResultObject]:
    return [result for result in objects if result.kind is kind]


def test_a_reader_gets_the_mask_back(tmp_path: Path) -> None:
    """Every voxel of every region, on the slice it was marked on; slices without region have no frame."""
    study = pelvis(tmp_path)
    objects = of(ResultKind.SEG, encoded(found(study), study))

    for stack, result in zip(study.stacks, objects, strict=True):
        segmentation = hd.seg.segread(BytesIO(result.content))
        uids = [frame.sop_instance_uid for frame in stack.frames]
        pixels = segmentation.get_pixels_by_source_instance(
            uids, segment_numbers=[1], ignore_spatial_locations=False, assert_missing_frames_are_empty=True
        )
        assert np.array_equal(blob(stack) > 0.5, pixels[..., 0] > 0)


def test_a_reader_gets_the_map_back(tmp_path: Path) -> None:
    """float32 in, the same float32 out, one frame for each source slice in the source's rows and columns."""
    study = pelvis(tmp_path)
    findings = found(study)
    objects = of(ResultKind.PM, encoded(findings, study))

    for heat, result in zip(findings.maps, objects, strict=True):
        stack = heat.stack
        parametric = hd.pm.ParametricMap.from_dataset(read(result))
        uids = [frame.sop_instance_uid for frame in stack.frames]
        values = parametric.get_pixels_by_source_instance(uids, apply_real_world_transform=True)
        assert np.array_equal(heat.values, values.astype(np.float32))
        assert (len(stack.frames), stack.rows, stack.columns) == values.shape
        quantity = parametric.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
        assert "130403" == quantity.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue


def test_masks_and_maps_of_an_enhanced_object_lie_on_its_frames(tmp_path: Path) -> None:
    """Two b values interleaved in one object: each result refers to its own frames, in the right places."""
    study = enhanced(tmp_path)
    findings = found(study)
    objects = encoded(findings, study)

    for stack, result in zip(study.stacks, of(ResultKind.PM, objects), strict=True):
        parametric = hd.pm.ParametricMap.from_dataset(read(result))
        values = parametric.get_pixels_by_source_frame(
            stack.frames[0].sop_instance_uid, [frame.frame for frame in stack.frames]
        )
        assert np.array_equal(findings.maps[0].values, values.astype(np.float32))
    for stack, result in zip(study.stacks, of(ResultKind.SEG, objects), strict=True):
        for group in read(result).PerFrameFunctionalGroupsSequence:
            number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
            frame = next(frame for frame in stack.frames if frame.frame == number)
            assert [*frame.position_mm] == [*group.PlanePositionSequence[0].ImagePositionPatient]


def test_a_reader_gets_the_numbers_and_the_diagnosis_back(tmp_path: Path) -> None:
    study = pelvis(tmp_path)
    report = hd.sr.srread(BytesIO(encoded(found(study, probability=0.8765), study)[0].content))

    groups = report.content.get_image_measurement_groups()
    numbers = [(m.name.meaning, m.value, m.unit.value) for m in groups[0].get_measurements()]

    assert 1 == len(groups)
    assert [
        ("Probability of cancer", 87.65, "%"), ("Probability", 87.65, "%"), ("Probability", 12.35, "%"),
        ("Certainty of Finding", 81.0, "%"), ("Number of Frames", 12.0, "{frames}"),
    ] == numbers  # fmt: skip
    evaluations = {e.name.meaning: e.value.value for e in groups[0].get_qualitative_evaluations()}
    assert SARCOMA.value == evaluations["Diagnosis"]
    assert "108369006" == groups[0].finding_type.value
    kept = {
        score.frame.sop_instance_uid
        for part in found(study).sequences for score in part.slices if score.kept
    }  # fmt: skip
    assert kept == {image.referenced_sop_instance_uid for image in groups[0].source_images}


def test_the_evidence_holds_all_chosen_series(tmp_path: Path) -> None:
    study = pelvis(tmp_path)

    evidence = read(encoded(found(study), study)[0]).CurrentRequestedProcedureEvidenceSequence

    assert [study.uid] == [item.StudyInstanceUID for item in evidence]
    assert {instance.sop_instance_uid for instance in study.instances} == {
        sop.ReferencedSOPInstanceUID for series in evidence[0].ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }  # fmt: skip


def test_the_report_reads_verdict_first(tmp_path: Path) -> None:
    """Verdict, probability, operating point, slices, warnings, models, limits, unverified; in that order."""
    study = pelvis(tmp_path / "study")
    findings = found(study, warnings=("The referral names leiomyoma; the AI says sarcoma",))
    (tmp_path / "sr.dcm").write_bytes(encoded(findings, study)[0].content)

    text = dsrdump(tmp_path / "sr.dcm")

    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("<contains")]
    assert '<contains CONTAINER:(,,"Qualitative Evaluations")=SEPARATE>' == lines[0]
    assert '<contains CODE:(,,"Diagnosis")=(254877001,SCT,"Sarcoma of uterus")>' == lines[1]
    told = [
        "Positive: sarcoma of the uterus was looked for on MRI.",
        "Probability of sarcoma of uterus: 87.0 % (positive: at or above 60.0 %).",
        "AI - research use only - not for diagnostic use. Unverified: made by software; no person has",
        "Operating point: negative below 40.0 %, positive from 60.0 %",
        "Chosen for balanced accuracy on 53 calibration phantoms. Sensitivity 90.0 %",
        "Slices used of T2 axial (series 3, T2 axial): 4 of 8 (images 3-6)",
        "Slices used of DWI axial (series 5, DWI axial): 4 of 8",
        "Warning: The referral names leiomyoma; the AI says sarcoma.",
        f"Model: Tumor Image Filter, version 1.0.0, weights sha256 {MODELS[0].digest}.",
        f"Model: Sarcoma Evaluator, version 1.0.0, weights sha256 {MODELS[1].digest}.",
        "Limits: Research use only. Not a medical device. Not for clinical decisions.",
        '"AI - research use only - not for diagnostic use."',
        '"Unverified: made by software; no person has reviewed or confirmed it."',
        "Imaging Measurements",
    ]
    places = [text.index(sentence) for sentence in told]
    assert sorted(places) == places
    assert "Verification Flag   : UNVERIFIED" in text
    assert "Completion Flag     : COMPLETE" in text
    assert "CONTINUOUS" not in text


@pytest.mark.parametrize(("probability", "diagnosis"), [(0.1, LEIOMYOMA.meaning), (0.45, "Indeterminate")])
def test_the_diagnosis_follows_the_operating_point(
    tmp_path: Path, probability: float, diagnosis: str
) -> None:
    study = pelvis(tmp_path / "study")
    (tmp_path / "sr.dcm").write_bytes(encoded(found(study, probability=probability), study)[0].content)

    assert f'"Diagnosis")=({"95315005" if diagnosis == LEIOMYOMA.meaning else "82334004"}' in dsrdump(
        tmp_path / "sr.dcm"
    )


def test_why_ai_was_not_performed_is_the_first_thing_said(tmp_path: Path) -> None:
    """Also where no stack was chosen: the patient and the study come from the first instance."""
    study = replace(pelvis(tmp_path / "study"), stacks=())
    objects = encoded(refused(), study)
    (tmp_path / "sr.dcm").write_bytes(objects[0].content)

    lines = [line for line in dsrdump(tmp_path / "sr.dcm").splitlines() if "<contains TEXT" in line]

    told = "AI not performed, because the patient is male and the model is for women."
    assert f'<contains TEXT:(,,"Conclusion")="{told}">' == lines[0].strip()
    assert study.uid == read(objects[1]).StudyInstanceUID
    assert "AI not performed - not for diagnostic use" == read(objects[0]).SeriesDescription


def test_every_model_is_named_in_every_object(tmp_path: Path) -> None:
    """Contributing Equipment: the scanner, then each model as Processing Equipment and as AIR asks."""
    study = pelvis(tmp_path)

    for result in encoded(found(study), study):
        items = read(result).ContributingEquipmentSequence
        assert [
            ("109101", "phantom"),
            ("109102", "Tumor Image Filter"), ("Newcode1", "Tumor Image Filter"),
            ("109102", "Sarcoma Evaluator"), ("Newcode1", "Sarcoma Evaluator"),
        ] == [
            (i.PurposeOfReferenceCodeSequence[0].CodeValue, i.ManufacturerModelName) for i in items
        ]  # fmt: skip
        assert [model.digest for model in MODELS] == [item.DeviceSerialNumber for item in items[1::2]]


def test_a_model_trained_again_is_another_device(tmp_path: Path) -> None:
    """IHE AI Results 6.5.3.1: the Device UID changes with the weights, of the model and of the whole."""
    study = pelvis(tmp_path)
    again = (MODELS[0], replace(MODELS[1], digest=type(MODELS[1].digest)("3" * 64)))

    before = read(encoded(found(study), study)[0])
    after = read(encoded(replace(found(study), algorithms=again), study)[0])

    pairs = zip(before.ContributingEquipmentSequence, after.ContributingEquipmentSequence, strict=True)
    same = [one.get("DeviceUID") == other.get("DeviceUID") for one, other in pairs]
    assert [True, True, True, False, False] == same
    assert before.DeviceUID != after.DeviceUID


def test_results_join_the_study_they_came_from(tmp_path: Path) -> None:
    """Same study, patient, accession, frame of reference and body part; a series of its own for each."""
    study = pelvis(tmp_path)
    source = pydicom.dcmread(study.instances[0].path)

    objects = [read(result) for result in encoded(found(study), study)]

    for data_set in objects:
        for keyword in ("StudyInstanceUID", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
                        "PatientAge", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
                        "StudyDescription", "BodyPartExamined"):  # fmt: skip
            assert source[keyword].value == data_set[keyword].value
        assert len(data_set.SeriesDescription) <= 64
        assert data_set.SeriesDescription.startswith("AI ")
        assert data_set.SeriesDescription.endswith(" - not for diagnostic use")
    assert len(objects) == len({data_set.SeriesInstanceUID for data_set in objects})
    numbers = [9000, 9010, 9100, 9101, 9102, 9200, 9201, 9202, 9020, 9030, 9031, 9032, 9080]
    assert numbers == [int(d.SeriesNumber) for d in objects]
    assert {source.FrameOfReferenceUID} == {d.FrameOfReferenceUID for d in objects if d.Modality in ("SEG",)}


def test_all_dates_are_those_of_the_newest_source_image(tmp_path: Path) -> None:
    study = pelvis(tmp_path)

    for result in encoded(found(study), study):
        data_set = read(result)
        own = "PresentationCreation" if result.kind is ResultKind.GSPS else "Content"
        for name in ("InstanceCreation", own):
            assert ("20210304", "100500") == (data_set[f"{name}Date"].value, data_set[f"{name}Time"].value)
        assert ("20210304", "100500") == (data_set.SeriesDate, data_set.SeriesTime.partition(".")[0])


def test_series_to_be_read_first_are_the_latest(tmp_path: Path) -> None:
    """Viewers list reports and overlays by Series Time, latest first: the order of the Series Numbers, within
    the second of the newest source image."""
    study = pelvis(tmp_path)
    objects = [read(result) for result in encoded(found(study), study)]

    by_number = sorted(objects, key=lambda d: int(d.SeriesNumber))
    assert by_number == sorted(objects, key=lambda d: float(d.SeriesTime), reverse=True)
    assert len(objects) == len({d.SeriesTime for d in objects})


def test_one_finding_has_one_tracking_uid(tmp_path: Path) -> None:
    study = pelvis(tmp_path)
    objects = encoded(found(study), study)

    group = hd.sr.srread(BytesIO(objects[0].content)).content.get_image_measurement_groups()[0]
    segments = [read(result).SegmentSequence[0] for result in of(ResultKind.SEG, objects)]

    assert {group.tracking_uid} == {segment.TrackingUID for segment in segments}
    assert {group.tracking_identifier} == {segment.TrackingID for segment in segments}


def test_the_page_is_a_capture_any_viewer_shows(tmp_path: Path) -> None:
    study = pelvis(tmp_path)

    page = read(encoded(found(study), study)[1])

    assert "1.2.840.10008.1.2.1" == page.file_meta.TransferSyntaxUID
    assert ("OT", "WSD", "YES", "RGB", 8, 3) == (
        page.Modality, page.ConversionType, page.BurnedInAnnotation, page.PhotometricInterpretation,
        page.BitsAllocated, page.SamplesPerPixel,
    )  # fmt: skip
    assert (1024, 1280, 3) == page.pixel_array.shape
    assert 12 == len(page.SourceImageSequence)


def test_an_empty_region_gives_no_segmentation(tmp_path: Path) -> None:
    study = pelvis(tmp_path)
    findings = found(study)
    empty = replace(findings.regions[0], mask=np.zeros_like(findings.regions[0].mask))

    objects = encoded(replace(findings, regions=(empty,)), study)

    assert [] == of(ResultKind.SEG, objects)


def test_two_regions_on_a_stack_are_two_segments(tmp_path: Path) -> None:
    study = pelvis(tmp_path)
    region = found(study).regions[0]
    second = replace(region, mask=np.roll(region.mask, 5, axis=2), label="Another place")

    objects = encoded(replace(found(study), regions=(region, second)), study)

    segmentation = hd.seg.segread(BytesIO(of(ResultKind.SEG, objects)[0].content))
    uids = [frame.sop_instance_uid for frame in region.stack.frames]
    pixels = segmentation.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(np.stack([region.mask, second.mask], axis=-1), pixels > 0)


NAMES = {
    "SCSFREN": b"Buc^J\xe9r\xf4me",
    "SCSGREEK": b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2",
    "SCSRUSS": b"\xbb\xee\xda\xe1\xd5\xdc\xd1\xe3\xe0\xd3",
    "SCSH31": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    "SCSI2": b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
}
TERMS = {
    "SCSFREN": "ISO_IR 100", "SCSGREEK": "ISO_IR 126", "SCSRUSS": "ISO_IR 144",
    "SCSH31": ["", "ISO 2022 IR 87"], "SCSI2": ["", "ISO 2022 IR 149"],
}  # fmt: skip


@pytest.mark.parametrize("which", NAMES)
def test_a_name_in_any_character_set_arrives_as_the_bytes_it_came_in(tmp_path: Path, which: str) -> None:
    """PS3.5 6.1 and annexes H, I: value and Specific Character Set go over unchanged, in every object."""
    study = _named(tmp_path, NAMES[which], TERMS[which])

    for result in encoded(found(study), study):
        assert TERMS[which] == read(result).SpecificCharacterSet
        assert NAMES[which] in result.content
        decoded = pydicom.dcmread(study.instances[0].path).PatientName
        assert decoded == read(result).PatientName


@pytest.mark.parametrize("name", [b"M\xfcller^Anna", b"\x8eR\x93c^\x91\xbe\x98Y"])
def test_a_name_without_a_character_set_is_not_touched_either(tmp_path: Path, name: bytes) -> None:
    """Latin-1 or Shift-JIS that nobody declared: what the PACS made of it before, it makes of it again."""
    study = _named(tmp_path, name, None)

    for result in encoded(found(study), study):
        assert "SpecificCharacterSet" not in read(result)
        assert name in result.content


def test_a_pipeline_may_speak_a_language_the_source_cannot_write(tmp_path: Path) -> None:
    """Then the object is in Unicode, the patient's name included, and both are whole."""
    study = _named(tmp_path, NAMES["SCSGREEK"], TERMS["SCSGREEK"])
    findings = found(study)
    assert findings.verdict is not None
    findings = replace(findings, verdict=replace(findings.verdict, statement="子宮肉腫の疑い"))

    for result in encoded(findings, study):
        assert "ISO_IR 192" == read(result).SpecificCharacterSet
        assert "Διονυσιος" == str(read(result).PatientName)
    assert "子宮肉腫の疑い".encode() in encoded(findings, study)[0].content


def test_typography_does_not_need_unicode(tmp_path: Path) -> None:
    study = pelvis(tmp_path)

    findings = found(study, warnings=("b ≥ 800 – “high”",))
    report = read(encoded(findings, study)[0])

    assert "ISO_IR 100" == report.SpecificCharacterSet
    assert b'Warning: b >= 800 - "high".' in encoded(findings, study)[0].content


@pytest.mark.real
def test_real_character_sets_survive(real_data: Path, tmp_path: Path) -> None:
    """Orthanc's own samples of character sets; those that are MR images or any image with a study."""
    folder = real_data / "dcm_orthanc_tests" / "Encodings"
    if not folder.is_dir():
        pytest.skip("no dcm_orthanc_tests")
    checked = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not pydicom.misc.is_dicom(path):
            continue
        source = pydicom.dcmread(path, stop_before_pixels=True)
        if "StudyInstanceUID" not in source or "SeriesInstanceUID" not in source:
            continue
        study = lone(path)
        for result in encoded(refused(), study):
            again = read(result)
            raw = source.get_item(0x00100010)
            assert (raw.value or b"").strip() == (again.get_item(0x00100010).value or b"").strip()
            assert source.get("SpecificCharacterSet") == again.get("SpecificCharacterSet")
        checked += 1
    assert checked


def test_nothing_is_logged_or_warned_while_encoding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """highdicom quotes names it finds odd; here it never sees one."""
    study = pelvis(tmp_path, name="CANARY ODD^^^NAME^^")

    with caplog.at_level(logging.DEBUG):
        encoded(found(study), study)

    assert "CANARY" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2"])
def test_sources_in_other_encodings_give_the_same_objects(tmp_path: Path, syntax: str) -> None:
    """Implicit VR and big endian sources: every byte of every result is that of the explicit VR source."""
    study = pelvis(tmp_path / "explicit", PregnancyStatus=4)
    expected = [result.content for result in encoded(found(study), study)]
    for instance in study.instances:
        data_set = pydicom.dcmread(instance.path)
        data_set.file_meta.TransferSyntaxUID = syntax
        if syntax.endswith(".2.2"):
            data_set.PixelData = np.frombuffer(data_set.PixelData, "<u2").astype(">u2").tobytes()
        pydicom.dcmwrite(
            instance.path, data_set, implicit_vr=syntax == "1.2.840.10008.1.2",
            little_endian=syntax != "1.2.840.10008.1.2.2",
        )  # fmt: skip

    assert expected == [result.content for result in encoded(found(study), study)]


def _named(folder: Path, name: bytes, terms: object) -> Study:
    """A study whose files hold the name as exactly these bytes."""
    study = pelvis(folder, PELVIS[:1], SpecificCharacterSet=terms, name="X")
    padded = name + b" " * (len(name) % 2)
    for instance in study.instances:
        content = instance.path.read_bytes()
        head = b"\x10\x00\x10\x00PN"
        assert 1 == content.count(head + b"\x02\x00X ")
        element = head + len(padded).to_bytes(2, "little") + padded
        instance.path.write_bytes(content.replace(head + b"\x02\x00X ", element))
    return study


def test_a_leading_stack_alone_gets_overlays(tmp_path: Path) -> None:
    """Where the findings name one stack, one SEG and one map are made; the report says on which series."""
    study = pelvis(tmp_path)
    lead = study.stacks[1]

    objects = encoded(replace(found(study), lead=lead), study)

    (segmentation,) = of(ResultKind.SEG, objects)
    (heatmap,) = of(ResultKind.PM, objects)
    referenced = [read(result).ReferencedSeriesSequence[0] for result in (segmentation, heatmap)]
    assert [lead.series_uid] * 2 == [item.SeriesInstanceUID for item in referenced]
    (report,) = of(ResultKind.SR, objects)
    assert f"marked region are on series {lead.series_number}" in report.content.decode("latin-1")
