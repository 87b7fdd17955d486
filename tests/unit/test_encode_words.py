"""The sentences of the report, and which slices the page shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.codes import Code
from dicom_node.domain.findings import NotPerformed
from dicom_node.encode import canvas, words
from dicom_node.encode.document import clipped, plain, series_description
from dicom_node.encode.page import draw, suspicious
from dicom_node.encode.source import _valid_moment
from support.findings import CANARY, PELVIS, enhanced, found, pelvis, refused


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([4], "4"), ([3, 4, 5, 9], "3-5, 9"), ([9, 1, 2], "1-2, 9"), ([1, 3, 5], "1, 3, 5")],
)
def test_slice_numbers_are_written_as_ranges(numbers: list[int], text: str) -> None:
    assert text == words.ranges(numbers)


@pytest.mark.parametrize("because", ["no T2 image was found", "no T2 image was found."])
def test_not_performed_is_one_sentence(because: str) -> None:
    told = words.not_performed(NotPerformed(because, "missing-series"))

    assert "AI not performed, because no T2 image was found." == told


@pytest.mark.parametrize(
    ("meaning", "text"),
    [("Sarcoma of uterus", "Probability of sarcoma of uterus"), ("HSIL", "Probability of HSIL")],
)
def test_a_class_name_is_written_within_the_sentence(meaning: str, text: str) -> None:
    assert text == words.probability_of(Code("1", "SCT", meaning))


@pytest.mark.parametrize(
    ("probability", "why"),
    [
        (0.61, "(positive: at or above 60.0 %)"),
        (0.5, "(indeterminate: from 40.0 % and below 60.0 %, so no class is named)"),
        (0.39, "(negative: below 40.0 %)"),
    ],
)
def test_the_probability_is_told_with_the_limit_that_decides(
    tmp_path: Path, probability: float, why: str
) -> None:
    verdict = found(pelvis(tmp_path, PELVIS[:1]), probability=probability).verdict
    assert verdict is not None

    assert words.probability(verdict).endswith(f"{why}.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b ≥ 800 – “x”", 'b >= 800 - "x"'),
        ("two\nlines\tand\x00more", "two lines and more"),
        ("a\\b", "a/b"),
    ],
)
def test_text_is_made_plain(text: str, expected: str) -> None:
    """No control character, and no backslash, which separates values (PS3.5 6.2)."""
    assert expected == plain(text)


def test_long_text_is_cut_at_a_word() -> None:
    assert "one two..." == clipped("one two three", 12)
    assert 64 == len(clipped("x" * 100))


def test_a_series_description_always_carries_the_caution() -> None:
    description = series_description("summary " + "very long title " * 5)

    assert len(description) <= 64
    assert description.endswith(" - not for diagnostic use")


@pytest.mark.parametrize(
    ("date", "time", "moment"),
    [
        ("20210304", "101112.5", ("20210304", "101112.5")),
        ("20210304", "1011", ("20210304", "101100")),
        ("20210304", "101", ("20210304", "100000")),
        ("20210304", "", ("20210304", "000000")),
        ("20210304", "10:11:12", ("20210304", "100000")),
        ("20211304", "101112", None),
        ("2021.03.04", "101112", None),
        ("", "101112", None),
    ],
)
def test_a_date_of_a_source_is_taken_only_where_it_is_one(
    date: str, time: str, moment: tuple[str, str] | None
) -> None:
    assert moment == _valid_moment(date, time)


def test_slices_have_the_numbers_a_viewer_shows(tmp_path: Path) -> None:
    """Instance Numbers, frame numbers of an Enhanced object, or else the place in the stack."""
    classic, multiframe = pelvis(tmp_path / "c", PELVIS[:1]), enhanced(tmp_path / "e")
    backwards = tuple(
        replace(stored, header={"instance_number": 20 - int(str(stored.header["instance_number"]))})
        for stored in classic.instances
    )
    unread = tuple(replace(instance, header={}) for instance in classic.instances)
    stack = classic.stacks[0]

    assert ("image", [19, 18, 17, 16, 15, 14, 13, 12]) == words.numbered(
        stack, replace(classic, instances=backwards)
    )
    assert ("slice", [1, 2, 3, 4, 5, 6, 7, 8]) == words.numbered(stack, replace(classic, instances=unread))
    assert ("frame", [2, 4, 6, 8, 10, 12]) == words.numbered(multiframe.stacks[1], multiframe)


def test_the_page_shows_the_most_suspicious_slices_of_every_sequence(tmp_path: Path) -> None:
    """Six at most, the best first, two of each of three sequences."""
    findings = found(pelvis(tmp_path))

    shown = suspicious(findings)

    assert [3, 3, 4, 4, 5, 5] == sorted(part.stack.series_number for part, _ in shown)
    probabilities = [score.positive_probability or 0.0 for _, score in shown]
    assert sorted(probabilities, reverse=True) == probabilities


def test_one_sequence_may_fill_the_page(tmp_path: Path) -> None:
    findings = found(pelvis(tmp_path, PELVIS[:1]), kept=7)

    assert 6 == len(suspicious(findings))


def test_the_page_is_the_same_each_time_and_without_the_patient(tmp_path: Path) -> None:
    one, other = pelvis(tmp_path / "one", name=CANARY), pelvis(tmp_path / "other", name="SOMEBODY^ELSE")

    page = draw(found(one), one, title="Uterine MRI")

    assert (1024, 1280, 3) == page.shape
    assert np.array_equal(page, draw(found(other), other, title="Uterine MRI"))


def test_the_page_can_be_drawn_of_anything(tmp_path: Path) -> None:
    """Nothing kept, no preview, no map, no model, long words, no study content, many warnings."""
    study = pelvis(tmp_path)
    full = found(study, kept=0, warnings=("w" * 500, *("a long warning about the sequences " * 3,) * 8))
    bare = replace(found(study), previews=(), maps=(), regions=(), algorithms=(), sequences=())
    empty = replace(study, stacks=(), instances=())

    for findings in (full, bare, refused(), refused("reason " * 200)):
        assert (1024, 1280, 3) == draw(findings, empty, title="title " * 50).shape


def test_a_stack_is_called_what_radiologists_call_it(tmp_path: Path) -> None:
    """Contrast, b value of a diffusion image, plane; not the pipeline's word for what it needs."""
    names = [words.stack_name(stack) for stack in pelvis(tmp_path).stacks]

    assert ["T2 axial", "T2 sagittal", "DWI b1000 axial"] == names


def test_a_caption_says_verdict_slice_and_what_it_is_not_for(tmp_path: Path) -> None:
    """Three short lines for the corner; without a probability of its own, a slice says the case's alone."""
    findings = found(pelvis(tmp_path))

    assert (
        "AI: Sarcoma of uterus",
        "Probability of sarcoma of uterus 87.0 %, on this slice 61.2 %",
        "Not for diagnostic use",
    ) == words.caption(findings, 0.612)
    assert "Probability of sarcoma of uterus 87.0 %" == words.caption(findings, None)[1]


def test_text_is_wrapped_and_shortened_to_its_column() -> None:
    lines = canvas.wrapped("some words that do not fit on one line of this column", 16, 120, 2)

    assert 2 == len(lines)
    assert lines[-1].endswith("...")
    assert all(canvas.width(line, 16) <= 120 for line in lines)
