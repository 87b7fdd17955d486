"""A bundle's JSON configuration, made into objects by MONAI's ConfigParser, closed to code.

MONAI's bundle language can evaluate Python (`$...`), read other files (`%...`) and construct
any class. Here it may construct classes of the listed modules and refer to other keys (`@...`),
nothing else: a configuration is data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dicom_node.errors import ModelError

TARGETS = (
    "monai.transforms.", "monai.inferers.", "monai.networks.nets.", "torchvision.models.",
    "dicom_node.infer.transforms.",
)  # fmt: skip
"""Modules whose classes a configuration may name in `_target_`."""
_WORDS = frozenset({"_target_", "_disabled_", "_meta_"})


def check(config: Mapping[str, Any], where: str) -> None:  # Any: parsed JSON
    """Raises ModelError naming the first value that is an expression, a macro or a foreign class."""
    for key, value in _leaves(config, ""):
        name = key.rsplit("#", 1)[-1]
        if name.startswith("_") and name.endswith("_") and name not in _WORDS:
            raise ModelError(f"{where}: {key} is not allowed in a bundle here")
        if isinstance(value, str) and value.lstrip().startswith(("$", "%")):
            raise ModelError(f"{where}: {key} holds an expression or a macro; bundles here are data only")
        if name == "_target_" and not (isinstance(value, str) and value.startswith(TARGETS)):
            allowed = ", ".join(target + "*" for target in TARGETS)
            raise ModelError(f"{where}: {key} names {value!r}; allowed are {allowed}")


def parse(config: Mapping[str, Any], where: str) -> Any:  # Any: MONAI ships no types
    """A ConfigParser over a checked configuration; `parser.get_parsed_content(key)` makes objects."""
    check(config, where)
    from monai.bundle.config_parser import ConfigParser

    return ConfigParser(config=dict(config))


def _leaves(value: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for word, inner in value.items():
            if str(word).lstrip().startswith(("$", "%")):
                yield f"{key}#{word}".lstrip("#"), word
            yield from _leaves(inner, f"{key}#{word}".lstrip("#"))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{key}#{number}".lstrip("#"))
    else:
        yield key, value
