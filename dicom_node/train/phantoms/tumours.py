"""Leiomyomas and sarcomas: what they are made of, drawn so that the two kinds overlap.

ADC (1e-3 mm2/s): sarcoma 1.17 +- 0.15, ordinary leiomyoma 0.88 +- 0.27, cellular 1.19 +- 0.18,
degenerated 1.70 +- 0.11 (Tamai et al., Eur Radiol 2008;18:723, doi 10.1007/s00330-007-0787-7;
the ordinary ones are low by T2 blackout); sarcoma 0.86 +- 0.11 against leiomyoma 1.18 +- 0.24
and their T2 contrast to myometrium (Namimoto et al., Eur Radiol 2009;19:2756, doi
10.1007/s00330-009-1471-x); leiomyosarcoma 0.79 +- 0.15 (Sato et al., AJOG 2014, doi
10.1016/j.ajog.2013.12.028). Haemorrhage, necrosis and ill-defined borders as reviewed by
Suzuki et al., Healthcare 2019;7:158, doi 10.3390/healthcare7040158. T1 and T2 of tumours
are set so that the contrasts above come out. Each kind is one row of a table of means and
spreads; `difficulty` moves each tumour a random part of the way towards AMBIGUOUS.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from dicom_node.train.phantoms.fields import Field, smooth_field
from dicom_node.train.phantoms.shapes import Ellipsoid


class TumourClass(IntEnum):
    """Values in the truth mask."""

    LEIOMYOMA = 1
    SARCOMA = 2


@dataclass(frozen=True, slots=True)
class Look:
    """What one tumour looks like. `t2` at 1.5 T in ms, ADC in 1e-3 mm2/s, others relative."""

    t2: float
    t1: float
    adc: float
    mottle: float
    """Relative standard deviation of T2 over a few mm."""
    patchy: float
    """The same over about a centimetre."""
    whorl: float
    """Depth of the concentric bands of smooth muscle."""
    liquid: float
    """Share of the volume that is cyst, myxoid matrix or necrosis."""
    blood: float
    """Share of the volume that is haemorrhage: short T1."""
    lobes: float
    """Bumps of the border, relative to the radius."""
    blur_mm: float
    """Width over which the border fades into myometrium."""
    capsule: float
    """How dark the pseudocapsule is, 0 to 1."""

    def mixed(self, other: Look, share: float) -> Look:
        """`share` of the way to `other`; T2 and ADC geometrically."""
        values = {}
        for name in (f.name for f in fields(self)):
            a, b = getattr(self, name), getattr(other, name)
            geometric = name in ("t2", "t1", "adc")
            values[name] = float(a ** (1 - share) * b**share) if geometric else (1 - share) * a + share * b
        return Look(**values)


#                 T2   T1    ADC  mottle patchy whorl liquid blood lobes blur capsule
TYPICAL = Look(   54, 1150, 1.05, 0.10, 0.10, 0.18, 0.00, 0.00, 0.03, 0.8, 0.6)  # fmt: skip
HYALINE = Look(   50, 1150, 1.20, 0.16, 0.25, 0.10, 0.04, 0.00, 0.04, 0.9, 0.6)  # fmt: skip
CYSTIC = Look(    66, 1250, 1.40, 0.14, 0.25, 0.10, 0.25, 0.01, 0.05, 1.0, 0.5)  # fmt: skip
MYXOID = Look(   150, 1700, 1.75, 0.14, 0.30, 0.05, 0.25, 0.00, 0.06, 1.2, 0.4)  # fmt: skip
RED = Look(       75,  850, 1.10, 0.18, 0.30, 0.06, 0.05, 0.28, 0.05, 1.2, 0.4)  # fmt: skip
CELLULAR = Look(  98, 1300, 1.02, 0.12, 0.14, 0.08, 0.02, 0.01, 0.05, 1.1, 0.4)  # fmt: skip
LMS = Look(      108, 1350, 0.84, 0.20, 0.30, 0.02, 0.20, 0.11, 0.13, 3.2, 0.05)  # fmt: skip
ESS = Look(      118, 1400, 0.86, 0.16, 0.24, 0.03, 0.10, 0.05, 0.17, 3.6, 0.05)  # fmt: skip
AMBIGUOUS = Look( 90, 1300, 0.98, 0.16, 0.22, 0.05, 0.08, 0.05, 0.08, 1.8, 0.2)  # fmt: skip

KINDS: dict[str, Look] = {
    "typical": TYPICAL, "hyaline": HYALINE, "cystic": CYSTIC, "myxoid": MYXOID, "red": RED,
    "cellular": CELLULAR, "leiomyosarcoma": LMS, "stromal": ESS,
}  # fmt: skip
LEIOMYOMAS = {"typical": 0.46, "hyaline": 0.14, "cystic": 0.08, "myxoid": 0.07, "red": 0.07, "cellular": 0.18}
SARCOMAS = {"leiomyosarcoma": 0.68, "stromal": 0.32}
_SPREAD = {"t2": 0.15, "t1": 0.08, "adc": 0.12}  # of the logarithm
_SPREAD_OTHERS = 0.35


@dataclass(frozen=True)
class Tumour:
    """One tumour in place. The fields make its border and texture; `period_mm` its whorls."""

    kind: str
    malignant: TumourClass
    shape: Ellipsoid
    look: Look
    border: Field
    mottle: Field
    patches: Field
    liquid: Field
    period_mm: float

    @property
    def radius_mm(self) -> float:
        return float(np.prod(self.shape.half_mm) ** (1 / 3))


def draw_look(rng: np.random.Generator, kind: str, difficulty: float) -> Look:
    """One tumour of a kind: its row of the table, spread, and moved towards AMBIGUOUS.

    Every sarcoma and cellular or degenerated leiomyoma moves by a beta-distributed share whose
    mean is half of `difficulty`; ordinary leiomyomas move a fifth of that. A share of the
    sarcomas (a quarter of `difficulty`) is occult: it takes a cellular leiomyoma's look.
    """
    mean = KINDS[kind]
    if kind in SARCOMAS and rng.random() < 0.25 * difficulty:
        mean = CELLULAR.mixed(mean, 0.25)
    share = difficulty * float(rng.beta(1.5, 1.5)) * (0.2 if kind in ("typical", "hyaline") else 1.0)
    mean = mean.mixed(AMBIGUOUS, share)
    values = {}
    for name in (f.name for f in fields(Look)):
        spread = _SPREAD.get(name, _SPREAD_OTHERS)
        values[name] = float(getattr(mean, name) * np.exp(spread * np.clip(rng.standard_normal(), -2.2, 2.2)))
    values["liquid"], values["blood"] = min(values["liquid"], 0.6), min(values["blood"], 0.5)
    values["capsule"] = min(values["capsule"], 1.0)
    return Look(**values)


def draw_kind(rng: np.random.Generator, of: dict[str, float]) -> str:
    return str(rng.choice(list(of), p=list(of.values())))


def make_tumour(
    rng: np.random.Generator, kind: str, centre: npt.NDArray[np.float64], radius_mm: float, difficulty: float
) -> Tumour:
    """A tumour of this kind at `centre` (LPS mm)."""
    look = draw_look(rng, kind, difficulty)
    stretch = np.exp(rng.normal(0, 0.10 if kind not in SARCOMAS else 0.16, 3))
    half = radius_mm * stretch / np.prod(stretch) ** (1 / 3)
    axes, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return Tumour(
        kind=kind,
        malignant=TumourClass.SARCOMA if kind in SARCOMAS else TumourClass.LEIOMYOMA,
        shape=Ellipsoid(centre, half, axes),
        look=look,
        border=smooth_field(rng, float(np.clip(radius_mm * 0.8, 8, 26))),
        mottle=smooth_field(rng, float(rng.uniform(3.5, 6))),
        patches=smooth_field(rng, float(np.clip(radius_mm * 0.5, 7, 18))),
        liquid=smooth_field(rng, float(np.clip(radius_mm * rng.uniform(0.35, 0.8), 6, 24))),
        period_mm=float(rng.uniform(4, 8)),
    )
