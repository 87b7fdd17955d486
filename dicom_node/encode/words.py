"""The report in sentences: the same words in the SR and on the Secondary Capture page.

Pure: findings in, text out. The order is the reader's: verdict, probability, operating point,
slices, warnings, models, limits, and that nobody has verified it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_node.domain.codes import Code
from dicom_node.domain.findings import Algorithm, Certainty, Findings, NotPerformed, SequenceScore, Verdict
from dicom_node.domain.series import Contrast, Stack, Study
from dicom_node.encode.document import plain

CAUTION = "AI - research use only - not for diagnostic use"
REPLACES = "This replaces an earlier AI result of the study: its images, or the models, have changed since."
UNVERIFIED = "Unverified: made by software; no person has reviewed or confirmed it."


def not_performed(reason: NotPerformed) -> str:
    return f"AI not performed, because {plain(reason.because).rstrip('.')}."


def percent(probability: float) -> str:
    return f"{100.0 * probability:.1f} %"


def statement(verdict: Verdict) -> str:
    """The pipeline's own sentence, or one made of the codes."""
    own = f"{verdict.diagnosis.meaning}, {verdict.certainty.value}."
    return plain(verdict.statement or own)


def probability(verdict: Verdict) -> str:
    low, high = percent(verdict.operating_point.low), percent(verdict.operating_point.high)
    why = {
        Certainty.POSITIVE: f"positive: at or above {high}",
        Certainty.NEGATIVE: f"negative: below {low}",
        Certainty.INDETERMINATE: f"indeterminate: from {low} and below {high}, so no class is named",
    }[verdict.certainty]
    return f"{probability_of(verdict.positive_class)}: {percent(verdict.probability)} ({why})."


def probability_of(of: Code) -> str:
    """`Probability of sarcoma of uterus`; an abbreviation keeps its capitals."""
    name = plain(of.meaning)
    return f"Probability of {name if name[1:2].isupper() else name[:1].lower() + name[1:]}"


def caption(findings: Findings, on_slice: float | None) -> tuple[str, ...]:
    """What stands in the corner of a slice: verdict, this slice, and what it is not for."""
    verdict = findings.verdict
    said = f"AI: {plain(verdict.diagnosis.meaning)}" if verdict else "AI"
    case = f"{probability_of(verdict.positive_class)} {percent(verdict.probability)}" if verdict else ""
    own = "" if on_slice is None else f", on this slice {percent(on_slice)}"
    return tuple(line for line in (said, f"{case}{own}", "Not for diagnostic use") if line)


def operating_point(verdict: Verdict) -> str:
    point = verdict.operating_point
    text = (
        f"Operating point: negative below {percent(point.low)}, positive from {percent(point.high)}, "
        f"indeterminate between; single threshold {percent(point.threshold)}. {sentence(point.chosen_on)}"
    )
    rates = [("Sensitivity", point.sensitivity), ("Specificity", point.specificity)]
    return " ".join([text, *(_rate(name, rate) for name, rate in rates if rate)]).strip()


def _rate(name: str, rate: tuple[float, float, float]) -> str:
    estimate, low, high = rate
    return f"{name} {percent(estimate)} (95 % interval {percent(low)} to {percent(high)})."


def slices(part: SequenceScore, study: Study) -> str:
    """Which slices of one sequence were kept, by the numbers a viewer shows."""
    numbering, numbers = numbered(part.stack, study)
    kept = [numbers[part.stack.frames.index(score.frame)] for score in part.slices if score.kept]
    stack = part.stack
    where = f"Slices used of {plain(part.need)} (series {stack.series_number}, {stack.contrast.value} "
    where += f"{stack.plane.value}): {len(kept)} of {len(part.slices)}"
    if not kept:
        return f"{where}; none shows what was looked for."
    own = "" if part.probability is None else f"; probability on this sequence {percent(part.probability)}"
    return f"{where} ({numbering}s {ranges(kept)}){own}."


def stack_name(stack: Stack) -> str:
    """`DWI b1000 axial`: what a radiologist calls it, whatever the pipeline does."""
    b_value = "" if stack.b_value is None or stack.contrast is not Contrast.DWI else f" b{stack.b_value:.0f}"
    return f"{stack.contrast.value}{b_value} {stack.plane.value}"


def lead(stack: Stack) -> str:
    """Where the overlays are, when they are on one series only."""
    return (
        f"Heatmap and marked region are on series {stack.series_number} ({stack.contrast.value} "
        f"{stack.plane.value}), where the activation is strongest; the page shows the others too."
    )


def numbered(stack: Stack, study: Study) -> tuple[str, list[int]]:
    """What to call a stack's frames, in its order: "image" and Instance Numbers, or frame numbers of an
    Enhanced object, which viewers show; "slice" and places from 1 where those do not tell frames apart."""
    known = {stored.sop_instance_uid: stored.header.get("instance_number") for stored in study.instances}
    shown = [f.frame if f.multiframe else known.get(f.sop_instance_uid) for f in stack.frames]
    numbers = [number for number in shown if isinstance(number, int)]
    if len(set(numbers)) == len(stack.frames):
        return "frame" if stack.frames[0].multiframe else "image", numbers
    return "slice", list(range(1, len(stack.frames) + 1))


def ranges(numbers: Sequence[int]) -> str:
    """`[3, 4, 5, 9]` as `3-5, 9`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def algorithm(model: Algorithm) -> str:
    parts = [
        f"Model: {plain(model.name)}, version {plain(model.version)}, weights sha256 {model.digest}.",
        sentence(model.description),
        sentence(f"Trained on: {model.trained_on}") if model.trained_on else "",
        sentence(f"Limits: {model.limits}") if model.limits else "",
    ]
    return " ".join(part for part in parts if part)


def report(findings: Findings, study: Study) -> tuple[str, ...]:
    """All that is said beside the verdict's own sentence, one entry for each line of a report."""
    return tuple(text for text in (*_of_verdict(findings, study), *making(findings)) if text)


def _of_verdict(findings: Findings, study: Study) -> Iterable[str]:
    verdict = findings.verdict
    if verdict is None:
        return
    yield probability(verdict)
    yield f"{CAUTION}. {UNVERIFIED}"  # on the first screen, however much follows
    yield operating_point(verdict)
    yield from (slices(part, study) for part in findings.sequences)
    if findings.lead is not None and findings.maps:
        yield lead(findings.lead)
    yield from warnings(verdict)


def warnings(verdict: Verdict) -> Iterable[str]:
    return (f"Warning: {sentence(text)}" for text in verdict.warnings)


def making(findings: Findings) -> Iterable[str]:
    """With what the results were made, what they are not for, and that nobody has looked yet."""
    yield from (algorithm(model) for model in findings.algorithms)
    yield f"Limits: {sentence(findings.limits)}"
    yield f"{CAUTION}."
    yield UNVERIFIED


def sentence(text: str) -> str:
    text = plain(text)
    return text if not text or text[-1] in ".!?" else f"{text}."
