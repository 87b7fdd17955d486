"""The threads that perform work items: one for each worklist manager, beside the ticker.

A manager, or a PACS it sends the node to, that hangs delays neither the ticker nor other managers.
"""

from __future__ import annotations

import threading
import time

from dicom_node import log
from dicom_node.config import Worklist
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError
from dicom_node.node.build import Node
from dicom_node.node.performer import Performer, manager_of, managers, sought
from dicom_node.worklist.item import fits

LOOK_EVERY_S = 0.5
"""Pause between two turns; how often a manager is asked, `poll_s` says."""


class Performers:
    """`start` and `stop` by the thread that owns it. Mutable, under the lock: `_whole`."""

    def __init__(self, node: Node) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._whole: dict[UID, int] = {}
        self._threads = [
            threading.Thread(
                target=self._run, name=f"worklist-{peer.name}", daemon=True,
                args=(
                    Performer(
                        node, peer, manager_of(node.config, peer), self._stop.is_set, self._images_here
                    ),
                ),
            )
            for peer in managers(node)
        ]  # fmt: skip

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def whole(self, study_uid: UID) -> int:
        """How often all that a work item names of a study was here: a reason to judge the study anew."""
        with self._lock:
            return self._whole.get(study_uid, 0)

    def _images_here(self, study_uid: UID) -> None:
        with self._lock:
            self._whole[study_uid] = self._whole.get(study_uid, 0) + 1

    def stop(self, grace_s: float = 1.0) -> None:
        """A thread that waits for a peer is left to end with the process: its next step is in the ledger."""
        self._stop.set()
        until = time.monotonic() + grace_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _run(self, performer: Performer) -> None:
        while not self._stop.is_set():
            try:
                performer.turn()
            except DicomNodeError as error:
                log.problem("worklist.trouble", error=type(error).__name__, why=str(error))
                self._stop.wait(1.0)
            except Exception as error:  # noqa: BLE001 - the edge: the thread has other items to perform
                log.problem("worklist.trouble", error=type(error).__name__, why="unforeseen")
                self._stop.wait(1.0)
            self._stop.wait(LOOK_EVERY_S)


def answers(node: Node, worklist: Worklist) -> str:
    """A line of `dicom-node check`; nothing is claimed. Raises PeerUnreachable or PeerRefused."""
    peer = node.config.peers[worklist.peer]
    wanted = sought(worklist)
    found = manager_of(node.config, peer).search(wanted)
    waiting = sum(fits(item, wanted) for item in found)
    way = "UPS-RS" if peer.url else "UPS Pull"
    return f"answers by {way}; {waiting} item(s) wait with {worklist.workitem} for {worklist.pipeline}"
