"""The one page a radiologist reads in ten seconds: verdict, probability, where to look, with what.

Pure: findings in, pixels out, the same on every machine. No identity of the patient is drawn;
the viewer shows that from the data set, and a page may travel without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicom_node.domain.findings import Algorithm, Certainty, Findings, SequenceScore, SliceScore, Verdict
from dicom_node.domain.series import Stack, Study
from dicom_node.encode import canvas as c
from dicom_node.encode import words
from dicom_node.encode.canvas import Box, Canvas
from dicom_node.encode.document import plain
from dicom_node.encode.source import stack_key

COLUMNS, ROWS = 1280, 1024
EDGE = 32
_SIDE = 844
"""Left of the column with sequences, warnings and models."""
_BELOW = 343
"""Top of slices and sequences, below verdict and probability."""
_TILE, _GAP = 258, 12
_SHOWN = 6
_WARNINGS = 3
_COLOURS = {
    Certainty.POSITIVE: c.POSITIVE, Certainty.NEGATIVE: c.NEGATIVE, Certainty.INDETERMINATE: c.INDETERMINATE,
}  # fmt: skip


def draw(findings: Findings, study: Study, *, title: str) -> npt.NDArray[np.uint8]:
    """The page as (rows, columns, 3) uint8 RGB, 1024 x 1280."""
    page = Canvas(COLUMNS, ROWS)
    header(page, title)
    if findings.verdict is None:
        _not_performed(page, findings, study)
    else:
        verdict_panel(page, findings.verdict)
        probability_bar(page, findings.verdict)
        _slices(page, findings, study)
        _side(page, findings, findings.verdict)
    footer(page, findings)
    return page.pixels()


def suspicious(findings: Findings, shown: int = _SHOWN) -> list[tuple[SequenceScore, SliceScore]]:
    """The kept slices with the highest probability, no sequence taking more than its share; best first."""
    kept = [(part, score) for part in findings.sequences for score in part.slices if score.kept]
    kept.sort(key=lambda pair: -_suspicion(pair[1]))
    sequences = len({stack_key(part.stack) for part, _ in kept}) or 1
    share = -(-shown // sequences)
    chosen = [
        pair for place, pair in enumerate(kept)
        if sum(earlier is pair[0] for earlier, _ in kept[:place]) < share
    ]  # fmt: skip
    rest = [pair for pair in kept if not any(pair is other for other in chosen)]
    return [*chosen, *rest][:shown]


def _suspicion(score: SliceScore) -> float:
    return score.probability if score.positive_probability is None else score.positive_probability


def header(page: Canvas, title: str) -> None:
    page.pen.rectangle((0, 0, page.columns, 56), fill=c.PANEL)
    page.text(EDGE, 28, c.shortened(plain(title), 24, 560), 24, anchor="lm")
    text = words.CAUTION
    left = page.columns - EDGE - c.width(text, 20) - 28
    page.panel((left, 11, page.columns - EDGE, 45), fill=c.CAUTION, radius=17)
    page.text(left + 14, 28, text, 20, c.BACKGROUND, anchor="lm")


def verdict_panel(page: Canvas, verdict: Verdict) -> None:
    colour = _COLOURS[verdict.certainty]
    page.panel((EDGE, 76, page.columns - EDGE, 196))
    page.panel((EDGE, 76, EDGE + 12, 196), fill=colour, radius=6)
    number = words.percent(verdict.probability)
    page.text(page.columns - EDGE - 28, 128, number, 60, colour, anchor="rm", bold=True)
    label = words.probability_of(verdict.positive_class)
    page.text(page.columns - EDGE - 28, 176, c.shortened(label, 18, 420), 18, c.MUTED, anchor="rm")
    head = plain(verdict.diagnosis.meaning)
    size = next((size for size in (46, 40, 34, 28) if c.width(head, size) <= 740), 24)
    page.text(EDGE + 36, 112, c.shortened(head, size, 740), size, colour, anchor="lm", bold=True)
    page.paragraph(EDGE + 36, 143, words.statement(verdict), 19, 740, c.TEXT, lines=2)


def probability_bar(page: Canvas, verdict: Verdict) -> None:
    """0 to 100 %: negative, indeterminate and positive zone, and where this case is."""
    left, right, top, bottom = EDGE + 8, page.columns - EDGE - 8, 240, 262
    point = verdict.operating_point
    at = [round(left + (right - left) * value) for value in (0.0, point.low, point.high, 1.0)]
    zones = ((c.NEGATIVE, 0), (c.INDETERMINATE, 1), (c.POSITIVE, 2))
    for colour, place in zones:
        if at[place + 1] > at[place]:
            dim = (colour[0] * 2 // 5, colour[1] * 2 // 5, colour[2] * 2 // 5)
            page.pen.rectangle((at[place], top, at[place + 1] - 1, bottom), fill=dim)
    for colour, place, name in ((c.NEGATIVE, 0, "negative"), (c.INDETERMINATE, 1, "indeterminate"),
                                (c.POSITIVE, 2, "positive")):  # fmt: skip
        if at[place + 1] - at[place] > c.width(name, 15) + 8:
            page.text((at[place] + at[place + 1]) // 2, (top + bottom) // 2, name, 15, colour, anchor="mm")
    for value in sorted({point.low, point.high}):
        x = round(left + (right - left) * value)
        page.pen.line((x, top - 4, x, bottom + 6), fill=c.TEXT, width=2)
    _limits_of_band(page, verdict, left, right, bottom + 9)
    _marker(page, verdict, left, right, top, bottom)


def _limits_of_band(page: Canvas, verdict: Verdict, left: int, right: int, y: int) -> None:
    point = verdict.operating_point
    page.text(left, y, "0 %", 15, c.MUTED)
    page.text(right, y, "100 %", 15, c.MUTED, anchor="ra")
    for value, anchor in ((point.low, "ra"), (point.high, "la")):
        x = round(left + (right - left) * value)
        if left + 90 < x < right - 110:
            page.text(x + (-4 if anchor == "ra" else 4), y, words.percent(value), 15, c.TEXT, anchor=anchor)
    rates = [("sensitivity", point.sensitivity), ("specificity", point.specificity)]
    known = ", ".join(f"{name} {words.percent(rate[0])}" for name, rate in rates if rate)
    head = f"Operating point {words.percent(point.threshold)}{f' ({known})' if known else ''}."
    text = f"{head} {plain(point.chosen_on)}"
    page.paragraph(left, y + 22, text, 15, right - left, c.MUTED, lines=2)


def _marker(page: Canvas, verdict: Verdict, left: int, right: int, top: int, bottom: int) -> None:
    x = round(left + (right - left) * verdict.probability)
    page.pen.polygon([(x - 9, top - 15), (x + 9, top - 15), (x, top - 3)], fill=c.TEXT)
    page.pen.line((x, top - 6, x, bottom + 1), fill=c.TEXT, width=3)
    label, half = "this case", c.width("this case", 15) // 2
    page.text(min(max(x, left + half), right - half), top - 19, label, 15, c.TEXT, anchor="mb")


def _slices(page: Canvas, findings: Findings, study: Study) -> None:
    top = _BELOW
    page.text(EDGE, top, "Most suspicious slices", 19, bold=False)
    shown = suspicious(findings)
    if not shown:
        text = "No slice was kept: the slice stage found nothing to classify."
        page.paragraph(EDGE, top + 40, text, 19, 760, c.MUTED)
        return
    if findings.maps:
        _colour_bar(page, findings.maps[0].label, _SIDE - 36, top + 2)
    for place, (part, score) in enumerate(shown):
        x = EDGE + (place % 3) * (_TILE + _GAP)
        y = top + 32 + (place // 3) * (_TILE + 36)
        box = (x, y, x + _TILE, y + _TILE)
        _tile(page, findings, part.stack, part.stack.frames.index(score.frame), box)
        _caption(page, part, score, study, box)


def _colour_bar(page: Canvas, label: str, right: int, top: int) -> None:
    ramp = np.tile(np.linspace(0.0, 1.0, 140, dtype=np.float32), (12, 1))
    colours = np.round(c.heat_colours(ramp)).astype(np.uint8)
    page.picture((right - 160, top + 4, right - 20, top + 16), colours, 1.0)
    page.text(right - 12, top + 10, "1", 15, c.MUTED, anchor="lm")
    page.text(right - 166, top + 10, "0", 15, c.MUTED, anchor="rm")
    page.text(right - 186, top + 10, c.shortened(plain(label), 15, 330), 15, c.MUTED, anchor="rm")


def _tile(page: Canvas, findings: Findings, stack: Stack, place: int, box: Box) -> None:
    page.pen.rectangle(box, fill=(0, 0, 0), outline=c.LINE)
    pixels = _pixels(findings, stack, place)
    if pixels is not None:
        aspect = stack.spacing_mm[1] / stack.spacing_mm[2]
        where = page.picture(box, pixels, aspect)
        for region in findings.regions:
            if stack_key(region.stack) == stack_key(stack):
                page.outline(where, region.mask[place])
        _directions(page, stack, where)


def _caption(page: Canvas, part: SequenceScore, score: SliceScore, study: Study, box: Box) -> None:
    numbering, numbers = words.numbered(part.stack, study)
    name = f"{words.stack_name(part.stack)}  {numbering} {numbers[part.stack.frames.index(score.frame)]}"
    own = "" if score.positive_probability is None else words.percent(score.positive_probability)
    left, _, right, bottom = box
    page.text(left + 2, bottom + 6, c.shortened(name, 16, _TILE - c.width(own, 16) - 16), 16, c.MUTED)
    page.text(right - 2, bottom + 6, own, 16, c.TEXT, anchor="ra")


def _pixels(findings: Findings, stack: Stack, place: int) -> npt.NDArray[np.uint8] | None:
    """One slice with its map; None where there is no preview."""
    key = stack_key(stack)
    grey = next((array[place] for of, array in findings.previews if stack_key(of) == key), None)
    if grey is None:
        return None
    maps = (heat for heat in findings.maps if stack_key(heat.stack) == key and heat.present[place])
    heat = next(maps, None)
    return c.overlaid(grey, None if heat is None else heat.values[place])


def _directions(page: Canvas, stack: Stack, box: Box) -> None:
    """Patient directions at the left and upper edge, PS3.3 C.7.6.1.1.1."""
    left, top, right, bottom = box
    for direction, x, y, anchor in (
        (stack.row_cosine, left + 6, (top + bottom) // 2, "lm"),
        (stack.column_cosine, (left + right) // 2, top + 5, "ma"),
    ):
        axis = int(np.argmax(np.abs(direction)))
        # The edge where an axis begins is named by the direction it comes from.
        letter = ("RAF" if direction[axis] > 0 else "LPH")[axis]
        page.letter(x, y, letter, 17, anchor)


def _side(page: Canvas, findings: Findings, verdict: Verdict) -> None:
    left, right, y = _SIDE, page.columns - EDGE, _BELOW
    page.text(left, y, "Sequences", 19)
    y += 32
    for part in findings.sequences[:8]:
        y = _sequence(page, part, left, right, y)
    if verdict.warnings:
        y = warned(page, verdict.warnings, left, right, y + 8)
    y += 12
    page.text(left, y, "Models", 19)
    y += 30
    for one in findings.algorithms[:3]:
        if y < page.rows - 150:
            y = model(page, one, left, right, y)


def _sequence(page: Canvas, part: SequenceScore, left: int, right: int, y: int) -> int:
    kept = sum(score.kept for score in part.slices)
    name = f"{words.stack_name(part.stack)} (series {part.stack.series_number})"
    page.text(left, y, c.shortened(name, 16, 188), 16)
    page.text(left + 252, y, f"{kept} of {len(part.slices)}", 16, c.MUTED, anchor="ra")
    page.pen.rectangle((left + 264, y + 5, right - 66, y + 15), fill=c.PANEL)
    if part.probability is None:
        page.text(right, y, "-", 16, c.MUTED, anchor="ra")
    else:
        end = left + 264 + round((right - 66 - left - 264) * part.probability)
        page.pen.rectangle((left + 264, y + 5, max(end, left + 265), y + 15), fill=c.MUTED)
        page.text(right, y, words.percent(part.probability), 16, anchor="ra")
    return y + 28


def warned(page: Canvas, warnings: Sequence[str], left: int, right: int, y: int) -> int:
    texts = [c.wrapped(plain(text), 16, right - left - 34, 4) for text in warnings[:_WARNINGS]]
    if len(warnings) > _WARNINGS:
        texts.append([f"and {len(warnings) - _WARNINGS} more: see the report"])
    bottom = y + 14 + sum(8 + 21 * len(lines) for lines in texts)
    page.panel((left, y, right, bottom), fill=(58, 45, 16))
    page.panel((left, y, left + 8, bottom), fill=c.CAUTION, radius=4)
    y += 10
    for lines in texts:
        for line in lines:
            page.text(left + 22, y, line, 16, c.TEXT)
            y += 21
        y += 8
    return bottom + 4


def model(page: Canvas, one: Algorithm, left: int, right: int, y: int) -> int:
    head = f"{plain(one.name)} {plain(one.version)}  ({one.digest[:12]})"
    page.text(left, y, c.shortened(head, 16, right - left), 16)
    trained_on = f"Trained on {plain(one.trained_on)}"
    return page.paragraph(left, y + 22, trained_on, 14, right - left, c.MUTED, lines=2) + 6


def _not_performed(page: Canvas, findings: Findings, study: Study) -> None:
    reason = findings.not_performed
    if reason is None:
        return
    page.panel((EDGE, 96, page.columns - EDGE, 300))
    page.panel((EDGE, 96, EDGE + 12, 300), fill=c.CAUTION, radius=6)
    page.text(EDGE + 40, 146, "AI not performed", 46, c.CAUTION, anchor="lm", bold=True)
    page.paragraph(EDGE + 40, 192, words.not_performed(reason), 26, page.columns - 2 * EDGE - 80, lines=3)
    page.text(EDGE, 356, "What the study holds", 19)
    y = 392
    held = [plain(stack.label) for stack in study.stacks]
    held += [f"{refusal.series_number}: not usable, {plain(refusal.why)}" for refusal in study.refusals]
    for line in held[:18] or ["No image that could be read as a regular stack."]:
        page.text(EDGE, y, c.shortened(line, 17, page.columns - 2 * EDGE), 17, c.MUTED)
        y += 27
    if len(held) > 18:
        page.text(EDGE, y, f"and {len(held) - 18} more", 17, c.MUTED)


def footer(page: Canvas, findings: Findings) -> None:
    page.pen.line((EDGE, page.rows - 64, page.columns - EDGE, page.rows - 64), fill=c.LINE)
    page.text(
        EDGE, page.rows - 54, c.shortened(plain(findings.limits), 16, page.columns - 2 * EDGE), 16, c.MUTED
    )
    page.text(EDGE, page.rows - 30, words.UNVERIFIED, 16, c.MUTED)
