"""`dicom-node bench receive`, as a person starts it; nothing is asserted about how long anything took."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dicom_node.bench import certificates, material, sender
from dicom_node.bench.measure import Cell, Effort, Place, measure
from dicom_node.bench.receivers import PEERS, Receiver, dcmtk
from support.ports import wait_until
from support.source import ROOT


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dicom_node.cli", "bench", "receive", *words]


def test_all_cases_run_against_all_that_is_installed(tmp_path: Path) -> None:
    """The node in every line, and each peer that is installed beside it; the disk is left as it was."""
    done = subprocess.run(
        command("--tiny", "--on", "disk", "--disk", str(tmp_path), "--json"),
        capture_output=True, text=True, cwd=ROOT, timeout=240, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    rows = json.loads(done.stdout)
    assert ["small", "tiny", "large"] == [row["case"] for row in rows if row["receiver"] == "node"]
    expected = {"node", "pynetdicom"}
    expected |= {"Orthanc"} if shutil.which("Orthanc") else set()
    expected |= {"storescp"} if dcmtk("storescp") else set()
    assert expected <= {row["receiver"].removesuffix(" +B") for row in rows}
    assert all(row["seconds"] > 0 and row["peak_mb"] > 1 and row["ratio"] > 0 for row in rows)
    assert [] == list(tmp_path.iterdir())


def test_the_table_is_written_into_a_file(tmp_path: Path) -> None:
    """Between its marks, with the command that writes it again."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- reception: written by `dicom-node bench receive --markdown README.md` -->\n")
    with page.open("a") as file:
        file.write("<!-- end of reception -->\nz\n")

    subprocess.run(
        command(
            "--tiny", "--case", "tiny", "--on", "disk", "--disk", str(tmp_path), "--peers", "",
            "--markdown", str(page),
        ),
        capture_output=True, text=True, cwd=ROOT, timeout=120, check=True,
    )  # fmt: skip

    lines = page.read_text().splitlines()
    assert ["a", "z"] == [lines[0], lines[-1]]
    assert "| case | associations | files on | node |" == lines[2]
    assert any("bench receive --tiny --case tiny" in line and "--markdown" not in line for line in lines)


def heard() -> None:
    """A job in the background ignores Ctrl-C, and so does what it starts; a person's command does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Neither processes nor files, by Ctrl-C or by a machine that shuts down."""
    process = subprocess.Popen(
        command("--case", "small", "--on", "disk", "--disk", str(tmp_path), "--rounds", "50"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT,
        preexec_fn=heard,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert b"node" in process.stderr.readline()  # the first run is over, the next one begins
        wait_until(lambda: bool(psutil.Process(process.pid).children()), 60.0, "the next receiver runs")
        started = psutil.Process(process.pid).children(recursive=True)

        process.send_signal(number)

        process.stderr.read()
        assert 0 != process.wait(60)
        assert [] == psutil.wait_procs(started, timeout=10)[1]
        assert [] == list(tmp_path.iterdir())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("tls", [False, True])
def test_without_dcmtk_the_own_scu_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    """Over each association its share, plain and by TLS, and the node holds all of it."""
    monkeypatch.setattr(sender, "dcmtk", lambda program: None)
    secrets = certificates.made(tmp_path) if tls else None
    if tls and secrets is None:
        pytest.skip("openssl is not installed")
    cells = [Cell(material.small(8), Place("disk", tmp_path), count, tls) for count in (1, 4)]

    results = list(measure(cells, [], Effort(1, 60.0), secrets, lambda line: None))

    assert [["node"], ["node"]] == [[run.receiver for run in measured.runs] for measured in results]
    assert "own SCU" in sender.name()


@pytest.mark.skipif(not (dcmtk("storescu") and shutil.which("openssl")), reason="needs DCMTK and openssl")
def test_peers_are_measured_by_tls_and_the_absent_is_named(tmp_path: Path) -> None:
    """Node, storescp and Orthanc with certificates of both sides; pynetdicom's program has no TLS."""
    peers: list[tuple[Receiver, ...]] = [PEERS["storescp"], PEERS["orthanc"], PEERS["pynetdicom"]]
    cell = Cell(material.small(8), Place("disk", tmp_path), 2, tls=True)

    (measured,) = measure([cell], peers, Effort(2, 60.0), certificates.made(tmp_path), lambda line: None)

    names = [run.receiver.removesuffix(" +B") for run in measured.runs]
    assert {"node", "storescp"} <= set(names)
    assert 2 == names.count("storescp")  # of the faster of its two ways
    assert "pynetdicom's storescp has no TLS" in measured.absent
