"""Carry out a plan: read what was chosen, let the pipeline work, or say why there is no result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.domain.findings import Algorithm, Findings, NotPerformed
from dicom_node.domain.pipeline import Case, Choice, Pipeline, Plan, Progress, ReadPhotograph, silent
from dicom_node.domain.series import Stack, Study, Volume
from dicom_node.domain.slide import OpenSlide, Slide
from dicom_node.errors import PipelineError, UnfaithfulGeometry
from dicom_node.infer.manifest import read_manifest
from dicom_node.infer.runtime import current

READING = 0.15
"""Share of the progress that reading takes; encoding has what is left above RAN."""
RAN = 0.85


@dataclass(frozen=True, slots=True)
class Readers:
    """How the pixels of what was chosen are read."""

    volume: Callable[[Stack], Volume]
    slide: Callable[[Slide], AbstractContextManager[OpenSlide]]
    photograph: ReadPhotograph


def infer(
    pipeline: Pipeline, plan: Plan, study: Study, readers: Readers,
    progress: Progress = silent, device: str = "cpu", resume: Path | None = None,
) -> Findings:  # fmt: skip
    """Findings of a pipeline on a study.

    A stack that turns out to be no regular volume is left out with a warning; where the pipeline
    cannot do without it, the findings say "not performed". Slides are open while the pipeline runs.
    `resume` is a folder that outlives a crash. Raises what the pipeline raises.
    """
    if plan.not_performed is not None:
        return Findings(algorithms=_algorithms(pipeline), not_performed=plan.not_performed)
    started = time.perf_counter()
    volumes, choices, warnings = _read(plan.choices, readers, progress)
    seconds = {"read": time.perf_counter() - started}
    if (why := _lacking(choices)) is not None:
        return Findings(algorithms=_algorithms(pipeline), not_performed=why, seconds=seconds)
    with ExitStack() as open_files:
        case = Case(
            study=study, volumes=volumes, choices=choices, warnings=(*plan.warnings, *warnings),
            progress=lambda fraction, step: progress(READING + fraction * (RAN - READING), step),
            device=device, resume=resume, read_photograph=readers.photograph,
            slides={
                choice.need.name: open_files.enter_context(readers.slide(choice.found))
                for choice in choices if isinstance(choice.found, Slide)
            },
            photographs={c.need.name: c.found for c in choices if isinstance(c.found, tuple)},
        )  # fmt: skip
        findings = pipeline.run(case)
    if not isinstance(findings, Findings):
        raise PipelineError(f"pipeline {pipeline.name} returned {type(findings).__name__}, not Findings")
    return replace(findings, seconds=seconds | dict(findings.seconds or {}))


def _read(
    choices: Iterable[Choice], readers: Readers, progress: Progress
) -> tuple[dict[str, Volume], tuple[Choice, ...], list[str]]:
    chosen = list(choices)
    volumes: dict[str, Volume] = {}
    kept: list[Choice] = []
    warnings: list[str] = []
    for number, choice in enumerate(chosen):
        progress(READING * number / max(1, len(chosen)), "read")
        if choice.stack is not None:
            try:
                volumes[choice.need.name] = readers.volume(choice.stack)
            except UnfaithfulGeometry as error:
                warnings.append(f"series {choice.stack.series_number} was left out: {error}")
                choice = replace(choice, found=None, reasons=(*choice.reasons, f"left out: {error}"))
        kept.append(choice)
    return volumes, tuple(kept), warnings


def _lacking(choices: tuple[Choice, ...]) -> NotPerformed | None:
    """What a pipeline must have and no longer has after reading."""
    there = {choice.need.name for choice in choices if choice.found is not None}
    groups = {choice.need.group for choice in choices if choice.found is not None}
    for choice in choices:
        need = choice.need
        if need.required and need.name not in there:
            return NotPerformed(f"the images chosen for {need.name} make no regular volume", "geometry")
        if need.group and need.group not in groups:
            because = f"none of the images chosen for {need.group} make a regular volume"
            return NotPerformed(because, "geometry")
    return None


def _algorithms(pipeline: Pipeline) -> tuple[Algorithm, ...]:
    models_dir = current().models_dir
    return tuple(read_manifest(name, models_dir).algorithm() for name in pipeline.models)
