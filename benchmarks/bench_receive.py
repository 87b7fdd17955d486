"""How fast the receiver takes instances, and how much memory it needs for it.

    .venv/bin/python benchmarks/bench_receive.py [--tiny]

Starts the receiver process of a node on an empty folder, sends small instances and one large
one over loopback (T1 for each: fsync, rename, fsync, commit, answer), and prints rate, bytes
per second and the process's peak resident memory. Fails when the peak passes 150 MB.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from dicom_node.config import Config
from dicom_node.store.database import engine_for, migrate

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
LIMIT_MB = 150.0

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="20 instances and 20 MB, to see that it runs")
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--instance-kb", type=int, default=500)
    parser.add_argument("--large-mb", type=int, default=300)
    given = parser.parse_args()
    if given.tiny:
        given.instances, given.large_mb = 20, 20
    with tempfile.TemporaryDirectory(dir=".") as folder:
        peak_mb = run(Path(folder), given.instances, given.instance_kb, given.large_mb)
    print(f"peak memory of the receiver: {peak_mb:.0f} MB (limit {LIMIT_MB:.0f} MB)")
    return 0 if peak_mb < LIMIT_MB else 1


def run(folder: Path, instances: int, instance_kb: int, large_mb: int) -> float:
    port = free_port()
    peer = {"name": "scanner", "ae_title": "SCANNER", "host": "127.0.0.1"}
    config = Config.model_validate(
        {
            "node": {"data_dir": str(folder.resolve())},
            "receive": {"port": port, "reserve_mb": 0},
            "peer": [peer],
        }
    )
    engine = engine_for(config)
    migrate(engine)
    engine.dispose()
    receiver = subprocess.Popen(
        [sys.executable, "-m", "dicom_node.service", "receive"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert receiver.stdin and receiver.stdout
    try:
        receiver.stdin.write(config.model_dump_json(by_alias=True).encode() + b"\n")
        receiver.stdin.flush()
        assert receiver.stdout.readline() == b"ready\n"
        print(f"memory before the first association: {peak_mb_of(receiver.pid):.0f} MB")
        send(port, [instance_kb * 1000] * instances, f"{instances} instances of {instance_kb} kB")
        print(f"peak so far: {peak_mb_of(receiver.pid):.0f} MB")
        send(port, [large_mb * 1_000_000], f"one instance of {large_mb} MB")
        return peak_mb_of(receiver.pid)
    finally:
        receiver.terminate()
        receiver.wait(30)
        receiver.stdin.close()
        receiver.stdout.close()


def send(port: int, sizes: list[int], what: str) -> None:
    ae = AE(ae_title="SCANNER")
    ae.dimse_timeout = ae.network_timeout = 300
    ae.add_requested_context(MR_IMAGE, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="DICOMNODE", max_pdu=0)
    assert association.is_established
    context_id = association.accepted_contexts[0].context_id
    pixels = os.urandom(max(sizes))
    association._reactor_checkpoint.clear()
    started = time.perf_counter()
    for number, size in enumerate(sizes):
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = MR_IMAGE
        request.AffectedSOPInstanceUID = f"1.2.826.0.1.{len(sizes)}.{number}"
        request.DataSet = BytesIO(header(request.AffectedSOPInstanceUID, size) + pixels[:size])
        association.dimse.send_msg(request, context_id)
        _, answer = association.dimse.get_msg(block=True)
        assert answer is not None and answer.Status == 0x0000
    seconds = time.perf_counter() - started
    association._reactor_checkpoint.set()
    association.release()
    print(f"{what}: {len(sizes) / seconds:.1f} instances/s, {sum(sizes) / 1e6 / seconds:.0f} MB/s")


def header(instance: str, size: int) -> bytes:
    """Everything of a data set before its pixels' bytes, explicit VR little endian."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MR_IMAGE, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1", "1.2.826.0.1.1"
    ds.PatientName, ds.PatientID = "BENCH", "BENCH"
    encoded = encode(ds, False, True)
    assert encoded is not None
    return encoded + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, size)


def peak_mb_of(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
