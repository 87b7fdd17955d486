"""The four transactions: `Receive` is T1, a `Step` one of T2 to T4.

child      arms the shim, works, says when it is done; on the way it may die at any call. With faults it
           goes on after an error, heals when told, works again, and comes to a good end
converse   the parent's side of it, which hears what was promised and outlives it
again      after a crash, where nothing happens any more: the start of the node, and the work once more
resend     the parent's side of that; looks right after the start
look       what is lost; finished: what is wrong when all was done again
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crash.area import Link
from crash.books import disagreements, kept, missing, rows, unaccounted
from crash.material import STORED, Item, Sending, after_file_meta
from crash.node import opened, receiver, started
from crash.wire import Gone, Peer, Sender, in_step
from dicom_node.config import Config
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind
from dicom_node.errors import DicomNodeError, OutOfStorage
from dicom_node.node import flow
from dicom_node.node.build import Node
from dicom_node.node.sandbox import OnProgress, Order, Outcome, ResultFile
from dicom_node.node.worker import Worker
from dicom_node.store.database import migrate
from support.results import result_file
from support.scripted_scp import RESULT_CLASSES

Heal = Callable[[], None]
"""Ends an injected fault."""


@dataclass
class Promises:
    """What the node said so far. Mutable; kept by the parent, who survives."""

    acknowledged: list[Item] = field(default_factory=list)
    said_done: bool = False
    wrong: list[str] = field(default_factory=list)
    """Answers that no healthy node gives."""


# ---- T1 ----------------------------------------------------------------------------------


@dataclass
class Receive:
    """The receiver on its socket, a modality on the other side."""

    sending: Sending
    name: str = "receive"
    from_nothing: bool = False
    """Whether the folder is empty, so that the first start of a node is part of it."""

    def child(self, config: Config, link: Link, arm: Callable[[], None], heal: Heal, faults: bool) -> None:
        if not faults:
            arm()
        node = opened(config)
        if self.from_nothing:
            migrate(node.engine)
        scp = receiver(node)
        scp.start()
        if faults:
            arm()
        link.tell(str(scp.port))
        while (word := link.hear()) == "heal":
            heal()
            link.tell("healed")
        assert word == "stop", word
        scp.stop(5.0)
        node.engine.dispose()

    def converse(self, link: Link, promises: Promises) -> None:
        if not (port := link.hear()):
            return
        try:
            self._send(int(port), self.sending, promises)
        except Gone:
            link.tell("heal")
            if link.hear() != "healed":
                return  # it is dead
        link.tell("heal")
        if link.hear() == "healed":
            try:
                self._resend(int(port), promises)
            except Gone:
                promises.wrong.append("no service after the fault was over")
            link.tell("stop")

    def again(self, config: Config, link: Link) -> None:
        node = started(config)
        scp = receiver(node)
        scp.start()
        link.tell(str(scp.port))
        link.hear()
        scp.stop(0.0)
        node.engine.dispose()

    def look(self, folder: Path, promises: Promises) -> list[str]:
        return missing(folder, promises.acknowledged) + disagreements(folder)

    def finished(self, folder: Path, promises: Promises) -> list[str]:
        return (
            promises.wrong + missing(folder, self.sending.items) + disagreements(folder) + unaccounted(folder)
        )

    def resend(self, link: Link, promises: Promises, look: Callable[[], list[str]]) -> list[str]:
        """The parent's side of `again`; `look` is asked when the node has started."""
        port = link.hear()
        if not port:
            return ["the node does not start again"]
        lost = look()
        try:
            self._resend(int(port), promises)
        except Gone:
            lost.append("no service after the start")
        link.tell("stop")
        return lost

    def _resend(self, port: int, promises: Promises) -> None:
        left = [item for item in self.sending.items if item not in promises.acknowledged]
        if not left:
            return
        sender = Sender(port)
        try:
            sender.accepted()
            for item in left:
                sender.store(item)
                status = sender.answer()
                if status != item.status:
                    promises.wrong.append(f"0x{status:04X} instead of 0x{item.status:04X} when sent again")
        finally:
            sender.release()

    def _send(self, port: int, sending: Sending, promises: Promises) -> None:
        senders: list[Sender] = []

        def told(item: Item, status: int) -> None:
            if status == item.status:
                promises.acknowledged.append(item)
            elif status == STORED or not (status & 0xFF00 in (0xA700, 0x0100) or status >> 12 == 0xC):
                promises.wrong.append(f"0x{status:04X} instead of 0x{item.status:04X}")

        try:
            for _ in sending.associations:
                senders.append(Sender(port))
            for sender in senders:
                sender.accepted()
            for step in sending.steps:
                in_step(senders, step, told)
        finally:
            for sender in senders:
                sender.release()


# ---- T2 to T4: a step of the node, nobody on the other side but the destination ------------


@dataclass
class Step:
    """One step that says `done` when it returned, and is safe to be repeated."""

    name: str
    step: Callable[[Node], None]
    durable: Callable[[Path], list[str]]
    """What is wrong where the step said that it was done."""
    consistent: Callable[[Path], list[str]]
    """What is wrong at any time."""
    peer: Peer | None = None

    def child(self, config: Config, link: Link, arm: Callable[[], None], heal: Heal, faults: bool) -> None:
        arm()
        try:
            node = opened(config)
            self.step(node)
        except DicomNodeError:
            if not faults:
                raise
        else:
            link.tell("done" if not self.durable(config.node.data_dir) or not faults else "not done")
        if faults:
            heal()
            node = started(config)
            self.step(node)
            link.tell("done")
        node.engine.dispose()

    def converse(self, link: Link, promises: Promises) -> None:
        while True:
            if self.peer is not None:
                self.peer.serve(link.reads)
            word = link.hear()
            if not word:
                return
            promises.said_done |= word == "done"

    def again(self, config: Config, link: Link) -> None:
        node = started(config)
        link.tell("started")
        link.hear()
        self.step(node)
        node.engine.dispose()

    def resend(self, link: Link, promises: Promises, look: Callable[[], list[str]]) -> list[str]:
        if not link.hear():
            return ["the node does not start again"]
        lost = look()
        link.tell("go")
        if self.peer is not None:
            self.peer.serve(link.reads)
        return lost

    def look(self, folder: Path, promises: Promises) -> list[str]:
        said = self.durable(folder) if promises.said_done else []
        return said + self.consistent(folder) + disagreements(folder)

    def finished(self, folder: Path, promises: Promises) -> list[str]:
        return self.look(folder, Promises(said_done=True)) + unaccounted(folder)


def assemble(node: Node) -> None:
    """T2: headers, then the study's next revision with its jobs."""
    while flow.read_headers(node):
        pass
    for pending in node.catalog.pending():
        flow.assemble_and_route(node, pending, quiet_s=3600.0)


def assembled(instances: int) -> Callable[[Path], list[str]]:
    def wrong(folder: Path) -> list[str]:
        revisions = rows(folder, "SELECT revision, instances FROM revisions")
        taken = rows(folder, "SELECT revision, count(*) FROM instances GROUP BY revision")
        jobs = rows(folder, "SELECT revision, pipeline, count(*) FROM jobs GROUP BY revision, pipeline")
        expected = ([(1, instances)], [(1, instances)], [(1, "answers", 1)])
        found = (revisions, taken, jobs)
        return [] if expected == found else [f"T2: {found} instead of {expected}"]

    return wrong


def assembled_wholly_or_not(instances: int) -> Callable[[Path], list[str]]:
    whole = assembled(instances)

    def wrong(folder: Path) -> list[str]:
        begun = [table for table in ("revisions", "jobs") if rows(folder, f"SELECT 1 FROM {table}")]  # noqa: S608
        return whole(folder) if begun else []

    return wrong


KINDS = ("sr", "sc")


class MadeBefore:
    """In the sandbox's place: the results are there, so that only what happens to them takes time."""

    pid = 1

    def run(self, order: Order, on_progress: OnProgress) -> Outcome:
        on_progress(0.5, "infer")
        try:
            made = tuple(self._made(kind, order.folder) for kind in KINDS)
        except OSError as error:  # in a sandbox, and the worker hears of it
            raise OutOfStorage from error
        return Outcome(made, {"infer": 0.1}, 1.0)

    def _made(self, kind: str, folder: Path) -> ResultFile:
        path = folder / f"{kind}.dcm"
        path.write_bytes(result_file(kind, padding_bytes=6000))
        instance, series = result_uids(kind)
        return ResultFile(ResultKind(kind), UID(RESULT_CLASSES[kind]), instance, series, path)


def result_uids(kind: str) -> tuple[UID, UID]:
    """Instance and series."""
    return derived_uid("test result", "study", kind, 0), derived_uid("test series", "study", kind)


def commit_results(node: Node) -> None:
    """T3: claim, heartbeat, files into the archive, results with deliveries."""
    worker = Worker(node, threading.Event())
    while worker.work_once(MadeBefore()):  # type: ignore[arg-type]
        pass


def results_are_whole(folder: Path) -> list[str]:
    jobs = rows(folder, "SELECT state FROM jobs")
    made = rows(folder, "SELECT kind, sop_instance_uid FROM results ORDER BY kind DESC")
    due = rows(folder, "SELECT count(*) FROM deliveries")
    expected = ([("COMPLETED",)], [(kind, str(result_uids(kind)[0])) for kind in KINDS], [(len(KINDS),)])
    found = (jobs, made, due)
    return [] if expected == found else [f"T3: {found} instead of {expected}"]


def results_wholly_or_not(folder: Path) -> list[str]:
    done = rows(folder, "SELECT 1 FROM jobs WHERE state = 'COMPLETED' UNION SELECT 1 FROM results")
    return results_are_whole(folder) if done else []


def deliver(node: Node) -> None:
    """T4: an association with the destination, each object with its answer."""
    flow.deliver(node).deliver_due()


def delivered(folder: Path) -> list[str]:
    states = rows(folder, "SELECT state, status FROM deliveries")
    expected = [("COMPLETED", 0)] * len(KINDS)
    return [] if expected == states else [f"T4: {states} instead of {expected}"]


def as_the_peer_has_it(peer: Peer) -> Callable[[Path], list[str]]:
    """What counts as delivered was acknowledged; whatever was sent, however often, is the stored object."""

    def wrong(folder: Path) -> list[str]:
        stored = {
            uid: after_file_meta(kept(folder, digest) or bytes(144))
            if kept(folder, digest) else b""
            for uid, digest in rows(folder, "SELECT sop_instance_uid, digest FROM results")
        }  # fmt: skip
        done = rows(
            folder,
            "SELECT sop_instance_uid FROM deliveries JOIN results ON results.id = result_id"
            " WHERE deliveries.state = 'COMPLETED'",
        )
        has = {uid for uid, _ in peer.acknowledged}
        said = [f"T4: {uid} counts as delivered, and was not" for (uid,) in done if uid not in has]
        return said + [
            f"T4: {uid} was sent otherwise" for uid, data in peer.acknowledged if stored.get(uid) != data
        ]

    return wrong
