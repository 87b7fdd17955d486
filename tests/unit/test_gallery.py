"""Pictures and the page made of received result objects."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from dicom_node.demo.gallery import (
    Chosen,
    Delivered,
    Page,
    Strip,
    coloured,
    draw,
    outlined,
    render,
    shown_size,
    source_pixels,
    windowed,
)
from dicom_node.demo.received import Placement, Results, read_results
from dicom_node.demo.story import Step
from dicom_node.demo.summary import places
from dicom_node.domain.findings import Findings
from dicom_node.domain.series import Study
from dicom_node.encode.results import encode
from support.findings import CANARY, found, pelvis, refused


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return pelvis(tmp_path / "study")


def received(study: Study, findings: Findings, folder: Path) -> Results:
    """The findings as objects in files, read back."""
    folder.mkdir()
    objects = encode(
        findings, study, input_key="k", pipeline="uterine_mri", pipeline_version="1", title="Uterus"
    )
    paths = []
    for number, item in enumerate(objects):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(item.content)
    return read_results(paths)


def files(study: Study) -> dict[str, Path]:
    return {str(item.sop_instance_uid): item.path for item in study.instances}


def drawn(study: Study, results: Results, folder: Path) -> tuple[tuple[Strip, ...], str | None]:
    return draw(results, files(study), places(study, {}), folder)


def page(results: Results, **changes: object) -> Page:
    plain = Page(
        title="Uterus", subject="A generated study", made_at="2026-01-02 10:00 UTC", results=results,
        strips=(), page_image=None, arrived=(), chosen=(), because="every series is whole", steps=(),
        delivered=(), models=(),
    )  # fmt: skip
    return replace(plain, **changes)


def placed(spacing: tuple[float, float] = (1.0, 1.0), rows: int = 4, columns: int = 4) -> Placement:
    return Placement(np.zeros(3), np.eye(2, 3).ravel(), np.array(spacing), rows, columns)


# ---- reading back -----------------------------------------------------------------------


def test_the_verdict_is_read_from_the_received_report(study: Study, tmp_path: Path) -> None:
    """Probability, operating point, indeterminate band and kept slices come from the SR alone."""
    reading = received(study, found(study, probability=0.87, warnings=("Look.",)), tmp_path / "r").reading

    assert (True, 0.87, "sarcoma of uterus") == (
        reading.performed, reading.probability, reading.probability_of.lower(),
    )  # fmt: skip
    assert reading.point is not None
    assert (0.4, 0.5, 0.6) == (reading.point.low, reading.point.threshold, reading.point.high)
    assert ("Look.",) == reading.warnings
    assert 3 * 4 == len(reading.kept)


def test_a_report_without_verdict_says_why(study: Study, tmp_path: Path) -> None:
    """Not performed: a reason, no probability, no slices."""
    results = received(study, refused("the patient is male"), tmp_path / "r")

    assert "AI not performed, because the patient is male." == results.reading.conclusion
    assert (False, None, ()) == (results.reading.performed, results.reading.probability, results.reading.kept)
    assert ("AI not performed", "not-performed") == (page(results).headline, page(results).tone)


# ---- pictures ---------------------------------------------------------------------------


def test_every_kept_slice_is_drawn_with_its_map_and_region(study: Study, tmp_path: Path) -> None:
    """One composed picture and its layers per slice that the SR refers to, and the SC page."""
    strips, page_image = drawn(study, received(study, found(study), tmp_path / "r"), tmp_path / "previews")

    assert [4, 4, 4] == [len(strip.slices) for strip in strips]
    assert [8, 6, 8] == [strip.of for strip in strips]
    assert "previews/page.png" == page_image
    for strip in strips:
        for item in strip.slices:
            for name in (item.image, item.composed, item.heat):
                assert name and (tmp_path / name).is_file()
        assert strip.slices[strip.featured].outline


def test_a_map_that_lies_elsewhere_is_not_drawn(study: Study, tmp_path: Path) -> None:
    """A Parametric Map whose geometry is not that of the image it names stays off the picture, aloud."""
    results = received(study, found(study), tmp_path / "r")
    moved = {
        key: replace(layer, where=replace(layer.where, position=layer.where.position + 3.0))
        for key, layer in results.maps.items()
    }

    strips, _ = drawn(study, replace(results, maps=moved), tmp_path / "previews")

    assert {None} == {item.heat for strip in strips for item in strip.slices}
    assert all("not drawn" in strip.notes[0] for strip in strips)


def test_the_overlay_changes_the_picture_where_the_region_is(study: Study, tmp_path: Path) -> None:
    """The composed picture differs from the source only where map or region say something."""
    strips, _ = drawn(study, received(study, found(study), tmp_path / "r"), tmp_path / "previews")
    item = strips[0].slices[strips[0].featured]

    composed = np.asarray(Image.open(tmp_path / item.composed)).astype(int)
    saturation = composed.max(axis=2) - composed.min(axis=2)

    assert 0 == saturation[0, 0]
    assert saturation.max() > 100


def test_windowing_is_linear_and_clips() -> None:
    """Below the window black, above it white, the middle grey."""
    pixels = np.array([[-5.0, 0.0, 50.0, 100.0, 200.0]], dtype=np.float32)

    assert [[0, 0, 128, 255, 255]] == windowed(pixels, 0.0, 100.0).tolist()


def test_a_flat_image_does_not_divide_by_zero() -> None:
    """An image of one value is black."""
    assert 0 == windowed(np.ones((2, 2), np.float32), 1.0, 1.0).max()


def test_zero_on_a_map_is_transparent() -> None:
    """Nothing is said, so nothing is seen; the strongest value is seen best."""
    colour = coloured(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))

    assert [0, 0, 0, 0] == colour[0, 0].tolist()
    assert 0 < colour[0, 1, 3] < colour[0, 2, 3] < 255


def test_a_contour_has_a_line_and_an_open_middle() -> None:
    """The inside of a region stays clear: it is what is to be looked at."""
    mask = np.zeros((32, 32), dtype=bool)
    mask[8:24, 8:24] = True

    picture = np.asarray(outlined(mask, (320, 320)))

    assert 255 == picture[160, 80:90, 3].max()
    assert [0, 0] == [picture[160, 160, 3], picture[2, 2, 3]]


def test_pictures_have_the_proportions_of_the_patient() -> None:
    """Pixels that are twice as tall as wide are shown so."""
    assert (320, 640) == shown_size(placed((2.0, 1.0)))


def test_monochrome1_is_shown_bright_as_bright(study: Study) -> None:
    """PS3.3 C.7.6.3.1.2: the lowest value of MONOCHROME1 is white."""
    data_set = dcmread(study.instances[0].path)
    as_stored = source_pixels(data_set, 1)

    data_set.PhotometricInterpretation = "MONOCHROME1"

    assert (as_stored.max() - as_stored).tolist() == source_pixels(data_set, 1).tolist()


# ---- the page ---------------------------------------------------------------------------


class Links(HTMLParser):
    """Everything a page would load or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def whole_page(study: Study, tmp_path: Path) -> str:
    results = received(study, found(study, probability=0.87, warnings=("<b>Look</b>",)), tmp_path / "r")
    strips, page_image = drawn(study, results, tmp_path / "previews")
    return render(
        page(
            results, strips=strips, page_image=page_image, steps=(Step("networks", 0.0, 3.1),),
            chosen=(Chosen("T2 axial", "4: T2 axial, 8 slices", ("<script>alert(1)</script>",)),),
            delivered=(Delivered("sr", "Structured Report", "dicom/sr-1.dcm", 9000, 9000, "AI", "0x0000"),),
        )
    )  # fmt: skip


def test_the_page_says_the_verdict_first(study: Study, tmp_path: Path) -> None:
    """Headline, probability, operating point and band stand before everything else."""
    text = whole_page(study, tmp_path)

    where = [text.index(part) for part in ("<h1>", "87.0<i>%", "operating point 50.0 %", "Slices behind it")]
    assert sorted(where) == where
    assert "Research use only - not a medical device" in text


def test_the_page_needs_nothing_from_elsewhere(study: Study, tmp_path: Path) -> None:
    """Every link is a file beside it, and every picture is there."""
    links = Links(whole_page(study, tmp_path)).found

    assert [] == [link for link in links if re.match(r"[a-z]+:|//|/", link)]
    assert [] == [link for link in links if link.endswith(".png") and not (tmp_path / link).is_file()]


def test_text_from_outside_is_escaped(study: Study, tmp_path: Path) -> None:
    """A series description or a warning cannot become markup."""
    text = whole_page(study, tmp_path)

    assert "<script>alert" not in text
    assert "<b>Look</b>" not in text
    assert "&lt;b&gt;Look&lt;/b&gt;" in text


def test_no_name_is_on_the_page(study: Study, tmp_path: Path) -> None:
    """The patient's name is in every source and result file, and not here."""
    text = whole_page(study, tmp_path)

    assert [] == [part for part in CANARY.split("^") if part in text]


@pytest.mark.parametrize(
    ("probability", "tone"), [(0.39, "negative"), (0.4, "open"), (0.59, "open"), (0.6, "positive")]
)
def test_the_colour_follows_the_operating_point(
    study: Study, tmp_path: Path, probability: float, tone: str
) -> None:
    """Negative below the band, positive from its upper limit, open within."""
    assert tone == page(received(study, found(study, probability=probability), tmp_path / "r")).tone
