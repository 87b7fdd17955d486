"""What a pipeline declares and does.

Declared needs let the node assemble by need, choose stacks with reasons, guard the intended
use and say "AI not performed, because ..." without a line of pipeline code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dicom_node.domain.findings import Findings, NotPerformed
from dicom_node.domain.job import Level
from dicom_node.domain.series import Contrast, Plane, Stack, Study, Volume
from dicom_node.domain.slide import OpenSlide, Photograph, Slide
from dicom_node.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Need:
    """One input of a pipeline: the kind of stack, and whether it can do without.

    Where several stacks fit, the one with most slices in plane and without contrast agent or
    fat suppression wins, and the reasons say so (`route/choose.py`).
    """

    name: str
    contrast: Contrast
    plane: Plane | None = None
    b_value: tuple[float, float] | None = None
    """Lowest and highest acceptable b value, s/mm2 (for DWI)."""
    required: bool = False
    min_slices: int = 5
    group: str = ""
    """Of the needs that share a group, at least one must be met; "" is no group."""

    @property
    def kind(self) -> str:
        """The word that a refusal of such images begins with."""
        return self.contrast.value

    def objection(self, stack: Stack) -> str:
        """Why this stack does not meet the need, in words; "" where it does."""
        if stack.contrast is not self.contrast:
            return f"{stack.contrast.value}, not {self.contrast.value}"
        if self.plane is not None and stack.plane is not self.plane:
            return f"{stack.plane.value}, not {self.plane.value}"
        if self.b_value is not None:
            low, high = self.b_value
            if stack.b_value is None:
                return "its b value is not stated"
            if not low <= stack.b_value <= high:
                return f"b = {stack.b_value:g}, not {low:g} to {high:g}"
        if len(stack.frames) < self.min_slices:
            return f"{len(stack.frames)} slices, fewer than {self.min_slices}"
        return ""

    @property
    def label(self) -> str:
        """What it asks for, in words: `T2 axial`, `DWI b500-1500`."""
        b = "" if self.b_value is None else f" b{self.b_value[0]:g}-{self.b_value[1]:g}"
        plane = "" if self.plane is None else f" {self.plane.value}"
        return f"{self.contrast.value}{b}{plane}"


@dataclass(frozen=True, slots=True)
class SlideNeed:
    """A slide. Where several fit, the one with the largest area wins."""

    name: str
    um_per_px: float
    """The finest level must be at least as fine as this; a tenth coarser is let pass."""
    min_planes: int = 1
    required: bool = False
    group: str = ""
    kind: ClassVar[str] = "slide"

    def objection(self, slide: Slide) -> str:
        """Why this slide does not meet the need, in words; "" where it does."""
        base = slide.base
        if max(base.um_per_px) > 1.1 * self.um_per_px:
            return f"{max(base.um_per_px):.3g} um/px, coarser than {self.um_per_px:g}"
        if len(base.planes_um) < self.min_planes:
            return f"{len(base.planes_um)} focal planes, fewer than {self.min_planes}"
        return ""

    @property
    def label(self) -> str:
        planes = f" with {self.min_planes} focal planes" if self.min_planes > 1 else ""
        return f"slide at {self.um_per_px:g} um/px{planes}"


@dataclass(frozen=True, slots=True)
class PhotographNeed:
    """Photographs through a microscope: all that came, one by one a field of the same specimen."""

    name: str
    min_rows: int = 64
    required: bool = False
    group: str = ""
    kind: ClassVar[str] = "photograph"

    def objection(self, photograph: Photograph) -> str:
        """Why this photograph does not meet the need, in words; "" where it does."""
        if min(photograph.rows, photograph.columns) < self.min_rows:
            return f"{photograph.rows} x {photograph.columns} px, smaller than {self.min_rows}"
        return ""

    @property
    def label(self) -> str:
        return "microscope photograph"


AnyNeed = Need | SlideNeed | PhotographNeed
Found = Stack | Slide | tuple[Photograph, ...]
"""What meets a need."""


@dataclass(frozen=True, slots=True)
class IntendedUse:
    """The limits inside which the model's card allows a result."""

    modalities: frozenset[str]
    sex: frozenset[str] = frozenset({"F", "M", "O"})
    age_years: tuple[float, float] = (0.0, 130.0)
    body_parts: frozenset[str] = frozenset()
    """Accepted Body Part Examined values; empty accepts any. An absent value is a warning, not a refusal."""
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for a need, or None; with the reasons, also for those passed over."""

    need: AnyNeed
    found: Found | None
    reasons: tuple[str, ...]

    @property
    def stack(self) -> Stack | None:
        return self.found if isinstance(self.found, Stack) else None

    @property
    def label(self) -> str:
        """What was chosen, in a few words without free text; "" for nothing."""
        if isinstance(self.found, tuple):
            return ", ".join(photograph.label for photograph in self.found)
        return "" if self.found is None else self.found.label

    @property
    def series_number(self) -> int | None:
        first = self.found[0] if isinstance(self.found, tuple) else self.found
        return None if first is None else first.series_number


Progress = Callable[[float, str], None]
"""Called with the fraction done (0 to 1) and a short word for the step; may raise to stop the run."""


def silent(fraction: float, step: str) -> None:
    """Progress that goes nowhere."""


ReadPhotograph = Callable[[Photograph], npt.NDArray[np.uint8]]
"""(rows, columns, 3) sRGB of a photograph. Raises UnreadableObject."""


def _no_photographs(photograph: Photograph) -> npt.NDArray[np.uint8]:
    raise PipelineError(f"nothing reads {photograph.label} here")


@dataclass(frozen=True, slots=True)
class Case:
    """All a pipeline gets to work on."""

    study: Study
    volumes: Mapping[str, Volume]
    """By need name; optional needs may be absent."""
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...] = ()
    """What the guard found but was told to let pass (`intended_use = "warn"`)."""
    progress: Progress = field(default=silent)
    device: str = "cpu"
    slides: Mapping[str, OpenSlide] = field(default_factory=dict)
    """By need name, open for reading."""
    photographs: Mapping[str, tuple[Photograph, ...]] = field(default_factory=dict)
    """By need name, in the order of series and instances."""
    read_photograph: ReadPhotograph = field(default=_no_photographs)
    resume: Path | None = None
    """A folder of this job's own that outlives a crash: what is kept there need not be done again."""


@runtime_checkable
class Pipeline(Protocol):
    """One file or folder in `pipelines/`. Heavy imports belong inside `__init__` or `run`.

    The class is looked at (never instantiated) by routing; it is instantiated once per
    worker process, where its constructor loads the models, and `run` is called per case.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    title: ClassVar[str]
    level: ClassVar[Level]
    needs: ClassVar[tuple[AnyNeed, ...]]
    intended_use: ClassVar[IntendedUse]
    models: ClassVar[tuple[str, ...]]
    """Names of the bundles in `models/` it uses; their digests go into every result UID."""

    def run(self, case: Case) -> Findings: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What routing decided for one pipeline on one study: run with these, or not, because."""

    pipeline: str
    version: str
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...] = ()
    not_performed: NotPerformed | None = None
