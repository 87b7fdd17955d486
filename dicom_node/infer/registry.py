"""Which pipelines there are: every file or folder in `pipelines/` that holds a pipeline class.

Pipelines are looked at, never instantiated, so nothing heavy is loaded here. A file that
cannot be used stops the start with its name: a pipeline that silently disappears is worse.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from dicom_node.config import PROJECT
from dicom_node.domain.pipeline import Pipeline
from dicom_node.errors import PipelineError

DECLARED = ("name", "version", "title", "level", "needs", "intended_use", "models", "run")
"""What makes a class a pipeline, see `dicom_node.domain.pipeline.Pipeline`."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def pipelines(folder: Path) -> dict[str, type[Pipeline]]:
    """The pipeline classes in a folder by name, sorted.

    Modules and packages whose name starts with `_` or `.` are not looked at. Raises PipelineError
    naming the file that cannot be imported, holds no pipeline, or claims a name twice.
    """
    if not folder.is_dir():
        raise PipelineError(f"there is no folder of pipelines {folder}")
    found: dict[str, tuple[type[Pipeline], Path]] = {}
    for path in _candidates(folder):
        for pipeline in _classes(_load(path, folder), path):
            if pipeline.name in found:
                other = found[pipeline.name][1].name
                raise PipelineError(f"{path.name} and {other} both hold a pipeline named {pipeline.name!r}")
            found[pipeline.name] = (pipeline, path)
    return {name: found[name][0] for name in sorted(found)}


def _candidates(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")):
            continue
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            yield path


def _load(path: Path, folder: Path) -> ModuleType:
    """Import one candidate; the project's own under its real name, so that tests see the same classes."""
    own = folder.resolve() == PROJECT / "pipelines"
    where = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    name = f"{'pipelines' if own else f'_pipelines_{where}'}.{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    try:
        return importlib.import_module(name) if own else _from_file(name, path)
    except Exception as error:  # the edge to an author's file: whatever it raises, it is named
        why = f"{type(error).__name__}: {error}"
        raise PipelineError(f"pipeline {path.name} cannot be imported: {why}") from error


def _from_file(name: str, path: Path) -> ModuleType:
    inside = [str(path)] if path.is_dir() else None
    file = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise PipelineError(f"pipeline {path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before execution, so that the package's relative imports find it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _classes(module: ModuleType, path: Path) -> list[type[Pipeline]]:
    inside = [
        kind for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__.split(".")[:2] == module.__name__.split(".")[:2] and hasattr(kind, "run")
    ]  # fmt: skip
    usable: list[Any] = [kind for kind in inside if _missing(kind) == []]  # Any: checked by its attributes
    if usable:
        return [_named(kind, path) for kind in usable]
    if inside:
        lacks = ", ".join(_missing(inside[0]))
        raise PipelineError(f"pipeline {path.name}: class {inside[0].__name__} lacks {lacks}")
    raise PipelineError(f"pipeline {path.name} holds no class with a `run`; see docs/writing-a-pipeline.md")


def _missing(kind: type) -> list[str]:
    return [word for word in DECLARED if not hasattr(kind, word)]


def _named(kind: type[Pipeline], path: Path) -> type[Pipeline]:
    if not _NAME.fullmatch(kind.name):
        raise PipelineError(f"pipeline {path.name}: name {kind.name!r} must be 1 to 32 of a-z, 0-9, - and _")
    return kind
