"""From slices to one probability: fusion, missing sequences, the operating point, the referral."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dicom_node.errors import ModelError
from dicom_node.pipeline import Certainty, OperatingPoint
from pipelines.uterine_mri.fusion import Fusion, Weight, read_fusion, read_operating_point, sigmoid
from pipelines.uterine_mri.referral import disagreement, named
from pipelines.uterine_mri.regions import marked

EVEN = Weight(1.0, 0.0, 1.0)
FUSION = Fusion(0.5, 3, {"t2_axial": EVEN, "adc": Weight(2.0, -1.0, 3.0)}, 1.0, 0.0)


@pytest.mark.parametrize(
    ("logits", "score"),
    [
        ([], None),
        ([2.0], 2.0),
        ([0.0, 1.0, 2.0, 9.0], 4.0),  # three at least
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 6.5),  # the upper half
    ],
)
def test_a_sequence_is_the_mean_of_its_top_slices(logits: list[float], score: float | None) -> None:
    """So that a tumour on a few slices is not averaged away, and one odd slice does not decide alone."""
    assert score == FUSION.sequence_score(logits)


def test_sequences_are_averaged_by_weight() -> None:
    """log-odds = (1 x 1 + 3 x (2 x 1 - 1)) / 4."""
    assert sigmoid(1.0) == FUSION.case_probability({"t2_axial": 1.0, "adc": 1.0})
    assert sigmoid((1 * 2 + 3 * -1) / 4) == FUSION.case_probability({"t2_axial": 2.0, "adc": 0.0})


@pytest.mark.parametrize(
    ("scores", "probability"),
    [
        ({"t2_axial": 1.0, "adc": None}, sigmoid(1.0)),
        ({"t2_axial": 1.0}, sigmoid(1.0)),
        ({"t2_axial": None, "adc": None}, None),
        ({}, None),
        ({"unknown": 5.0}, None),
    ],
)
def test_a_missing_sequence_has_no_part(scores: dict[str, float | None], probability: float | None) -> None:
    """It is not a zero: the others decide; where none is left there is no probability."""
    assert probability == FUSION.case_probability(scores)


def test_probabilities_are_rounded_and_bounded() -> None:
    """Four decimals, whatever the last bits; never out of 0 to 1."""
    assert 0.7311 == sigmoid(1.0)
    assert 0.0 == sigmoid(-1e9)
    assert 1.0 == sigmoid(1e9)


@pytest.mark.parametrize(
    ("probability", "certainty"),
    [
        (0.0, Certainty.NEGATIVE), (0.2999, Certainty.NEGATIVE), (0.3, Certainty.INDETERMINATE),
        (0.6999, Certainty.INDETERMINATE), (0.7, Certainty.POSITIVE), (1.0, Certainty.POSITIVE),
    ],
)  # fmt: skip
def test_the_band_is_indeterminate(probability: float, certainty: Certainty) -> None:
    """Low belongs to the band, high to the positives."""
    assert certainty is OperatingPoint(0.5, 0.3, 0.7, "a test").certainty(probability)


def test_a_spoilt_fusion_file_is_refused() -> None:
    """A missing number is named, not guessed."""
    with pytest.raises(ModelError, match="top_fraction"):
        read_fusion({"sequences": {}})
    with pytest.raises(ModelError, match="threshold"):
        read_operating_point({"operating_point": {"low": 0.1}})


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Uterine fibroids, bulky", {"leiomyoma"}),
        ("known LEIOMYOMA 8 cm", {"leiomyoma"}),
        ("multiple leiomyomata", {"leiomyoma"}),
        ("V.a. Uterus myomatosus", {"leiomyoma"}),
        ("子宮筋腫", {"leiomyoma"}),
        ("leiomyosarcoma?", {"sarcoma"}),
        ("no fibroids seen", set()),
        ("adenomyosis", set()),
        ("fibroid or sarcoma", {"leiomyoma", "sarcoma"}),
        ("", set()),
    ],
)
def test_kinds_named_in_free_text(text: str, kinds: set[str]) -> None:
    """Plural, case and language vary; a leiomyosarcoma is no leiomyoma; a denial names nothing."""
    assert kinds == named([text])


@pytest.mark.parametrize(
    ("referral", "reports", "says", "sentence"),
    [
        ("fibroid", (), "sarcoma", "Disagreement: the referral named leiomyoma, the AI says sarcoma"),
        ("pain", ("MRI: myoma.",), "sarcoma",
         "Disagreement: an earlier report named leiomyoma, the AI says sarcoma"),
        ("fibroid", ("myoma",), "sarcoma",
         "Disagreement: the referral and an earlier report named leiomyoma, the AI says sarcoma"),
        ("sarcoma", (), "leiomyoma", "Disagreement: the referral named sarcoma, the AI says leiomyoma"),
        ("fibroid", (), "leiomyoma", None),
        ("fibroid, sarcoma?", (), "sarcoma", None),
        ("", (), "sarcoma", None),
    ],
)  # fmt: skip
def test_disagreement_is_stated(
    referral: str, reports: tuple[str, ...], says: str, sentence: str | None
) -> None:
    """An occult sarcoma is one that was called leiomyoma; text that leaves it open does not disagree."""
    assert sentence == disagreement(referral, reports, says)


def test_the_region_is_the_largest_parts_of_the_map() -> None:
    """From the threshold up, connected in 3-D; crumbs and what comes after the first parts are left out."""
    values = np.zeros((4, 20, 20), np.float32)
    values[1:3, 2:8, 2:8] = 0.9  # 72 voxels
    values[1, 12:16, 12:16] = 0.6  # 16
    values[3, 0, 19] = 0.8  # a crumb
    values[0, 10:14, 0:4] = 0.49  # too cold

    mask = marked(values, 0.5, share=0.1, at_most=3)

    assert 72 + 16 == int(mask.sum())
    assert 72 == int(marked(values, 0.5, share=0.1, at_most=1).sum())
    assert not marked(values, 0.95, share=0.1, at_most=3).any()
    assert math.isclose(0.9, float(values[mask].max()), rel_tol=1e-6)


def test_a_region_has_no_spurs() -> None:
    """What is narrower than asked for goes, in millimetres whatever the pixels; the rest keeps its shape."""
    values = np.zeros((2, 60, 80), np.float32)
    row, column = np.mgrid[0:60, 0:80]
    disc = (row - 30) ** 2 + ((column - 30) / 2) ** 2 < 15**2  # round: pixels are 2 mm high and 1 mm wide
    values[0][disc] = 0.9
    values[0, 28:32, 30:80] = 0.9  # a spur 8 mm wide to the edge

    mask = marked(values, 0.5, share=0.1, at_most=3, thinnest_mm=16.0, spacing_mm=(2.0, 1.0))

    assert not mask[0, :, 70:].any()
    assert int((mask[0] ^ disc).sum()) < 0.03 * disc.sum()
    assert not mask[1].any()


def test_a_region_of_thin_parts_only_stays() -> None:
    values = np.zeros((1, 20, 20), np.float32)
    values[0, 5:7, 2:18] = 0.9

    mask = marked(values, 0.5, share=0.1, at_most=3, thinnest_mm=10.0)

    assert 32 == int(mask.sum())
