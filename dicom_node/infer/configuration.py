"""A bundle's JSON configuration, made into objects by MONAI's ConfigParser, closed to code.

MONAI's bundle language can evaluate Python (`$...`), read other files (`%...`) and construct
any class. Here it may construct classes of the listed modules and refer to other keys (`@...`),
nothing else: a configuration is data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dicom_node.errors import ModelError

TARGETS = ("monai.transforms", "monai.inferers", "monai.networks.nets", "torchvision.models",
           "dicom_node.infer.transforms")  # fmt: skip
"""Modules whose own classes and functions a configuration may name in `_target_`."""
_TARGET = re.compile(rf"({'|'.join(re.escape(target) for target in TARGETS)})\.[A-Za-z][A-Za-z0-9_]*")
_WORDS = frozenset({"_target_", "_disabled_", "_meta_"})


def check(config: Mapping[str, Any], where: str) -> None:  # Any: parsed JSON
    """Raises ModelError naming the first value that is an expression, a macro or a foreign class."""
    for key, word, value in _entries(config, ""):
        if word.startswith("_") and word.endswith("_") and word not in _WORDS:
            raise ModelError(f"{where}: {key} is not allowed in a bundle here")
        if any(isinstance(text, str) and text.lstrip().startswith(("$", "%")) for text in (word, value)):
            raise ModelError(f"{where}: {key} holds an expression or a macro; bundles here are data only")
        # One name behind the module: `monai.transforms.io.array.os.system` would be found, too.
        if word == "_target_" and not (isinstance(value, str) and _TARGET.fullmatch(value)):
            allowed = ", ".join(f"{target}.*" for target in TARGETS)
            raise ModelError(f"{where}: {key} names {value!r}; allowed are {allowed}")


def parse(config: Mapping[str, Any], where: str) -> Any:  # Any: MONAI ships no types
    """A ConfigParser over a checked configuration; `parser.get_parsed_content(key)` makes objects."""
    check(config, where)
    from monai.bundle.config_parser import ConfigParser

    return ConfigParser(config=dict(config))


def _entries(value: object, key: str) -> Iterator[tuple[str, str, object]]:
    """(dotted key, last word of it, value) of everything inside, containers too."""
    inside: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    for word, inner in inside:
        name = f"{key}#{word}".lstrip("#")
        yield name, str(word), inner
        yield from _entries(inner, name)
