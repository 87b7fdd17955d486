"""Cells of real photographs: white cells are found, and cervical cells are called as the card says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dicom_node.infer.bundle import Bundle
from dicom_node.infer.engine import Engine
from dicom_node.train.cells.augment import centre
from dicom_node.train.cells.crops import Crops
from dicom_node.train.cells.finding import judge_finder
from dicom_node.train.cells.folds import by_group
from dicom_node.train.cells.slides import held_out
from dicom_node.train.cells.tasks import CERVICAL, CERVICAL_CELLS
from support.source import ROOT

pytestmark = pytest.mark.real
MODELS = ROOT / "models"


def test_white_cells_are_found_on_real_fields(real_data: Path) -> None:
    """Of the fields that no threshold was chosen on, at least the lower end of the card's interval."""
    found = judge_finder(real_data / "wbc_bccd")

    assert found["fields"] == 303
    assert found["recall"]["estimate"] >= 0.963
    assert found["precision"]["estimate"] >= 0.942


def called(crops: Crops, rows: np.ndarray) -> np.ndarray:
    """Classes that the shipped network names, through the engine that pipelines use."""
    engine = Engine(Bundle(CERVICAL, MODELS))
    batch = centre(crops.images[rows], engine.image.size_px) * 255
    images = batch.round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    named: np.ndarray = engine.run(images).argmax(axis=1)
    return named


def test_the_engine_calls_unseen_cervical_cells_as_the_card_says(real_data: Path) -> None:
    """HSIL and SCC of blocks the network never saw are called LSIL or worse within the card's interval."""
    crops, rows = held_out(MODELS, real_data)
    high = rows[crops.of("HSIL", "SCC")[rows]]
    stored = json.loads((MODELS / CERVICAL / "docs" / "evaluation.json").read_text())["results"]

    abnormal = called(crops, high) > 0

    least = min(stored["by_class"][name]["sensitivity"]["lower"] for name in ("HSIL", "SCC"))
    assert len(high) == 44
    assert abnormal.mean() >= least


def test_the_cells_kept_from_the_network_are_of_other_blocks(real_data: Path) -> None:
    crops, rows = held_out(MODELS, real_data)
    others = np.setdiff1d(np.arange(len(crops)), rows)

    assert not set(crops.group[rows]) & set(crops.group[others])
    assert (by_group(crops.label, crops.group, 4, 1)[rows] == 3).all()
    assert crops.names == tuple(CERVICAL_CELLS.meaning)
