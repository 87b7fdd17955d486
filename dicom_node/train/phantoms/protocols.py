"""How each vendor's site images a pelvis: geometry, timing, intensity scale and names.

Ranges are those of clinical pelvic protocols (ESUR, Kubik-Huch et al., Eur Radiol 2018;28:1328,
doi 10.1007/s00330-017-5157-5 for fibroids). A case draws its own values inside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.train.phantoms.anatomy import Anatomy
from dicom_node.train.phantoms.cases import CaseSpec
from dicom_node.train.phantoms.paint import Grid

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Style:
    """One vendor's habits that reach the pixels."""

    matrix: int
    matrix_dwi: int
    scale: float
    """Stored value of a water-like signal of 1."""
    offset: float
    adc_masked: bool
    """The background of the ADC map is zeroed."""


STYLES = {
    "siemens": Style(320, 192, 900.0, 0.0, adc_masked=False),
    "ge": Style(512, 256, 6000.0, 0.0, adc_masked=True),
    "philips": Style(400, 224, 1800.0, 0.0, adc_masked=True),
    "canon": Style(384, 256, 9000.0, 0.0, adc_masked=True),
}


@dataclass(frozen=True)
class Scan:
    """One acquisition's geometry and timing. `acquired` is the matrix before interpolation."""

    grid: Grid
    acquired: int
    te_ms: float
    tr_ms: float
    noise: float
    """Standard deviation of each complex channel, relative to a signal of 1."""
    ghost: float
    gap_mm: float


@dataclass(frozen=True)
class Protocol:
    style: Style
    scans: dict[str, Scan]
    """t2_axial, t2_sagittal, t1_axial, dwi, localiser (its first plane)."""


def protocol(spec: CaseSpec, anatomy: Anatomy, *, matrix: int | None, slices: int | None) -> Protocol:
    rng = np.random.default_rng([spec.seed, 3])
    style = STYLES[spec.vendor]
    strong = spec.field_strength_t > 2
    tilt, turn = rng.normal(0, 4), rng.normal(0, 2)
    centre = np.array([rng.normal(0, 4), rng.normal(-4, 5), rng.normal(0, 6)]) + _focus(anatomy)
    fov = rng.uniform(240, 300)
    thick, gap = float(rng.choice([4.0, 5.0, 5.0, 6.0])), float(rng.choice([0.4, 0.5, 1.0, 1.0]))
    count = slices or int(np.clip(round(rng.uniform(140, 170) / (thick + gap)), 20, 34))
    noise = (0.007 if strong else 0.011) * rng.uniform(0.7, 1.5)
    ghost = float(np.exp(rng.normal(np.log(0.02), 0.7)))
    axial, sagittal = _axial(tilt, turn), _sagittal(turn, rng.normal(0, 3))
    n = matrix or style.matrix
    wide = float(rng.uniform(300, 380))
    n_dwi, count_sagittal = matrix or style.matrix_dwi, slices or round(rng.uniform(96, 130) / (thick + gap))
    scans = {
        "t2_axial": Scan(
            _grid(axial, centre, fov, n, count, thick, gap), min(n, 288), rng.uniform(88, 112),
            rng.uniform(3500, 6000), noise, ghost, gap,
        ),
        "t2_sagittal": Scan(
            _grid(sagittal, centre, fov * 0.98, n, count_sagittal, thick, gap), min(n, 288),
            rng.uniform(88, 112), rng.uniform(3500, 6000), noise, ghost * 1.3, gap,
        ),
        "t1_axial": Scan(
            _grid(axial, centre, fov, n, count, thick, gap), min(n, 256), rng.uniform(8, 13),
            rng.uniform(500, 700), noise, ghost, gap,
        ),
        "dwi": Scan(
            _grid(_axial(0, 0), centre, wide, n_dwi, count, thick, gap), min(n_dwi, 128), rng.uniform(58, 82),
            rng.uniform(4200, 7000), noise * rng.uniform(0.5, 0.8), 0.006, gap,
        ),
        "localiser": Scan(
            _grid(_axial(0, 0), np.zeros(3), 400, min(n, 256), 5, 8.0, 12.0),
            128, 5.0, 250.0, 0.02, 0.02, 12.0,
        ),
    }  # fmt: skip
    return Protocol(style, scans)


def _focus(anatomy: Anatomy) -> Matrix:
    """Where a technologist centres: between the cervix and the top of uterus and masses."""
    tops = [t.shape.centre[2] + t.radius_mm for t in anatomy.tumours]
    top = max([float(anatomy.uterus.at(1, 0, 0)[2]), *tops])
    return np.array([0.0, 0.0, float(np.clip((top - 60) / 2, -15, 32))])


def _axial(tilt_deg: float, turn_deg: float) -> Matrix:
    """Columns: slice normal (to the head), row direction of the array, column direction."""
    a, b = np.radians(tilt_deg), np.radians(turn_deg)
    right = np.array([np.cos(b), np.sin(b), 0])
    down = np.array([-np.sin(b) * np.cos(a), np.cos(b) * np.cos(a), np.sin(a)])
    return np.stack([np.cross(right, down), down, right], axis=1)


def _sagittal(turn_deg: float, lean_deg: float) -> Matrix:
    """Rows run from front to back, columns from head to foot."""
    a, b = np.radians(turn_deg), np.radians(lean_deg)
    right = np.array([-np.sin(a), np.cos(a), 0])
    down = np.array([np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), -np.cos(b)])
    return np.stack([np.cross(right, down), down, right], axis=1)


def _coronal() -> Matrix:
    right, down = np.array([1.0, 0, 0]), np.array([0, 0, -1.0])
    return np.stack([np.cross(right, down), down, right], axis=1)


def planes_of_localiser() -> tuple[Matrix, Matrix, Matrix]:
    return _axial(0, 0), _sagittal(0, 0), _coronal()


def _grid(axes: Matrix, centre: Matrix, fov_mm: float, n: int, count: int, thick: float, gap: float) -> Grid:
    return grid_around(axes, centre, fov_mm, n, count, thick, thick + gap)


def grid_around(
    axes: Matrix, centre: Matrix, fov_mm: float, n: int, count: int, thickness_mm: float, step_mm: float
) -> Grid:
    """A stack of `count` square slices around `centre`; numbers rounded as scanners store them."""
    pixel = round(fov_mm / n, 4)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (np.round(axes, 6) * [step_mm, pixel, pixel]).T
    middle = np.array([(count - 1) / 2, (n - 1) / 2, (n - 1) / 2])
    affine[:3, 3] = np.round(centre - affine[:3, :3] @ middle, 3)
    return Grid((count, n, n), affine, thickness_mm)
