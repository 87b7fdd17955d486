"""What the source never holds: unfinished places, prints, foreign exceptions, patients in the log."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections.abc import Iterator

import pytest

from dicom_node import errors
from support.source import ROOT, Module, event_names, log_calls, modules

FOLDERS = ("dicom_node", "pipelines")
FAMILY = {
    name: kind for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.DicomNodeError)
}  # fmt: skip
BUILTIN_ERRORS = {
    name for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
}  # fmt: skip
UNDERSTOOD_BY_A_LIBRARY = {
    "dicom_node/config.py": {"ValueError"},  # pydantic turns it into a problem with the key's name
    "dicom_node/cli.py": {"SystemExit"},
    "dicom_node/scu/association.py": {"OSError"},  # pynetdicom ends the association on it
    "dicom_node/web/protocol.py": {"ConnectionAbortedError"},  # asyncio accepts the next one on it
}
"""Builtin errors raised because the library that catches them asks for exactly these."""
ABOUT_PEOPLE = re.compile(
    r"patient|person|birth|accession|referral|description|reports?$|comment|history_text|physician|institution"
)
IDENTIFYING = re.compile(r"(^|_)uids?$")


def everything() -> list[Module]:
    return [module for folder in FOLDERS for module in modules(folder)]


def test_nothing_is_left_unfinished() -> None:
    """No TODO, FIXME, XXX or NotImplementedError: what is not built is not in the source."""
    mark = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplemented")
    wrong = [
        f"{module.where}:{number}: {line.strip()}"
        for module in everything()
        for number, line in enumerate(module.path.read_text(encoding="utf-8").splitlines(), 1)
        if mark.search(line)
    ]

    assert wrong == []


def test_nothing_prints() -> None:
    """Results go through rich in the command line, everything else through the log."""
    wrong = [
        f"{module.where}:{node.lineno}"
        for module in everything()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert wrong == []


def test_nothing_is_evaluated_or_unpickled() -> None:
    """Weights and messages are data: no eval, exec, pickle or shell."""
    wrong = [
        f"{module.where}:{node.lineno}"
        for module in everything()
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec"))
        or (isinstance(node, ast.Import) and {alias.name for alias in node.names} & {"pickle", "shelve"})
        or (isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) == "True")
    ]

    assert wrong == []


def test_files_are_short() -> None:
    """A file one cannot hold in the head is two files: 500 lines at most."""
    long = {
        module.where: count for module in everything()
        if (count := len(module.path.read_text(encoding="utf-8").splitlines())) > 500
    }  # fmt: skip

    assert long == {}


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_each_error_has_a_sentence_for_the_operator(name: str) -> None:
    """The class docstring is the default message: one that starts with a capital and ends with a stop."""
    kind = FAMILY[name]
    message = str(kind())

    assert kind.__doc__ and kind.__doc__ == inspect.getdoc(kind)
    assert re.fullmatch(r"[A-Z].{10,200}[.?]", message), message


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_each_error_knows_its_answers(name: str) -> None:
    """Every error is a failure on DIMSE (0x01xx, 0xAxxx, 0xCxxx; never a warning) and on HTTP (4xx, 5xx)."""
    kind = FAMILY[name]

    assert kind.dimse_status >> 12 in (0xA, 0xC) or kind.dimse_status >> 8 == 0x01
    assert 400 <= kind.http_status < 600


def test_errors_are_one_family() -> None:
    """A class of exceptions outside dicom_node/errors.py derives from the family and has a sentence."""
    wrong = [
        f"{module.where}:{node.lineno} {node.name}"
        for module in everything()
        if module.where != "dicom_node/errors.py"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and (
            any(base in BUILTIN_ERRORS for base in base_names(node))
            or (any(base in FAMILY for base in base_names(node)) and not ast.get_docstring(node))
        )
    ]

    assert wrong == []


def base_names(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases]


def test_only_the_family_is_raised() -> None:
    """A library's exception is wrapped where it enters; a builtin one is nobody's sentence."""
    wrong = [
        f"{module.where}:{line} raises {name}"
        for module in everything()
        for line, name in raised(module)
        if name in BUILTIN_ERRORS and name not in UNDERSTOOD_BY_A_LIBRARY.get(module.where, set())
    ]

    assert wrong == []


def raised(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            yield node.lineno, ast.unparse(call)


def test_log_events_have_dotted_names() -> None:
    """An event is named by a literal such as `study.complete`, so that it can be looked up."""
    wrong = [
        f"{module.where}:{call.lineno}"
        for module in everything()
        for call in log_calls(module.tree)
        if not (names := event_names(call, module))
        or not all(re.fullmatch(r"[a-z]+(\.[a-z_]+)+", name) for name in names)
    ]

    assert wrong == []


def test_log_events_hold_no_patient_data() -> None:
    """No name or attribute in a log call speaks of a person or of free text; no UID above DEBUG."""
    wrong = [
        f"{module.where}:{call.lineno}: {word}"
        for module in everything()
        for call in log_calls(module.tree)
        for word in words(call)
        if ABOUT_PEOPLE.search(word.lower()) or IDENTIFYING.search(word.lower())
    ]

    assert wrong == []


def words(call: ast.Call) -> Iterator[str]:
    """Keywords, variables and attributes that take part in a call's arguments, `len(...)` aside."""
    for keyword in call.keywords:
        yield keyword.arg or "**"
        if isinstance(keyword.value, ast.Call) and ast.unparse(keyword.value.func) == "len":
            continue
        for node in ast.walk(keyword.value):
            if isinstance(node, ast.Attribute):
                yield node.attr
            elif isinstance(node, ast.Name):
                yield node.id


def test_log_events_quote_no_exception() -> None:
    """A foreign exception's text may quote a data set: the log gets its kind, `type(error).__name__`.

    Those of our own family may be quoted: their sentences never hold what is about a person.
    """
    wrong = [
        f"{module.where}:{call.lineno} quotes {handler.name}"
        for module in everything()
        for handler in ast.walk(module.tree)
        if isinstance(handler, ast.ExceptHandler) and handler.name and not caught(handler) <= set(FAMILY)
        for call in log_calls(handler)
        if handler.name in quoted(call)
    ]

    assert wrong == []


def caught(handler: ast.ExceptHandler) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind) for kind in kinds if kind is not None}


def quoted(call: ast.Call) -> set[str]:
    """Names used in a call, except inside `type(...)` and as the owner of an attribute."""
    shielded = {
        id(inner)
        for node in ast.walk(call)
        if isinstance(node, ast.Attribute)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "type")
        for inner in ast.walk(node)
        if inner is not node
    }
    return {node.id for node in ast.walk(call) if isinstance(node, ast.Name) and id(node) not in shielded}


def test_no_path_of_a_machine_and_no_secret_is_committed() -> None:
    """Text in the repository speaks of no home folder, and configuration files hold no password."""
    home = re.compile(r"/(home|Users|root|work)/[a-z]")
    texts = [
        path for folder in ("dicom_node", "pipelines", "config", "docker", "docs", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in ("", ".py", ".md", ".toml", ".yaml", ".json", ".txt")
    ]  # fmt: skip
    wrong = [
        path.relative_to(ROOT).as_posix() for path in texts if home.search(path.read_text(encoding="utf-8"))
    ]

    assert wrong == []
