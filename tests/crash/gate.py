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
from crash.disk import as_found, read_journal
from crash.node import configured
from crash.shim import NEVER, Action, Shim
from crash.workloads import Promises, Receive, Step

Work = Receive | Step


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
        self.control: Callable[[], None] | None = None
        """Spoils the child, so that the gate has something to find."""

    def base(self, start: Content, work: Callable[[Link, object], None]) -> Content:
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
        tally.seconds = time.monotonic() - began
        return tally

    def count(self, work: Work, base: Content) -> int:
        """Crash points of an undisturbed run; it must find nothing, and the model must be the folder."""
        tally = Tally()
        self._case(work, base, Point(NEVER, Action.KILL_BEFORE), tally, 1, 0)
        assert not tally.losses, tally.losses
        return tally.counts["calls"]

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
            tally.losses.append(f"{where}: ended with {code}: {self._last_words()}")
            return False
        if not died and not point.faults and point.at != NEVER:
            return False
        found = as_found(str(self._run.folder))
        self._compare(disk.now(), found, where)
        if point.faults:
            reached = len(entries) >= point.at
            lost = work.finished(self._run.folder, promises)
            # with a disk that fails for good a spool file cannot be removed; the next start does it
            lost = [what for what in lost if not what.startswith("unaccounted: spool/")]
            tally.counts["faults"] += 1
            tally.losses += [f"{where}: {what}" for what in lost]
            tally.losses += self._judge(work, self._fresh(disk.durable()), promises, f"{where}, then power")
            tally.counts["power losses"] += 1
            return reached
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
        config = configured(area.folder, self._port, self._peer_port)
        again = Promises(list(promises.acknowledged), promises.said_done, list(promises.wrong))
        peer = work.peer if isinstance(work, Step) else None
        had = list(peer.acknowledged) if peer is not None else []
        forked = Child(lambda link: work.again(config, link), self._log)
        lost = work.resend(forked.link, again, lambda: work.look(area.folder, again))
        code = forked.wait()
        if code != 0:
            lost.append(f"the work cannot be done again ({code}): {self._last_words()}")
        else:
            lost += [what for what in work.finished(area.folder, again) if what not in lost]
        if peer is not None:
            peer.acknowledged = had
        return [f"{where}: {what}" for what in lost]

    def _compare(self, model: Content, found: Content, where: str) -> None:
        """The journal missed nothing: replayed, it gives the folder. The -shm is written through a map."""
        differ = sorted(
            name for name in model.keys() | found.keys()
            if model.get(name) != found.get(name) and not name.endswith("-shm")
        )  # fmt: skip
        assert not differ, f"{where}: the journal does not explain {differ}"

    def _last_words(self) -> str:
        return " ".join(self._log.read_text(errors="replace").split())[-400:]


def _views(views: int, dice: random.Random) -> tuple[bool, ...]:
    """Whether a random part of what was not fsynced survives: both, or at one point in three."""
    return (False, True) if views == 2 else (dice.random() < 1 / 3,)
