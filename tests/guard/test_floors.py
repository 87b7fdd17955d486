"""The floors of the building: who may know whom.

    domain < slide < {dicom, store} < scu < {receive, assemble, route, infer, encode, deliver, worklist}
           < {node, train} < {demo, web} < bench

A module imports from lower floors only, so that a stage can be read, tested and replaced
without the others. Imports inside functions count too.
"""

from __future__ import annotations

import sys

from support.source import Module, imports, modules

FLOORS = (
    {"domain"},
    {"slide"},  # reads the bytes of slides, also for `dicom`, which reads what they say
    {"dicom", "store"},
    {"scu"},
    {"receive", "assemble", "route", "infer", "encode", "deliver", "worklist"},
    {"node", "train"},
    {"demo", "web"},
    {"bench"},  # measures what `demo` starts
)
FLOOR_OF = {package: number for number, packages in enumerate(FLOORS) for package in packages}
EVERYBODY_MAY = {"errors", "config", "log", "audit", "tls", "digest"}
BELOW_ALL = {
    "errors": set[str](), "log": set[str](), "config": {"domain", "errors"}, "tls": {"config", "errors"},
    "digest": {"domain"},
    "audit": {"config", "domain", "errors", "log"},
}  # fmt: skip
AUTHORS = {"domain", "errors", "infer"}
"""What `dicom_node.pipeline`, the page for pipeline authors, may re-export."""
TOP = {"cli", "service", "__main__", ""}
"""Modules beside the packages that may import everything."""


def place(name: str) -> str:
    """The package, or top-level module, of a dotted name inside dicom_node."""
    return [*name.split("."), ""][1]


def ours(module: Module) -> list[tuple[int, str]]:
    return [(line, place(name)) for line, name in imports(module) if name.split(".")[0] == "dicom_node"]


def allowed(importer: str, imported: str) -> bool:
    if importer in TOP or importer == imported:
        return True
    if importer in BELOW_ALL:
        return imported in BELOW_ALL[importer]
    if importer == "pipeline":
        return imported in AUTHORS
    if importer == "domain":
        return imported == "errors"
    if imported in EVERYBODY_MAY:
        return True
    return imported in FLOOR_OF and FLOOR_OF[imported] < FLOOR_OF[importer]


def test_every_package_stands_on_a_floor() -> None:
    """A folder of dicom_node without a floor is one nobody decided about."""
    packages = {place(module.name) for module in modules() if module.is_package} - {""}

    assert packages - set(FLOOR_OF) - EVERYBODY_MAY == set()


def test_modules_import_from_lower_floors_only() -> None:
    """Stages never import stages; dicom and store do not know each other; nothing looks up."""
    wrong = [
        f"{module.where}:{line} imports {imported or 'dicom_node'}"
        for module in modules()
        for line, imported in ours(module)
        if not allowed(place(module.name), imported)
    ]

    assert wrong == []


def test_domain_is_stdlib_and_numpy() -> None:
    """The nouns need no DICOM library, no database and no network."""
    known = set(sys.stdlib_module_names) | {"numpy", "dicom_node"}
    wrong = [
        f"{module.where}:{line} imports {name}"
        for module in modules("dicom_node/domain")
        for line, name in imports(module)
        if name.split(".")[0] not in known
    ]

    assert wrong == []


def test_pipelines_know_only_the_authors_page() -> None:
    """A pipeline imports `dicom_node.pipeline` and nothing else of the project, so it survives upgrades."""
    wrong = [
        f"{module.where}:{line} imports {name}"
        for module in modules("pipelines")
        for line, name in imports(module)
        if (name.split(".")[0] == "dicom_node" and not name.startswith("dicom_node.pipeline."))
        or name.split(".")[0] in ("pydicom", "highdicom", "pynetdicom", "sqlalchemy")
    ]

    assert wrong == []


def test_the_floors_are_enforced() -> None:
    """The rule itself: a few imports that must be refused, and some that must not."""
    refused = [
        ("domain", "dicom"), ("domain", "config"), ("dicom", "store"), ("store", "dicom"),
        ("receive", "deliver"),
        ("infer", "encode"), ("node", "train"), ("train", "node"), ("node", "web"), ("log", "config"),
        ("route", "pipeline"), ("store", "scu"), ("scu", "deliver"), ("tls", "store"),
    ]  # fmt: skip
    taken = [
        ("receive", "store"),
        ("node", "infer"),
        ("web", "node"),
        ("dicom", "log"),
        ("cli", "web"),
        ("deliver", "scu"),
    ]

    assert [pair for pair in refused if allowed(*pair)] == []
    assert [pair for pair in taken if not allowed(*pair)] == []
