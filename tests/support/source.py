"""The project's own source as syntax trees, for the guard tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its tree, and whether it is a package's `__init__`."""

    name: str
    path: Path
    tree: ast.Module
    is_package: bool

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


@cache
def modules(folder: str = "dicom_node") -> tuple[Module, ...]:
    """Every Python file below a folder of the repository, sorted by path."""
    return tuple(_module(path) for path in sorted((ROOT / folder).rglob("*.py")))


def _module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return Module(
        name=".".join(parts[:-1] if is_package else parts),
        path=path,
        tree=ast.parse(path.read_text(encoding="utf-8"), str(path)),
        is_package=is_package,
    )


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, at whatever depth it does so.

    `from a import b` yields `a.b`: whether b is a module or a name, its place is a.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    kept = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def calls(tree: ast.AST, owner: str, *names: str) -> Iterator[ast.Call]:
    """Calls written `owner.name(...)` for one of the names."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == owner
            and node.func.attr in names
        ):
            yield node


LOGGED = ("event", "problem")
"""The functions of dicom_node/log.py that a running node writes with (`detail` is DEBUG)."""


def log_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Every `log.event(...)` and `log.problem(...)`."""
    yield from calls(tree, "log", *LOGGED)


def event_names(call: ast.Call, module: Module) -> set[str]:
    """The names a log call may write: literals, or a variable that is given literals.

    Anything else yields the empty set.
    """
    name = call.args[0] if len(call.args) == 1 else None
    if isinstance(name, ast.Name):
        values = [
            node.value
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Assign) and any(ast.unparse(t) == name.id for t in node.targets)
        ]
        return {text for value in values for text in _literals(value)}
    return _literals(name) if name is not None else set()


def _literals(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return _literals(node.body) | _literals(node.orelse)
    return set()
