"""Uterine sarcoma or leiomyoma on pelvic MR, in two stages.

Every slice of every chosen sequence goes through the Tumor Image Filter; the slices it keeps
go through the Sarcoma Evaluator; its log-odds are fused over slices and sequences into one
probability per case. Nobody picks slices or series. Both networks are MobileNetV2.

Where the filter keeps no slice, there is nothing to evaluate and no probability to give: that
is "not performed" with the code `no-tumour-slices`, not a negative verdict. A filter that saw
nothing is no evidence that nothing is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from dicom_node.pipeline import (
    Bundle,
    Case,
    Certainty,
    Contrast,
    Findings,
    HeatMap,
    IntendedUse,
    Level,
    Need,
    NotPerformed,
    Plane,
    Region,
    Score,
    SequenceScore,
    SliceScore,
    Stack,
    Verdict,
    Volume,
    code,
)

from .fusion import DECIMALS, read_fusion, read_operating_point, sigmoid
from .referral import disagreement
from .regions import marked

if TYPE_CHECKING:
    import torch

FILTER = "uterine_tumor_filter"
EVALUATOR = "uterine_sarcoma_evaluator"

SARCOMA = code("sarcoma-of-uterus")
LEIOMYOMA = code("uterine-leiomyoma")
INDETERMINATE = code("indeterminate")
NEOPLASM = code("neoplasm")
UTERUS = code("uterus")
PROBABILITY = code("probability-of-cancer")
PROCEDURE = code("mri-procedure")
PERCENT = code("percent")
GRAD_CAM = code("class-activation")
ATTENTION = code("spatial-concept")
"""Of the marked region: it is where the network looked, neither anatomy nor the outline of a tumour."""

MAP_STEPS = 255
"""Maps are rounded to this many steps, so that the last bits of a float never decide about bytes."""
REGION_FROM = 0.5
"""A region is where the map reaches half of the strongest activation of the case."""
DIAGNOSES = {
    Certainty.POSITIVE: SARCOMA, Certainty.NEGATIVE: LEIOMYOMA, Certainty.INDETERMINATE: INDETERMINATE,
}  # fmt: skip


@dataclass(slots=True)
class _Sequence:
    """One stack on its way through both stages. Arrays are by slice."""

    need: str
    volume: Volume
    filter_input: torch.Tensor
    evaluator_input: torch.Tensor
    tumour: npt.NDArray[np.float64]
    """Probability that the slice shows tumour, (slices,)."""
    kept: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float64]
    """Log-odds of sarcoma of the kept slices, (kept,)."""
    cams: npt.NDArray[np.float32]
    """(kept, r, c), at least 0."""


class UterineMri:
    """The pipeline; see the module."""

    name: ClassVar[str] = "uterine_mri"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[str] = "Uterine sarcoma or leiomyoma on MR"
    level: ClassVar[Level] = Level.STUDY
    needs: ClassVar[tuple[Need, ...]] = (
        Need("t2_axial", Contrast.T2, Plane.AXIAL, group="t2"),
        Need("t2_sagittal", Contrast.T2, Plane.SAGITTAL, group="t2"),
        Need("dwi_b1000", Contrast.DWI, b_value=(600.0, 1500.0)),
        Need("adc", Contrast.ADC),
    )
    intended_use: ClassVar[IntendedUse] = IntendedUse(
        modalities=frozenset({"MR"}),
        sex=frozenset({"F"}),
        age_years=(18.0, 100.0),
        body_parts=frozenset({"PELVIS", "UTERUS", "ABDOMENPELVIS", "ABDOMEN_PELVIS", "FEMALE PELVIS", "GYN"}),
        statement=(
            "Research into telling uterine sarcoma from leiomyoma on pelvic MR of adult women who are known "
            "to have a uterine tumour. Trained on generated phantoms only. Not for clinical use."
        ),
    )
    models: ClassVar[tuple[str, ...]] = (FILTER, EVALUATOR)

    def __init__(self) -> None:
        self.filter = Bundle(FILTER)
        self.evaluator = Bundle(EVALUATOR)
        self.keep_from = float(self.filter.config("threshold")["keep_from"])
        fusion = self.evaluator.config("fusion")
        self.fusion = read_fusion(fusion)
        self.operating_point = read_operating_point(fusion)
        inference = self.evaluator.config("inference")
        cell_mm = float(inference["gradcam"]["step_px"]) * float(inference["field"]["spacing_mm"])
        self.thinnest_mm = 0.7 * cell_mm

    def run(self, case: Case) -> Findings:
        watch = _Watch()
        case.progress(0.0, "preprocess")
        sequences = [self._prepare(need, volume) for need, volume in sorted(case.volumes.items())]
        watch.lap("preprocess")
        for number, sequence in enumerate(sequences):
            case.progress(0.1 + 0.7 * number / len(sequences), "infer")
            self._look(sequence)
        watch.lap("forward")
        case.progress(0.8, "fuse")
        scored = tuple(self._score(sequence) for sequence in sequences)
        verdict = self._verdict(case, {s.need: self.fusion.sequence_score([*s.logits]) for s in sequences})
        shown = [sequence for sequence in sequences if sequence.kept.any()] if verdict else []
        maps = self._maps(shown)
        scores = _scores_of(maps, scored)
        regions = [_region(heat, score, self.thinnest_mm) for heat, score in zip(maps, scores, strict=True)]
        previews = tuple((sequence.volume.stack, _windowed(sequence.volume.array)) for sequence in sequences)
        watch.lap("postprocess")
        case.progress(1.0, "fuse")
        return Findings(
            procedure=PROCEDURE,
            algorithms=(self.filter.algorithm(), self.evaluator.algorithm()),
            sequences=scored,
            regions=tuple(region for region in regions if region.mask.any()),
            maps=maps,
            lead=_lead(maps),
            previews=previews,
            seconds=watch.seconds,
            verdict=verdict,
            not_performed=None if verdict else _nothing_kept(sequences),
        )

    def _prepare(self, need: str, volume: Volume) -> _Sequence:
        slices = volume.array.shape[0]
        return _Sequence(
            need, volume, self.filter.preprocess(volume), self.evaluator.preprocess(volume),
            np.zeros(slices), np.zeros(slices, bool), np.zeros(0), np.zeros((0, 1, 1), np.float32),
        )  # fmt: skip

    def _look(self, sequence: _Sequence) -> None:
        """Both networks' forward passes: the filter on every slice, the evaluator on those kept."""
        logits = self.filter.forward(sequence.filter_input)[:, 0].double().numpy()
        sequence.tumour = np.array([sigmoid(float(logit)) for logit in logits])
        sequence.kept = sequence.tumour >= self.keep_from
        outputs, cams = self.evaluator.explain(sequence.evaluator_input[sequence.kept.copy()])
        sequence.logits = np.round(outputs[:, 0].double().numpy(), DECIMALS)
        sequence.cams = cams.numpy()

    def _score(self, sequence: _Sequence) -> SequenceScore:
        evaluated = iter(sequence.logits)
        slices = tuple(
            SliceScore(frame, float(tumour), bool(kept), sigmoid(float(next(evaluated))) if kept else None)
            for frame, tumour, kept in zip(
                sequence.volume.stack.frames, sequence.tumour, sequence.kept, strict=True
            )
        )
        score = self.fusion.sequence_score([*sequence.logits])
        probability = self.fusion.sequence_probability(sequence.need, score)
        return SequenceScore(sequence.need, sequence.volume.stack, slices, probability)

    def _verdict(self, case: Case, scores: Mapping[str, float | None]) -> Verdict | None:
        probability = self.fusion.case_probability(scores)
        if probability is None:
            return None
        point = self.operating_point
        certainty = point.certainty(probability)
        warnings = list(case.warnings)
        if missing := [choice.need.name for choice in case.choices if choice.stack is None]:
            warnings.append(f"Missing sequences: {', '.join(missing)}; the verdict rests on fewer images")
        if empty := sorted(need for need, score in scores.items() if score is None):
            warnings.append(f"No tumour-bearing slice was found in: {', '.join(empty)}")
        statement = _statement(probability, certainty, point.low, point.high)
        says = {Certainty.POSITIVE: "sarcoma", Certainty.NEGATIVE: "leiomyoma"}.get(certainty)
        contrary = disagreement(case.study.referral, case.study.reports, says) if says else None
        if contrary:
            warnings.append(contrary)
            statement = f"{statement}; {contrary[0].lower()}{contrary[1:]}"
        return Verdict(
            finding=NEOPLASM,
            site=UTERUS,
            diagnosis=DIAGNOSES[certainty],
            certainty=certainty,
            probability=probability,
            positive_class=SARCOMA,
            negative_class=LEIOMYOMA,
            operating_point=point,
            scores=(Score(PROBABILITY, round(100 * probability, 2), PERCENT, "Of uterine sarcoma, by case"),),
            statement=statement + ".",
            warnings=tuple(warnings),
            probability_concept=PROBABILITY,
        )

    def _maps(self, sequences: list[_Sequence]) -> tuple[HeatMap, ...]:
        """Maps on the source grids; 1 is the strongest activation anywhere in the case."""
        strongest = max((float(sequence.cams.max()) for sequence in sequences), default=0.0)
        return tuple(self._map(sequence, strongest or 1.0) for sequence in sequences)

    def _map(self, sequence: _Sequence, strongest: float) -> HeatMap:
        on_grid = self.evaluator.onto_source(sequence.cams / np.float32(strongest), sequence.volume)
        np.clip(on_grid, 0.0, 1.0, out=on_grid)
        on_grid *= MAP_STEPS
        np.rint(on_grid, out=on_grid)
        on_grid /= MAP_STEPS
        values = np.zeros(sequence.volume.array.shape, np.float32)
        values[sequence.kept] = on_grid
        return HeatMap(
            sequence.volume.stack, values, sequence.kept.copy(), GRAD_CAM, "Grad-CAM of the sarcoma class"
        )


def _statement(probability: float, certainty: Certainty, low: float, high: float) -> str:
    percent = f"probability of sarcoma {100 * probability:.1f} %"
    if certainty is Certainty.POSITIVE:
        return f"Sarcoma suspected: {percent}, at or above {100 * high:.1f} %"
    if certainty is Certainty.NEGATIVE:
        return f"Leiomyoma favoured: {percent}, below {100 * low:.1f} %"
    return f"Indeterminate: {percent}, between {100 * low:.1f} % and {100 * high:.1f} %"


def _nothing_kept(sequences: list[_Sequence]) -> NotPerformed:
    slices = sum(len(sequence.kept) for sequence in sequences)
    return NotPerformed(
        f"the tumour image filter found no tumour-bearing slice among {slices} in "
        f"{', '.join(sequence.need for sequence in sequences)}; this does not exclude a tumour",
        "no-tumour-slices",
    )


def _scores_of(maps: tuple[HeatMap, ...], scored: tuple[SequenceScore, ...]) -> list[float | None]:
    return [next(score.probability for score in scored if score.stack is heat.stack) for heat in maps]


def _lead(maps: tuple[HeatMap, ...]) -> Stack | None:
    """The stack with the strongest activation of the case; the first of equals."""
    return max(maps, key=lambda heat: float(heat.values.max())).stack if maps else None


def _region(heat: HeatMap, score: float | None, thinnest_mm: float) -> Region:
    """Nothing narrower than what a lone hot cell makes, 0.8 cells at half its height."""
    mask = marked(
        heat.values, REGION_FROM, share=0.1, at_most=3,
        thinnest_mm=thinnest_mm, spacing_mm=heat.stack.spacing_mm[1:],
    )  # fmt: skip
    return Region(
        stack=heat.stack, mask=mask, category=ATTENTION, kind=GRAD_CAM,
        label=f"Grad-CAM of the sarcoma class, from {REGION_FROM:g} of its maximum",
        site=UTERUS, score=score,
    )  # fmt: skip


def _windowed(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """From the 1st to the 99.5th percentile of every fourth pixel, to 0..255."""
    low, high = (float(value) for value in np.percentile(array[:, ::4, ::4], (1.0, 99.5)))
    scaled = (array - np.float32(low)) * np.float32(255.0 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


class _Watch:
    """Seconds per step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._since
        self._since = now
