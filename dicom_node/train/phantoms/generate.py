"""Render a case: anatomy, physics and one vendor's protocol, to arrays with truth masks.

`render` is a pure function of its `CaseSpec`: the same one gives the same bytes. Arrays are
in stored values, as a reader sees them after rescale: arbitrary units that differ between
vendors, except ADC, which is in 1e-6 mm2/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dicom_node.train.phantoms.acquisition import (
    Acquired,
    acquired_grid,
    localiser,
    scan_diffusion,
    scan_spin_echo,
)
from dicom_node.train.phantoms.anatomy import Anatomy, build
from dicom_node.train.phantoms.cases import SEQUENCES as SEQUENCES
from dicom_node.train.phantoms.cases import CaseSpec
from dicom_node.train.phantoms.paint import paint
from dicom_node.train.phantoms.protocols import Protocol, protocol

TRAINING = ("t2_axial", "t2_sagittal", "t1_axial", "dwi_b0", "dwi_b1000", "adc")


@dataclass(frozen=True)
class PhantomSequence:
    """One contrast of one study.

    `array` (slices, rows, columns) float32; `affine` (4, 4) float64 maps (slice, row, column, 1)
    to patient LPS mm; `tumour_mask` uint8 of the same shape: 0 none, 1 leiomyoma, 2 sarcoma;
    `uterus_mask` uint8: 1 in the uterus with its tumours. The localiser's slices lie in three
    planes: `affines` has one per slice and `affine` is that of the first.
    """

    name: str
    array: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    tumour_mask: npt.NDArray[np.uint8]
    uterus_mask: npt.NDArray[np.uint8]
    parameters: Mapping[str, float]
    """te_ms, tr_ms, b (s/mm2, where it has one), thickness_mm, gap_mm, field_strength_t."""
    affines: tuple[npt.NDArray[np.float64], ...] = field(default=())


@dataclass(frozen=True)
class PhantomStudy:
    spec: CaseSpec
    sequences: Mapping[str, PhantomSequence]
    anatomy: Anatomy
    protocol: Protocol


def render(
    spec: CaseSpec,
    *,
    matrix: int | None = None,
    slices: int | None = None,
    only: tuple[str, ...] = SEQUENCES,
) -> PhantomStudy:
    """The study of a case.

    `matrix` makes every stack that many rows and columns (training wants small ones); without
    it each has its vendor's. `slices` is the number of slices of each axial and sagittal
    stack. `only` leaves sequences out; those that stay do not change by it.
    """
    anatomy = build(spec)
    plan = protocol(spec, anatomy, matrix=matrix, slices=slices)
    made: dict[str, PhantomSequence] = {}
    if {"t2_axial", "t1_axial"} & set(only):  # one painting: they share their geometry
        axial = paint(anatomy, acquired_grid(plan.scans["t2_axial"]), field_strength_t=spec.field_strength_t)
        for name in ("t2_axial", "t1_axial"):
            if name in only:
                made[name] = _sequence(name, scan_spin_echo(spec, axial, plan, name))
    if "t2_sagittal" in only:
        sagittal = paint(
            anatomy, acquired_grid(plan.scans["t2_sagittal"]), field_strength_t=spec.field_strength_t
        )
        made["t2_sagittal"] = _sequence("t2_sagittal", scan_spin_echo(spec, sagittal, plan, "t2_sagittal"))
    if {"dwi_b0", "dwi_b1000", "adc"} & set(only):
        for name, acquired in scan_diffusion(spec, anatomy, plan).items():
            if name in only:
                made[name] = _sequence(name, acquired)
    if "localiser" in only:
        made["localiser"] = _sequence("localiser", localiser(spec, anatomy, plan))
    in_order = {name: made[name] for name in SEQUENCES if name in made}
    return PhantomStudy(spec, in_order, anatomy, plan)


def _sequence(name: str, acquired: Acquired) -> PhantomSequence:
    return PhantomSequence(
        name=name,
        array=acquired.array,
        affine=acquired.affines[0],
        tumour_mask=acquired.tumour,
        uterus_mask=acquired.uterus,
        parameters=acquired.parameters,
        affines=acquired.affines,
    )
