"""The images of a work item: which of them are not here, and bringing them here.

By the same queries, retrieving and front door as everything else (`fetch.py`). What is known of their
number is kept as an expectation, so that the study is seen to be complete as soon as they are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dicom_node import log
from dicom_node.config import Peer, Receive, Worklist
from dicom_node.domain.identity import UID
from dicom_node.domain.workitem import Claim, Input
from dicom_node.node.build import Node
from dicom_node.node.fetch import Comparison, ask, bring, counts
from dicom_node.receive.policy import storage_classes


@dataclass(frozen=True, slots=True)
class Missing:
    """What a work item names, of what this node takes, and how much of it is here."""

    named: int
    here: int
    studies: tuple[UID, ...]
    """Those of which something is not here."""


def taken(inputs: Iterable[Input], receive: Receive) -> tuple[Input, ...]:
    """Without instances that this node would refuse, and without series of nothing else. Pure."""
    classes = storage_classes(receive)
    kept = []
    for one in inputs:
        wanted = tuple(
            (uid, sop_class) for uid, sop_class in one.instances if not sop_class or sop_class in classes
        )
        if wanted or not one.instances:
            kept.append(replace(one, instances=wanted))
    return tuple(kept)


def studies(inputs: Sequence[Input]) -> tuple[UID, ...]:
    return tuple(dict.fromkeys(one.study_uid for one in inputs))


def missing(node: Node, claim: Claim) -> Missing:
    """A study that is named without instances counts as here as soon as one of it is."""
    named = here = 0
    lacking = []
    for study_uid in studies(claim.inputs):
        held = node.catalog.held(study_uid)
        wanted = {uid for one in _of(claim, study_uid) for uid, _ in one.instances}
        named, here = named + len(wanted), here + len(wanted & held)
        if wanted - held or not held:
            lacking.append(study_uid)
    return Missing(named, here, tuple(lacking))


def _of(claim: Claim, study_uid: UID) -> list[Input]:
    return [one for one in claim.inputs if one.study_uid == study_uid]


def source(node: Node, claim: Claim, worklist: Worklist, study_uid: UID) -> Peer | None:
    """Who is asked for the images: whom the item names, else whom the configuration names, else nobody."""
    titles = [title for one in _of(claim, study_uid) for title in one.ae_titles]
    named = [
        peer for title in titles for peer in node.config.peer
        if peer.ae_title == title and peer.retrieve != "no"
    ]  # fmt: skip
    return named[0] if named else node.config.peers.get(worklist.fetch_from)


def fetch(node: Node, claim: Claim, peer: Peer, study_uid: UID) -> None:
    """Retrieve what of a study is named and not here. Raises DicomNodeError."""
    asked_at = node.clock()
    found = ask(node, peer, study_uid)
    wanted = _named(found, _of(claim, study_uid))
    if whole := [one for one in _of(claim, study_uid) if not one.instances]:
        series = {one.series_uid: one.images for one in wanted.series}
        said = f"PACS {peer.name!r} has {sum(series.values())} images that a work item names"
        if whole[0].series_uid is None:
            node.expectations.keep(study_uid, peer.name, series, asked_at, said)
    if wanted.missing:
        done = bring(node, peer, study_uid, wanted, all_of_it=False)
        log.event(
            "workitem.fetched", item=claim.id, peer=peer.name, new=done.new or done.completed,
            failed=done.failed, problems=len(done.problems),
        )  # fmt: skip


def _named(found: Comparison, inputs: Sequence[Input]) -> Comparison:
    """Of what a peer has, what the item names: instances, whole series, or all of it."""
    if any(one.series_uid is None and not one.instances for one in inputs):
        return found
    whole = {one.series_uid for one in inputs if not one.instances}
    named = {uid for one in inputs for uid, _ in one.instances}
    series = [
        one if one.series_uid in whole else replace(
            one,
            taken=tuple(uid for uid in one.taken if uid in named),
            missing=tuple(uid for uid in one.missing if uid in named),
        )
        for one in found.series
    ]  # fmt: skip
    return Comparison(found.study_uid, tuple(series))


def expect(node: Node, claim: Claim) -> None:
    """All that is named is here: so many images the item names, which the judgement of completeness takes."""
    now = node.clock()
    for study_uid in studies(claim.inputs):
        series: dict[UID, int] = {}
        for one in _of(claim, study_uid):
            number = sum(counts(sop_class, node.config.receive) for _, sop_class in one.instances)
            if one.series_uid is not None and number:
                series[one.series_uid] = series.get(one.series_uid, 0) + number
        if series:
            said = f"a work item of {claim.peer!r} names {sum(series.values())} images, which are here"
            node.expectations.keep(study_uid, claim.peer, series, now, said)
