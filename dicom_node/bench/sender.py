"""The scanner: one process per association, all started at once, each with its share of the files.

DCMTK's storescu where it is installed, else the plain SCU of `scu`: the same one against every receiver.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dicom_node.bench.certificates import Certificates
from dicom_node.bench.material import Material
from dicom_node.bench.receivers import CALLED, CALLING, PDU_BYTES, dcmtk
from dicom_node.demo.loopback import environment
from dicom_node.errors import DicomNodeError

_LIMIT_S = 900.0


def shares(parts: Sequence[Path], associations: int) -> list[list[Path]]:
    """The folders of each association; none is empty, as long as there are folders enough."""
    return [list(parts[number::associations]) for number in range(min(associations, len(parts)))]


def send(material: Material, port: int, associations: int, certificates: Certificates | None) -> float:
    """Seconds from the start of the first sender to the end of the last. Raises DicomNodeError.

    Our own SCU is a Python program whose start takes longer than many a case: it counts from where all
    of them have loaded.
    """
    commands = [
        _command(material, port, share, certificates) for share in shares(material.parts, associations)
    ]
    processes: list[subprocess.Popen[str]] = []
    began = time.perf_counter()
    try:
        for command in commands:
            processes.append(_started(command))
        if dcmtk("storescu") is None:
            began = _let_go(processes)
        said = [process.communicate(timeout=_LIMIT_S)[1] for process in processes]
        seconds = time.perf_counter() - began
    except subprocess.TimeoutExpired as error:
        raise DicomNodeError(f"the sender did not end within {_LIMIT_S:.0f} s") from error
    finally:
        for process in processes:
            _ended(process)
    for process, text in zip(processes, said, strict=True):
        if process.returncode != 0:
            raise DicomNodeError(f"the sender ended with {process.returncode}: {text.strip()[-300:]}")
    return seconds


def _let_go(processes: Sequence[subprocess.Popen[str]]) -> float:
    """Wait until each says that it has loaded, then let them begin: when that was."""
    for process in processes:
        if process.stdout is not None:
            process.stdout.readline()
    began = time.perf_counter()
    for process in processes:
        if process.stdin is not None:
            process.stdin.write("go\n")
            process.stdin.flush()
    return began


def _ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _started(command: list[str]) -> subprocess.Popen[str]:
    surroundings = environment() | {"TCP_NODELAY": "1"}  # else DCMTK waits for delayed acknowledgements
    return subprocess.Popen(  # noqa: S603 - DCMTK's storescu, or our own
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=surroundings,
    )  # fmt: skip


def name() -> str:
    """Of the sending program, for the table."""
    return "DCMTK's `storescu`" if dcmtk("storescu") else "this program's own SCU (there is no DCMTK)"


def _command(material: Material, port: int, share: list[Path], tls: Certificates | None) -> list[str]:
    folders = [str(folder) for folder in share]
    secrets = [str(tls.sender.private_key), str(tls.sender.certificate)] if tls else []
    trusted = [str(tls.receiver.certificate)] if tls else []
    program = dcmtk("storescu")
    if program is None:
        secure = ["--tls", *secrets, *trusted] if tls else []
        return [sys.executable, "-m", "dicom_node.bench.scu", str(port), *folders, *secure]
    secure = ["+tls", *secrets, "+cf", *trusted] if tls else []
    # A class that is not among those proposed by default is looked up in the file first.
    proposal = ["-xy", "-R"] if material.case.is_slide else []
    return [
        program, "-aet", CALLING, "-aec", CALLED, "--max-pdu", str(PDU_BYTES), "--max-send-pdu",
        str(PDU_BYTES), *proposal, *secure, "+sd", "127.0.0.1", str(port), *folders,
    ]  # fmt: skip
