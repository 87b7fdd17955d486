"""What a demo says at the end: facts gathered once, told three times (tables, index.html, result.json)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any  # Any: the plan is JSON

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dicom_node.demo.gallery import (
    Arrived,
    Chosen,
    Delivered,
    Model,
    Page,
    Place,
    draw,
    seconds_in_words,
    size_in_words,
)
from dicom_node.demo.received import FrameKey, Results
from dicom_node.demo.story import JobStory, Story, timeline
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind
from dicom_node.domain.series import Study
from dicom_node.encode.words import numbered
from dicom_node.infer.manifest import read_manifest
from dicom_node.node.build import Node
from dicom_node.node.flow import assemble

FORMS = {
    ResultKind.SR: "Structured Report", ResultKind.SEG: "Segmentation",
    ResultKind.PM: "Parametric Map", ResultKind.SC: "Secondary Capture", ResultKind.ROI: "Region Report",
    ResultKind.GSPS: "Presentation State", ResultKind.KOS: "Key Object Selection",
    ResultKind.REJECT: "Rejection Note",
}  # fmt: skip
_AS_CONFIGURED = "outside the intended use, but run as configured: "
"""How a guard's warning begins that `intended_use = "warn"` let pass, see `route/guard.py`."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What went in."""

    study_uid: UID
    subject: str
    files: Mapping[str, Path]
    """By SOP Instance UID."""
    quiet_s: float
    """The stated waiting time that this study was given."""


def page(node: Node, sent: Sent, story: Story, results: Results, out: Path) -> Page:
    """Gather the facts, and draw the previews into `out`."""
    study = assemble(sent.study_uid, 0, node.catalog.instances(sent.study_uid))
    plan = story.job.plan if story.job else {}
    strips, page_image = draw(results, sent.files, places(study, plan), out / "previews")
    return Page(
        title=node.pipelines[plan["pipeline"]].title if plan else "",
        subject=sent.subject,
        made_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        results=results,
        strips=strips,
        page_image=page_image,
        arrived=arrived(study, plan),
        chosen=chosen(plan),
        because=story.revision.because if story.revision else "",
        steps=timeline(story, sent.quiet_s),
        delivered=delivered(results, story, out),
        models=_models(node, plan),
        notes=notes(plan),
    )


def places(study: Study, plan: Mapping[str, Any]) -> dict[FrameKey, Place]:
    """Where each frame of the study belongs; what was chosen first, in the order of the needs."""
    order = [choice["stack"] for choice in plan.get("choices", ())]
    stacks = sorted(study.stacks, key=lambda s: order.index(s.label) if s.label in order else len(order))
    found: dict[FrameKey, Place] = {}
    for stack in stacks:
        kind, numbers = numbered(stack, study)
        for frame, number in zip(stack.frames, numbers, strict=True):
            key = str(frame.sop_instance_uid), frame.frame
            found.setdefault(key, Place(stack.label, f"{kind} {number}", len(stack.frames)))
    return found


def arrived(study: Study, plan: Mapping[str, Any]) -> tuple[Arrived, ...]:
    """Series by series, in the scanner's order: what came, what it is, and its part."""
    images = Counter(instance.series_uid for instance in study.instances)
    rows = []
    for uid, count in images.items():
        stacks = [stack for stack in study.stacks if stack.series_uid == uid]
        refusals = [refusal for refusal in study.refusals if refusal.series_uid == uid]
        labels = {stack.label for stack in stacks}
        roles = [choice["asked"] for choice in plan.get("choices", ()) if choice["stack"] in labels]
        rows.append(
            Arrived(
                number=_series_number(study, uid),
                images=count,
                stacks=tuple(dict.fromkeys(stack.label.partition(": ")[2] for stack in stacks)),
                description=next((stack.description for stack in stacks if stack.description), ""),
                role=", ".join(roles),
                why_not="; ".join(refusal.why for refusal in refusals),
            )
        )
    return tuple(sorted(rows, key=lambda row: row.number))


def _series_number(study: Study, uid: UID) -> int:
    """0 where no header of the series gives one."""
    numbers = (item.header.get("series_number") for item in study.instances if item.series_uid == uid)
    return next((number for number in numbers if isinstance(number, int)), 0)


def chosen(plan: Mapping[str, Any]) -> tuple[Chosen, ...]:
    """Each need with its stack; the reasons without repeating the stack's name."""
    return tuple(
        Chosen(
            choice["asked"],
            choice["stack"] or "",
            tuple(reason for reason in choice["reasons"] if reason != f"chosen {choice['stack']}"),
        )
        for choice in plan.get("choices", ())
    )


def delivered(results: Results, story: Story, out: Path) -> tuple[Delivered, ...]:
    """The objects as the PACS has them, with what it answered."""
    answers = {sending.sop_instance_uid: sending for sending in story.sendings}
    rows = []
    for kind, path, data_set in results.files:
        answer = answers.get(str(data_set.SOPInstanceUID))
        status = "not in the ledger" if answer is None else str(answer.state)
        if answer is not None and answer.status is not None:
            status = f"0x{answer.status:04X}"
        rows.append(
            Delivered(
                kind.value, FORMS[kind], str(path.relative_to(out)), path.stat().st_size,
                int(data_set.get("SeriesNumber") or 0), str(data_set.get("SeriesDescription") or ""), status,
            )
        )  # fmt: skip
    return tuple(rows)


def notes(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """What the demo let pass that a node would not."""
    said = [text for text in plan.get("warnings", ()) if text.startswith(_AS_CONFIGURED)]
    passed = [text.removeprefix(_AS_CONFIGURED) for text in said]
    if not passed or plan.get("because"):
        return ()
    return (
        f"Outside its intended use ({'; '.join(passed)}): shown because this is a demo. "
        'By default the node answers such a study with "AI not performed, because ..." instead.',
    )


def _models(node: Node, plan: Mapping[str, Any]) -> tuple[Model, ...]:
    pipeline = node.pipelines.get(plan.get("pipeline", ""))
    models_dir, names = node.config.node.models_dir, pipeline.models if pipeline else ()
    cards = [read_manifest(name, models_dir) for name in names]
    return tuple(
        Model(card.name, card.version, str(card.digest), card.description, card.trained_on, card.limits)
        for card in (manifest.algorithm() for manifest in cards)
    )


# ---- told in a line, in tables, as JSON -------------------------------------------------


def route_line(plan: Mapping[str, Any]) -> str:
    """What routing decided, in a line."""
    if plan.get("because"):
        return f"not performed: {plan['because']}"
    choices = plan.get("choices", ())
    taken = [f"{choice['asked']} = series {choice['stack']}" for choice in choices if choice["stack"]]
    missing = [choice["asked"] for choice in choices if not choice["stack"]]
    return "; ".join(taken) + (f"; without {', '.join(missing)}" if missing else "")


def infer_line(job: JobStory) -> str:
    networks, read = job.seconds.get("forward", 0.0), job.seconds.get("read", 0.0)
    return f"networks {networks:.1f} s, reading {read:.1f} s"


def as_json(page: Page) -> dict[str, Any]:
    """All facts of the page, without pixels."""
    reading = asdict(page.results.reading)
    reading["kept"] = len(page.results.reading.kept)
    return {
        "verdict": {"headline": page.headline, "side": page.tone, **reading},
        "pipeline": page.title,
        "subject": page.subject,
        "made_at": page.made_at,
        "notes": list(page.notes),
        "arrived": [asdict(row) for row in page.arrived],
        "chosen": [asdict(row) for row in page.chosen],
        "complete_because": page.because,
        "steps": [asdict(step) for step in page.steps],
        "seconds": round(page.total_s, 3),
        "results": [asdict(row) for row in page.delivered],
        "models": [asdict(model) for model in page.models],
    }


def print_tables(console: Console, page: Page, out: Path) -> None:
    """The end of a demo on a terminal, or in a log."""
    console.print()
    _print_arrived(console, page.arrived)
    _print_chosen(console, page.chosen)
    _print_steps(console, page)
    _print_results(console, page.delivered)
    _print_verdict(console, page)
    for name, what in (("index.html", "look at this"), ("dicom", "the objects the PACS received"),
                       ("previews", "pictures"), ("node.log", "the node's log")):  # fmt: skip
        console.print(f"  [cyan]{escape(str(out / name))}[/]  [dim]{what}[/]", soft_wrap=True)


def _print_arrived(console: Console, rows: Sequence[Arrived]) -> None:
    table = _table("What arrived", "series", "images", "recognised as", "part")
    for row in rows:
        stacks = "; ".join(row.stacks) or "-"
        part = ("cyan", row.role) if row.role else ("dim", row.why_not or "passed over")
        table.add_row(str(row.number), str(row.images), escape(stacks), f"[{part[0]}]{escape(part[1])}[/]")
    console.print(table)


def _print_chosen(console: Console, rows: Sequence[Chosen]) -> None:
    table = _table("What was chosen, and why", "need", "stack", "because")
    for row in rows:
        table.add_row(escape(row.need), escape(row.stack or "none"), escape("; ".join(row.reasons[:3])))
    console.print(table)


def _print_steps(console: Console, page: Page) -> None:
    table = _table("Time per stage", "stage", "time", "")
    for step in page.steps:
        table.add_row(step.name, seconds_in_words(step.seconds), f"[dim]{escape(step.note)}[/]")
    table.add_row("[bold]sum[/]", f"[bold]{seconds_in_words(page.total_s)}[/]", "")
    console.print(table)


def _print_results(console: Console, rows: Sequence[Delivered]) -> None:
    table = _table("Results at the PACS", "form", "series", "size", "answer", "file")
    for row in rows:
        table.add_row(row.name, str(row.series_number), size_in_words(row.size_bytes), row.status, row.file)
    console.print(table)


def _print_verdict(console: Console, page: Page) -> None:
    reading = page.results.reading
    colour = {"positive": "red", "negative": "green"}.get(page.tone, "yellow")
    console.print(f"  [bold {colour}]{escape(page.headline)}[/]")
    if reading.conclusion:
        console.print(f"  {escape(reading.conclusion)}")
    if reading.probability is not None:
        console.print(f"  probability of {escape(reading.probability_of)}: {reading.probability:.1%}")
    if reading.point is not None:
        point = reading.point
        console.print(
            f"  operating point {point.threshold:.1%}; indeterminate from {point.low:.1%} to {point.high:.1%}"
        )
        console.print(f"  [dim]{escape(point.chosen_on)}[/]")
    for text in (*page.notes, *reading.warnings):
        console.print(f"  [yellow]! {escape(text)}[/]")
    console.print("  [yellow]Research use only - not a medical device[/]\n")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=True)
    for column in columns:
        right = column in ("series", "images", "time", "size")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    return table
