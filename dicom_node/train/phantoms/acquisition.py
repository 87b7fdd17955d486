"""From maps to images: signal, slice profile, coil shading, motion, noise, scale.

Order matters and is that of a scanner: signals are averaged over the slice, shaded by the
coil, disturbed in k-space (motion, truncation), made noisy as complex numbers (so the
magnitude is Rician), and only then interpolated to the stored matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import fft

from dicom_node.train.phantoms.anatomy import Anatomy
from dicom_node.train.phantoms.cases import CaseSpec
from dicom_node.train.phantoms.fields import enlarge
from dicom_node.train.phantoms.paint import ADC, PD, T1, T2, WATER, Bend, Grid, Painted, Points, paint
from dicom_node.train.phantoms.protocols import Protocol, Scan, grid_around, planes_of_localiser
from dicom_node.train.phantoms.signals import FAT_ADC, adc_map, diffusion, spin_echo

Array = npt.NDArray[np.float32]
_STREAMS = {"t2_axial": 11, "t2_sagittal": 12, "t1_axial": 13, "dwi": 14, "localiser": 15}
FINEST = 288
"""Rows and columns measured by the finest scan; more are interpolated."""
_FAT_LEFT = 0.06  # share of the fat signal that suppression leaves in DWI


@dataclass(frozen=True)
class Acquired:
    array: Array
    affines: tuple[npt.NDArray[np.float64], ...]
    tumour: npt.NDArray[np.uint8]
    uterus: npt.NDArray[np.uint8]
    parameters: Mapping[str, float]


def scan_spin_echo(spec: CaseSpec, painted: Painted, plan: Protocol, name: str) -> Acquired:
    """T2- or T1-weighted (turbo) spin echo of what was painted on `acquired_grid` of that scan."""
    scan = plan.scans[name]
    rng = np.random.default_rng([spec.seed, _STREAMS[name]])
    coarse = replace(scan, grid=acquired_grid(scan))
    signal = painted.averaged(_echo(painted, scan))
    n = scan.grid.shape[1]
    image = zoomed(acquire(rng, signal * coil(rng, coarse.grid, spec.field_strength_t), coarse), n)
    masks = replace(painted, tumour=_nearest(painted.tumour, n), uterus=_nearest(painted.uterus, n))
    return _acquired(spec, scan, masks, _stored(rng, image, plan.style.scale), {})


def scan_diffusion(spec: CaseSpec, anatomy: Anatomy, plan: Protocol) -> dict[str, Acquired]:
    """b0, b1000 and the ADC map that the scanner computes from those two, noise and all."""
    scan = plan.scans["dwi"]
    rng = np.random.default_rng([spec.seed, _STREAMS["dwi"]])
    # Painted at the acquired resolution; interpolated to the stored one afterwards.
    coarse = replace(scan, grid=_resampled(scan.grid, scan.acquired))
    bend = distortion(rng, anatomy, spec.field_strength_t)
    painted = paint(anatomy, coarse.grid, field_strength_t=spec.field_strength_t, bend=bend)
    echo = _echo(painted, scan)
    water = echo * painted.maps[WATER]
    lipid = (echo - water) * np.float32(_FAT_LEFT)
    shade = coil(rng, coarse.grid, spec.field_strength_t)
    n = scan.grid.shape[1]
    images = {}
    for b in (0, 1000):
        both = diffusion(water, painted.maps[ADC], b=b) + lipid * np.float32(np.exp(-b * 1e-3 * FAT_ADC))
        signal = painted.averaged(both) * shade
        averages = 1 if b == 0 else 4
        quieter = replace(coarse, noise=scan.noise / np.sqrt(averages))
        images[b] = zoomed(acquire(rng, signal, quieter), n)
    floor = 6 * scan.noise if plan.style.adc_masked else 0.0
    adc = adc_map(images[0], images[1000], b=1000, floor=floor)
    scale = plan.style.scale * float(rng.uniform(0.7, 1.3))
    masks = replace(painted, tumour=_nearest(painted.tumour, n), uterus=_nearest(painted.uterus, n))
    return {
        "dwi_b0": _acquired(spec, scan, masks, np.rint(images[0] * np.float32(scale)), {"b": 0.0}),
        "dwi_b1000": _acquired(spec, scan, masks, np.rint(images[1000] * np.float32(scale)), {"b": 1000.0}),
        "adc": _acquired(spec, scan, masks, np.rint(adc), {}),
    }


def localiser(spec: CaseSpec, anatomy: Anatomy, plan: Protocol) -> Acquired:
    """Five thick slices in each of three planes, T1-weighted and quick."""
    scan = plan.scans["localiser"]
    rng = np.random.default_rng([spec.seed, _STREAMS["localiser"]])
    n = scan.grid.shape[1]
    parts = []
    for axes in planes_of_localiser():
        grid = grid_around(axes, np.zeros(3), 400, n, 5, 8.0, 20.0)
        one = replace(scan, grid=grid, acquired=min(n, scan.acquired))
        painted = paint(anatomy, grid, field_strength_t=spec.field_strength_t, sub_slices=1)
        signal = spin_echo(*painted.maps[[PD, T1, T2]], te_ms=scan.te_ms, tr_ms=scan.tr_ms)
        image = acquire(rng, signal * coil(rng, grid, spec.field_strength_t), one)
        parts.append((_stored(rng, image, plan.style.scale), grid, painted))
    affines = tuple(_slice_affine(grid, k) for _, grid, _ in parts for k in range(grid.shape[0]))
    return Acquired(
        np.concatenate([image for image, _, _ in parts]),
        affines,
        np.concatenate([painted.tumour for _, _, painted in parts]),
        np.concatenate([painted.uterus for _, _, painted in parts]),
        _parameters(spec, scan),
    )


def coil(rng: np.random.Generator, grid: Grid, field_strength_t: float) -> Array:
    """Sensitivity of a surface array and B1 shading: smooth, multiplicative, 1 on average.

    Brighter near the front and back skin; at 3 T a dark band across the middle.
    """
    slices, rows, columns = grid.shape
    s, r, c = np.meshgrid(
        np.arange(slices), np.linspace(0, rows - 1, 12), np.linspace(0, columns - 1, 12), indexing="ij"
    )
    first = grid.affine[:3, 3][:, None, None, None]
    x, y, z = np.tensordot(grid.affine[:3, :3], np.stack([s, r, c]), 1) + first
    front, back = np.exp(-(y + 115) / 55), np.exp((y - 115) / 60)
    gain = 1 + rng.uniform(0.15, 0.6) * front + rng.uniform(0.1, 0.5) * back
    a, b, d = rng.normal(0, 0.0006, 3)
    gain = gain * np.exp(a * x + b * y + d * z)
    if field_strength_t > 2:
        depth, side = rng.uniform(0.05, 0.22), rng.normal(0, 30)
        gain = gain * (1 - depth * np.exp(-(((x - side) / 60) ** 2 + (y / 50) ** 2)))
    gain = gain / gain.mean()
    return enlarge(gain.astype(np.float32), rows, columns)


def distortion(rng: np.random.Generator, anatomy: Anatomy, field_strength_t: float) -> Bend:
    """Echo-planar distortion along the rows' direction (front to back): mm, worst near gas."""
    strength = (1.6 if field_strength_t > 2 else 1.0) * rng.uniform(0.6, 1.6)
    gas = anatomy.bowel_gas_mm

    def bend(points: Points) -> Points:
        x, y, z = points
        shift = np.float32(strength) * anatomy.off_resonance.at(x, y, z)
        d2 = (x - gas[0]) ** 2 + (y - gas[1]) ** 2 + ((z - gas[2]) / 1.5) ** 2
        shift += np.float32(4 * strength) * np.exp(-d2 / np.float32(2 * 18**2)).astype(np.float32)
        return x, (y + shift).astype(np.float32), z

    return bend


def acquire(rng: np.random.Generator, image: Array, scan: Scan) -> Array:
    """Through k-space: periodic motion ghosts along the rows, truncation, complex noise."""
    slices, rows, columns = image.shape
    kspace = fft.fftshift(fft.fft2(image, axes=(1, 2)), axes=(1, 2))
    lines = np.arange(rows) - rows // 2
    breaths = rng.uniform(5, 14, (slices, 1))
    phase = rng.uniform(0, 2 * np.pi, (slices, 1))
    amplitude = scan.ghost * np.exp(0.4 * rng.standard_normal((slices, 1)))
    motion = amplitude * np.sin(2 * np.pi * lines / rows * breaths + phase)
    kspace *= (1 + 1j * motion)[:, :, None].astype(np.complex64)
    if scan.acquired < rows:
        kspace *= _taper(rows, scan.acquired)[:, None] * _taper(columns, scan.acquired)[None, :]
    out = fft.ifft2(fft.ifftshift(kspace, axes=(1, 2)), axes=(1, 2))
    sigma = scan.noise * min(1.0, scan.acquired / rows) ** 0.5
    noise = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(sigma)
    out = out + noise[0] + 1j * noise[1]
    magnitude: Array = np.abs(out).astype(np.float32)
    return magnitude


def zoomed(image: Array, n: int) -> Array:
    """Sinc interpolation of square slices to n by n, as scanners do."""
    size = image.shape[1]
    if n == size:
        return image
    kspace = fft.fftshift(fft.fft2(image, axes=(1, 2)), axes=(1, 2))
    low = n // 2 - size // 2
    padded = np.zeros((image.shape[0], n, n), np.complex64)
    padded[:, low : low + size, low : low + size] = kspace
    # The centre of the field of view stays where it was: pixel centres shift by half a step.
    shift = np.exp(-1j * np.pi * (np.arange(n) - n // 2) * (1 / size - 1 / n))
    padded *= (shift[:, None] * shift[None, :]).astype(np.complex64)
    out = fft.ifft2(fft.ifftshift(padded, axes=(1, 2)), axes=(1, 2))
    magnitude: Array = np.abs(out).astype(np.float32) * np.float32((n / size) ** 2)
    return magnitude


def _nearest(mask: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.uint8]:
    at = np.clip(np.floor((np.arange(n) + 0.5) * mask.shape[1] / n).astype(int), 0, mask.shape[1] - 1)
    return mask[:, at][:, :, at]


def acquired_grid(scan: Scan) -> Grid:
    """Where a spin echo is painted: no finer than a scanner measures it, however it is stored."""
    return _resampled(scan.grid, min(scan.grid.shape[1], FINEST))


def _resampled(grid: Grid, n: int) -> Grid:
    """The same field of view with n by n pixels."""
    slices, rows, _ = grid.shape
    factor = rows / n
    affine = grid.affine.copy()
    affine[:3, 1:3] *= factor
    affine[:3, 3] += (grid.affine[:3, 1] + grid.affine[:3, 2]) * (factor - 1) / 2
    return Grid((slices, n, n), affine, grid.thickness_mm)


def _taper(n: int, kept: int) -> Array:
    distance = np.abs(np.arange(n) - n // 2)
    out: Array = (1 / (1 + np.exp((distance - kept / 2) / (0.03 * kept)))).astype(np.float32)
    return out


def _echo(painted: Painted, scan: Scan) -> Array:
    return spin_echo(painted.maps[PD], painted.maps[T1], painted.maps[T2], te_ms=scan.te_ms, tr_ms=scan.tr_ms)


def _stored(rng: np.random.Generator, image: Array, scale: float) -> Array:
    out: Array = np.rint(image * np.float32(scale * rng.uniform(0.7, 1.3)))
    return out


def _slice_affine(grid: Grid, k: int) -> npt.NDArray[np.float64]:
    affine = grid.affine.copy()
    affine[:3, 3] = affine[:3, 3] + k * affine[:3, 0]
    return affine


def _parameters(spec: CaseSpec, scan: Scan) -> dict[str, float]:
    return {
        "te_ms": round(scan.te_ms, 1),
        "tr_ms": round(scan.tr_ms),
        "thickness_mm": scan.grid.thickness_mm,
        "gap_mm": scan.gap_mm,
        "field_strength_t": spec.field_strength_t,
    }


def _acquired(spec: CaseSpec, scan: Scan, painted: Painted, image: Array, more: dict[str, float]) -> Acquired:
    grid = scan.grid
    affines = tuple(_slice_affine(grid, k) for k in range(grid.shape[0]))
    return Acquired(image, affines, painted.tumour, painted.uterus, {**_parameters(spec, scan), **more})
