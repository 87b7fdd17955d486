"""Signal equations of the sequences, from maps of PD, T1, T2 and ADC.

Spin echo and its turbo form: S = PD (1 - exp(-TR/T1)) exp(-TE/T2) with the effective echo
time (Bernstein, King, Zhou: Handbook of MRI Pulse Sequences, 2004, chapters 14 and 16).
Diffusion: the same, times exp(-b ADC) (Stejskal, Tanner, J Chem Phys 1965;42:288).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

FAT_ADC = 0.2
"""1e-3 mm2/s; the lipid left by incomplete suppression stays at high b values."""


def spin_echo(pd: Array, t1: Array, t2: Array, *, te_ms: float, tr_ms: float) -> Array:
    """Relative signal; PD relative to water, times in ms."""
    out: Array = pd * (1 - np.exp(-np.float32(tr_ms) / t1)) * np.exp(-np.float32(te_ms) / t2)
    return out


def diffusion(s0: Array, adc: Array, *, b: float) -> Array:
    """`b` in s/mm2, `adc` in 1e-3 mm2/s."""
    out: Array = s0 * np.exp(-np.float32(b * 1e-3) * adc)
    return out


def adc_map(s0: Array, sb: Array, *, b: float, floor: float = 0.0) -> Array:
    """ADC in 1e-6 mm2/s, as scanners store it, from two magnitude images.

    Pixels whose b0 signal is at or below `floor` are 0: the scanner masks the background.
    Negative values and those above 4095 are clipped.
    """
    tiny = np.float32(1e-6)
    ratio = np.log(np.maximum(s0, tiny) / np.maximum(sb, tiny))
    out = np.clip(ratio * np.float32(1e6 / b), 0, 4095)
    return np.where(s0 > floor, out, 0).astype(np.float32)
