"""A second implementation reads from the results what the pipeline said: every voxel in its place.

dcmqi knows nothing of the sources: what it finds in patient space must be where the pipeline's
own geometry puts it, to a hundredth of a millimetre, with the same float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicom_node.dicom.volume import affine_of
from dicom_node.domain.findings import Findings
from dicom_node.domain.job import ResultKind
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.dcmqi import parametric_map, report, segments
from support.findings import SARCOMA, enhanced, folder_study, found, pelvis


@pytest.fixture(params=["classic", "enhanced", "ProstateX-0000", "Siemens XA30"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Study:
    made = {"classic": pelvis, "enhanced": enhanced}
    if request.param in made:
        return made[request.param](tmp_path / "study")
    real: Path = request.getfixturevalue("real_data")
    if request.param == "ProstateX-0000":
        patient = real / "mr_prostatex" / "ProstateX" / request.param
        paths = [path for path in patient.rglob("*.dcm") if path.parent.name.startswith(("3.", "4.", "7."))]
    else:
        paths = sorted((real / "mr_dcm_qa_xa30" / "In" / "8_gre_field_mapping").glob("0002_*.dcm"))
    if not paths:
        pytest.skip(f"no {request.param}")
    return folder_study(paths)


def written(findings: Findings, study: Study, folder: Path) -> dict[ResultKind, list[Path]]:
    """The result files by kind."""
    folder.mkdir()
    paths: dict[ResultKind, list[Path]] = {}
    results = encode(
        findings, study, input_key="k", pipeline="uterine_mri", pipeline_version="1.0.0", title="Uterine MRI"
    )
    for number, result in enumerate(results):
        path = folder / f"{number}.dcm"
        path.write_bytes(result.content)
        paths.setdefault(result.kind, []).append(path)
    return paths


def test_masks_come_back_voxel_by_voxel(study: Study, tmp_path: Path) -> None:
    findings = found(study)
    paths = written(findings, study, tmp_path / "out")[ResultKind.SEG]

    for number, (region, path) in enumerate(zip(findings.regions, paths, strict=True)):
        (grid,) = segments(path, tmp_path / f"seg{number}")

        assert np.array_equal(region.mask, grid.on(affine_of(region.stack), region.mask.shape) > 0)


def test_maps_come_back_value_by_value(study: Study, tmp_path: Path) -> None:
    """Although dcmqi 1.5.7 lays frames in the order of the file, whatever their positions."""
    findings = found(study)
    paths = written(findings, study, tmp_path / "out")[ResultKind.PM]

    for number, (heat, path) in enumerate(zip(findings.maps, paths, strict=True)):
        grid = parametric_map(path, tmp_path / f"map{number}")

        assert np.float32 == grid.array.dtype
        assert np.array_equal(heat.values, grid.on(affine_of(heat.stack), heat.values.shape))


def test_frames_of_a_map_follow_the_slice_normal(study: Study, tmp_path: Path) -> None:
    """OHIF copies a map's frames into its volume in the order of the file, and its volumes begin at the near
    end of the slice normal; each frame's own position says the same to readers that ask."""
    findings = found(study)
    paths = written(findings, study, tmp_path / "out")[ResultKind.PM]

    for heat, path in zip(findings.maps, paths, strict=True):
        data_set = pydicom.dcmread(path)
        groups = data_set.PerFrameFunctionalGroupsSequence
        places = [[*map(float, group.PlanePositionSequence[0].ImagePositionPatient)] for group in groups]
        shape = len(groups), data_set.Rows, data_set.Columns
        values = np.frombuffer(data_set.FloatPixelData, "<f4").reshape(shape)

        assert np.allclose([frame.position_mm for frame in heat.stack.frames], places, atol=1e-3)
        assert np.array_equal(heat.values, values)
        indices = [group.FrameContentSequence[0].DimensionIndexValues for group in groups]
        assert [*range(1, len(groups) + 1)] == indices


def test_probabilities_and_diagnosis_come_back(study: Study, tmp_path: Path) -> None:
    """From the report's only group; to the six decimals of a percentage that are written."""
    findings = found(study, probability=0.87654321)
    paths = written(findings, study, tmp_path / "out")

    (group,) = report(paths[ResultKind.SR][0], tmp_path / "sr")["Measurements"]

    numbers = {
        (item["quantity"]["CodeValue"], float(item["value"]))
        for item in group["measurementItems"] if item["units"]["CodeValue"] == "%"
    }  # fmt: skip
    assert {("111047", 87.654321), ("122157", 87.654321), ("122157", 12.345679), ("111012", 81.0)} == numbers
    said = {
        item["conceptCode"]["CodeValue"]: item["conceptValue"]["CodeValue"]
        for item in group["qualitativeEvaluations"] if isinstance(item["conceptValue"], dict)
    }  # fmt: skip
    assert SARCOMA.value == said["439401001"]


def test_the_probability_of_each_slice_comes_back(study: Study, tmp_path: Path) -> None:
    findings = found(study)
    paths = written(findings, study, tmp_path / "out")
    expected = sorted(
        round(100 * score.positive_probability, 6)
        for part, region in zip(findings.sequences, findings.regions, strict=True)
        for score, mask in zip(part.slices, region.mask, strict=True)
        if mask.any() and score.positive_probability is not None
    )

    groups = report(paths[ResultKind.ROI][0], tmp_path / "roi")["Measurements"]

    values = sorted(float(item["value"]) for group in groups for item in group["measurementItems"])
    assert pytest.approx(expected, abs=1e-6) == values
    assert expected
