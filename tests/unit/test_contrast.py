"""The kind of image follows from physics; a description that contradicts it loses."""

from __future__ import annotations

from typing import Any

import pytest

from dicom_node.assemble.contrast import Evidence, conclude, is_diffusion
from dicom_node.domain.series import Contrast


def seen(kind: str = "SE", te: float | None = None, tr: float | None = None, **more: Any) -> Evidence:
    return Evidence(echo_time=te, repetition_time=tr, kind=frozenset(kind.split()), **more)


MAGNITUDE = ("ORIGINAL", "PRIMARY", "M", "ND")


@pytest.mark.parametrize(
    ("evidence", "contrast"),
    [
        # spin echo, as pelvic protocols have it at 1.5 and 3 T
        (seen("SE", 104, 5660), Contrast.T2),
        (seen("SE", 90, 1000), Contrast.T2),  # single shot
        (seen("SE", 240, 1500), Contrast.T2),  # 3D, variable flip angle
        (seen("SE", 10, 600), Contrast.T1),
        (seen("SE", 20, 581), Contrast.T1),
        (seen("SE", 30, 3000), Contrast.PD),
        (seen("SE IR", 60, 4000, inversion_time=160.0), Contrast.T2),  # STIR
        (seen("IR", 100, 9000, inversion_time=2500.0), Contrast.FLAIR),
        (seen("SE", 50, 1000), Contrast.OTHER),  # neither
        # gradient echo: flip angle against the Ernst angle
        (seen("GR", 1.6, 4.2, flip_angle=10.0), Contrast.T1),
        (seen("GR", 4.8, 120, flip_angle=70.0), Contrast.T1),
        (seen("GR", 1.53, 800, flip_angle=14.0), Contrast.PD),
        (seen("GR", 3, 2300, inversion_time=900.0, flip_angle=9.0), Contrast.T1),  # MPRAGE
        (seen("GR", 20, 600, flip_angle=20.0), Contrast.T2STAR),
        (seen("GR", 1.7, 3.8, flip_angle=60.0, variant=frozenset({"SS"})), Contrast.OTHER),  # balanced
        (seen("GR", 10, 600, flip_angle=60.0, sequence_name="*FM2D2R"), Contrast.OTHER),
        # echo planar
        (seen("EP SE", 63, 2700, b_value=800.0, diffusion=True), Contrast.DWI),
        (seen("EP", 63, 2700, b_value=0.0, diffusion=True), Contrast.DWI),
        (seen("EP GR", 30, 2000), Contrast.T2STAR),  # BOLD
        (seen("EP", 30, 2000, sequence_name="EPFID2D1_72"), Contrast.T2STAR),
        (seen("EP SE", 80, 8000, b_value=0.0), Contrast.DWI),  # b = 0 as a series of its own
        (seen("EP GR", 30, 2000, b_value=0.0), Contrast.T2STAR),  # Philips' functional MR
        (seen("EP SE", 80, 8000), Contrast.OTHER),  # a reference scan
        # image types
        (seen("EP", 63, 2700, image_type=("DERIVED", "PRIMARY", "DIFFUSION", "ADC"), diffusion=True),
         Contrast.ADC),
        (seen("EP", 63, 2700, image_type=("DERIVED", "PRIMARY", "DIFFUSION", "FA"), diffusion=True),
         Contrast.OTHER),
        (seen("SE", 100, 5000, image_type=("ORIGINAL", "PRIMARY", "P", "ND")), Contrast.OTHER),
        (seen("GR", 2, 4, flip_angle=12.0, component="PHASE"), Contrast.OTHER),
        (seen("GR", 2, 4, flip_angle=12.0, field_map=True), Contrast.OTHER),
        (seen("EP GR", 11, 2500, image_type=("ORIGINAL", "PRIMARY", "ASL", "NONE")), Contrast.OTHER),
        (seen("SE", 100, 5000, image_type=("DERIVED", "SECONDARY", "MIP")), Contrast.OTHER),
        (seen("GR", 2, 8, planes=3), Contrast.LOCALISER),
        (seen("SE", 100, 5000, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")), Contrast.LOCALISER),
        # what the scanner states, where physics is silent
        (seen("", None, None, acquisition_contrast="T2"), Contrast.T2),
    ],
)  # fmt: skip
def test_physics_decides(evidence: Evidence, contrast: Contrast) -> None:
    """Each kind with the parameters that protocols really have."""
    assert contrast is conclude(evidence).contrast


@pytest.mark.parametrize(
    ("evidence", "contrast"),
    [
        (seen("SE", 104, 5660, description="t1_tse_tra"), Contrast.T2),
        (seen("SE", 11, 600, description="T2 axial"), Contrast.T1),
        (seen("EP GR", 30, 2000, description="DWI b1000"), Contrast.T2STAR),
        (seen("SE", 104, 5660, description="ADC map"), Contrast.T2),
    ],
)
def test_a_description_that_contradicts_physics_loses_and_the_reasons_say_so(
    evidence: Evidence, contrast: Contrast
) -> None:
    """Series descriptions are typed by people and copied between protocols."""
    concluded = conclude(evidence)

    assert contrast is concluded.contrast
    assert "which physics contradicts; physics counts" in concluded.reasons[1]


def test_a_description_counts_where_physics_is_silent_and_the_reasons_say_so() -> None:
    concluded = conclude(seen("", description="T2 sag"))

    expected = (
        Contrast.T2, ("echo and repetition time are not stated; only the series description says T2",),
    )  # fmt: skip
    assert expected == (concluded.contrast, concluded.reasons)


def test_the_description_itself_is_never_repeated() -> None:
    """It is free text, and may hold a name."""
    concluded = conclude(seen("SE", 104, 5660, description="CANARY t1 CANARY"))

    assert "CANARY" not in " ".join(concluded.reasons)


def test_a_derived_echo_planar_map_may_be_called_adc_by_its_description_alone() -> None:
    """GE writes no ADC into Image Type; the reason says that only words speak for it."""
    concluded = conclude(
        seen("EP", 70, 5000, image_type=("DERIVED", "SECONDARY", "OTHER"), description="ADC (10^-6 mm2/s)")
    )

    assert (Contrast.ADC, "derived from echo-planar images; only the series description says ADC") == (
        concluded.contrast, concluded.reasons[0],
    )  # fmt: skip


def test_a_b_value_above_what_the_sequence_measured_is_calculated() -> None:
    """Siemens' sequence name `*ep_b50_800` beside b = 1000: an extrapolation, marked as derived."""
    trace = ("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW")
    calculated = conclude(
        seen("EP", 63, 2700, b_value=1000.0, measured_b=(50.0, 800.0), diffusion=True, image_type=trace)
    )
    measured = conclude(seen("EP", 63, 2700, b_value=800.0, diffusion=True, image_type=trace))

    assert (True, False) == (calculated.derived, measured.derived)
    assert "calculated: the sequence measured b = 50 to 800, not 1000" in calculated.reasons


def test_an_adc_map_has_no_b_value() -> None:
    """Siemens leaves the highest b value in its header."""
    evidence = seen("EP", 63, 2700, b_value=800.0, image_type=("DERIVED", "PRIMARY", "DIFFUSION", "ADC"))

    assert conclude(evidence).b_value is None


@pytest.mark.parametrize(
    ("evidence", "suppressed"),
    [
        (seen("SE", 100, 5000), False),
        (seen("SE", 100, 5000, options=frozenset({"PFP", "FS"})), True),
        (seen("SE IR", 60, 4000, inversion_time=160.0), True),
        (seen("GR", 2, 4, flip_angle=10.0, image_type=("DERIVED", "PRIMARY", "W", "DIXON")), True),
        (seen("IR", 100, 9000, inversion_time=2500.0), False),
    ],
)
def test_fat_suppression_is_seen(evidence: Evidence, suppressed: bool) -> None:
    """By scan option, inversion time, or as the water image of a separation."""
    assert suppressed is conclude(evidence).fat_suppressed


@pytest.mark.parametrize(
    ("facts", "expected"),
    [({"b_value": 0.0}, False), ({"b_value": 50.0}, True), ({"image_type": ["D", "P", "DIFFUSION"]}, True),
     ({"sequence_name": "*EP_B0"}, True), ({"sequence_name": "EPFID2D1"}, False), ({}, False)],
)  # fmt: skip
def test_b_zero_alone_makes_no_diffusion_series(facts: dict[str, Any], expected: bool) -> None:
    """Philips writes b = 0 into functional MR."""
    assert expected is is_diffusion(facts)
