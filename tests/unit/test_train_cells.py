"""Training on single cells: what is read, how it is split, what is learned from, how it is judged."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_node.errors import InvalidValue
from dicom_node.train.cells.augment import Changes, changed
from dicom_node.train.cells.crops import copies, read_crops
from dicom_node.train.cells.finding import matched
from dicom_node.train.cells.folds import by_group
from dicom_node.train.cells.judge import best_temperature, by_class, calibration_error, confusion, softmax
from dicom_node.train.cells.learn import drawer, set_loss
from dicom_node.train.cells.tasks import BLOOD_CELLS, CERVICAL_CELLS
from dicom_node.train.statistics import by_groups, exact, ranking


def folder_of_cells(root: Path, classes: dict[str, int], *, blocks: bool = True) -> Path:
    """Pictures of noise with a labels.csv beside them; a block for every three neighbours."""
    rng, rows = np.random.default_rng(0), []
    for name, count in classes.items():
        for at in range(count):
            path = root / name / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 20 - at % 2, 3), dtype=np.uint8)).save(path)
            rows.append({"path": f"{name}/{at}.png", "class": name, "block": str(at // 3)})
    columns = ["path", "class", *(["block"] if blocks else [])]
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return root


def test_pictures_come_as_squares_with_label_and_block(tmp_path: Path) -> None:
    folder_of_cells(tmp_path, {"NILM": 7, "HSIL": 3, "other": 2})

    crops = read_crops(tmp_path, ("NILM", "HSIL"), column="class", source_px=20, size=10, um_per_px=0.25)

    assert crops.images.shape == (10, 10, 10, 3)
    assert crops.counts() == {"NILM": 7, "HSIL": 3}
    assert len(np.unique(crops.group)) == 3
    assert crops.um_per_px == 0.5


def test_a_folder_without_such_pictures_is_refused(tmp_path: Path) -> None:
    folder_of_cells(tmp_path, {"NILM": 1})

    with pytest.raises(InvalidValue, match="no picture labelled as one of SCC"):
        read_crops(tmp_path, ("SCC",), column="class", source_px=20, size=20, um_per_px=1)
    with pytest.raises(InvalidValue, match=r"labels\.csv"):
        read_crops(tmp_path / "nowhere", ("SCC",), column="class", source_px=20, size=20, um_per_px=1)


def test_exact_and_near_copies_are_one_group() -> None:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 255, (4, 6, 6, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    brighter = np.clip(smooth[0].astype(int) + 2, 0, 255).astype(np.uint8)

    group = copies(np.stack([*smooth, smooth[1], brighter]))

    assert group[4] == group[1]
    assert group[5] == group[0]
    assert len(set(group[:4].tolist())) == 4


def test_a_group_is_never_on_both_sides() -> None:
    rng = np.random.default_rng(1)
    group = rng.integers(0, 40, 600)
    label = rng.integers(0, 3, 600)

    fold = by_group(label, group, 4, 0)

    assert all(len(set(fold[group == one])) == 1 for one in np.unique(group))
    assert np.bincount(fold).min() > 100


def test_the_rarest_class_is_spread_over_the_folds() -> None:
    """Four groups hold the rare class: each fold gets one of them."""
    group = np.repeat(np.arange(40), 10)
    label = np.where((group < 4) & (np.arange(400) % 10 < 5), 1, 0)

    fold = by_group(label, group, 4, 0)

    assert [int((label[fold == f] == 1).sum()) for f in range(4)] == [5, 5, 5, 5]


def test_of_an_unknown_stage_any_stage_is_right() -> None:
    """The loss asks for the probability of all allowed classes together."""
    import torch

    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))

    one = set_loss(logits, torch.tensor([[1.0, 0.0, 0.0]]), 0.0)
    two = set_loss(logits, torch.tensor([[1.0, 1.0, 0.0]]), 0.0)

    assert float(one) == pytest.approx(-np.log(0.5), abs=1e-5)
    assert float(two) == pytest.approx(-np.log(0.8), abs=1e-5)


def test_rows_that_mean_no_class_are_never_drawn_and_rare_ones_more_often() -> None:
    allowed = np.zeros((1000, 2), bool)
    allowed[:900, 0] = allowed[900:950, 1] = True

    rows = drawer(allowed, np.arange(1000), 0.5)(np.random.default_rng(0), 5000)

    assert rows.max() < 950
    assert 0.15 < (rows >= 900).mean() < 0.24  # 50 ** 0.5 of 900 ** 0.5 + 50 ** 0.5


def test_changing_pictures_keeps_their_range_and_can_be_repeated() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    how = Changes(fade=0.5, multiply=0.5, jpeg=0.5)

    first, again = (changed(images, 32, how, np.random.default_rng(5)).numpy() for _ in range(2))

    assert first.shape == (6, 3, 32, 32)
    assert 0 <= first.min() <= first.max() <= 1
    assert np.array_equal(first, again)


def test_labels_mean_classes_that_the_networks_have() -> None:
    for task in (BLOOD_CELLS, CERVICAL_CELLS):
        assert {one for many in task.meaning.values() for one in many} == set(task.classes)
    assert CERVICAL_CELLS.meaning["ASC-US"] == ()
    assert CERVICAL_CELLS.meaning["ASC-H"] == ("HSIL",)


def test_temperature_takes_back_overconfidence() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 2000)
    honest = rng.normal(0, 1, (2000, 3))
    honest[np.arange(2000), truth] += 1.5
    loud = honest * 3

    temperature = best_temperature(loud, truth)

    assert temperature > 1.5
    assert calibration_error(softmax(loud, temperature), truth) < calibration_error(softmax(loud), truth)


def test_sensitivity_and_specificity_are_of_each_class_against_the_rest() -> None:
    truth, called = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])

    rows = by_class(truth, called, ("a", "b", "c"))

    assert rows["a"]["sensitivity"]["estimate"] == pytest.approx(2 / 3, abs=1e-4)
    assert rows["b"]["specificity"]["estimate"] == pytest.approx(3 / 4, abs=1e-4)
    assert rows["c"]["sensitivity"]["hits"] == 0
    assert confusion(truth, called, 3).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]


def test_none_missed_comes_with_its_bound() -> None:
    """0 misses of 8: at least 68.8 %; of 63: 95.4 %."""
    assert exact(8, 8).bound == pytest.approx(0.688, abs=5e-4)
    assert exact(63, 63).bound == pytest.approx(0.954, abs=5e-4)
    assert exact(7, 8).bound is None


def test_an_interval_by_groups_is_wider_than_one_by_rows() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 50)
    value = np.repeat(rng.random(10), 50)

    def mean(rows: np.ndarray) -> float:
        return float(value[rows].mean())

    by_block, by_row = by_groups(mean, group), by_groups(mean, np.arange(500))

    assert by_block[2] - by_block[1] > 3 * (by_row[2] - by_row[1])


def test_ranking_counts_ties_half() -> None:
    assert ranking([1, 2], [0, 2]) == pytest.approx(0.625)
    assert np.isnan(ranking([], [1]))


def test_a_box_is_hit_once_and_by_a_place_of_its_own() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [50, 50, 60, 60]], np.float32)
    places = np.array([[8, 8], [9, 9], [100, 100]], np.float32)

    assert matched(places, boxes) == 2
