"""Results of slides and photographs obey the Standard, by programs of others, and say what was found."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.findings import Findings
from dicom_node.domain.job import BY_NAME_ONLY, ResultKind, ResultObject
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.readings import BLOOD, CANARY, TURNED, judged, photographs, real_smear, smear
from support.validators import dcentvfy_errors, dciodvfy_errors, dsrdump, pixelmed_errors

SLIDE = ["sr", "sc", "roi", "ann", "pm", "pm", "seg", "fseg", "wsi"]


def encoded(findings: Findings, study: Study, key: str = "k") -> tuple[ResultObject, ...]:
    return encode(
        findings, study, input_key=key, pipeline="cytology", pipeline_version="1.0.0", title="Cytology"
    )  # fmt: skip


def written(folder: Path, objects: tuple[ResultObject, ...]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}_{result.kind}.dcm" for number, result in enumerate(objects)]
    for path, result in zip(paths, objects, strict=True):
        path.write_bytes(result.content)
    return paths


def one(kind: ResultKind, objects: tuple[ResultObject, ...]) -> Dataset:
    """The first object of a kind, decoded."""
    content = next(result.content for result in objects if result.kind is kind)
    return pydicom.dcmread(BytesIO(content))


@pytest.mark.parametrize("which", ["one plane", "three planes", "blood", "photographs"])
def test_results_are_valid(tmp_path: Path, which: str) -> None:
    """dciodvfy on every object, PixelMed on every report, dcentvfy over sources and results."""
    if which == "photographs":
        study, kinds = photographs(tmp_path / "study"), ["sr", "sc", "roi"]
    elif which == "three planes":
        study, kinds = smear(tmp_path / "study", planes=3, cosines=TURNED), SLIDE
    else:
        study, kinds = smear(tmp_path / "study"), SLIDE
    findings = judged(study, shown=3)
    if which == "blood":
        findings, kinds = judged(study, shown=3, classes=BLOOD), ["sr", "sc", "sr", *SLIDE[2:]]

    objects = encoded(findings, study)
    paths = written(tmp_path / "out", objects)

    assert kinds == [result.kind for result in objects]
    reports = [path for path, made in zip(paths, objects, strict=True) if made.kind in ("sr", "roi")]
    assert [] == [error for path in paths for error in dciodvfy_errors(path)]
    assert [] == [error for path in reports for error in pixelmed_errors(path)]
    assert [] == dcentvfy_errors([*(instance.path for instance in study.instances), *paths])
    assert all("<contains" in dsrdump(path) for path in reports)


@pytest.mark.real
def test_results_of_a_real_slide_are_valid(real_data: Path, tmp_path: Path) -> None:
    """CMU-1-Small-Region: without patient, container, specimen, optical path and origin."""
    paths = sorted((real_data / "wsi_jcupitt" / "cmu-1-small-region").glob("level-[012]-*.dcm"))
    if not paths:
        pytest.skip("no wsi_jcupitt")
    study = real_smear(paths)

    objects = encoded(judged(study, shown=3), study)
    made = written(tmp_path, objects)

    assert SLIDE == [result.kind for result in objects]
    assert [] == [error for path in made for error in dciodvfy_errors(path)]
    assert [] == [error for path in made if path.name.endswith("sr.dcm") for error in pixelmed_errors(path)]


def test_an_indeterminate_slide_without_maps_or_cells_is_valid(tmp_path: Path) -> None:
    """Nothing found is a result as well: a report and a page, and nothing laid over the slide."""
    study = smear(tmp_path / "study")
    findings = judged(study, probability=0.5, count=0, shown=0)
    (reading,) = findings.readings
    bare = type(reading)(reading.picture, reading.cells, adequacy=reading.adequacy)

    objects = encoded(type(findings)(findings.algorithms, findings.verdict, readings=(bare,)), study)

    assert ["sr", "sc"] == [result.kind for result in objects]
    assert [] == [error for path in written(tmp_path, objects) for error in dciodvfy_errors(path)]


def test_the_report_reads_verdict_first(tmp_path: Path) -> None:
    """Verdict, probability, operating point and its bound, counts, adequacy, cells, model, limits."""
    study = smear(tmp_path / "study", planes=3)
    report = one(ResultKind.SR, encoded(judged(study), study))

    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in report.ContentSequence]
    reading = report.ContentSequence[names.index("Qualitative Evaluations")]
    lines = [item.get("TextValue") for item in reading.ContentSequence if item.ValueType == "TEXT"]
    order = [
        "Positive: HSIL",
        "Probability of HSIL",
        "Operating point: ",
        "Cells found: 60 (HSIL 24, LSIL 16",
        "Adequacy: 60 cells",
        "Triage: review",
        "Read: slide of series 1",
        "Cell 1: HSIL 99.1 %",
        "2 more cells",
        "Warning: ",
        "Model: Cell Classifier",
        "Limits: ",
        "AI - research",
        "Unverified: ",
    ]
    places = [next(n for n, line in enumerate(lines) if line.startswith(start)) for start in order]
    assert sorted(places) == places
    assert "95 % interval 92.8 % to 100.0 %" in lines[places[2]]
    assert "3 of 3 focal planes" in lines[places[6]]
    assert "focal plane" in lines[places[7]]
    assert (
        "Comprehensive SR" in pydicom.uid.UID(report.SOPClassUID).name
    )  # no viewer takes it for drawn regions


def test_every_object_shows_the_specimen(tmp_path: Path) -> None:
    """Container and specimen travel with what is laid over a slide, and are the reports' subject."""
    study = smear(tmp_path / "study")
    objects = encoded(judged(study), study)

    for result in objects:
        data_set = pydicom.dcmread(BytesIO(result.content))
        if result.kind in ("sr", "roi"):
            said = {item.ConceptNameCodeSequence[0].CodeValue: item for item in data_set.ContentSequence}
            assert "121027" == said["121024"].ConceptCodeSequence[0].CodeValue  # subject class: specimen
            assert ("SMEAR-1", "GLASS-1") == (said["121041"].TextValue, said["111700"].TextValue)
        else:
            assert "GLASS-1" == data_set.ContainerIdentifier
            assert "SMEAR-1" == data_set.SpecimenDescriptionSequence[0].SpecimenIdentifier
        assert study.uid == data_set.StudyInstanceUID
        assert data_set.SeriesDescription.endswith("not for diagnostic use")


def test_a_differential_is_a_table_and_numbers(tmp_path: Path) -> None:
    """Each share under its own LOINC code, with counts and interval beside it, and all of it as text."""
    study = smear(tmp_path / "study")
    objects = encoded(judged(study, classes=BLOOD), study)
    _, differential = (pydicom.dcmread(BytesIO(r.content)) for r in objects if r.kind is ResultKind.SR)

    findings = next(item for item in differential.ContentSequence if item.get("ContentSequence"))
    table, *numbers = findings.ContentSequence
    shares = {
        item.ConceptNameCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in numbers
    }
    assert "2000" == differential.ContentTemplateSequence[0].TemplateIdentifier
    assert {"246205007": 60, "769-0": 100 / 3, "764-1": 80 / 3, "709-6": 40} == pytest.approx(
        shares, abs=1e-5
    )
    rows = table.TextValue.split("\r\n")
    assert "blast          24   40.0 %  30.0 % to 50.0 %" == rows[3]
    assert len({row.index(" to ") for row in rows[1:]}) == 1  # columns stand under each other
    meant = numbers[-1].ContentSequence[0].TextValue
    assert "blast: 24 of 60 cells, 95 % interval 30.0 % to 50.0 %" == meant


def test_made_again_results_are_the_same_bytes(tmp_path: Path) -> None:
    """No clock, no chance: the same input gives the same objects, another gives none of their UIDs."""
    study = smear(tmp_path / "study", planes=3)
    first, again, other = (encoded(judged(study), study, key) for key in ("k", "k", "other"))

    digests = [[hashlib.sha256(result.content).hexdigest() for result in made] for made in (first, again)]
    assert digests[0] == digests[1]
    assert not {r.sop_instance_uid for r in first} & {r.sop_instance_uid for r in other}
    assert len(first) == len({r.sop_instance_uid for r in first})


def test_no_patient_is_on_the_page_or_anywhere_but_in_its_place(tmp_path: Path) -> None:
    study = smear(tmp_path / "study")

    assert {1} == {result.content.count(CANARY.encode()) for result in encoded(judged(study), study)}


def test_what_stops_a_viewer_is_sent_by_name_only() -> None:
    """OHIF hangs on a fractional Segmentation; everything else of a slide goes out by itself."""
    assert {"gsps", "kos", "reject", "fseg"} == {str(kind) for kind in BY_NAME_ONLY}


def test_the_page_shows_cells_their_maps_and_their_places(tmp_path: Path) -> None:
    """A ring in the class's colour where the worst cell lies on the slide, and nowhere mirrored."""
    study = smear(tmp_path / "study")
    findings = judged(study, shown=1)
    (reading,) = findings.readings

    pixels = one(ResultKind.SC, encoded(findings, study)).pixel_array

    colour = np.array(reading.cells.classes[2].colour)
    marked = np.argwhere((pixels[375:760, 32:592] == colour).all(axis=-1))
    cell = reading.gallery[0].cell
    across, down = reading.cells.centre_px[cell] / (1300, 900)
    middle = (marked.min(axis=0) + marked.max(axis=0)) / 2
    wide, high = 560.0, 560 * 900 / 1300
    fitted = min(1.0, 380 / high)
    left = (560 - wide * fitted) / 2
    assert middle[1] == pytest.approx(left + across * wide * fitted, abs=4)
    assert middle[0] == pytest.approx(down * high * fitted, abs=4)
