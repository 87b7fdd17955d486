"""Whether all focal planes say more than one, on drawn cells whose lesion shows off the middle plane only.

Normal and abnormal cells lie anywhere in the stack, abnormal ones in its outer thirds; they differ in
chromatin and outline only, which defocus takes away. How planes are weighed is chosen on one slide and judged
on another of other cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicom_node.infer.cells import sharpness
from dicom_node.train.cells.drawn import CALIBRATION_SEED, HELD_OUT_SEED
from dicom_node.train.cells.judge import Line, as_share, share_line
from dicom_node.train.cells.learn import Report, as_seen, read_input
from dicom_node.train.phantoms.slides.build import Wish, build_slide
from dicom_node.train.phantoms.slides.cytology import cytology
from dicom_node.train.phantoms.slides.spec import SlideSpec
from dicom_node.train.statistics import by_groups, ranking
from pipelines.cervical_cytology.planes import Attention

if TYPE_CHECKING:
    import torch

PLANES, PITCH_UM, CELLS = 7, 1.0, 200
FOCUS, ABNORMALITY = (0.0, 1.0, 2.0, 4.0), (0.0, 0.5, 1.0, 2.0)
"""Weights that are tried."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Stacks:
    """What the network said of n cells on all planes."""

    logits: Floats
    """(n, planes, classes)"""
    sharp: Floats
    """(n, planes)"""
    abnormal: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fitted:
    """The chosen weights and the table."""

    focus: float
    abnormality: float
    results: dict[str, Any]  # Any: JSON-able


def judge_planes(network: torch.nn.Module, bundle: Path, temperature: float, report: Report) -> Fitted:
    """Choose on the calibration seed, judge on the held-out one."""
    tuning, judging = (stacks(network, bundle, seed, report) for seed in (CALIBRATION_SEED, HELD_OUT_SEED))
    tried = {
        (focus, abnormality): _loss(_score(Attention(focus, abnormality, temperature), tuning), tuning)
        for focus in FOCUS for abnormality in ABNORMALITY
    }  # fmt: skip
    focus, abnormality = min(tried, key=lambda pair: (round(tried[pair], 4), pair))
    middle = _one_plane(judging, np.full(len(judging.abnormal), PLANES // 2), temperature)
    ways = {
        "middle plane": middle,
        "sharpest plane": _one_plane(judging, judging.sharp.argmax(axis=1), temperature),
        "mean of all planes": _score(Attention(0.0, 0.0, temperature), judging),
        "most suspicious plane": _score(Attention(0.0, 50.0, temperature), judging),
        "attention": _score(Attention(focus, abnormality, temperature), judging),
    }
    rows = np.arange(len(judging.abnormal))
    results: dict[str, Any] = {
        "cells": len(rows), "abnormal": int(judging.abnormal.sum()), "planes": PLANES, "pitch_um": PITCH_UM,
        "focus": focus, "abnormality": abnormality, "ways": {}, "margins": {}, "sensitivity": {},
    }  # fmt: skip
    for name, score in ways.items():
        results["ways"][name] = _rounded(by_groups(partial(_auroc_at, score, judging), rows))
        if name != "middle plane":
            results["margins"][name] = _rounded(by_groups(partial(_margin, score, middle, judging), rows))
        abnormal = int(judging.abnormal.sum())
        hits = round(_found(score, judging, rows) * abnormal)
        results["sensitivity"][name] = as_share(hits, abnormal).to_json()
    return Fitted(focus, abnormality, results)


def stacks(network: torch.nn.Module, bundle: Path, seed: int, report: Report) -> Stacks:
    """Render a slide of subtle cells and ask the network about each on every plane."""
    seen = read_input(bundle)
    report(f"a stack of {PLANES} planes, seed {seed}")
    spec = SlideSpec(
        f"planes {seed}",
        1,
        1,
        um_per_px=seen.um_per_px,
        planes=PLANES,
        pitch_um=PITCH_UM,
        levels=1,
        seed=seed,
    )
    sprites = cytology(um_per_px=seen.um_per_px, seed=seed, subtle=True)
    scene = build_slide(spec, sprites, Wish(CELLS, CELLS // 2, background=0.0, off_focus=True))
    placed, half = scene.placed, seen.size_px // 2
    pictures = np.stack([
        np.stack([
            scene.region(
                0, int(top + height // 2 - half), int(left + width // 2 - half), 2 * half, 2 * half, plane
            )
            for plane in range(PLANES)
        ])
        for left, top, width, height in zip(
            placed.left, placed.top, placed.width, placed.height, strict=True
        )
    ])  # fmt: skip
    logits = as_seen(network, bundle, pictures.reshape(-1, *pictures.shape[2:]))
    normal = sprites.classes.index("NILM")
    return Stacks(
        logits.reshape(len(pictures), PLANES, -1).astype(np.float32), sharpness(pictures),
        sprites.labels[placed.sprite] != normal,
    )  # fmt: skip


def _score(attention: Attention, given: Stacks) -> Floats:
    probability, _ = attention.fuse(given.logits, given.sharp)
    return 1 - probability[:, 0]


def _one_plane(given: Stacks, plane: npt.NDArray[np.int64], temperature: float) -> Floats:
    rows = np.arange(len(plane))
    one = Stacks(given.logits[rows, plane][:, None], given.sharp[rows, plane][:, None], given.abnormal)
    return _score(Attention(0.0, 0.0, temperature), one)


def _loss(score: Floats, given: Stacks) -> float:
    """Mean of -log of the probability of what is true."""
    right = np.where(given.abnormal, score, 1 - score)
    return float(-np.log(np.clip(right, 1e-6, 1)).mean())


def _found(score: Floats, given: Stacks, rows: npt.NDArray[np.int64]) -> float:
    """Share of abnormal cells above 99 % of the normal ones."""
    truth = given.abnormal[rows]
    return float((score[rows][truth] > np.quantile(score[rows][~truth], 0.99)).mean())


def _auroc_at(score: Floats, given: Stacks, rows: npt.NDArray[np.int64]) -> float:
    truth = given.abnormal[rows]
    return ranking(score[rows][truth], score[rows][~truth])


def _margin(score: Floats, other: Floats, given: Stacks, rows: npt.NDArray[np.int64]) -> float:
    return _auroc_at(score, given, rows) - _auroc_at(other, given, rows)


def _rounded(values: tuple[float, float, float]) -> list[float]:
    return [round(value, 4) for value in values]


def plane_lines(fitted: Fitted) -> list[Line]:
    """The table of planes."""
    results = fitted.results
    n = f"{results['cells']} drawn cells, {results['planes']} planes"
    lines: list[Line] = []
    for name, (middle, low, high) in results["ways"].items():
        margin = results["margins"].get(name)
        more = "" if margin is None else f"; over one {margin[0]:+.3f}, {margin[1]:+.3f} to {margin[2]:+.3f}"
        lines.append(
            (
                f"AUROC off the middle plane, {name}",
                f"{middle:.3f}",
                f"{n}, {low:.3f} to {high:.3f}{more}",
                "",
            )
        )
    for name, row in results["sensitivity"].items():
        lines.append(share_line(f"Sensitivity at 99 % specificity off the middle plane, {name}", row))
    return lines
