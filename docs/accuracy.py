"""The accuracy section of README.md, from models/*/docs/evaluation.json.

`python docs/accuracy.py` writes it; with `--check` it only says, by its exit code, whether it is up
to date. The lines are those that `dicom-node evaluate` prints. Bundles that were evaluated
together carry the same file: it is printed once, under all their names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dicom_node.train.table import headings, table_rows

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN = "<!-- accuracy: written by docs/accuracy.py -->"
END = "<!-- end of accuracy -->"
NONE_YET = "No model with an evaluation is in this version."


def evaluations(models: Path) -> dict[tuple[str, ...], dict[str, Any]]:  # Any: parsed JSON
    """Each evaluation once, by the names of the bundles that carry it."""
    names: dict[str, list[str]] = {}
    for file in sorted(models.glob("*/docs/evaluation.json")):
        names.setdefault(file.read_text(encoding="utf-8"), []).append(file.parent.parent.name)
    return {tuple(bundles): json.loads(text) for text, bundles in names.items()}


def section(models: Path) -> str:
    """The text between the marks."""
    parts = [_part(bundles, document) for bundles, document in evaluations(models).items()]
    return "\n\n".join(parts) or NONE_YET


def _part(bundles: tuple[str, ...], document: dict[str, Any]) -> str:  # Any: parsed JSON
    lines = [
        f"`{'`, `'.join(bundles)}`: {document['data']}",
        "",
        f"| {' | '.join(headings(document))} |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in table_rows(document)),
    ]
    return "\n".join(lines)


def updated(readme: str, models: Path) -> str:
    """README with the section as the evaluations say it now."""
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{section(models)}\n{END}{after}"


def main(arguments: list[str]) -> int:
    """0 when README is, or now is, up to date; 1 when `--check` finds that it is not."""
    old = README.read_text(encoding="utf-8")
    new = updated(old, ROOT / "models")
    if "--check" in arguments:
        return 0 if new == old else 1
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
