"""What kind of MR image is this? Physics and geometry first, words second.

A table of rules reads echo, repetition and inversion time, flip angle, b value, scanning
sequence and image type; the first rule that applies decides, with its reason. The series
description is asked only where physics is silent, and the reasons say so; where it
contradicts physics, it loses, and the reasons say that too. It is never quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.domain.series import Contrast

_TRACE = frozenset({"TRACEW", "TRACE", "ISOTROPIC"})
_CALCULATED = frozenset({"CALC_BVAL", "CALCULATED", "CBVAL", "SYNTHETIC", "COMPUTED", "CALCBVAL"})
_MAPS: Mapping[str, str] = {
    word: what
    for what, found in {
        "a phase image": ("P", "PHASE", "PHASE MAP", "PHASE_MAP", "VELOCITY", "VELOCITY MAP"),
        "a real or imaginary part": ("R", "REAL", "I", "IMAGINARY"),
        "a field map": ("FIELD_MAP", "FIELDMAP", "B0 MAP", "B1"),
        "a diffusion map other than ADC": ("FA", "TENSOR", "TENSOR_B0", "EADC", "EXP", "RA", "VR", "LA"),
        "a relaxation map": ("T1 MAP", "T2 MAP", "T2_STAR MAP", "T2MAP", "T1MAP", "R2", "R2_STAR MAP"),
        "perfusion": ("ASL", "PERFUSION", "RELCBF", "RELCBV", "RELMTT", "TTP", "GBP", "PBP", "CBF"),
        "a subtraction": ("SUB", "SUBTRACTION", "SUBTRACT"),
        "a projection": ("MIP", "MINIP", "PROJECTION IMAGE", "PROJECTION", "MAXIP"),
        "a fat image of a water-fat separation": ("F", "FAT", "FAT_FRACTION", "FF", "WATER_FRACTION"),
        "not anatomical": ("SPECTROSCOPY", "METAB_MAP", "CSA REPORT", "SCREEN SAVE", "FMRI", "T_MAP"),
    }.items()
    for word in found
}
_COMPONENTS = {"PHASE": "a phase image", "REAL": "a real part", "IMAGINARY": "an imaginary part"}
_FAT_OPTIONS = frozenset({"FS", "SFS", "WE", "FATSAT", "FAT_SAT", "SPIR", "SPAIR", "FSS"})
_WATER = frozenset({"W", "WATER"})

_HINTS: Sequence[tuple[Contrast, re.Pattern[str]]] = [
    (contrast, re.compile(pattern, re.IGNORECASE))
    for contrast, pattern in (
        (Contrast.ADC, r"(?<![a-z])(?:d)?adc|apparent diff"),
        (Contrast.DCE, r"(?<![a-z])(dce|dyn(?!dist)|twist|perf)"),
        (Contrast.DWI, r"dwi|diff|(?<![a-z])trace|resolve|(?<![a-z])b[ =_]?\d{3,4}"),
        (Contrast.LOCALISER, r"locali[sz]er|(?<![a-z])(loc|scout|survey|3.?plane)(?![a-z])"),
        (Contrast.FLAIR, r"flair|dark.?fluid"),
        (Contrast.T2STAR, r"t2[ _]?(\*|star)|(?<![a-z])(swi|bold|fmri)"),
        (Contrast.T1, r"(?<![a-z])t1(?!\d)"),
        (Contrast.T2, r"(?<![a-z])t2(?!\d)"),
        (Contrast.PD, r"(?<![a-z])(pd|proton)(?![a-z])"),
    )
]
_CALCULATED_HINT = re.compile(r"calc|synth|comput", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the rules may look at; times in ms, angle in degrees, b in s/mm2."""

    echo_time: float | None = None
    repetition_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    kind: frozenset[str] = frozenset()
    """Scanning Sequence (0018,0020): SE, GR, IR, EP, RM."""
    variant: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    image_type: tuple[str, ...] = ()
    sequence_name: str = ""
    acquisition_contrast: str = ""
    component: str = ""
    b_value: float | None = None
    measured_b: tuple[float, float] | None = None
    diffusion: bool = False
    """Whether any image of the series is diffusion weighted."""
    field_map: bool = False
    """Whether any image of the series is a field map."""
    planes: int = 1
    """Planes, more than 45 degrees apart, in which the series has slices."""
    description: str = ""

    @property
    def words(self) -> frozenset[str]:
        """Image Type from its third value on (PS3.3 C.8.3.1.1.1)."""
        return frozenset(self.image_type[2:])

    @property
    def is_derived(self) -> bool:
        return "DERIVED" in self.image_type[:1] or "SECONDARY" in self.image_type[1:2]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What the rules concluded, with reasons in the order in which they were reached."""

    contrast: Contrast
    reasons: tuple[str, ...]
    b_value: float | None = None
    fat_suppressed: bool = False
    derived: bool = False
    """Computed from other images: a map, a calculated b value, a composition; not a vendor's trace image."""


def evidence(facts: Mapping[str, Any], **more: Any) -> Evidence:  # Any: JSON values of the header extract
    """The evidence in one frame's facts (`dicom/frames.py`) and what the series adds."""
    measured = facts.get("measured_b")
    return Evidence(
        echo_time=facts.get("echo_time"),
        repetition_time=facts.get("repetition_time"),
        inversion_time=facts.get("inversion_time") or None,
        flip_angle=facts.get("flip_angle"),
        kind=frozenset(facts.get("scanning_sequence", ())),
        variant=frozenset(facts.get("sequence_variant", ())),
        options=frozenset(facts.get("scan_options", ())),
        image_type=tuple(facts.get("image_type", ())),
        sequence_name=facts.get("sequence_name", ""),
        acquisition_contrast=facts.get("acquisition_contrast", ""),
        component=facts.get("complex_component", ""),
        b_value=facts.get("b_value"),
        measured_b=(measured[0], measured[1]) if measured else None,
        **more,
    )


def is_diffusion(facts: Mapping[str, Any]) -> bool:  # Any: JSON values
    """Whether one frame by itself shows that its series is diffusion weighted; b = 0 alone does not."""
    return bool(
        (facts.get("b_value") or 0) > 0
        or facts.get("acquisition_contrast") == "DIFFUSION"
        or {"DIFFUSION", "TRACEW"} & set(facts.get("image_type", ()))
        or re.search(r"\bEP_B\d", facts.get("sequence_name", ""))
    )


def is_field_map(facts: Mapping[str, Any]) -> bool:  # Any: JSON values
    return bool({"FIELD_MAP", "FIELDMAP", "B0 MAP"} & set(facts.get("image_type", ())))


def conclude(seen: Evidence) -> Conclusion:
    """The kind of image, by the first rule that applies; descriptions come last."""
    hint = _hint(seen.description)
    for contrast, rule in _RULES:
        if reason := rule(seen):
            return _concluded(seen, contrast, (reason, *_second_thoughts(seen, contrast, hint)))
    if hint is None:
        return _concluded(seen, Contrast.OTHER, (_silence(seen),))
    second = f"{_silence(seen)}; only the series description says {hint.value}"
    return _concluded(seen, hint, (second,))


def _concluded(seen: Evidence, contrast: Contrast, reasons: tuple[str, ...]) -> Conclusion:
    suppressed = _fat_suppression(seen)
    calculated = _calculated(seen) if contrast is Contrast.DWI else ""
    traced = contrast is Contrast.DWI and not calculated
    return Conclusion(
        contrast=contrast,
        reasons=(*reasons, *(note for note in (suppressed, calculated) if note)),
        b_value=seen.b_value if contrast is Contrast.DWI else None,
        fat_suppressed=bool(suppressed),
        derived=bool(calculated) or contrast is Contrast.ADC or (seen.is_derived and not traced),
    )


def _hint(description: str) -> Contrast | None:
    return next((contrast for contrast, pattern in _HINTS if pattern.search(description)), None)


_AGREE = {  # a name that says less, or the same in other words
    (Contrast.DWI, Contrast.ADC), (Contrast.T2STAR, Contrast.DCE), (Contrast.T1, Contrast.DCE),
    (Contrast.FLAIR, Contrast.T2), (Contrast.T2STAR, Contrast.T2),
}  # fmt: skip


def _second_thoughts(seen: Evidence, contrast: Contrast, hint: Contrast | None) -> tuple[str, ...]:
    if hint is None or contrast in (Contrast.LOCALISER, Contrast.OTHER) or (contrast, hint) in _AGREE:
        return ()
    if hint is contrast:
        return ("the series description agrees",)
    if hint is Contrast.LOCALISER:
        return ()
    return (f"the series description suggests {hint.value}, which physics contradicts; physics counts",)


def _silence(seen: Evidence) -> str:
    if seen.echo_time is None and seen.repetition_time is None:
        return "echo and repetition time are not stated"
    return f"{_timing(seen)} fit no rule"


def _timing(seen: Evidence) -> str:
    times = (("TE", seen.echo_time), ("TR", seen.repetition_time), ("TI", seen.inversion_time))
    parts = [f"{name} {value:g} ms" for name, value in times if value is not None]
    if "GR" in seen.kind and seen.flip_angle is not None:
        parts.append(f"flip angle {seen.flip_angle:g} degrees")
    return f"{_pulse(seen)} with {', '.join(parts)}"


def _pulse(seen: Evidence) -> str:
    names = {"IR": "inversion recovery", "EP": "echo planar", "GR": "gradient echo", "SE": "spin echo"}
    return " ".join(name for word, name in names.items() if word in seen.kind) or "sequence"


# --- the rules: each gives its reason, or "" where it does not apply


def _localiser(seen: Evidence) -> str:
    if seen.planes >= 2:
        return f"slices in {seen.planes} planes in one series: localiser"
    return "image type LOCALIZER" if {"LOCALIZER", "LOCALISER", "SCOUT"} & seen.words else ""


def _adc(seen: Evidence) -> str:
    if any(re.fullmatch(r"ADC(_.*)?", word) for word in seen.words):
        return "image type ADC"
    planar = seen.is_derived and (seen.diffusion or "EP" in seen.kind)
    if planar and not _TRACE & seen.words and _hint(seen.description) is Contrast.ADC:
        return "derived from echo-planar images; only the series description says ADC"
    return ""


def _map(seen: Evidence) -> str:
    if word := next((word for word in seen.image_type[2:] if word in _MAPS), None):
        return f"image type {word}: {_MAPS[word]}"
    if seen.component in _COMPONENTS:
        return f"complex image component {seen.component}: {_COMPONENTS[seen.component]}"
    return "belongs to the field map in the same series" if seen.field_map else ""


def _prepared(seen: Evidence) -> str:
    if re.search(r"\bFM\dD|FIELD.?MAP", seen.sequence_name):
        return "a field-map sequence by its sequence name"
    if seen.acquisition_contrast in ("PERFUSION", "TAGGING", "FLOW_ENCODED", "TOF"):
        return f"acquisition contrast {seen.acquisition_contrast}"
    return ""


def _diffusion(seen: Evidence) -> str:
    if not seen.diffusion or "SECONDARY" in seen.image_type[1:2]:
        return ""
    if seen.b_value is None:
        return f"{_pulse(seen)}, diffusion weighted, b value not stated"
    return f"{_pulse(seen)} with b = {seen.b_value:g} s/mm2"


def _echo_planar(seen: Evidence) -> str:
    gradient = "GR" in seen.kind or "FID" in seen.sequence_name
    if "EP" in seen.kind and gradient and "SE" not in seen.kind:
        return f"{_timing(seen)}, no diffusion weighting: T2*"
    return ""


def _b_zero(seen: Evidence) -> str:
    """A series of its own with b = 0, as GE and Philips send it; a gradient echo is functional MR instead."""
    alone = "EP" in seen.kind and "SE" in seen.kind and seen.b_value == 0
    return f"{_pulse(seen)} with b = 0 s/mm2 stated" if alone else ""


def _echo_planar_other(seen: Evidence) -> str:
    return f"{_timing(seen)}, no diffusion weighting" if "EP" in seen.kind else ""


def _between(low: float, value: float | None, high: float) -> bool:
    return value is not None and low <= value <= high


def _flair(seen: Evidence) -> str:
    long = _between(70, seen.echo_time, 700) and _between(1500, seen.inversion_time, 3500)
    return f"{_timing(seen)}: fluid suppressed" if "GR" not in seen.kind and long else ""


def _inversion_t1(seen: Evidence) -> str:
    prepared = "IR" in seen.kind or seen.inversion_time is not None
    short = prepared and _between(300, seen.inversion_time, 1400) and _between(0, seen.echo_time, 20)
    return f"{_timing(seen)}: T1-weighted" if short else ""


def _spin_t2(seen: Evidence) -> str:
    fits = _is_spin(seen) and _between(60, seen.echo_time, 1000) and _between(800, seen.repetition_time, 1e6)
    return f"{_timing(seen)}: T2-weighted" if fits else ""


def _spin_pd(seen: Evidence) -> str:
    fits = _is_spin(seen) and _between(0, seen.echo_time, 59.99) and _between(1800, seen.repetition_time, 1e6)
    return f"{_timing(seen)}: proton-density-weighted" if fits and seen.inversion_time is None else ""


def _spin_stir(seen: Evidence) -> str:
    nulled = _is_spin(seen) and _between(80, seen.inversion_time, 300) and _between(20, seen.echo_time, 1000)
    return f"{_timing(seen)}: T2-weighted with inversion-nulled fat" if nulled else ""


def _spin_t1(seen: Evidence) -> str:
    fits = _is_spin(seen) and _between(0, seen.echo_time, 35) and _between(100, seen.repetition_time, 1200)
    return f"{_timing(seen)}: T1-weighted" if fits else ""


def _balanced(seen: Evidence) -> str:
    named = re.search(r"FISP|TRUFI|\*?TFI\dD|FIESTA|B-?FFE|B-?TFE", seen.sequence_name)
    symmetric = "SS" in seen.variant and "SP" not in seen.variant and _between(0, seen.repetition_time, 10)
    steep = symmetric and _between(35, seen.flip_angle, 180)
    return f"{_timing(seen)}: balanced steady state" if "GR" in seen.kind and (named or steep) else ""


def _gradient_t2_star(seen: Evidence) -> str:
    fits = "GR" in seen.kind and _between(12, seen.echo_time, 200)
    return f"{_timing(seen)}: T2*-weighted" if fits else ""


def _gradient_t1(seen: Evidence) -> str:
    return f"{_timing(seen)}: T1-weighted" if _ernst_ratio(seen) >= 0.8 else ""


def _gradient_pd(seen: Evidence) -> str:
    return f"{_timing(seen)}: proton-density-weighted" if 0 < _ernst_ratio(seen) <= 0.55 else ""


def _ernst_ratio(seen: Evidence) -> float:
    """Flip angle over the Ernst angle for T1 = 1000 ms; 0 where it does not decide the contrast.

    Above it a spoiled gradient echo is T1-weighted, far below it proton-density-weighted.
    """
    short = "GR" in seen.kind and _between(0, seen.echo_time, 7)
    if not short or not seen.repetition_time or not seen.flip_angle:
        return 0.0
    return seen.flip_angle / math.degrees(math.acos(math.exp(-seen.repetition_time / 1000)))


def _is_spin(seen: Evidence) -> bool:
    return "SE" in seen.kind or ("IR" in seen.kind and "GR" not in seen.kind)


def _stated(*values: str) -> Callable[[Evidence], str]:
    def rule(seen: Evidence) -> str:
        stated = seen.acquisition_contrast
        return f"{_silence(seen)}; the scanner states {stated}" if stated in values else ""

    return rule


_RULES: Sequence[tuple[Contrast, Callable[[Evidence], str]]] = (
    (Contrast.LOCALISER, _localiser),
    (Contrast.ADC, _adc),
    (Contrast.OTHER, _map),
    (Contrast.OTHER, _prepared),
    (Contrast.DWI, _diffusion),
    (Contrast.T2STAR, _echo_planar),
    (Contrast.DWI, _b_zero),
    (Contrast.OTHER, _echo_planar_other),
    (Contrast.FLAIR, _flair),
    (Contrast.T1, _inversion_t1),
    (Contrast.T2, _spin_stir),
    (Contrast.T2, _spin_t2),
    (Contrast.PD, _spin_pd),
    (Contrast.T1, _spin_t1),
    (Contrast.OTHER, _balanced),
    (Contrast.T2STAR, _gradient_t2_star),
    (Contrast.T1, _gradient_t1),
    (Contrast.PD, _gradient_pd),
    (Contrast.T1, _stated("T1")),
    (Contrast.T2, _stated("T2", "STIR")),
    (Contrast.PD, _stated("PROTON_DENSITY")),
    (Contrast.FLAIR, _stated("FLUID_ATTENUATED")),
    (Contrast.T2STAR, _stated("T2_STAR")),
)
"""In this order; the first that gives a reason decides."""


def _fat_suppression(seen: Evidence) -> str:
    if option := sorted(_FAT_OPTIONS & seen.options):
        return f"fat suppressed: scan option {option[0]}"
    if _WATER & seen.words:
        return "fat suppressed: the water image of a water-fat separation"
    if "GR" not in seen.kind and _between(80, seen.inversion_time, 300):
        return f"fat suppressed: inversion time {seen.inversion_time:g} ms"
    return ""


def _calculated(seen: Evidence) -> str:
    """Why this b value was computed from others instead of measured; "" where it was measured."""
    if seen.b_value is not None and seen.measured_b and seen.b_value > seen.measured_b[1] * 1.01:
        low, high = seen.measured_b
        return f"calculated: the sequence measured b = {low:g} to {high:g}, not {seen.b_value:g}"
    if _CALCULATED & seen.words:
        return "calculated: image type says so"
    if seen.is_derived and _CALCULATED_HINT.search(seen.description):
        return "calculated: a derived image, and only the series description says so"
    return ""
