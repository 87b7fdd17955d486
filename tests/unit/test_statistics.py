"""Intervals and rankings, against published values."""

from __future__ import annotations

import math

import pytest

from dicom_node.train.statistics import auroc, balanced, proportion


@pytest.mark.parametrize(
    ("hits", "n", "lower", "upper"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Stat Med 1998;17:857, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (27, 32, 0.6825, 0.9314),
    ],
)
def test_wilson_interval(hits: int, n: int, lower: float, upper: float) -> None:
    """Newcombe's worked examples, and the radiologist's 27 of 32."""
    found = proportion(hits, n)

    assert lower == round(found.lower, 4)
    assert upper == round(found.upper, 4)


@pytest.mark.parametrize(("n", "bound"), [(8, 0.688), (63, 0.954), (120, 0.975), (299, 0.990)])
def test_none_missed_carries_its_bound(n: int, bound: float) -> None:
    """0.05^(1/n): what "none missed in n" shows at most."""
    found = proportion(n, n)

    assert found.bound is not None
    assert bound == round(found.bound, 3)
    assert proportion(n - 1, n).bound is None


def test_an_empty_sample_says_nothing() -> None:
    """0 of 0 is no estimate and the widest interval."""
    found = proportion(0, 0)

    assert math.isnan(found.estimate)
    assert (0.0, 1.0) == (found.lower, found.upper)


def test_mean_of_sensitivity_and_specificity() -> None:
    """The small sample's interval dominates that of the mean."""
    middle, lower, upper = balanced(proportion(7, 8), proportion(22, 24))

    assert math.isclose((7 / 8 + 22 / 24) / 2, middle)
    assert lower < middle < upper
    assert middle - lower < (7 / 8 - proportion(7, 8).lower)


@pytest.mark.parametrize(
    ("positive", "negative", "value"),
    [([2.0, 3.0], [0.0, 1.0], 1.0), ([0.0], [1.0], 0.0), ([1.0], [1.0], 0.5), ([2.0, 0.0], [1.0], 0.5)],
)
def test_auroc_counts_pairs(positive: list[float], negative: list[float], value: float) -> None:
    """The share of pairs in the right order; ties are half."""
    assert value == auroc(positive, negative)
