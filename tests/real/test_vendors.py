"""Every vendor's real files: nothing crashes, contrasts are right, each refusal says why."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from dicom_node.assemble.study import read_study
from dicom_node.dicom.volume import read_volume
from dicom_node.domain.identity import UID
from dicom_node.domain.pipeline import Need
from dicom_node.domain.series import Contrast, Plane, StoredInstance, Study
from dicom_node.route.choose import choose
from support.stored import stored_files

pytestmark = pytest.mark.real

UTERINE = (
    Need("t2_axial", Contrast.T2, Plane.AXIAL), Need("t2_sagittal", Contrast.T2, Plane.SAGITTAL),
    Need("dwi_high", Contrast.DWI, b_value=(500.0, 1500.0)), Need("adc", Contrast.ADC),
    Need("t1", Contrast.T1), Need("dce", Contrast.DCE),
)  # fmt: skip


def studies(paths: Iterable[Path]) -> list[Study]:
    members: dict[UID, list[StoredInstance]] = defaultdict(list)
    for member in stored_files(path for path in paths if path.is_file()):
        members[member.study_uid].append(member)
    return [read_study(uid, 1, found) for uid, found in sorted(members.items())]


def one(folder: Path) -> Study:
    (study,) = studies(folder.rglob("*.dcm"))
    return study


def summary(study: Study) -> dict[str, int]:
    return dict(Counter(stack.label for stack in study.stacks))


def nothing_chosen(study: Study) -> bool:
    return all(choice.stack is None for choice in choose(UTERINE, study))


def test_siemens_xa10_functional_mr_is_no_diffusion(real_data: Path) -> None:
    """Enhanced, one volume per object; described as "REST1", which is no T1."""
    study = one(real_data / "mr_dcm_qa_enh" / "In" / "Siemens")

    assert ({"6: T2* axial, 6 slices": 4}, ()) == (summary(study), study.refusals)
    assert [1, 2, 3, 4] == [stack.temporal_index for stack in study.stacks]
    assert nothing_chosen(study)


def test_philips_enhanced_field_map_is_neither_t1_nor_t2(real_data: Path) -> None:
    """Its magnitude half is a T1-weighted gradient echo by its numbers, but belongs to a field map."""
    study = one(real_data / "mr_dcm_qa_enh" / "In" / "Philips")

    assert ({"801: other axial, 32 slices": 2}, ()) == (summary(study), study.refusals)
    assert ["image type FIELD_MAP: a field map", "belongs to the field map in the same series"] == [
        stack.reasons[0] for stack in study.stacks
    ]


def test_siemens_xa30_field_map_and_perfusion(real_data: Path) -> None:
    """Two echoes of a field map, seven arterial spin labelling volumes, reports that are no images."""
    study = one(real_data / "mr_dcm_qa_xa30" / "In")

    assert {"8: other axial, 33 slices": 2, "25: other axial, 12 slices": 7} == summary(study)
    assert () == study.refusals
    assert {"a field-map sequence by its sequence name", "image type ASL: perfusion"} == {
        stack.reasons[0] for stack in study.stacks
    }
    assert nothing_chosen(study)


def test_canon_diffusion_is_split_by_b_value_and_direction(real_data: Path, tmp_path: Path) -> None:
    """520 frames in one Enhanced object: one b = 0 volume and twelve directions of b = 1500."""
    path = tmp_path / "canon.dcm"
    packed = real_data / "mr_dcm_qa_canon" / "In" / "enh" / "10000.dcm.gz"
    path.write_bytes(gzip.decompress(packed.read_bytes()))

    (study,) = studies([path])

    expected = {"10000: DWI b0 sagittal, 40 slices": 1, "10000: DWI b1500 sagittal, 40 slices": 12}
    assert expected == summary(study)
    assert (40, 80, 80) == read_volume(study.stacks[0]).array.shape


def test_siemens_mosaics_are_refused_in_words(real_data: Path) -> None:
    study = one(real_data / "mr_dcm_qa_nih" / "In" / "20180918Si")

    assert () == study.stacks
    assert [
        f"series {n}: a Siemens mosaic: 5 slices share each image, and mosaics are not unpacked"
        for n in (3, 4, 5, 6)
    ] == [refusal.why for refusal in study.refusals]


def test_ge_functional_mr_is_split_where_the_scanner_states_ten_time_points(real_data: Path) -> None:
    """All images carry one acquisition time; (0020,0105) and the instance numbers tell them apart."""
    study = one(real_data / "mr_dcm_qa_nih" / "In" / "20180918GE")

    assert ({"4: T2* axial, 15 slices": 10}, ()) == (summary(study), study.refusals)
    assert list(range(1, 11)) == [stack.temporal_index for stack in study.stacks]
    assert nothing_chosen(study)


def test_philips_functional_mr_with_b_zero_is_no_diffusion(real_data: Path) -> None:
    """Philips writes Diffusion b-value 0 into every image; b = 0 alone weights nothing."""
    study = one(real_data / "mr_dcm_qa_philips")

    assert ({"201: T2* axial, 9 slices": 3}, ()) == (summary(study), study.refusals)
    assert [None, None, None] == [stack.b_value for stack in study.stacks]


def test_philips_flair_is_no_t2(real_data: Path) -> None:
    """Described as "sT2W/FLAIR"; the inversion time decides."""
    study = one(real_data / "dcm_orthanc_tests" / "Brainix")

    assert ({"401: FLAIR axial, 22 slices": 1}, ()) == (summary(study), study.refusals)
    assert (
        "inversion recovery with TE 100 ms, TR 9000 ms, TI 2500 ms: fluid suppressed"
        == (study.stacks[0].reasons[0])
    )
    assert nothing_chosen(study)


def test_philips_knee_t1_in_jpeg_2000(real_data: Path) -> None:
    """Compressed, and coronal: chosen where any T1 will do, decoded as it is."""
    study = one(real_data / "dcm_orthanc_tests" / "Knee")

    assert ({"301: T1 coronal, 24 slices": 1}, ()) == (summary(study), study.refusals)
    assert (24, 512, 512) == read_volume(study.stacks[0]).array.shape


def test_strange_files_end_in_stacks_or_sentences(real_data: Path) -> None:
    """Everything of the Orthanc test set: no crash, and no series without a stack, a sentence or a reason."""
    found = studies((real_data / "dcm_orthanc_tests").rglob("*"))

    assert len(found) > 40
    for study in found:
        said = {stack.series_uid for stack in study.stacks} | {r.series_uid for r in study.refusals}
        silent = {i.series_uid for i in study.instances if "rows" in i.header} - said
        assert set() == silent
        choose(UTERINE, study)


def test_the_sentences_of_strange_files(real_data: Path) -> None:
    """Each says what is wrong; none repeats what a file says of a person, nor its script tags."""
    found = studies((real_data / "dcm_orthanc_tests").glob("*"))
    sentences = {refusal.why for study in found for refusal in study.refusals}

    assert {
        "series 488210: its images are no MR images but other objects of modality PT",
        "a series without number: an image states no rows or columns",
        "a series without number: 4 images without position",
    } <= sentences
    assert "script" not in " ".join(sentences)
