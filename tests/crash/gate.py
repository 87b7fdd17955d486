"""The walk: one crash after the other, and after each the books.

For each crash point a child works on a fresh copy of a base until the shim ends it. Then:
    killed    the folder as the dead process left it: the node starts on it, and the work is done again
    power     the disk rebuilt with only what was fsynced, and likewise
    in between  the same with a random part of the rest
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from crash.area import Area, Child, Content, Link
from crash.disk import Op, as_found, read_journal
from crash.node import configured
from crash.shim import NEVER, Action, Shim
from crash.workloads import Promises, Receive, Step
from dicom_node.config import Config

Work = Receive | Step
SWEPT = ("unaccounted: spool/", "unaccounted: scratch/")
OVER = "over"
"""The helper's word for a folder that is done."""


@dataclass(frozen=True)
class Point:
    """What is done to the child, and where."""

    at: int
    action: Action
    error: int = 0

    @property
    def faults(self) -> bool:
        return self.action in (Action.FAIL, Action.FAIL_FROM)

    def __str__(self) -> str:
        error = f" {errno.errorcode[self.error]}" if self.error else ""
        return f"{self.action.name}{error} at {self.at}"


@dataclass
class Tally:
    """Counts and what was found. Mutable."""

    counts: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.losses += other.losses
        self.seconds += other.seconds


class Gate:
    """Walks crash points. One per process: it forks, so it has no threads."""

    def __init__(self, folder: Path, shim: Shim, port: int, peer_port: int) -> None:
        self._shim = shim
        self._log = folder / "child.log"
        self._folder = folder
        self._run, self._rebuilt = Area(folder / "run"), Area(folder / "rebuilt")
        self._port, self._peer_port = port, peer_port
        self._journal = os.open(folder / "journal", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._help: Child | None = None
        self._helper_log = folder / "helper.log"
        self.control: Callable[[], None] | None = None
        """Spoils the child, so that the gate has something to find."""

    def base(self, start: Content, work: Callable[[Link, Config], None]) -> Content:
        """What the folder holds after some work that nothing happens to."""
        self._run.fill(start)
        config = configured(self._run.folder, self._port, self._peer_port)
        child = Child(lambda link: work(link, config), self._log)
        code = child.wait()
        assert code == 0, self._log.read_text()
        return as_found(str(self._run.folder))

    def walk(
        self, work: Work, base: Content, action: Action, *, error: int = 0, first: int = 1, stride: int = 1,
        views: int = 1, seed: int = 0, at_most: int = 10**9,
    ) -> Tally:  # fmt: skip
        """Every `stride`-th crash point from `first` on, until the child comes to its end."""
        tally, at = Tally(), first
        began = time.monotonic()
        while at < first + stride * at_most:
            reached = self._case(work, base, Point(at, action, error), tally, views, seed)
            if not reached:
                break
            at += stride
        self._dismiss()
        tally.seconds = time.monotonic() - began
        return tally

    def _case(self, work: Work, base: Content, point: Point, tally: Tally, views: int, seed: int) -> bool:
        self._run.fill(base)
        disk = self._run.disk(base)
        promises = Promises()
        if isinstance(work, Step) and work.peer is not None:
            work.peer.forget()
        os.ftruncate(self._journal, 0)
        code = self._work(work, point, promises)
        entries = read_journal(os.pread(self._journal, os.fstat(self._journal).st_size, 0))
        disk.replay(entries)
        tally.counts["calls"] = max(tally.counts["calls"], len(entries))
        died = code == -9
        where = f"{work.name}, {point}"
        if not died and code != 0:
            tally.losses.append(f"{where}: ended with {code}: {self._last_words(self._log)}")
            return False
        reached = any(entry.op is Op.REACHED for entry in entries)
        if not died and not point.faults and point.at != NEVER:
            return reached  # amid a call that is no write nobody dies
        found = as_found(str(self._run.folder))
        self._compare(disk.now(), found, where)
        if point.faults:
            if not reached:
                return False
            lost = work.finished(self._run.folder, promises)
            # what could not be removed while the disk failed, the next start removes
            lost = [what for what in lost if not what.startswith(SWEPT)]
            tally.counts["faults"] += 1
            tally.losses += [f"{where}: {what}" for what in lost]
            tally.losses += self._judge(work, self._fresh(disk.durable()), promises, f"{where}, then power")
            tally.counts["power losses"] += 1
            return True
        tally.losses += self._judge(work, self._run, promises, f"{where}, killed")
        tally.counts["kills"] += 1
        dice = random.Random(f"{seed} {point.at}")
        for random_part in _views(views, dice):
            content = disk.some(dice) if random_part else disk.durable()
            kind = f"a part of the rest (seed {seed})" if random_part else "only what was fsynced"
            tally.losses += self._judge(work, self._fresh(content), promises, f"{where}, power, {kind}")
            tally.counts["power losses"] += 1
        return True

    def _work(self, work: Work, point: Point, promises: Promises) -> int:
        config = configured(self._run.folder, self._port, self._peer_port)

        def arm() -> None:
            self._shim.arm(self._run.folder, self._journal, point.at, point.action, point.error)

        def child(link: Link) -> None:
            if self.control is not None:
                self.control()
            work.child(config, link, arm, self._shim.heal, point.faults)

        forked = Child(child, self._log)
        work.converse(forked.link, promises)
        return forked.wait()

    def _fresh(self, content: Content) -> Area:
        self._rebuilt.fill({name: data for name, data in content.items() if not name.endswith("-shm")})
        return self._rebuilt

    def _judge(self, work: Work, area: Area, promises: Promises, where: str) -> list[str]:
        """Start on what is left, look, do the work again, look again."""
        again = Promises(list(promises.acknowledged), promises.said_done, list(promises.wrong))
        peer = work.peer if isinstance(work, Step) else None
        had = list(peer.acknowledged) if peer is not None else []
        link = self._helper(work).link
        link.tell(str(area.folder))
        lost = work.resend(link, again, lambda: work.look(area.folder, again))
        if link.hear() == OVER:
            lost += [what for what in work.finished(area.folder, again) if what not in lost]
        else:
            lost.append(f"the work cannot be done again: {self._last_words(self._helper_log)}")
            self._dismiss()
        if peer is not None:
            peer.acknowledged = had
        return [f"{where}: {what}" for what in lost]

    def _helper(self, work: Work) -> Child:
        """Does the work again after a crash. Nothing happens to it, so it serves for a whole walk."""
        if self._help is None:

            def serve(link: Link) -> None:
                while folder := link.hear():
                    work.again(configured(Path(folder), self._port, self._peer_port), link)
                    link.tell(OVER)

            self._help = Child(serve, self._helper_log)
        return self._help

    def _dismiss(self) -> None:
        if self._help is not None:
            self._help.wait()
            self._help = None

    def _compare(self, model: Content, found: Content, where: str) -> None:
        """The journal missed nothing: replayed, it gives the folder. The -shm is written through a map."""
        differ = sorted(
            name for name in model.keys() | found.keys()
            if model.get(name) != found.get(name) and not name.endswith("-shm")
        )  # fmt: skip
        assert not differ, f"{where}: the journal does not explain {differ}"

    def _last_words(self, log: Path) -> str:
        return " ".join(log.read_text(errors="replace").split())[-400:]


def _views(views: int, dice: random.Random) -> tuple[bool, ...]:
    """Whether a random part of what was not fsynced survives: both, or at one point in three."""
    return (False, True) if views == 2 else (dice.random() < 1 / 3,)
