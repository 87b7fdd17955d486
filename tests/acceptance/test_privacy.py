"""No patient in the log, the metrics, file names, command lines or the environment; proved with canaries.

A study with a canary in every text attribute goes through a real `serve`, and so do all the ways in
which something goes wrong with a text in hand: refused strangers, broken and contradicting objects,
pipelines that print, warn, log and fail with the patient's name, a PACS that quotes it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from dicom_node.audit.chain import verify
from dicom_node.audit.report import rows
from support import mr
from support.canaries import Canaries, decoded, every_file, planted_series
from support.ports import end, free_port, wait_until
from support.scripted_scp import ScriptedScp
from support.scu import associated, data_set_bytes
from support.served import PROGRAM
from support.storescu import storescu
from support.stowing import body, content_type

TOKEN = "0123456789abcdef0123456789abcdef"

PIPELINE = """
import logging, os, sys, warnings
from dicom_node.pipeline import (
    Certainty, Code, Findings, IntendedUse, Level, OperatingPoint, PipelineError, Verdict,
)

NEOPLASM, UTERUS = Code("108369006", "SCT", "Neoplasm"), Code("35039007", "SCT", "Uterus")
SARCOMA, MYOMA = Code("254877001", "SCT", "Sarcoma of uterus"), Code("95315005", "SCT", "Uterine leiomyoma")

class _Toy:
    version, level, needs, models = "1.0.0", Level.STUDY, (), ()
    intended_use = IntendedUse(modalities=frozenset({{"MR"}}))

class Talks(_Toy):
    "Says the patient's name in every way there is, and answers."
    name, title = "talks", "Toy that talks"
    def run(self, case):
        print("{printed}", flush=True)
        sys.stderr.write("{printed}\\n")
        os.write(1, b"{written}\\n")
        os.write(2, b"{written}\\n")
        warnings.warn("{warned}")
        for name in ("pydicom", "highdicom", "sqlalchemy.engine", "monai", "pynetdicom.acse", "anything", ""):
            logging.getLogger(name).critical("%s", "{logged}")
        try:
            raise ValueError("{logged}")
        except ValueError:
            logging.exception("{logged}")
        case.progress(0.5, "{step}")
        point = OperatingPoint(threshold=0.5, low=0.4, high=0.6, chosen_on="nothing; a toy")
        verdict = Verdict(
            finding=NEOPLASM, site=UTERUS, diagnosis=SARCOMA, certainty=Certainty.POSITIVE, probability=0.75,
            positive_class=SARCOMA, negative_class=MYOMA, operating_point=point, statement="{said}",
        )
        return Findings(algorithms=(), verdict=verdict, seconds={{}})

class Raises(_Toy):
    "Fails as libraries do: with a text that quotes."
    name, title = "raises", "Toy that raises"
    def run(self, case):
        raise ValueError("{raised}")

class Declines(_Toy):
    "Fails with a sentence of its own that quotes."
    name, title = "declines", "Toy that declines"
    def run(self, case):
        raise PipelineError("{declined}")
"""

CONFIG = """
[node]
data_dir = "var"
pipelines_dir = "pipelines"
[receive]
port = {port}
settle_s = 0.2
stable_after_s = 0.5
reserve_mb = 64
unwanted = "store"
[http]
port = {http_port}
[infer]
device = "cpu"
retry_after_s = 0.1
max_attempts = 1
[deliver]
timeout_s = 5
retry_after_s = 0.5
[[peer]]
name = "scanner"
ae_title = "STORESCU"
host = "127.0.0.1"
token_file = "{token}"
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
[[peer]]
name = "grumpy"
ae_title = "PACS"
host = "127.0.0.1"
port = {grumpy_port}
"""
ROUTE = '[[route]]\npipeline = "{}"\nfrom = ["scanner"]\nto = ["pacs", "grumpy"]\nintended_use = "warn"\n'


@dataclass
class House:
    """A node, what it said, and the canaries sent to it.

    Mutable: `spoken`, what was read from outside; `patient_id`, that of the study that is whole.
    """

    folder: Path
    port: int
    http_port: int
    canaries: Canaries
    process: subprocess.Popen[bytes]
    spoken: dict[str, bytes] = field(default_factory=dict)
    patient_id: str = ""

    @property
    def data(self) -> Path:
        return self.folder / "var"

    def jobs(self) -> list[dict[str, object]]:
        command = [str(PROGRAM), "jobs", "--json", "--config", str(self.folder / "node.toml")]
        return list(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout))

    def listen(self) -> None:
        """Read all that may be seen from outside while it runs."""
        for page in ("metrics", "health", "ready"):
            self.spoken[page] = httpx.get(f"http://127.0.0.1:{self.http_port}/{page}", timeout=20).content
        supervisor = psutil.Process(self.process.pid)
        for process in [supervisor, *supervisor.children(recursive=True)]:
            for name in ("cmdline", "environ", "limits", "status"):
                self.spoken[f"{name} of {process.pid}"] = Path(f"/proc/{process.pid}/{name}").read_bytes()
        self.spoken["names"] = "\n".join(str(path) for path in self.data.rglob("*")).encode()


@contextmanager
def house(folder: Path, canaries: Canaries, pacs: int, grumpy: int) -> Iterator[House]:
    """A node with the umask of a careless start, and every warning shown."""
    words = ("printed", "written", "warned", "logged", "step", "said", "raised", "declined")
    (folder / "pipelines").mkdir()
    source = PIPELINE.format(**{word: canaries.word() for word in words})
    (folder / "pipelines" / "talkative.py").write_text(source, encoding="utf-8")
    (folder / "token").write_text(TOKEN, encoding="ascii")
    port, http_port = free_port(), free_port()
    text = CONFIG.format(
        port=port, http_port=http_port, pacs_port=pacs, grumpy_port=grumpy, token=folder / "token"
    ) + "".join(ROUTE.format(name) for name in ("talks", "raises", "declines"))
    (folder / "node.toml").write_text(text, encoding="utf-8")
    assert tomllib.loads(text)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PROGRAM), "serve", "--config", str(folder / "node.toml")],
            stdout=subprocess.PIPE, stderr=log, umask=0o000, env=os.environ | {"PYTHONWARNINGS": "always"},
        )  # fmt: skip
    assert process.stdout is not None
    try:
        assert b"ready\n" == process.stdout.readline()
        yield House(folder, port, http_port, canaries, process)
    finally:
        end(process, grace_s=30.0)
        process.stdout.close()


def send_all(house: House, folder: Path) -> list[int | None]:
    """The study, and everything that is wrong with something. The answers to what is wrong."""
    canaries = house.canaries
    series = planted_series(mr.mr_series(slices=4), canaries)
    house.patient_id = str(series[0].PatientID)
    sent = storescu_folder(series, folder / "good")
    assert 4 == len(storescu(sent, house.port).acknowledged)

    storescu(sent, house.port, calling=canaries.word(), called=canaries.word())  # rejected: a stranger
    for image in planted_series(mr.mr_series(slices=2, study="spoilt"), canaries):
        with associated(house.port, calling="STORESCU") as scu:
            assert 0 == scu.store_bytes(canaries.spoilt(data_set_bytes(image)), image.SOPInstanceUID)

    one, conflict = series[0], deepcopy(series[0])
    conflict.PatientComments = canaries.of("LT")
    nameless, pathlike, foreign = deepcopy(one), deepcopy(one), deepcopy(one)
    nameless.StudyInstanceUID = canaries.word()
    pathlike.SeriesInstanceUID = f"../../{canaries.word()}"
    foreign.SOPInstanceUID = canaries.of("UI")
    whole = data_set_bytes(foreign)
    answers: list[int | None] = []
    for content, uid in (
        (data_set_bytes(conflict), one.SOPInstanceUID),  # same UID, other bytes
        (data_set_bytes(nameless), "2.25.1001"),
        (data_set_bytes(pathlike), "2.25.1002"),
        (whole, "2.25.1003"),  # not the instance the request announced
        (whole[: len(whole) // 2], foreign.SOPInstanceUID),  # ends within a value
        (whole[:3000] + canaries.word().encode() * 200 + whole[3000:], foreign.SOPInstanceUID),
        (canaries.word().encode() * 500, "2.25.1004"),
        (whole, canaries.word()),  # a request whose UID is none
        (whole, f"../../../{canaries.word()}"),
    ):
        with associated(house.port, calling="STORESCU") as scu:
            answers.append(scu.store_bytes(content, str(uid)))
    return answers


def storescu_folder(series: list, folder: Path) -> Path:
    mr.write(series, folder)
    return folder


def stow_all(house: House) -> list[int]:
    """STOW-RS: canaries in the path, the query, header fields, file names, file meta, and broken parts."""
    canaries = house.canaries
    ds = planted_series(mr.mr_series(slices=1, study="stowed"), canaries)[0]
    file = mr.file_bytes(ds)
    spoken = {"Authorization": f"Bearer {TOKEN}", "User-Agent": canaries.word(), "X-Patient": canaries.word()}
    wrong = {**spoken, "Authorization": f"Bearer {canaries.word()}{'0' * 40}"}
    base = f"http://127.0.0.1:{house.http_port}"
    codes = []
    with httpx.Client(base_url=base, timeout=60, trust_env=False) as client:
        for path, content, headers in (
            ("/studies", body([file]), spoken),
            ("/studies", body([file]), wrong),
            (f"/studies/{canaries.word()}", body([file]), spoken),
            (f"/studies?PatientName={canaries.word()}", body([file[: len(file) // 2], b"DICM"]), spoken),
            (f"/{canaries.word()}/{canaries.word()}", b"", spoken),
            (
                "/studies",
                body([file]).replace(
                    b"Content-Type", b"Content-Location: " + canaries.word().encode() + b"\r\nContent-Type", 1
                ),
                spoken,
            ),
        ):
            codes.append(
                client.post(path, content=content, headers={**content_type(), **headers}).status_code
            )
    return codes


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")  # of the spoilt data sets made here
def test_no_canary_gets_out(tmp_path: Path) -> None:
    """Zero hits outside archive, ledger and audit trail; and in those, the same canaries are found."""
    canaries = Canaries()
    with (
        ScriptedScp() as pacs,
        ScriptedScp(otherwise=0xA900, comment=f"PatientID {canaries.word()}") as grumpy,
        house(tmp_path, canaries, pacs.port, grumpy.port) as node,
    ):
        answers = send_all(node, tmp_path / "images")
        codes = stow_all(node)
        wait_until(lambda: all_ended(node), 90.0, lambda: (tmp_path / "log").read_text()[-3000:])
        node.listen()
    log = (tmp_path / "log").read_bytes()

    assert None not in answers
    assert 1 >= answers.count(0)  # one that ends within a value may be kept, and counted as unreadable
    assert {200, 401} <= set(codes)
    assert pacs.data_sets and grumpy.arrived
    node.spoken["log"] = decoded(log)
    assert {} == {place: hits for place, text in node.spoken.items() if (hits := canaries.hits(text))}
    check_the_controls(node, log)
    check_the_walls(node)


def all_ended(node: House) -> bool:
    jobs = node.jobs()
    waits = [job for job in jobs if job["state"] in ("SCHEDULED", "IN PROGRESS")]
    sent = [text for job in jobs for text in job["deliveries"]]  # type: ignore[attr-defined]
    return (
        len(jobs) >= 3
        and not waits
        and bool(sent)
        and not [t for t in sent if "SCHEDULED" in t or "IN PRO" in t]
    )


def check_the_controls(node: House, log: bytes) -> None:
    """What was sent did arrive, and went through all that might have told."""
    kept = b"".join(path.read_bytes() for path in every_file(node.data / "objects"))
    trail = rows(node.data / "audit")
    said = {json.loads(line)["event"] for line in log.splitlines() if line.startswith(b"{")}

    assert len(node.canaries.hits(kept)) > 0.7 * len(node.canaries.given)  # the rest is of what was refused
    assert node.patient_id in node.canaries.given
    for ways in ({"from": "scanner", "ok": True}, {"to": "pacs", "ok": True}, {"to": "grumpy", "ok": False}):
        assert node.patient_id in {row["patient"] for row in trail if ways.items() <= row.items()}
    for what in ("Application Start", "Application Stop"):
        parts = {row["from"] for row in trail if str(row["what"]).endswith(what)}
        assert {f"DICOMNODE {role}" for role in ("receive", "web", "tick", "work")} == parts
    assert "" == verify(node.data / "audit").broken
    assert {"job.failed", "job.completed", "deliver.failed", "deliver.done", "instance.refused"} <= said
    assert {"receive.rejected", "instance.conflict"} <= said


def check_the_walls(node: House) -> None:
    """Only the node's user may read its files; and nothing dumps a core."""
    open_ = {
        path.relative_to(node.data): oct(path.stat().st_mode)
        for path in (node.data, *node.data.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077
    }  # fmt: skip
    limits = [text for name, text in node.spoken.items() if name.startswith("limits")]

    assert {} == open_
    assert 5 <= len(limits)
    assert all(b"Max core file size        0                    0 " in text for text in limits)
