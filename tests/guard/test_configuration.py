"""config/node.example.toml and the table in docs/operating.md say what dicom_node/config.py does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from dicom_node import config
from dicom_node.config import Config, Peer, Route, Table, Worklist
from dicom_node.errors import ConfigurationError
from support.source import ROOT

EXAMPLE = ROOT / "config" / "node.example.toml"
OPERATING = ROOT / "docs" / "operating.md"
WHERE_IT_IS = {
    "node.codes",
    "node.pipelines_dir", "node.models_dir", "store.password_file", "tls.certificate", "tls.private_key",
    "tls.trusted", "tls.revoked", "audit.folder", "peer.token_file", "peer.url",
}  # fmt: skip
"""Keys whose default depends on the machine, or is none: they stand in the example as comments."""
SWITCHED_OFF = {f"worklist.{name}" for name in Worklist.model_fields}
"""Keys of a table that is a comment as a whole: a site that copies the example asks nobody for work."""


def tables() -> dict[str, type[Table]]:
    """Each table of the file with its class, `peer`, `route` and `worklist` too."""
    plain = {
        name: type(field.default)
        for name, field in Config.model_fields.items()
        if name not in ("peer", "route", "worklist")
    }
    return plain | {"peer": Peer, "route": Route, "worklist": Worklist}


def keys() -> dict[str, Any]:  # Any: whatever a default can be
    """`table.key` -> default, PydanticUndefined where it has to be given."""
    return {
        f"{table}.{field.alias or name}": field.default
        for table, kind in tables().items()
        for name, field in kind.model_fields.items()
    }


def as_toml(value: object) -> str:
    """A default as the file writes it."""
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if value == ():
        return "[]"
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def commented_keys() -> dict[str, str]:
    """Keys written as `# key = value`, by `table.key`."""
    found, table = {}, ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if header := re.fullmatch(r"(?:# )?\[+(\w+)\]+", line):
            table = header[1]
        elif key := re.fullmatch(r"# (\w+) = (.+)", line):
            found[f"{table}.{key[1]}"] = key[2]
    return found


def test_the_example_loads() -> None:
    """A site may start from the example as it is."""
    loaded = config.load(EXAMPLE, environ={})

    assert [peer.name for peer in loaded.peer] == ["pacs", "scanner"]
    assert loaded.node.data_dir == EXAMPLE.parent / "var"


def test_the_example_shows_every_key() -> None:
    """No key of the configuration is missing in the example, and none is there that does not exist."""
    raw = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    shown = {
        f"{table}.{key}"
        for table, content in raw.items()
        for key in (content[0] if isinstance(content, list) else content)
    }

    assert shown | set(commented_keys()) == set(keys())
    assert set(commented_keys()) == WHERE_IT_IS | SWITCHED_OFF


def test_the_example_shows_the_defaults() -> None:
    """Every value in the plain tables is the default, so deleting a line changes nothing."""
    raw = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    shown = {
        f"{table}.{key}": value
        for table, content in raw.items() if not isinstance(content, list)
        for key, value in content.items()
    }  # fmt: skip

    assert shown == {key: str(keys()[key]) if key == "node.data_dir" else keys()[key] for key in shown}


@pytest.mark.parametrize("key", sorted(keys()))
def test_every_key_is_explained(key: str) -> None:
    """Above each key stands a comment that ends in a stop and says the default."""
    table, name = key.split(".")
    text = EXAMPLE.read_text(encoding="utf-8")
    after = re.split(rf"^(?:# )?\[+{table}\]+$", text, flags=re.M)[1]
    lines = re.split(r"^(?:# )?\[+\w+\]+$", after, flags=re.M)[0].splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(rf"(# )?{name} =", line))
    comment = []
    while at and lines[at - 1].startswith("# "):
        at -= 1
        comment.insert(0, lines[at][2:])
    words = " ".join(comment)

    assert words.endswith((".", "insist.", "insists."))
    assert "default" in words.lower()
    default = keys()[key]
    if key not in WHERE_IT_IS and default is not PydanticUndefined:
        assert as_toml(default).removesuffix(".0") in words


def test_every_field_has_a_docstring() -> None:
    """Beside each key of the code stands its meaning."""
    missing = [
        f"{table}.{name}" for table, kind in tables().items()
        for name, field in kind.model_fields.items() if not field.description
    ]  # fmt: skip

    assert set(missing) == set()


def test_operating_lists_every_setting() -> None:
    """The table of settings in docs/operating.md has each key once, with its default."""
    rows = re.findall(r"^\| `(\w+\.\w+)` \| `([^|]*)` \|", OPERATING.read_text(encoding="utf-8"), re.M)
    by_key = dict(rows)

    assert len(rows) == len(by_key)
    assert by_key == {
        key: "beside the program" if key in ("node.pipelines_dir", "node.models_dir") else as_toml(default)
        for key, default in keys().items()
    }


def test_unknown_keys_stop_the_start(tmp_path: Path) -> None:
    """A typing error is found at start, by name."""
    file = tmp_path / "node.toml"
    file.write_text("[receive]\nprot = 104\n", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"receive\.prot: unknown key"):
        config.load(file, environ={})


def test_the_environment_overrides(tmp_path: Path) -> None:
    """DICOM_NODE_<TABLE>__<KEY> beats the file; a table that does not exist is named."""
    file = tmp_path / "node.toml"
    file.write_text("[receive]\nport = 104\n", encoding="utf-8")

    assert config.load(file, environ={"DICOM_NODE_RECEIVE__PORT": "2104"}).receive.port == 2104
    with pytest.raises(ConfigurationError, match="DICOM_NODE_RECIEVE__PORT"):
        config.load(file, environ={"DICOM_NODE_RECIEVE__PORT": "2104"})


def test_the_table_that_is_switched_off_loads(tmp_path: Path) -> None:
    """Taking away the "# " of [[worklist]] gives a table of defaults that loads."""
    text = EXAMPLE.read_text(encoding="utf-8").split("# [[worklist]]")[1]
    values = "\n".join(line[2:] for line in text.splitlines() if re.match(r"# \w+ = ", line))
    table = Worklist.model_validate(tomllib.loads(values))

    assert table == Worklist(peer="ris", pipeline="uterine_mri", workitem="110004^DCM")


BASE = """
[[peer]]
name = "ris"
ae_title = "RIS"
host = "127.0.0.1"

[[route]]
pipeline = "uterine_mri"
from = ["ris"]
to = ["ris"]

"""
WORKLIST = '[[worklist]]\npeer = "ris"\npipeline = "uterine_mri"\nworkitem = "110004^DCM"\n'


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (WORKLIST.replace('"ris"', '"his"'), "worklist of peer 'his': this peer is not listed"),
        (WORKLIST.replace("uterine_mri", "other"), "no route says what becomes of its results"),
        (WORKLIST + 'fetch_from = "ris"\n', "fetch_from names 'ris', no peer with `retrieve`"),
        (WORKLIST + WORKLIST, "two worklists with workitem '110004\\^DCM'"),
        (WORKLIST.replace("^DCM", ""), r"worklist\.0\.workitem"),
    ],
)
def test_a_worklist_that_cannot_work_stops_the_start(tmp_path: Path, changed: str, why: str) -> None:
    """What does not fit together is said at start."""
    file = tmp_path / "node.toml"
    file.write_text(BASE + changed, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=why):
        config.load(file, environ={})
