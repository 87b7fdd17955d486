"""`dicom-node check`: is everything in place, in plain sentences."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from sqlalchemy import text

from dicom_node.audit.command import checked as audited
from dicom_node.config import Config, Peer, Route, Worklist
from dicom_node.deliver.probe import CLASSES, Probe
from dicom_node.deliver.scu import echo
from dicom_node.deliver.sighting import asking
from dicom_node.deliver.stow import reach
from dicom_node.domain.identity import UID
from dicom_node.errors import DicomNodeError
from dicom_node.infer.bundle import bundle_digests
from dicom_node.infer.registry import pipelines
from dicom_node.node.build import build
from dicom_node.node.certificates import certificates, wanted, who_gets_in
from dicom_node.node.fetch import can_be_asked, is_asked
from dicom_node.node.performers import answers
from dicom_node.node.selftest import Mark, selftest
from dicom_node.receive.callers import Callers
from dicom_node.store.archive import Archive
from dicom_node.store.capabilities import Capabilities
from dicom_node.store.database import engine_for, migrate, utc_now


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    sentence: str


def selftests(marks: Mapping[str, Mark]) -> list[Finding]:
    """Marked images of each kind through the whole path, see `selftest.py`."""
    return [_tried(f"selftest {what}", partial(selftest, mark)) for what, mark in marks.items()]


def check_all(config: Config) -> list[Finding]:
    """Every check, in the order a person would make them; a failed one never hides the next."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("data_dir", lambda: _data_dir(config)),
        ("disk", lambda: _disk(config)),
        ("database", lambda: _database(config)),
        ("archive", lambda: _archive(config)),
        ("audit", lambda: audited(config)),
        *([("tls", lambda: certificates(config, utc_now()))] if wanted(config) else []),
        ("let in", lambda: who_gets_in(config)),
        ("stow", lambda: str(Callers.of(config))),
        ("routes", lambda: _routes(config)),
        *((f"models of {name}", _models_of(config, name)) for name in _routed(config)),
        *((f"peer {peer.name}", _peer_of(config, peer)) for peer in config.peer),
        *(
            (f"results shown by {peer.name}", partial(_shows, config, peer))
            for peer in config.peer
            if peer.confirm == "query"
        ),
        *(
            (f"fetch from {peer.name}", partial(can_be_asked, config, peer))
            for peer in config.peer
            if is_asked(config, peer)
        ),
        *((f"worklist of {one.peer}", partial(_worklist, config, one)) for one in config.worklist),
    ]
    return [_tried(what, look) for what, look in checks]


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, ok=True, sentence=look())
    except DicomNodeError as error:
        return Finding(what, ok=False, sentence=str(error))
    except Exception as error:  # noqa: BLE001 - the edge: whatever a driver raises becomes a sentence
        return Finding(what, ok=False, sentence=f"{type(error).__name__}: {error}".splitlines()[0])


def _data_dir(config: Config) -> str:
    folder = config.node.data_dir
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x")
        os.fsync(file.fileno())
    return f"{folder} is writable"


def _disk(config: Config) -> str:
    free_mb = Archive(config.node.data_dir).free_bytes() / 1e6
    if free_mb < config.receive.reserve_mb:
        raise DicomNodeError(
            f"{free_mb:.0f} MB free, less than receive.reserve_mb = {config.receive.reserve_mb}: "
            "images are refused"
        )
    return f"{free_mb / 1000:.1f} GB free"


def _database(config: Config) -> str:
    engine = engine_for(config)
    try:
        migrate(engine)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return f"{engine.dialect.name} answers, schema is current"
    finally:
        engine.dispose()


def _archive(config: Config) -> str:
    """Not wrong, but a person should know: what was kept aside, and files no row speaks of."""
    node = build(config)
    try:
        aside, orphans = len(node.catalog.conflicts()), len(node.catalog.orphans())
    finally:
        node.engine.dispose()
    sentences = [
        f"{aside} images kept aside: their UID was taken by other bytes" if aside else "",
        f"{orphans} files without a row, left by a crash and never acknowledged" if orphans else "",
    ]
    return "; ".join(filter(None, sentences)) or "nothing kept aside, every file has its row"


def _worklist(config: Config, worklist: Worklist) -> str:
    node = build(config)
    try:
        return answers(node, worklist)
    finally:
        node.engine.dispose()


def _routed(config: Config) -> Iterator[str]:
    return iter(sorted({route.pipeline for route in config.route}))


def _routes(config: Config) -> str:
    if not config.route:
        raise DicomNodeError("there is no [[route]]: images are kept, but no pipeline looks at them")
    known = pipelines(config.node.pipelines_dir)
    for name in _routed(config):
        if name not in known:
            raise DicomNodeError(f"no pipeline {name!r}; there are {', '.join(sorted(known)) or 'none'}")
    return f"{len(config.route)} route(s)"


def _models_of(config: Config, name: str) -> Callable[[], str]:
    def look() -> str:
        known = pipelines(config.node.pipelines_dir)
        if name not in known:
            raise DicomNodeError(f"pipeline {name!r} is not there")
        digests = bundle_digests(known[name].models, config.node.models_dir)
        return ", ".join(f"{model} {digest[:12]}" for model, digest in digests.items()) or "uses none"

    return look


def _peer_of(config: Config, peer: Peer) -> Callable[[], str]:
    receives = [route for route in config.route if peer.name in route.to]

    def look() -> str:
        if not receives:
            return "only sends; nothing to ask"
        if peer.url:
            reach(peer, config.deliver.timeout_s, tls=config.tls)
            return f"{peer.url} answers; what it takes is seen when results are sent"
        answers = "answers C-ECHO by TLS" if peer.tls else "answers C-ECHO"
        title, timeout_s = config.node.ae_title, config.deliver.timeout_s
        echo(peer, title, timeout_s, tls=config.tls)
        accepted = _asked(config, peer)
        if missing := _missing(peer, receives, accepted):
            raise DicomNodeError(f"{answers} but does not accept {missing}")
        names = [name for uid, (_, name) in CLASSES.items() if uid in accepted]
        without = [name for uid, (_, name) in CLASSES.items() if uid not in accepted]
        return f"{answers}, accepts {', '.join(names)}" + (f"; not {', '.join(without)}" if without else "")

    return look


def _shows(config: Config, peer: Peer) -> str:
    nobodys = [UID(f"2.25.{uuid4().int}") for _ in range(3)]
    with asking(config, peer) as shows:
        if shows(nobodys[0], nobodys[1], nobodys[2]):
            raise DicomNodeError(f"PACS {peer.name!r} says that it shows an object that nobody sent")
    return "can be asked whether it shows an object"


def _asked(config: Config, peer: Peer) -> frozenset[str]:
    """What the peer accepts now; kept for the deliveries to come."""
    engine = engine_for(config)
    try:
        migrate(engine)
        return Probe(config, Capabilities(engine), utc_now).ask(peer)
    finally:
        engine.dispose()


def _missing(peer: Peer, routes: Sequence[Route], accepted: frozenset[str]) -> str:
    """What it must accept and does not: all that is listed for it; of what is chosen by it, some form."""
    forms = {CLASSES[uid][0] for uid in accepted}
    listed = [form for route in routes if route.outputs != "auto" for form in route.outputs]
    wanted = dict.fromkeys([*listed, *(peer.takes if peer.takes != "ask" else ())])
    if missing := [form for form in wanted if form not in forms]:
        return ", ".join(missing)
    return "" if forms & {"sr", "sc"} else "any form that people can read: sr or sc"
