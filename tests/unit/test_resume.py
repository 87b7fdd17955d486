"""A killed job goes on where it was, and ends with the arrays it would have had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicom_node.errors import LeaseLost
from dicom_node.infer.resume import Arrays, Resume, sweep
from support.source import ROOT

SLIDE = """
    import sys, time
    from pathlib import Path
    import numpy as np
    sys.path.insert(0, "tests")
    from dicom_node.infer.resume import Resume, sweep
    from dicom_node.slide import open_slide
    from dicom_node.slide.work import crops
    from support import slides

    files, folder, slow, out = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    centres = np.random.default_rng(5).uniform((0, 0), (300, 220), (400, 2))
    with open_slide(slides.slide_of(sorted(files.iterdir()))) as reader:
        def work(first):
            for indices, images in crops(reader, 0, centres, (0,), 24, 24, batch=4, first=first):
                print(first, flush=True)
                time.sleep(slow)
                yield {"at": indices, "mean": images.mean((1, 2, 3, 4)), "corner": images[:, 0, 0, 0]}
        found = sweep(work, 100, resume=Resume(folder, "key"), step="read")
    np.savez(out, **found)
"""


def numbers(first: int, upto: int = 10) -> Iterator[Arrays]:
    return ({"n": np.array([unit, unit])} for unit in range(first, upto))


def test_a_saved_step_is_loaded_by_its_key_only(tmp_path: Path) -> None:
    """Of another key, another step, or with a byte changed, it is as good as none."""
    arrays = {"logits": np.arange(6, dtype=np.float32).reshape(2, 3), "at": np.array([4, 7])}
    Resume(tmp_path, "one").save("find 0", arrays)

    loaded = Resume(tmp_path, "one").load("find 0")

    assert loaded is not None and list(loaded) == ["logits", "at"]
    assert all(np.array_equal(loaded[name], arrays[name]) for name in arrays)
    assert Resume(tmp_path, "two").load("find 0") is None
    assert Resume(tmp_path, "one").load("find 1") is None
    assert Resume(None, "one").load("find 0") is None
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert Resume(tmp_path, "one").load("find 0") is None
    file.write_bytes(content[:20])
    assert Resume(tmp_path, "one").load("find 0") is None


def test_a_failed_save_leaves_no_half_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the earlier step is still there, and nothing else."""
    resume = Resume(tmp_path, "one")
    resume.save("find 0", {"n": np.arange(3)})

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        resume.save("find 0", {"n": np.arange(9)})

    loaded = resume.load("find 0")
    assert loaded is not None and np.array_equal(loaded["n"], np.arange(3))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("units", [1, 10, 64, 65, 200])
def test_a_cancelled_sweep_goes_on_where_it_was(tmp_path: Path, units: int) -> None:
    """Cancelled after any unit, the next attempt computes what was not saved, and joins it all in order."""
    resume, stop = Resume(tmp_path, "one"), units // 2
    seen: list[float] = []

    def cancelling(fraction: float, _step: str) -> None:
        if fraction > stop / units:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        sweep(lambda first: numbers(first, units), units, resume=resume, step="read", progress=cancelling)
    asked: list[int] = []

    def work(first: int) -> Iterator[Arrays]:
        asked.append(first)
        return numbers(first, units)

    found = sweep(work, units, resume=resume, step="read", progress=lambda part, _: seen.append(part))

    assert np.array_equal(found["n"], np.repeat(np.arange(units), 2))
    each = -(-units // 64)
    done = ((stop + 1) // each) * each
    assert asked == ([] if done >= units else [done])
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_nothing_to_do_is_nothing() -> None:
    assert sweep(numbers, 0, step="read") == {}


def test_a_killed_process_s_successor_ends_with_the_same_arrays(tmp_path: Path) -> None:
    """SIGKILL in the middle of a slide: the next reads the rest only, and the arrays are identical."""
    from support import slides

    files = tmp_path / "slide"
    slides.write(slides.Scan(rows=230, columns=310, tile=(32, 32)), files)

    def run(name: str, folder: str, slow: float) -> subprocess.Popen[str]:
        arguments = [str(files), str(tmp_path / folder), str(slow), str(tmp_path / name)]
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SLIDE), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    with run("whole.npz", "other", 0) as whole:
        whole.communicate(timeout=120)
    with run("killed.npz", "resume", 0.05) as killed:
        assert killed.stdout is not None
        for _ in range(40):
            killed.stdout.readline()
        killed.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed.npz").exists()
    with run("resumed.npz", "resume", 0) as resumed:
        said, _ = resumed.communicate(timeout=120)

    assert 30 <= int(said.split()[0]) <= 40
    with np.load(tmp_path / "whole.npz") as ours, np.load(tmp_path / "resumed.npz") as theirs:
        assert ours.files == theirs.files == ["at", "mean", "corner"]
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
        assert sorted(ours["at"].tolist()) == list(range(400))
