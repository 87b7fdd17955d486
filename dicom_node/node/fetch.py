"""What a peer has of a study, compared with what is here; and the missing ones brought here.

Used by `dicom-node fetch`, and by the `fetcher` beside the ticker. C-GET stores through the same
`Intake` as the front door, in whatever process this runs; C-MOVE makes the peer send to the front door.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dicom_node import audit
from dicom_node.config import Config, Peer, Receive
from dicom_node.dicom.elements import IMPLICIT_LE
from dicom_node.domain.identity import UID
from dicom_node.domain.series import StoredInstance
from dicom_node.errors import ConfigurationError, RetrieveError
from dicom_node.node.build import Node, build
from dicom_node.receive import retrieve
from dicom_node.receive.intake import Intake
from dicom_node.receive.policy import MODALITIES, MR_IMAGES, REPORTS, storage_classes
from dicom_node.receive.query import PeerInstance, PeerSeries, PeerStudy, find
from dicom_node.scu.association import associated
from dicom_node.scu.find import STUDY_ROOT_FIND
from dicom_node.store.database import migrate


@dataclass(frozen=True, slots=True)
class SeriesCount:
    """One series at the peer: what this node would take of it, and what of that is not here."""

    series_uid: UID
    number: int | None
    modality: str
    there: int
    """All instances the peer has of it."""
    images: int
    """Those whose number counts for completeness: what this node takes, reports and results aside."""
    taken: tuple[UID, ...]
    """What this node takes of them, its own results aside."""
    missing: tuple[UID, ...]
    """What of that is not here."""
    classes: tuple[str, ...]
    """SOP classes of what it takes, as far as the peer says."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A peer's study beside what is here."""

    study_uid: UID
    series: tuple[SeriesCount, ...]

    @property
    def there(self) -> int:
        return sum(one.there for one in self.series)

    @property
    def images(self) -> int:
        return sum(one.images for one in self.series)

    @property
    def missing(self) -> int:
        return sum(len(one.missing) for one in self.series)


def ask(node: Node, peer: Peer, study_uid: UID, series_uid: UID | None = None) -> Comparison:
    """C-FIND, compared with the ledger. Raises PeerUnreachable, PeerRefused, RetrieveError."""
    config = node.config
    found = find(
        peer, config.node.ae_title, study_uid, series_uid=series_uid,
        timeout_s=config.deliver.timeout_s, tls=config.tls,
    )  # fmt: skip
    node.trail.record(audit.Queried(peer.name, peer.host, "IMAGE", study_uid, found.instances))
    return compare(found, node.catalog.held(study_uid), _results(node, found), config.receive)


def compare(
    found: PeerStudy, here: Collection[UID], results: Collection[UID], receive: Receive
) -> Comparison:
    """Pure. `results` are instances that this node made itself: at the peer, and never input."""
    series = tuple(_count(one, here, results, receive) for one in found.series)
    return Comparison(found.study_uid, series)


def _count(
    series: PeerSeries, here: Collection[UID], results: Collection[UID], receive: Receive
) -> SeriesCount:
    taken = [one for one in series.instances if _taken(one, series, receive)]
    taken = [one for one in taken if one.sop_instance_uid not in results]
    missing = [one for one in taken if one.sop_instance_uid not in here]
    return SeriesCount(
        series.series_uid, series.number, series.modality, len(series.instances),
        images=sum(counts(one.sop_class_uid, receive) for one in taken),
        taken=tuple(one.sop_instance_uid for one in taken),
        missing=tuple(one.sop_instance_uid for one in missing),
        classes=tuple(dict.fromkeys(one.sop_class_uid for one in taken)),
    )  # fmt: skip


def _taken(instance: PeerInstance, series: PeerSeries, receive: Receive) -> bool:
    """By its SOP class; by the series' modality where the peer does not state the class."""
    if instance.sop_class_uid:
        return instance.sop_class_uid in storage_classes(receive)
    return receive.unwanted == "store" or series.modality in (*MODALITIES, "")


def counts(sop_class_uid: str, receive: Receive) -> bool:
    """Whether instances of this class are counted for completeness. Reports come when they come."""
    return not sop_class_uid or (sop_class_uid in storage_classes(receive) and sop_class_uid not in REPORTS)


def counted(instances: Sequence[StoredInstance], receive: Receive) -> dict[UID, int]:
    """Series -> how many of its instances are here, of those that a comparison counts."""
    taken: dict[UID, int] = {}
    for instance in instances:
        if counts(instance.sop_class_uid, receive):
            taken[instance.series_uid] = taken.get(instance.series_uid, 0) + 1
    return taken


def _results(node: Node, found: PeerStudy) -> set[UID]:
    """Results of this node among them; an MR image never is one."""
    suspects = [
        instance.sop_instance_uid for series in found.series for instance in series.instances
        if instance.sop_class_uid not in MR_IMAGES
    ]  # fmt: skip
    return {uid for uid in suspects if node.catalog.is_result(uid)}


def bring(
    node: Node, peer: Peer, study_uid: UID, wanted: Comparison, *, all_of_it: bool
) -> retrieve.Retrieved:
    """Retrieve what `wanted` misses, or all of it again, the way `peer.retrieve` says; recorded in the audit
    trail. Raises ConfigurationError where it says `no`.
    """  # fmt: skip
    if peer.retrieve == "no":
        raise ConfigurationError(f'peer {peer.name!r}: set `retrieve` to "get" or "move" to retrieve from it')
    asked = _requests(study_uid, wanted, all_of_it=all_of_it)
    config = node.config
    if peer.retrieve == "get":
        intake = Intake(config.receive, node.archive, node.catalog, {})  # quotas bound who sends unasked
        classes = [uid for one in wanted.series for uid in one.classes]
        done = retrieve.get(
            peer, config.node.ae_title, asked, intake, node.trail, classes=() if "" in classes else classes,
            timeout_s=config.deliver.timeout_s, tls=config.tls,
        )  # fmt: skip
    else:
        done = retrieve.move(
            peer, config.node.ae_title, asked, timeout_s=config.deliver.timeout_s, tls=config.tls,
            arrived=lambda: len(node.catalog.held(study_uid)),
        )  # fmt: skip
    node.trail.record(audit.Retrieved(peer.name, peer.host, study_uid, done.ok))
    return done


def still_missing(node: Node, before: Comparison) -> int:
    """How many of what was missing at the time of a comparison are not in the ledger now."""
    here = node.catalog.held(before.study_uid)
    return sum(uid not in here for one in before.series for uid in one.missing)


def _requests(study_uid: UID, wanted: Comparison, *, all_of_it: bool) -> list[retrieve.Wanted]:
    chosen = [(one, one.taken if all_of_it else one.missing) for one in wanted.series]
    return [
        request
        for one, uids in chosen
        if uids
        for request in retrieve.requests(study_uid, one.series_uid, uids, whole=len(uids) == one.there)
    ]


_SERVICES: Mapping[str, dict[str, str]] = {
    "no": {}, "get": {"C-GET": retrieve.STUDY_ROOT_GET}, "move": {"C-MOVE": retrieve.STUDY_ROOT_MOVE},
}  # fmt: skip


def is_asked(config: Config, peer: Peer) -> bool:
    """Whether a route, or a person by `retrieve`, may ask the peer what it has.

    A worklist manager is in a route's `from` for its work items; it need not have images too.
    """
    routed = any(route.fetch != "no" and peer.name in route.from_ for route in config.route)
    manages = any(one.peer == peer.name for one in config.worklist)
    return (routed and not manages) or peer.retrieve != "no"


def can_be_asked(config: Config, peer: Peer) -> str:
    """A line of `dicom-node check`, by negotiation only.

    Raises PeerUnreachable, PeerRefused, RetrieveError or ConfigurationError with what to change.
    """
    needed = {"C-FIND": STUDY_ROOT_FIND} | _SERVICES[peer.retrieve]
    wanted = [(uid, IMPLICIT_LE) for uid in needed.values()]
    timeout_s = config.deliver.timeout_s
    with associated(peer, config.node.ae_title, wanted, timeout_s, tls=config.tls) as association:
        offered = {str(context.abstract_syntax) for context in association.accepted_contexts}
    if absent := [name for name, uid in needed.items() if uid not in offered]:
        raise RetrieveError(f"does not do {' and '.join(absent)} (Study Root) for this node: allow it there")
    for route in config.route:
        if route.fetch == "missing" and peer.name in route.from_ and peer.retrieve == "no":
            raise ConfigurationError('a route says fetch = "missing", but this peer\'s `retrieve` is "no"')
    return f"does {' and '.join(needed)}"


@dataclass(frozen=True, slots=True)
class Report:
    """What `dicom-node fetch` says. `ok` is false when something could not be had."""

    ok: bool
    sentences: tuple[str, ...]
    there: int
    missing: int
    retrieved: int
    still_missing: int


def fetch_for(config: Config, name: str, study: str, series: str | None, *, missing: bool) -> Report:
    """The command `dicom-node fetch`, in a process of its own. Raises DicomNodeError."""
    node = build(config)
    try:
        migrate(node.engine)
        return fetch(node, name, study, series, missing=missing)
    finally:
        node.engine.dispose()


def fetch(node: Node, name: str, study: str, series: str | None, *, missing: bool) -> Report:
    """Ask, retrieve, and look in the ledger what is missing still. Raises DicomNodeError."""
    peers = node.config.peers
    if name not in peers:
        raise ConfigurationError(f"no peer is named {name!r}; there are {', '.join(peers) or 'none'}")
    peer, study_uid = peers[name], UID(study)
    before = ask(node, peer, study_uid, UID(series) if series else None)
    if not before.there:
        return Report(False, (f"PACS {name!r} does not know it.",), 0, 0, 0, 0)
    said = [_has(peer, before)]
    if missing and not before.missing:
        return Report(True, (*said, "Nothing is missing here."), before.there, 0, 0, 0)
    done = bring(node, peer, study_uid, before, all_of_it=not missing)
    left = still_missing(node, before)
    said += _told(peer, before, done, left)
    return Report(
        done.ok and not left, tuple(said), before.there, before.missing, before.missing - left, left
    )


def _has(peer: Peer, found: Comparison) -> str:
    taken = sum(len(one.taken) for one in found.series)
    return (
        f"PACS {peer.name!r} has {_number(found.there, 'object')} of it in {len(found.series)} series; "
        f"this node takes {taken} of them, {taken - found.missing} are here."
    )


def _number(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def _told(peer: Peer, before: Comparison, done: retrieve.Retrieved, left: int) -> list[str]:
    way = "C-GET" if peer.retrieve == "get" else "C-MOVE"
    said = [f"{way} brought {before.missing - left} that were missing; {left} are still missing."]
    if done.known:
        said.append(f"{done.known} came again, the same as they are here.")
    said += [
        f"{count} were refused by this node with status 0x{status:04X}: the log says why."
        for status, count in sorted(done.refused.items())
    ]
    for count, how in ((done.failed, "failed"), (done.warned, "sent with a warning")):
        if count:
            said.append(f"PACS {peer.name!r} counts {count} as {how}.")
    return [*said, *(f"{problem}." for problem in done.problems)]
