"""The scanner: one process per association, all started at once, each with its share of the files.

DCMTK's storescu, the same one against every receiver.
"""

from __future__ import annotations

import subprocess
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
    """Seconds from the start of the first sender to the end of the last. Raises DicomNodeError."""
    commands = [
        _command(material, port, share, certificates) for share in shares(material.parts, associations)
    ]
    processes: list[subprocess.Popen[str]] = []
    began = time.perf_counter()
    try:
        for command in commands:
            processes.append(_started(command))
        said = [process.communicate(timeout=_LIMIT_S)[1] for process in processes]
    except subprocess.TimeoutExpired as error:
        raise DicomNodeError(f"storescu did not end within {_LIMIT_S:.0f} s") from error
    finally:
        for process in processes:
            with suppress(OSError):
                process.kill()
            process.wait()
    seconds = time.perf_counter() - began
    for process, text in zip(processes, said, strict=True):
        if process.returncode != 0:
            raise DicomNodeError(f"storescu ended with {process.returncode}: {text.strip()[-300:]}")
    return seconds


def _started(command: list[str]) -> subprocess.Popen[str]:
    surroundings = environment() | {"TCP_NODELAY": "1"}  # else DCMTK waits for delayed acknowledgements
    return subprocess.Popen(  # noqa: S603 - DCMTK's storescu
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, env=surroundings,
    )  # fmt: skip


def _command(material: Material, port: int, share: list[Path], tls: Certificates | None) -> list[str]:
    secure = [
        "+tls", str(tls.sender.private_key), str(tls.sender.certificate),
        "+cf", str(tls.receiver.certificate),
    ] if tls else []  # fmt: skip
    # A class that is not among those proposed by default is looked up in the file first.
    proposal = ["-xy", "-R"] if material.case.is_slide else []
    return [
        dcmtk("storescu") or "storescu", "-aet", CALLING, "-aec", CALLED, "--max-pdu", str(PDU_BYTES),
        "--max-send-pdu", str(PDU_BYTES), *proposal, *secure, "+sd", "127.0.0.1", str(port),
        *(str(folder) for folder in share),
    ]  # fmt: skip
