"""Performs the work items of one worklist manager (PS3.4 Annex CC, IHE AIW-I pull workflow).

    look for SCHEDULED items > claim > bring their images > jobs (T2) > wait for delivery (T4) > end

The table says how far each item is (`domain/workitem.py`); every step may be repeated. The Transaction UID
is durable before the claim is sent, what becomes of an item before the manager is told. So a crash, an
answer that was lost, or one that comes twice, makes no second claim and no second end.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydicom.dataset import Dataset

from dicom_node import log
from dicom_node.config import Config, Peer, Worklist
from dicom_node.deliver.backoff import gives_up, pause_s
from dicom_node.domain.codes import Code
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import OPEN, Claim, Item, Output, Step
from dicom_node.errors import DicomNodeError, PeerUnreachable, UnreadableObject, WorkItemRefused
from dicom_node.node.build import Node
from dicom_node.node.failure import refusal
from dicom_node.node.flow import assemble, planned_jobs
from dicom_node.node.work_inputs import expect, fetch, missing, source, studies, taken
from dicom_node.node.work_outcome import BEFORE_JOBS, Delivered, Ended, Overtaken, Waiting, decide
from dicom_node.worklist.dimse import DimseManager
from dicom_node.worklist.item import (
    CANCELED,
    COMPLETED,
    FINAL,
    IN_PROGRESS,
    SCHEDULED,
    discontinued,
    fits,
    performed,
    progress,
)
from dicom_node.worklist.manager import Manager, Reply, Said, Sought
from dicom_node.worklist.ups_rs import RestManager

LOOK_FOR_IMAGES_S = 5.0
"""Between two looks whether images that somebody else sends have come."""
TELL_AFTER_S, TELL_AGAIN_AFTER_S = 10.0, 600.0
"""The manager hears of progress at most so often, and at least so often."""
GONE_AFTER_S = 3600.0
"""A claimed item that its manager does not know for so long is gone; before, it may be restarting."""
_EVER = datetime.min.replace(tzinfo=UTC)
_STATES = {COMPLETED: Step.COMPLETED, CANCELED: Step.CANCELED}


def manager_of(config: Config, peer: Peer) -> Manager:
    if peer.url:
        return RestManager(peer, config.deliver.timeout_s, config.tls)
    return DimseManager(peer, str(config.node.ae_title), config.deliver.timeout_s, config.tls)


def code_pair(text: str) -> tuple[str, str]:
    """`value^scheme` of the configuration."""
    value, _, scheme = text.partition("^")
    return value, scheme


def sought(worklist: Worklist) -> Sought:
    station = code_pair(worklist.station) if worklist.station else None
    return Sought(code_pair(worklist.workitem), station)


class Performer:
    """One thread at a time. Mutable: when each worklist is looked at next, and how often that failed."""

    def __init__(
        self, node: Node, peer: Peer, manager: Manager, stopping: Callable[[], bool] = lambda: False,
        on_images: Callable[[UID], None] = lambda study_uid: None,
    ) -> None:  # fmt: skip
        """`on_images` is told of each study of which all that an item names is here."""
        self._node, self._peer, self._manager, self._stopping = node, peer, manager, stopping
        self._on_images = on_images
        self._items = node.work_items
        self._worklists = tuple(one for one in node.config.worklist if one.peer == peer.name)
        self._next_look: dict[str, datetime] = {}
        self._failures = 0
        self._steps = {
            Step.CLAIMING: self._claim, Step.INPUTS: self._bring, Step.ASSEMBLING: self._schedule,
            Step.JOBS: self._wait, Step.ENDING: self._end,
        }  # fmt: skip

    def turn(self) -> None:
        """Every open item as far as it goes now, then new ones where there is room."""
        for claim in self._items.due(self._peer.name):
            if self._stopping():
                return
            self._advance(claim, self._steps[claim.step])
        for worklist in self._worklists:
            if not self._stopping() and self._node.clock() >= self._next_look.get(worklist.workitem, _EVER):
                self._look(worklist)

    # ---- claiming ------------------------------------------------------------------------

    def _look(self, worklist: Worklist) -> None:
        room = worklist.at_a_time - self._items.open_count(self._peer.name, worklist.workitem)
        wait_s = worklist.poll_s
        try:
            found = self._manager.search(sought(worklist)) if room > 0 else ()
            self._failures = 0
        except DicomNodeError as error:
            found, self._failures = (), self._failures + 1
            wait_s = max(wait_s, self._pause_s(self._failures))
            log.problem(
                "worklist.failed", peer=self._peer.name, error=type(error).__name__, why=str(error),
                wait_s=round(wait_s, 1),
            )  # fmt: skip
        self._next_look[worklist.workitem] = self._node.clock() + timedelta(seconds=wait_s)
        wanted = [item for item in found if fits(item, sought(worklist))]
        known = self._items.known(self._peer.name, [item.uid for item in wanted])
        for item in [item for item in wanted if item.uid not in known][: max(room, 0)]:
            if not self._stopping():
                self._begin(worklist, item)

    def _begin(self, worklist: Worklist, item: Item) -> None:
        """The Transaction UID is durable first: an answer that is lost leaves it to be asked under again."""
        transaction_uid = UID(f"2.25.{uuid.uuid4().int}")
        claim = self._items.begin(
            self._peer.name, item.uid, transaction_uid, worklist.pipeline, worklist.workitem
        )
        if claim is not None:
            self._advance(claim, self._claim)

    def _claim(self, claim: Claim) -> Claim | None:
        """Refused, it may be ours already, by a request whose answer was lost or that came twice: then it can
        be changed under our Transaction UID, and only then.
        """  # fmt: skip
        reply = self._manager.change_state(claim.uid, claim.transaction_uid, IN_PROGRESS)
        if reply.said in (Said.CONFLICT, Said.NOT_OURS):
            reply = self._manager.update(claim.uid, claim.transaction_uid, progress(0, "claimed"))
        return self._claimed(claim) if reply.said is Said.DONE else self._not_claimed(claim, reply)

    def _claimed(self, claim: Claim) -> Claim | None:
        try:
            item = self._manager.get(claim.uid)
        except UnreadableObject:  # without images it names, it is ended: nobody else would, it is claimed
            item = Item(claim.uid, IN_PROGRESS)
        if item is None:
            return self._lost(claim, "its manager does not know it any more")
        inputs = taken(item.inputs, self._node.config.receive)
        after = self._items.go_on(claim, Step.INPUTS, inputs=inputs)
        if after is not None:
            log.event("workitem.claimed", item=claim.id, peer=claim.peer, pipeline=claim.pipeline)
        return after

    def _not_claimed(self, claim: Claim, reply: Reply) -> Claim | None:
        item = None if reply.said is Said.GONE else self._manager.get(claim.uid)
        if item is None or item.state != SCHEDULED:
            state = "gone" if item is None else item.state
            return self._lost(claim, f"another performer has it, or it was ended: it is {state}")
        raise WorkItemRefused(reply.why)

    def _lost(self, claim: Claim, why: str) -> Claim | None:
        log.event("workitem.lost", item=claim.id, peer=claim.peer, step=claim.step.value)
        return self._items.go_on(claim, Step.LOST, reason=why)

    # ---- on the way ----------------------------------------------------------------------

    def _advance(self, claim: Claim, step: Callable[[Claim], Claim | None]) -> None:
        """Step by step until there is something to wait for."""
        while not self._stopping():
            try:
                after = step(claim)
            except DicomNodeError as error:
                self._later(claim, error)
                return
            if after is None or after.step not in OPEN:
                return
            claim, step = after, self._steps[after.step]

    def _later(self, claim: Claim, error: DicomNodeError) -> None:
        """Tried again after a pause, unless it was tried for too long."""
        now = self._node.clock()
        if claim.step is not Step.INPUTS and gives_up(claim.since, now, self._node.config.deliver):
            days = f"{self._node.config.deliver.give_up_after_days:g}"
            log.problem("workitem.failed", item=claim.id, peer=claim.peer, step=claim.step.value)
            self._items.go_on(claim, Step.FAILED, reason=f"not done in {days} days: {error}")
            return
        wait_s = self._pause_s(claim.attempts + 1)
        self._items.put_off(claim, str(error), now + timedelta(seconds=wait_s))
        log.problem(
            "workitem.later", item=claim.id, peer=claim.peer, step=claim.step.value,
            error=type(error).__name__, why=str(error), wait_s=round(wait_s, 1),
        )  # fmt: skip

    def _pause_s(self, attempts: int) -> float:
        return pause_s(attempts, self._node.config.deliver, random.random())  # noqa: S311 - jitter

    def _bring(self, claim: Claim) -> Claim | None:
        if not claim.inputs:
            return self._decided(claim, Ended(CANCELED, "it names no images that this node takes"))
        worklist = self._worklist(claim)
        if worklist is None:
            return self._decided(claim, Ended(CANCELED, "this node does not perform such items any more"))
        first = missing(self._node, claim)
        stopped = self._tell(claim, 5, f"{first.here} of {first.named} images are here")
        if stopped is not claim:
            return stopped
        if first.studies and self._waited_h(claim) > worklist.wait_h:
            why = f"{first.here} of its {first.named} images came within {worklist.wait_h:g} hours"
            return self._decided(claim, Ended(CANCELED, why))
        sources = [(uid, source(self._node, claim, worklist, uid)) for uid in first.studies]
        for study_uid, peer in sources:
            if peer is not None:
                fetch(self._node, claim, peer, study_uid)
        return self._images_here(claim, asked=any(peer for _, peer in sources))

    def _waited_h(self, claim: Claim) -> float:
        return (self._node.clock() - claim.since).total_seconds() / 3600.0

    def _images_here(self, claim: Claim, *, asked: bool) -> Claim | None:
        left = missing(self._node, claim)
        if not left.studies:
            expect(self._node, claim)
            for study_uid in studies(claim.inputs):
                self._on_images(study_uid)
            log.event("workitem.images_here", item=claim.id, peer=claim.peer, images=left.named)
            return self._items.go_on(claim, Step.ASSEMBLING)
        wait_s = self._pause_s(claim.attempts + 1) if asked else LOOK_FOR_IMAGES_S
        until = self._node.clock() + timedelta(seconds=wait_s)
        self._items.put_off(claim, f"{left.here} of {left.named} images are here", until, failed=asked)
        return None

    def _schedule(self, claim: Claim) -> Claim | None:
        """T2 for what it asks for: the jobs there are, or new ones, once its studies are in a revision."""
        pending = {study.study_uid for study in self._node.catalog.pending()}
        if pending.intersection(studies(claim.inputs)):
            stopped = self._tell(claim, BEFORE_JOBS // 2, "all images are here")
            return None if stopped is claim else stopped
        at = self._route(claim)
        if at is None:
            return self._decided(claim, Ended(CANCELED, "this node does not perform such items any more"))
        job_ids: list[int] = []
        for study_uid in studies(claim.inputs):
            found = self._jobs_for(claim, study_uid, at)
            if found is None:
                return None  # an image came this moment: it joins a revision first
            job_ids += found
        if not job_ids:
            return self._decided(claim, Ended(CANCELED, "there is nothing in its images to work on"))
        log.event("workitem.scheduled", item=claim.id, peer=claim.peer, jobs=job_ids)
        return self._items.go_on(claim, Step.JOBS, job_ids=job_ids)

    def _jobs_for(self, claim: Claim, study_uid: UID, at: int) -> tuple[int, ...] | None:
        instances = self._node.catalog.instances(study_uid)
        study = assemble(study_uid, 0, instances)
        planned = planned_jobs(self._node, study, at, self._node.config.route[at])
        series = {one.series_uid for one in claim.inputs if one.study_uid == study_uid}
        wanted = [
            job for job in planned
            if None in series or job.subject_uid == study_uid or job.subject_uid in series
        ]  # fmt: skip
        return self._node.catalog.ask_for(study_uid, wanted, expected=len(instances))

    def _route(self, claim: Claim) -> int | None:
        routes = enumerate(self._node.config.route)
        mine = (at for at, one in routes if one.pipeline == claim.pipeline and claim.peer in one.from_)
        return next(mine, None)

    def _worklist(self, claim: Claim) -> Worklist | None:
        return next((one for one in self._worklists if one.workitem == claim.workitem), None)

    def _wait(self, claim: Claim) -> Claim | None:
        jobs = [self._node.queue.job(number) for number in claim.jobs]
        newer = [
            job for uid in studies(claim.inputs) for job in self._node.queue.jobs(study_uid=uid, limit=1000)
        ]
        why_failed = {
            number: f"AI not performed, because {_because(claim.pipeline, word)}"
            for number, word in self._items.failures(claim.jobs).items()
        }
        delivered = [Delivered(*one) for one in self._items.outputs(claim.jobs)]
        match decide(jobs, delivered, newer, why_failed):
            case Overtaken():
                return self._items.go_on(claim, Step.ASSEMBLING, job_ids=(), reason="a later revision came")
            case Waiting(percent, words):
                stopped = self._tell(claim, percent, words)
                return None if stopped is claim else stopped
            case Ended() as ended:
                return self._decided(claim, ended)

    def _tell(self, claim: Claim, percent: int, words: str) -> Claim | None:
        """Progress, where it is time for it; `claim` itself where the item goes on.

        That the manager cannot be reached stops nothing: it hears more with the next one.
        """
        now, said = self._node.clock(), f"{percent} %, {words}"
        age_s = TELL_AGAIN_AFTER_S if claim.told_at is None else (now - claim.told_at).total_seconds()
        if age_s < (TELL_AGAIN_AFTER_S if said == claim.said else TELL_AFTER_S):
            return claim
        self._items.told(claim, said)
        try:
            item = self._manager.get(claim.uid)
            if item is not None and item.cancel_asked and item.state == IN_PROGRESS:
                return self._decided(claim, Ended(CANCELED, "canceled on request at the worklist"))
            reply = self._manager.update(claim.uid, claim.transaction_uid, progress(percent, words))
        except DicomNodeError as error:
            log.problem("workitem.untold", item=claim.id, peer=claim.peer, error=type(error).__name__)
            return claim
        ended = item is not None and item.state in FINAL
        if reply.said is Said.NOT_OURS or (reply.said is Said.CONFLICT and ended):
            return self._lost(claim, f"it was taken away: {reply.why}")
        return claim

    # ---- ending --------------------------------------------------------------------------

    def _decided(self, claim: Claim, ended: Ended) -> Claim | None:
        """What the manager is told is durable before it is: a repeat tells the same."""
        now = self._node.clock()
        if ended.state == COMPLETED:
            changes = performed(
                [self._place(output) for output in ended.outputs], code_pair(claim.workitem),
                self._station(claim), claim.claimed_at, now, "results are delivered",
            )  # fmt: skip
        else:
            changes = discontinued(ended.reason, now)
        outcome: dict[str, object] = {"state": ended.state, "attributes": changes.to_json_dict()}
        return self._items.go_on(claim, Step.ENDING, outcome=outcome, reason=ended.reason)

    def _place(self, output: Output) -> tuple[Output, str, str]:
        """Where it was delivered to: AE title, or the address of the instance by WADO-RS (PS3.18 10.4)."""
        peer = self._node.config.peers.get(output.destination)
        if peer is None:
            return output, "", ""
        if not peer.url:
            return output, str(peer.ae_title), ""
        return output, "", f"{peer.url.rstrip('/')}/studies/{output.study_uid}/series/{output.series_uid}"

    def _station(self, claim: Claim) -> Code:
        worklist = self._worklist(claim)
        title = str(self._node.config.node.ae_title)
        value, scheme = code_pair(worklist.station) if worklist and worklist.station else (title, "99DCMNODE")
        return Code(value, scheme, title)

    def _end(self, claim: Claim) -> Claim | None:
        outcome = claim.outcome or {}
        state, attributes = str(outcome["state"]), outcome["attributes"]
        changes = Dataset.from_json(attributes)  # type: ignore[arg-type]  # JSON of `_decided`
        first = self._manager.update(claim.uid, claim.transaction_uid, changes)
        reply = first
        if first.said in (Said.DONE, Said.CONFLICT):  # a conflict: ended already, and the answer was lost?
            reply = self._manager.change_state(claim.uid, claim.transaction_uid, state)
        if reply.said is not Said.DONE:
            item = self._manager.get(claim.uid)
            if item is None:
                return self._gone(claim)
            if item.state != state:
                return self._not_ended(claim, reply, item)
        log.event(
            "workitem.ended", item=claim.id, peer=claim.peer, state=state,
            seconds=round((self._node.clock() - claim.claimed_at).total_seconds(), 3),
        )  # fmt: skip
        return self._items.go_on(claim, _STATES[state], reason=claim.reason)

    def _not_ended(self, claim: Claim, reply: Reply, item: Item) -> Claim | None:
        if item.state in FINAL:
            return self._lost(claim, f"it was ended there as {item.state}")
        if reply.said is Said.NOT_OURS:
            return self._lost(claim, f"it was taken away: {reply.why}")
        raise WorkItemRefused(reply.why)

    def _gone(self, claim: Claim) -> Claim | None:
        if (self._node.clock() - claim.since).total_seconds() > GONE_AFTER_S:
            return self._lost(claim, "its manager does not know it any more")
        raise PeerUnreachable(f"{claim.peer!r} does not know an item that this node has claimed")


def _because(pipeline: str, failure: str) -> str:
    planned = refusal(pipeline, "", failure)
    return planned.not_performed.because if planned.not_performed else "its job failed"


def managers(node: Node) -> Sequence[Peer]:
    """The managers that items are taken from."""
    return tuple(node.config.peers[name] for name in dict.fromkeys(one.peer for one in node.config.worklist))
