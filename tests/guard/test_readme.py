"""README.md says what is: commands, links, settings and numbers."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from dicom_node import cli, config
from support.source import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def accuracy() -> ModuleType:
    """docs/accuracy.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("readme_accuracy", ROOT / "docs" / "accuracy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


@cache
def commands() -> dict[str, set[str]]:
    """`command` or `group command` -> its options."""
    cli._mount()
    found: dict[str, set[str]] = {}
    for name, command in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        leaves = {f"{name} {sub}": leaf for sub, leaf in inner.items()} if inner else {name: command}
        if getattr(command, "invoke_without_command", False):  # a group that is a command itself
            leaves[name] = command
        for full, leaf in leaves.items():
            found[full] = {option for one in leaf.params for option in (*one.opts, *one.secondary_opts)}
    return found


def test_the_table_lists_every_command() -> None:
    """Every command of the program has its line, and every line is a command."""
    table = README.split("## Commands")[1].split("##")[0]
    rows = re.findall(r"^\| `([a-z ]+)` \|", table, re.M)

    assert sorted(rows) == sorted(commands())


def code(text: str) -> list[str]:
    """What stands in a page as code: lines of fenced blocks that are commands, and words in backticks."""
    blocks = re.findall(r"^```(?:console|ini)\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [*(line for block in blocks for line in block.splitlines()), *re.findall(r"`([^`\n]+)`", prose)]


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_commands_in_the_text_exist(name: str) -> None:
    """`dicom-node ...` in README and docs names a command, with options it has."""
    known = commands()
    for line in re.findall(r"dicom-node ([a-z]+(?: [^#\n&;]+)?)", "\n".join(code(TEXTS[name]))):
        words = line.split()
        command = next((c for c in (" ".join(words[:2]), words[0]) if c in known), None)
        if command is None and words[0] not in {c.split()[0] for c in known}:
            pytest.fail(f"{name}: no command `dicom-node {line}`")
        options = {word for word in words if word.startswith("--")} - {"--help", "--json"}
        assert options <= known.get(command or "", options), line


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_links_lead_somewhere(name: str) -> None:
    """What a page points at in the repository is there, headings too."""
    for target, anchor in re.findall(r"\]\(([^):#]*)(?:#([^)]*))?\)", TEXTS[name]):
        page = (ROOT / name).parent / target if target else ROOT / name

        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", text.lower()).replace(" ", "-") for text in headings}


def test_make_knows_the_two_commands() -> None:
    """The commands that do all the set-up stand in README and in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"^\$ make ([a-z]+)", README, re.M))

    assert named == {"demo", "test"}
    assert named <= targets


def test_the_shown_configuration_loads(tmp_path: Path) -> None:
    """The node.toml of README starts a node."""
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    file = tmp_path / "node.toml"
    file.write_text(text, encoding="utf-8")

    loaded = config.load(file, environ={})

    assert [route.pipeline for route in loaded.route] == ["uterine_mri"]


def test_it_says_plainly_what_it_is_not() -> None:
    """Nobody gets past the first screen without reading it."""
    first_screen = README.split("## Try it")[0]

    assert "Research use only. Not a medical device." in first_screen
    assert "trained on generated phantoms" in first_screen


def test_the_accuracy_section_is_what_the_models_say() -> None:
    """Numbers come from models/*/docs/evaluation.json; `python docs/accuracy.py` writes them."""
    assert accuracy().updated(README, ROOT / "models") == README


def test_every_measured_line_has_its_n() -> None:
    """A result without the n it stands on is not printed; AUROC and the mean carry that of their group."""
    if not accuracy().evaluations(ROOT / "models"):
        pytest.skip("no model with an evaluation is in this version")
    lines = accuracy().section(ROOT / "models").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    measured = [row for row in rows[1:] if row[1].strip() and "AUROC" not in row[0]]

    assert measured
    assert [row[0] for row in measured if not re.search(r"\d", row[2])] == []


def test_accuracy_without_models_says_so(tmp_path: Path) -> None:
    """A checkout without weights claims nothing."""
    assert accuracy().section(tmp_path) == accuracy().NONE_YET
