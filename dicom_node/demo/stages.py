"""Stages passing, for people who watch: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_EVERY_S = 2.0


@dataclass
class _Row:
    """Mutable: what a stage shows now."""

    text: str
    fraction: float | None = None
    done: bool = False
    began: float = field(default_factory=time.monotonic)
    printed_at: float = 0.0
    seconds: float | None = None


class Stages:
    """`with Stages(console) as stages:` then `update` and `done`, in any order."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Stages:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def update(self, stage: str, text: str, fraction: float | None = None) -> None:
        """What a stage does now; `fraction` of it, 0 to 1, where that is known."""
        row = self._rows.setdefault(stage, _Row(text))
        new = row.text != text or not row.printed_at
        row.text, row.fraction = text, fraction
        now = time.monotonic()
        if new and not row.done and now - row.printed_at >= _PLAIN_EVERY_S:
            row.printed_at = now
            self._plain(stage, text, "...")

    def done(self, stage: str, text: str, seconds: float | None = None) -> None:
        """The stage is over; `seconds` is what it took, if more is known than when it was first heard of."""
        row = self._rows.setdefault(stage, _Row(text))
        if row.done and row.text == text:
            return
        row.text, row.fraction, row.done = text, None, True
        row.seconds = time.monotonic() - row.began if seconds is None else seconds
        self._plain(stage, text, "ok ")

    def _plain(self, stage: str, text: str, mark: str) -> None:
        if not self._live.is_started:
            self._console.print(f"{mark} {stage:<9} {text}", highlight=False, soft_wrap=True, markup=False)

    def _table(self) -> ConsoleRenderable:
        table = Table.grid(padding=(0, 1))
        for width in (2, 9):
            table.add_column(width=width, no_wrap=True)
        table.add_column(ratio=1, overflow="fold")
        for stage, row in self._rows.items():
            spin = _SPIN[int(time.monotonic() * 8) % len(_SPIN)]
            mark = Text("✓", "green") if row.done else Text(spin, "cyan")
            table.add_row(mark, Text(stage, "bold" if not row.done else ""), _body(row))
        return table


def _body(row: _Row) -> ConsoleRenderable:
    if row.fraction is None:
        took = f"  [dim]{row.seconds:.1f} s[/]" if row.seconds and row.seconds >= 0.05 else ""
        return Text.from_markup(escape(row.text) + took)
    line = Table.grid(padding=(0, 2))
    line.add_row(ProgressBar(total=1.0, completed=min(1.0, row.fraction), width=28), Text(row.text))
    return line
