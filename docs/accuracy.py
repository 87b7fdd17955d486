"""The accuracy section of README.md, from models/*/docs/evaluation.json.

`python docs/accuracy.py` writes it; `--check` says whether it is up to date. A number is
any object in the JSON with `value` (or `estimate`); `n`, `low`, `high` and `data` stand beside
it, `data` also further up; the keys on the way to it are its name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN = "<!-- accuracy: written by docs/accuracy.py -->"
END = "<!-- end of accuracy -->"
NONE_YET = "No model with an evaluation is in this version."


@dataclass(frozen=True)
class Row:
    """One measured number."""

    model: str
    name: str
    data: str
    n: int | None
    value: float
    low: float | None
    high: float | None

    def to_markdown(self) -> str:
        known = self.low is not None and self.high is not None
        interval = f"{percent(self.low or 0.0)} to {percent(self.high or 0.0)}" if known else ""
        n = "" if self.n is None else str(self.n)
        return f"| {self.model} | {self.name} | {self.data} | {n} | {percent(self.value)} | {interval} |"


def percent(value: float) -> str:
    """Fractions as percent with two decimals, as the publications print them."""
    return f"{100 * value:.2f} %" if 0.0 <= value <= 1.0 else f"{value:g}"


def rows(models: Path) -> list[Row]:
    """All numbers of all models, in the order of their files."""
    return [
        row
        for file in sorted(models.glob("*/docs/evaluation.json"))
        for row in _numbers(file.parent.parent.name, json.loads(file.read_text(encoding="utf-8")), (), "")
    ]


def _numbers(model: str, node: Any, path: tuple[str, ...], data: str) -> Iterator[Row]:  # Any: parsed JSON
    if isinstance(node, list):
        for item in node:
            yield from _numbers(model, item, path, data)
    if not isinstance(node, dict):
        return
    data = str(node.get("data", data)) if not isinstance(node.get("data"), dict | list) else data
    value = node.get("value", node.get("estimate"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        name = str(node.get("measure", node.get("name", ", ".join(path).replace("_", " "))))
        yield Row(model, name, data, node.get("n"), float(value), node.get("low"), node.get("high"))
        return
    for key, inner in node.items():
        yield from _numbers(model, inner, (*path, str(key)), data)


def section(models: Path) -> str:
    """The text between the marks."""
    found = rows(models)
    if not found:
        return NONE_YET
    head = ["| model | measure | data | n | result | 95 % interval |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *(row.to_markdown() for row in found)])


def updated(readme: str, models: Path) -> str:
    """README with the section as the evaluations say it now."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{section(models)}\n{END}{after}"


def main(arguments: list[str]) -> int:
    old = README.read_text(encoding="utf-8")
    new = updated(old, ROOT / "models")
    if "--check" in arguments:
        return 0 if new == old else 1
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
