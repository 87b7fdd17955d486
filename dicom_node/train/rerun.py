"""The pipeline as it ships, on phantoms as a scanner would send them: full matrices, no cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dicom_node.domain.findings import Findings
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.pipeline import Case, Choice
from dicom_node.domain.series import FrameRef, Patient, Plane, Stack, Study, Volume
from dicom_node.infer.runtime import Runtime, use
from dicom_node.train.dataset import NEEDS
from dicom_node.train.evaluate import row
from dicom_node.train.names import UNTOUCHED_SEED
from dicom_node.train.phantoms.cases import CaseSpec, case_specs
from dicom_node.train.phantoms.generate import PhantomSequence, render

MR_IMAGE = UID("1.2.840.10008.5.1.4.1.1.4")
NOWHERE = Digest("0" * 64)


def rerun_untouched(models: Path, limit: int | None, report: Callable[[str], None]) -> dict[str, Any]:
    """Accuracy of the pipeline on the untouched cases, now; JSON-able, the figures as in the stored table."""
    from pipelines.uterine_mri import UterineMri

    use(Runtime(models))
    pipeline = UterineMri()
    specs = case_specs("untouched", UNTOUCHED_SEED)[:limit]
    said: list[float | None] = []
    for number, spec in enumerate(specs, start=1):
        findings = pipeline.run(phantom_case(spec, UterineMri.needs))
        said.append(_probability(findings))
        report(f"{number} of {len(specs)}: {spec.label}, {said[-1]}")
    threshold = pipeline.operating_point.threshold
    truth = np.array([spec.label == "sarcoma" for spec in specs])
    return row([p is not None and p >= threshold for p in said], said, truth)


def _probability(findings: Findings) -> float | None:
    return findings.verdict.probability if findings.verdict else None


def phantom_case(spec: CaseSpec, needs: tuple[Any, ...], *, matrix: int | None = None) -> Case:
    """A rendered phantom as the pipeline's input, without DICOM between. Any: `Need`s of a pipeline."""
    study = render(spec, matrix=matrix, only=tuple(NEEDS))
    volumes = {
        name: _volume(study.sequences[name], number, NEEDS[name])
        for number, name in enumerate(NEEDS, start=1)
    }
    stacks = tuple(volume.stack for volume in volumes.values())
    choices = tuple(
        Choice(need, volumes[need.name].stack if need.name in volumes else None, ("generated as that",))
        for need in needs
    )
    described = Study(
        uid=UID("2.25.1"), revision=1, patient=Patient("F", float(spec.age)), modalities=frozenset({"MR"}),
        body_parts=frozenset({"PELVIS"}), stacks=stacks, refusals=(),
    )  # fmt: skip
    return Case(described, volumes, choices)


def _volume(sequence: PhantomSequence, number: int, contrast: Any) -> Volume:  # Any: Contrast
    slices, rows, columns = sequence.array.shape
    affine = sequence.affine
    spacing = tuple(float(np.linalg.norm(affine[:3, axis])) for axis in range(3))
    cosines = [affine[:3, axis] / np.linalg.norm(affine[:3, axis]) for axis in range(3)]
    frames = tuple(
        FrameRef(MR_IMAGE, UID(f"2.25.{number}.{at + 1}"), 1, Path("none"), NOWHERE,
                 _vector(affine[:3, 3] + at * affine[:3, 0]))
        for at in range(slices)
    )  # fmt: skip
    stack = Stack(
        series_uid=UID(f"2.25.{number}"), study_uid=UID("2.25.1"), frame_of_reference_uid=UID("2.25.9"),
        series_number=number, contrast=contrast,
        plane=Plane.SAGITTAL if "sagittal" in sequence.name else Plane.AXIAL, frames=frames, rows=rows,
        columns=columns, row_cosine=_vector(cosines[2]), column_cosine=_vector(cosines[1]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]), reasons=("generated as that",),
        b_value=sequence.parameters.get("b"),
    )  # fmt: skip
    return Volume(sequence.array, affine, stack)


def _vector(values: Any) -> tuple[float, float, float]:  # Any: an array of three
    x, y, z = (float(value) for value in values)
    return x, y, z
