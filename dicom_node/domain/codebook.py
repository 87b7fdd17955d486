"""The node's coded concepts by name, from one data file, and what a site puts in their place.

`codes.toml` beside this module names every code with its source. A hospital whose PACS wants
local codes, or that has no SNOMED licence, gives a file of the same form (`node.codes`); its
codes then stand in every result instead, in pipelines of others too.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from dicom_node.domain.codes import Code
from dicom_node.errors import ConfigurationError, DicomNodeError

_STANDARD = Path(__file__).with_name("codes.toml")
_KEYS = {"value", "scheme", "meaning", "source"}

Swaps = Mapping[Code, Code]
"""The code a site wants for each of the node's; empty where it wants none."""
NO_SWAPS: Swaps = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entry:
    code: Code
    source: str
    """Context group, template or code system the code is from."""
    definition: str = ""
    """Of a private code, which nobody else defines."""


def code(name: str) -> Code:
    """The node's own code of that name. Raises ConfigurationError where there is none."""
    try:
        return codebook()[name].code
    except KeyError:
        raise ConfigurationError(f"no code is named {name!r} in {_STANDARD.name}") from None


@lru_cache
def codebook() -> Mapping[str, Entry]:
    """All codes of the node by name."""
    return _read(_STANDARD)


def site_swaps(file: Path | None) -> Swaps:
    """What a site's file replaces. Raises ConfigurationError naming file and entry."""
    if file is None:
        return NO_SWAPS
    site = _read(file)
    if unknown := sorted(set(site) - set(codebook())):
        raise ConfigurationError(f"{file}: the node has no code named {unknown[0]!r}")
    return {codebook()[name].code: entry.code for name, entry in site.items()}


def _read(file: Path) -> dict[str, Entry]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"codes cannot be read from {file}: {error}") from error
    return {name: _entry(file, name, table) for name, table in tables.items()}


def _entry(file: Path, name: str, table: object) -> Entry:
    keys = set(table) if isinstance(table, dict) else set()
    if not isinstance(table, dict) or keys - {"definition"} != _KEYS:
        raise ConfigurationError(f"{file}: {name!r} needs exactly value, scheme, meaning and source")
    texts = {key: str(value) for key, value in table.items()}
    try:
        own = Code(texts["value"], texts["scheme"], texts["meaning"])
    except DicomNodeError as error:
        raise ConfigurationError(f"{file}: {name!r} is {error}") from error
    return Entry(own, texts["source"], texts.get("definition", ""))
