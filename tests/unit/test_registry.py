"""Pipelines are found by looking into a folder, and a file that cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node.config import PROJECT
from dicom_node.errors import PipelineError
from dicom_node.infer.registry import pipelines

PIPELINE = """
from dicom_node.pipeline import Findings, IntendedUse, Level, NotPerformed

class Toy:
    name, version, title, level = {name!r}, "1", "A toy", Level.STUDY
    needs, models = (), ()
    intended_use = IntendedUse(frozenset({{"MR"}}))

    def run(self, case):
        return Findings((), not_performed=NotPerformed("it is a toy", "toy"))
"""


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def test_files_and_folders_are_pipelines(tmp_path: Path) -> None:
    """One file or one package is one pipeline; names with _ or . in front are not looked at."""
    write(tmp_path / "one.py", PIPELINE.format(name="one"))
    write(tmp_path / "two" / "__init__.py", "from .inside import Toy" + PIPELINE.format(name="two"))
    write(tmp_path / "two" / "inside.py", PIPELINE.format(name="inner"))
    write(tmp_path / "_helper.py", "raise SystemError")
    write(tmp_path / "notes.txt", "no pipeline")

    found = pipelines(tmp_path)

    assert ["one", "two"] == list(found)
    assert "A toy" == found["two"].title


def test_the_projects_own_pipeline_is_found() -> None:
    """`uterine_mri` is there and is the class that tests import."""
    from pipelines.uterine_mri import UterineMri

    assert UterineMri is pipelines(PROJECT / "pipelines")["uterine_mri"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("import no_such_module_here", "pipeline bad.py cannot be imported: ModuleNotFoundError"),
        ("def broken(:", "pipeline bad.py cannot be imported: SyntaxError"),
        ("x = 1", "pipeline bad.py holds no class with a `run`"),
        ("class Toy:\n    name = 'toy'\n    run = 1", "pipeline bad.py: class Toy lacks version"),
        (PIPELINE.format(name="../up"), "pipeline bad.py: name '../up' must be"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str, why: str) -> None:
    """A broken pipeline stops the start with its file's name; it does not disappear."""
    write(tmp_path / "bad.py", content)

    with pytest.raises(PipelineError, match=r"bad\.py") as error:
        pipelines(tmp_path)

    assert str(error.value).startswith(why)


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path) -> None:
    """Both files are named."""
    write(tmp_path / "first.py", PIPELINE.format(name="same"))
    write(tmp_path / "second.py", PIPELINE.format(name="same"))

    with pytest.raises(PipelineError, match=r"second\.py and first\.py both hold a pipeline named 'same'"):
        pipelines(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """An empty answer would look like a node without pipelines."""
    with pytest.raises(PipelineError, match="nowhere"):
        pipelines(tmp_path / "nowhere")
