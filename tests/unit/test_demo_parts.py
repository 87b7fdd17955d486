"""What a demo may touch: its own folder, its own ports, its own environment."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from dicom_node.config import load
from dicom_node.demo.demo import demo, prepared
from dicom_node.demo.loopback import WRITTEN_BY, Setup, configuration, environment, free_ports
from dicom_node.demo.stages import Stages
from dicom_node.errors import DicomNodeError


def setup(data_dir: Path) -> Setup:
    return Setup("demo", data_dir, 11113, settle_s=1.0, stable_after_s=5.0, intended_use="warn")


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    """Nothing of a person's is replaced because a demo was pointed at it."""
    (tmp_path / "dicom").mkdir()

    with pytest.raises(DicomNodeError, match="not empty and no demo made it"):
        prepared(tmp_path)

    assert (tmp_path / "dicom").is_dir()


def test_an_earlier_demo_is_replaced_but_its_study_kept(tmp_path: Path) -> None:
    """The generated study is the same each time; making it again would only cost time."""
    (tmp_path / "node.toml").write_text(f"{WRITTEN_BY} demo`")
    for name in ("dicom", "previews", "study"):
        (tmp_path / name).mkdir()
    (tmp_path / "index.html").touch()

    prepared(tmp_path)

    assert ["node.toml", "study"] == sorted(path.name for path in tmp_path.iterdir())


def test_results_are_not_wiped_while_they_are_the_input(tmp_path: Path) -> None:
    """`--input demo-out/dicom --out demo-out` would delete what it is to send."""
    (tmp_path / "node.toml").write_text(f"{WRITTEN_BY} demo`")
    (tmp_path / "dicom").mkdir()

    with pytest.raises(DicomNodeError, match="result of an earlier demo"):
        prepared(tmp_path, tmp_path / "dicom")


def test_a_failure_is_a_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for an input that is not there."""
    assert 1 == demo(tmp_path / "absent", tmp_path / "out")
    assert "absent does not exist" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()


def test_the_written_configuration_is_one_the_node_takes(tmp_path: Path) -> None:
    """Also where the folder's name needs quoting."""
    data_dir = tmp_path / 'a "quoted" folder'
    file = tmp_path / "node.toml"
    file.write_text(configuration(setup(data_dir), 11114, 11115), encoding="utf-8")

    config = load(file, {})

    assert (data_dir, "127.0.0.1", 11114) == (config.node.data_dir, config.receive.host, config.receive.port)
    assert ["warn"] == [route.intended_use for route in config.route]
    assert not config.peers["pacs"].may_send


def test_a_demo_never_uses_the_configuration_of_a_real_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overrides in the environment may say how to compute, not where the data is."""
    monkeypatch.setenv("DICOM_NODE_NODE__DATA_DIR", "real")
    monkeypatch.setenv("DICOM_NODE_CONFIG", "real.toml")
    monkeypatch.setenv("DICOM_NODE_INFER__THREADS", "1")

    kept = {name for name in environment() if name.startswith("DICOM_NODE_")}

    assert "DICOM_NODE_INFER__THREADS" in kept
    assert set() == kept & {"DICOM_NODE_NODE__DATA_DIR", "DICOM_NODE_CONFIG"}


def test_two_free_ports_are_two() -> None:
    """The DICOM and the HTTP port are never the same one."""
    assert 2 == len(set(free_ports(2)))


def test_without_a_terminal_stages_are_plain_lines() -> None:
    """A log of a machine has one line per stage that ended, and no control characters."""
    out = io.StringIO()
    with Stages(Console(file=out, force_terminal=False, width=60)) as stages:
        stages.update("receive", "1/9 images", 0.1)
        stages.update("receive", "2/9 images", 0.2)
        stages.done("receive", "9/9 images, [not markup]")
        stages.done("receive", "9/9 images, [not markup]")

    lines = ["... receive   1/9 images", "ok  receive   9/9 images, [not markup]"]
    assert lines == out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_stages_are_one_table() -> None:
    """A stage that is named again changes its row."""
    out = io.StringIO()
    with Stages(Console(file=out, force_terminal=True, width=60)) as stages:
        stages.update("infer", "read", 0.2)
        stages.done("infer", "networks 3.0 s")

    assert "networks 3.0 s" in out.getvalue()
