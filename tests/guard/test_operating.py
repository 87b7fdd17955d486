"""docs/operating.md knows what the node logs, shows, and can be told."""

from __future__ import annotations

import re

import pytest

from dicom_node.domain.job import State
from support.source import ROOT, event_names, log_calls, modules

OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


BY_THE_LOG = {"library.warning", "process.exception"}
"""What dicom_node/log.py says itself."""


def section(title: str) -> str:
    """The text under a heading, up to the next heading of any level."""
    return re.split(r"^#+ ", OPERATING.split(f"# {title}\n")[1], flags=re.M)[0]


def test_every_event_is_explained() -> None:
    """The table of log events is the list of what the source can log, no more and no less."""
    explained = set(re.findall(r"^\| `([a-z_.]+)` \|", section("Log"), re.M))
    logged = {
        name for module in modules() for call in log_calls(module.tree) for name in event_names(call, module)
    }

    assert sorted((logged | BY_THE_LOG) - explained) == []
    assert sorted(explained - logged - BY_THE_LOG) == []


def test_every_state_is_explained() -> None:
    """Jobs and deliveries: each state of the Unified Procedure Step has its line in both tables."""
    rows = re.findall(r"^\| ([A-Z ]+) \|", section("States"), re.M)

    assert sorted(rows) == sorted([*State, *State])


@pytest.mark.parametrize("target", re.findall(r"\]\((\.\./[^)#]+)\)", OPERATING))
def test_links_lead_somewhere(target: str) -> None:
    """What the page points at in the repository is there."""
    assert (ROOT / "docs" / target).exists()


def test_the_metrics_it_names_exist() -> None:
    """Every metric in the page, also in the alerts, is one the node shows."""
    source = (ROOT / "dicom_node" / "web" / "metrics.py").read_text(encoding="utf-8")
    named = {name.removesuffix("_total") for name in re.findall(r"\bdicom_node_(\w+)", OPERATING)}

    assert {name for name in named if f'{name}"' not in source} == set()
