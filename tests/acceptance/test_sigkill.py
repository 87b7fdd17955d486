"""SIGKILL at random moments: nothing acknowledged is lost, no result is duplicated."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections import Counter
from pathlib import Path

import psutil
import pytest
from blake3 import blake3
from pydicom import dcmread

from support.orthanc import Orthanc
from support.ports import wait_until
from support.served import ServedNode
from support.storescu import storescu

KILLS = 50
LONGEST_GAP_S = 3.0
RESULTS_WITHIN_S = 420.0


class Scanner(threading.Thread):
    """Sends the study over and over, as a modality that repeats what failed, and keeps every success."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(daemon=True)
        self._folder, self._port = folder, port
        self.acknowledged: set[Path] = set()
        self.enough = threading.Event()

    def run(self) -> None:
        complete = False
        while not (self.enough.is_set() and complete):
            sent = storescu(self._folder, self._port)
            self.acknowledged |= sent.acknowledged
            complete = sent.code == 0
            if not complete:
                self.enough.wait(0.2)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_fifty_random_kills_lose_no_acknowledged_instance_and_duplicate_no_result(
    prostatex: Path, pacs: Orthanc, node: ServedNode
) -> None:
    """Receiver, ticker, worker, sandbox or supervisor dies at a random moment, fifty times, while a study
    comes in and its results go out."""
    seed = int(os.environ.get("DICOM_NODE_KILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"DICOM_NODE_KILL_SEED={seed}")
    scanner = Scanner(prostatex, node.port)
    scanner.start()

    killed = kill_at_random(node, random.Random(seed))
    print(f"killed: {dict(killed)}")
    scanner.enough.set()
    scanner.join(300)
    assert not scanner.is_alive(), "the scanner could not send the study after the kills"
    wait_until(node.idle, RESULTS_WITHIN_S, lambda: f"results (seed {seed}); log ends\n{node.log_tail()}")

    assert KILLS == sum(killed.values()), killed
    images = {path for path in prostatex.rglob("*") if path.is_file()}
    assert images == scanner.acknowledged
    assert [] == lost(node, scanner.acknowledged)
    assert [] == unfinished(node)
    kinds = node.rows("SELECT job_id, kind, count(*) FROM results GROUP BY job_id, kind HAVING count(*) <> 1")
    assert [] == kinds
    # Where a kill made the study come in two parts, the second result replaces a first: "reject".
    last = node.rows(
        "SELECT kind FROM results WHERE superseded_at IS NULL AND kind <> 'reject' ORDER BY kind"
    )
    assert [(kind,) for kind in ("gsps", "kos", "pm", "roi", "sc", "seg", "sr")] == last
    delivered = node.rows(
        "SELECT sop_instance_uid FROM results JOIN deliveries ON result_id = results.id"
        " WHERE deliveries.state = 'COMPLETED' ORDER BY 1"
    )
    assert sorted(uid for (uid,) in delivered) == pacs.sop_instances()


def kill_at_random(node: ServedNode, dice: random.Random) -> Counter[str]:
    """KILLS processes of the node's tree; the supervisor is started again, the rest it does itself."""
    killed: Counter[str] = Counter()
    rest = threading.Event()
    while sum(killed.values()) < KILLS:
        rest.wait(dice.uniform(0.05, LONGEST_GAP_S))  # the random moment itself, not a wait for a state
        tree = node.tree()
        victim = dice.choice(tree)
        with contextlib.suppress(psutil.NoSuchProcess):
            role = _role(victim)
            victim.kill()
            killed[role] += 1
        if tree and victim.pid == tree[0].pid:
            assert node.process is not None
            node.process.wait(10)
            psutil.wait_procs(tree[1:], timeout=20)
            node.start()
    return killed


def _role(process: psutil.Process) -> str:
    command = process.cmdline()
    return command[-1] if "dicom_node.service" in command else Path(command[0]).name if command else "?"


def lost(node: ServedNode, acknowledged: set[Path]) -> list[str]:
    """Acknowledged instances that are not in the archive, whole, with the pixels that were sent."""
    rows = node.rows("SELECT sop_instance_uid, digest FROM instances")
    digests = {str(uid): str(digest) for uid, digest in rows}
    objects = node.folder / "var" / "objects"
    missing = []
    for path in acknowledged:
        sent = dcmread(path)
        digest = digests.get(str(sent.SOPInstanceUID), "")
        kept = objects / digest[:2] / digest
        if not digest or not kept.is_file() or blake3(kept.read_bytes()).hexdigest() != digest:
            missing.append(path.name)
        elif dcmread(kept).PixelData != sent.PixelData:
            missing.append(f"{path.name}: other pixels")
    return missing


def unfinished(node: ServedNode) -> list[tuple[object, ...]]:
    """Jobs and deliveries that ended otherwise than done, or superseded before they ran."""
    return node.rows(
        "SELECT 'job', id, state, reason FROM jobs WHERE state NOT IN ('COMPLETED', 'CANCELED')"
        " UNION ALL SELECT 'delivery', id, state, reason FROM deliveries"
        " WHERE state NOT IN ('COMPLETED', 'CANCELED')"
    )
