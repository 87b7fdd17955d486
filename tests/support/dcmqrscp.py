"""DCMTK's dcmqrscp as an archive on loopback, filled by storescu."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from support import mr
from support.ports import end, free_port, listens, wait_until
from support.storescu import storescu

_CONFIG = """\
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ORTHANC {storage} RW (200, 1024mb) ANY
AETable END
"""


@contextmanager
def dcmqrscp(folder: Path, instances: Sequence[Dataset]) -> Iterator[int]:
    """The port of an archive called ORTHANC that holds `instances`."""
    program = shutil.which("dcmqrscp")
    if program is None:
        pytest.skip("dcmqrscp is not installed (Debian: apt install dcmtk)")
    port, storage, files = free_port(), folder / "storage", folder / "files"
    for made in (storage, files):
        made.mkdir(parents=True)
    (folder / "dcmqrscp.cfg").write_text(_CONFIG.format(port=port, storage=storage), encoding="ascii")
    for number, ds in enumerate(instances):
        (files / f"{number}.dcm").write_bytes(mr.file_bytes(ds))
    command = [program, "-c", str(folder / "dcmqrscp.cfg")]
    with (folder / "dcmqrscp.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 20.0, "dcmqrscp listens")
        sent = storescu(files, port, called="ORTHANC")
        assert (0, len(instances)) == (sent.code, len(sent.acknowledged)), sent.output
        yield port
    finally:
        end(process)
