"""Which cases a cohort has: label, scanner, field and age of each, from a seed alone.

The sizes are those of AutoDiag-AI: 63 sarcomas and 200 leiomyomas to develop on, 8 and 24
untouched ones that come later, from another mix of scanners. `DIFFICULTY` says how far the
two kinds overlap: at 0 they are told apart by eye, at 1 hardly at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dicom_node.errors import InvalidValue

Label = Literal["sarcoma", "leiomyoma"]
Vendor = Literal["siemens", "ge", "philips", "canon"]
VENDORS: tuple[Vendor, ...] = ("siemens", "ge", "philips", "canon")

SEQUENCES = ("t2_axial", "t2_sagittal", "t1_axial", "dwi_b0", "dwi_b1000", "adc", "localiser")
"""The contrasts every case is rendered in."""

DIFFICULTY = 0.5
"""Share of sarcomas and leiomyomas drawn from what both may look like; see `tumours.py`."""


@dataclass(frozen=True, slots=True)
class CaseSpec:
    """One case before it is rendered. `seed` alone decides anatomy, tumours and noise."""

    index: int
    seed: int
    label: Label
    vendor: Vendor
    age: int
    """Years; decides whether the uterus is premenopausal."""
    field_strength_t: float = 1.5
    cohort: str = "development"
    difficulty: float = DIFFICULTY

    def __post_init__(self) -> None:
        if self.label not in ("sarcoma", "leiomyoma"):
            raise InvalidValue(f"no such label: {self.label!r}")
        if self.vendor not in VENDORS:
            raise InvalidValue(f"no such vendor: {self.vendor!r}")
        if not 0 <= self.difficulty <= 1:
            raise InvalidValue(f"difficulty must be from 0 to 1, not {self.difficulty}")

    @property
    def name(self) -> str:
        return f"{self.cohort}-{self.index:04d}"


@dataclass(frozen=True, slots=True)
class Cohort:
    """How many cases of each kind, from which scanners (probabilities) and which years."""

    name: str
    sarcomas: int
    leiomyomas: int
    vendors: tuple[tuple[Vendor, float], ...]
    share_3t: float
    salt: int
    """Keeps the seeds of two cohorts apart."""

    @property
    def size(self) -> int:
        return self.sarcomas + self.leiomyomas


def development() -> Cohort:
    mix: tuple[tuple[Vendor, float], ...] = (
        ("siemens", 0.4),
        ("ge", 0.3),
        ("philips", 0.25),
        ("canon", 0.05),
    )
    return Cohort("development", 63, 200, mix, share_3t=0.4, salt=101)


def untouched() -> Cohort:
    """A later set: other seeds, more Philips and Canon, more 3 T."""
    mix: tuple[tuple[Vendor, float], ...] = (
        ("siemens", 0.3),
        ("ge", 0.15),
        ("philips", 0.35),
        ("canon", 0.2),
    )
    return Cohort("untouched", 8, 24, mix, share_3t=0.65, salt=907)


def cohort(name: str) -> Cohort:
    known = {"development": development, "untouched": untouched}
    if name not in known:
        raise InvalidValue(f"no such cohort: {name!r}; there are {', '.join(known)}")
    return known[name]()


def case_specs(cohort_name: str, seed: int = 0, *, difficulty: float = DIFFICULTY) -> tuple[CaseSpec, ...]:
    """Every case of a cohort, labels in a shuffled but fixed order."""
    which = cohort(cohort_name)
    rng = np.random.default_rng([seed, which.salt])
    sarcoma: Label = "sarcoma"
    leiomyoma: Label = "leiomyoma"
    labels = [sarcoma] * which.sarcomas + [leiomyoma] * which.leiomyomas
    order = rng.permutation(which.size)
    return tuple(_case(which, i, labels[order[i]], seed, difficulty) for i in range(which.size))


def _case(which: Cohort, index: int, label: Label, seed: int, difficulty: float) -> CaseSpec:
    rng = np.random.default_rng([seed, which.salt, index])
    vendor = which.vendors[int(rng.choice(len(which.vendors), p=[p for _, p in which.vendors]))][0]
    mean, spread = (52.0, 11.0) if label == "sarcoma" else (45.0, 8.0)
    return CaseSpec(
        index=index,
        seed=int(rng.integers(2**31)),
        label=label,
        vendor=vendor,
        age=int(np.clip(rng.normal(mean, spread), 22, 84)),
        field_strength_t=3.0 if rng.random() < which.share_3t else 1.5,
        cohort=which.name,
        difficulty=difficulty,
    )
