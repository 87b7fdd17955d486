"""T4: results go to their destinations, each destination by itself.

One thread per destination, so that one that is down or hangs never delays another; one more
thread looks for what is due. What an answer means is `dicom/status.py`, when to try again is
`backoff.py`; here the two meet the ledger. An object is marked delivered only on the peer's
own word; a crash between that word and T4 sends the same bytes under the same UID again.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dicom_node import log
from dicom_node.audit import Trail
from dicom_node.config import Config, Peer
from dicom_node.deliver import stow
from dicom_node.deliver.backoff import gives_up, pause_s
from dicom_node.deliver.commitment import Confirmation
from dicom_node.deliver.probe import Probe
from dicom_node.deliver.scu import Sent, send
from dicom_node.deliver.selection import Selection
from dicom_node.deliver.sighting import Sighting
from dicom_node.deliver.tally import Tally
from dicom_node.dicom.status import Kind
from dicom_node.domain.job import Delivery
from dicom_node.errors import IntegrityError, LeaseLost
from dicom_node.store.archive import Archive
from dicom_node.store.capabilities import Capabilities
from dicom_node.store.commitments import Commitments
from dicom_node.store.database import utc_now
from dicom_node.store.ledger import Ledger
from dicom_node.store.sightings import Sightings

LOOK_EVERY_S = 0.2
"""How often the ledger is asked for due deliveries: one cheap read for all destinations."""
AT_A_TIME = 16
"""Objects claimed for one association: few enough that a crash leaves little for the lease to lapse."""
REST_AFTER_TROUBLE_S = 5.0
"""Pause of a destination's thread after an error that is not the peer's, e.g. a locked database."""

_NO_PEER = (
    "no peer named {!r} is configured any more: list it again and `dicom-node retry --deliveries`,"
    " or name another with `dicom-node redeliver --study UID --to PEER`"
)
_GIVEN_UP = "given up after {} days of trying: mend it, then `dicom-node retry --deliveries`. Last: {}"


class Deliverer:
    """Delivers what the ledger has due. `start()` and `stop()`; or `deliver_due()`, step by step."""

    def __init__(
        self,
        config: Config,
        archive: Archive,
        ledger: Ledger,
        capabilities: Capabilities,
        commitments: Commitments,
        sightings: Sightings,
        trail: Trail,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._config, self._archive, self._ledger, self._clock = config, archive, ledger, clock
        self._trail = trail
        self._confirmation = Confirmation(config, commitments, trail, clock)
        self._sighting = Sighting(config, sightings, trail, clock)
        self._selection = Selection(ledger, Probe(config, capabilities, clock))
        self._lanes = tuple(_Lane(self, name) for name in _destinations(config))
        self._watch = threading.Thread(target=self._look, name="deliver", daemon=True)
        self._stopping = threading.Event()
        # destinations that could not be reached when last called; each one only by its own thread
        self._unheard: set[str] = set()

    @property
    def lease_s(self) -> float:
        """How long claimed rows stay ours: the slowest answer, twice; a batch stops before it ends."""
        return 2.0 * self._config.deliver.timeout_s + 2.0

    def start(self) -> None:
        """Begin delivering. Rows that a crashed node had claimed follow when their lease lapses."""
        for lane in self._lanes:
            lane.thread.start()
        self._watch.start()

    def stop(self, grace_s: float = 5.0) -> None:
        """Let the objects in flight finish, `grace_s` at most; what is left stays in the ledger."""
        self._stopping.set()
        for lane in self._lanes:
            lane.wake.set()
        ends = time.monotonic() + grace_s
        for thread in (self._watch, *(lane.thread for lane in self._lanes)):
            if thread.is_alive():
                thread.join(max(0.0, ends - time.monotonic()))

    def wake(self) -> None:
        """Results were just committed: do not wait for the next look."""
        for lane in self._lanes:
            lane.wake.set()

    def deliver_due(self, destination: str | None = None) -> int:
        """Deliver now, in this thread, all that is due (at `destination`); returns how many rows it claimed.

        What is put off to a later time is not waited for.
        """
        names = [destination] if destination else sorted(self._due())
        claimed = sum(sum(self._batches(name)) for name in names)
        for name in names:
            self._confirm(name)
        return claimed

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _due(self) -> set[str]:
        """Destinations that something is to be sent to, or that are to be asked about what they took."""
        due = set(self._ledger.destinations_due())
        if confirming := {peer.name for peer in self._config.peer if peer.commitment}:
            due |= confirming.intersection(self._confirmation.commitments.destinations_due())
        if asked := {peer.name for peer in self._config.peer if peer.confirm == "query"}:
            due |= asked.intersection(self._sighting.sightings.destinations_due())
        return due

    def _confirm(self, destination: str) -> None:
        """Ask about what was delivered: to vouch for it (PS3.4 Annex J), and whether it shows it."""
        peer = self._config.peers.get(destination)
        if peer is not None and peer.commitment and not self.stopping:
            self._confirmation.ask_due(peer)
        if peer is not None and peer.confirm == "query" and not self.stopping:
            self._sighting.ask_due(peer)

    def _look(self) -> None:
        lanes = {lane.destination: lane for lane in self._lanes}
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                for name in self._due():
                    if name in lanes:
                        lanes[name].wake.set()
                    else:  # no longer configured: said in the ledger, needs no network
                        self.deliver_due(name)
            except Exception as error:  # noqa: BLE001  an edge: this thread must outlive a locked database
                log.problem("deliver.trouble", kind=type(error).__name__)
                self._stopping.wait(REST_AFTER_TROUBLE_S)

    def run(self, lane: _Lane) -> None:
        """A destination's thread: woken when something is due there."""
        while not self.stopping:
            lane.wake.wait()
            lane.wake.clear()
            try:
                for _ in self._batches(lane.destination):
                    pass
                self._confirm(lane.destination)
            except Exception as error:  # noqa: BLE001  an edge: the thread must outlive a locked database
                log.problem("deliver.trouble", destination=lane.destination, kind=type(error).__name__)
                self._stopping.wait(REST_AFTER_TROUBLE_S)

    def _batches(self, destination: str) -> Iterator[int]:
        """Claim and send until nothing is due; yields the attempts made in each batch."""
        while not self.stopping:
            claimed = self._ledger.claim(destination, self.lease_s, AT_A_TIME)
            if not claimed:
                return
            yield len(claimed)
            if (unheard := self._deliver(destination, claimed)) is not None:
                self._put_off(destination, unheard)
                self._unheard.add(destination)
            elif destination in self._unheard:
                self._unheard.discard(destination)
                self._ledger.hasten(destination)

    def _put_off(self, destination: str, unheard: _Unheard) -> None:
        """The peer was just found unreachable: what else is due there waits, without another call."""
        settings, now, why = self._config.deliver, self._clock(), unheard.why
        count = self._ledger.put_off(
            destination, why,
            lambda attempts: now
            + timedelta(seconds=max(unheard.wait_s, self._pause_s(destination, attempts))),
            tried_since=now - timedelta(days=settings.give_up_after_days),
        )  # fmt: skip
        if count:
            log.event("deliver.put_off", destination=destination, deliveries=count)
        while claimed := self._ledger.claim(destination, self.lease_s, AT_A_TIME):  # what ends here and now
            for delivery in claimed:
                self._again(delivery, None, why)

    def _pause_s(self, destination: str, attempts: int) -> float:
        """The dice are the same for all that was tried together: that is tried together again."""
        together = f"{self._config.node.ae_title} {destination} {attempts}"
        return pause_s(attempts, self._config.deliver, zlib.crc32(together.encode()) / 0xFFFFFFFF)

    def _deliver(self, destination: str, claimed: Sequence[Delivery]) -> _Unheard | None:
        """One association. Returns why the peer could not be reached, or None."""
        peer = self._config.peers.get(destination)
        if peer is None:
            for delivery in claimed:
                self._failed(delivery, None, _NO_PEER.format(destination))
            return None
        until = time.monotonic() + self.lease_s - self._config.deliver.timeout_s
        selected = self._selection.of(peer, claimed)
        for delivery, why in selected.withheld:
            self._withheld(delivery, None, why)
        if selected.unreachable is not None:
            for delivery in claimed:
                self._again(delivery, None, selected.unreachable)
            return _Unheard(selected.unreachable)
        return self._send_all(peer, dict(self._whole(selected.sendable)), until)

    def _send_all(self, peer: Peer, waiting: dict[Path, Delivery], until: float) -> _Unheard | None:
        """Send until the association, or the time `until`, ends; what is left is due again at once."""
        tried, unheard, tally = 0, None, Tally(peer)
        with closing(self._send(peer, list(waiting))) as outcomes:
            for sent in outcomes:
                tried += sent.tried
                unheard = None if tried and not sent.wait_s else _Unheard(sent.sentence, sent.wait_s)
                tally.add(sent)
                turn = not sent.tried and tried > 0 and not sent.wait_s
                self._settle(peer, waiting.pop(sent.path), sent, at_once=turn)
                if waiting and (self.stopping or time.monotonic() > until):
                    break  # else the lease would end in the middle of an object
        tally.record(self._trail)
        for delivery in waiting.values():
            self._again(delivery, None, "not yet tried", at_once=True)
        return unheard

    def _send(self, peer: Peer, files: list[Path]) -> Generator[Sent, None, None]:
        config = self._config
        if peer.url:
            return stow.send(peer, files, config.deliver.timeout_s, tls=config.tls)
        return send(peer, str(config.node.ae_title), files, config.deliver.timeout_s, tls=config.tls)

    def _whole(self, claimed: Sequence[Delivery]) -> Iterator[tuple[Path, Delivery]]:
        """The files that are still what T3 stored; the others are FAILED, never sent."""
        for delivery in claimed:
            try:
                yield self._archive.verified(delivery.result.digest), delivery
            except (IntegrityError, OSError):
                self._failed(delivery, None, "the stored file is missing or damaged: run the job again")

    def _settle(self, peer: Peer, delivery: Delivery, sent: Sent, *, at_once: bool) -> None:
        if sent.kind is Kind.SUCCESS:
            self._delivered(peer, delivery, sent, "")
        elif sent.kind is Kind.WARNING:
            self._delivered(peer, delivery, sent, sent.sentence)
        elif sent.kind is Kind.REFUSED and (why := self._selection.after(peer, delivery, sent)):
            self._withheld(delivery, sent.status, why)
        elif sent.kind is Kind.REFUSED:
            self._failed(delivery, sent.status, sent.sentence)
        else:
            self._again(delivery, sent.status, sent.sentence, at_once=at_once, least_s=sent.wait_s)

    def _delivered(self, peer: Peer, delivery: Delivery, sent: Sent, reason: str) -> None:
        """T4: the peer has it, and said so."""
        assert sent.status is not None  # noqa: S101  only a status says that the peer stored it
        with _fenced(delivery):
            self._ledger.delivered(
                delivery, sent.status, reason, commitment=peer.commitment, confirm=peer.confirm == "query"
            )
            log.event("deliver.done", **_facts(delivery), status=_hex(sent.status))

    def _again(
        self, delivery: Delivery, status: int | None, reason: str, *, at_once: bool = False,
        least_s: float = 0.0,
    ) -> None:  # fmt: skip
        settings, now = self._config.deliver, self._clock()
        # What goes again at once was not tried: it waits for its turn, and cannot have been tried too long.
        if not at_once and gives_up(delivery.scheduled_at or now, now, settings):
            days = f"{settings.give_up_after_days:g}"
            self._failed(delivery, status, _GIVEN_UP.format(days, reason))
            return
        wait_s = 0.0 if at_once else self._pause_s(delivery.destination, delivery.attempts)
        wait_s = max(wait_s, least_s)
        with _fenced(delivery):
            self._ledger.retry_later(delivery, status, reason, now + timedelta(seconds=wait_s))
            log.event("deliver.later", **_facts(delivery), status=_hex(status), wait_s=round(wait_s, 1))

    def _withheld(self, delivery: Delivery, status: int | None, reason: str) -> None:
        with _fenced(delivery):
            self._ledger.withheld(delivery, status, reason)
            log.event("deliver.withheld", **_facts(delivery), status=_hex(status))

    def _failed(self, delivery: Delivery, status: int | None, reason: str) -> None:
        with _fenced(delivery):
            self._ledger.failed(delivery, status, reason)
            log.problem("deliver.failed", **_facts(delivery), status=_hex(status))


@dataclass(frozen=True, slots=True)
class _Unheard:
    """Why nothing can be sent to a destination now, and for how long at least it is to be left alone."""

    why: str
    wait_s: float = 0.0


class _Lane:
    """One destination's thread and the bell that wakes it."""

    def __init__(self, deliverer: Deliverer, destination: str) -> None:
        self.destination = destination
        self.wake = threading.Event()
        self.wake.set()
        self.thread = threading.Thread(
            target=deliverer.run, args=(self,), name=f"deliver-{destination}", daemon=True
        )


def _destinations(config: Config) -> list[str]:
    """All peers, not only those of today's routes: an earlier file's route may have left rows."""
    return [peer.name for peer in config.peer]


@contextmanager
def _fenced(delivery: Delivery) -> Iterator[None]:
    """Another deliverer may hold the row by now; then it is the one that answers for it."""
    try:
        yield
    except LeaseLost:
        log.event("deliver.lease_lost", **_facts(delivery))


def _facts(delivery: Delivery) -> dict[str, object]:
    return {
        "delivery": delivery.id, "job": delivery.result.job_id, "kind": str(delivery.result.kind),
        "destination": delivery.destination, "attempts": delivery.attempts,
    }  # fmt: skip


def _hex(status: int | None) -> str | None:
    return None if status is None else f"0x{status:04X}"
