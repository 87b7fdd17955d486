"""Objects made to harm, through the real front door: stored or refused with a status, and nothing else.

Paths for UIDs, bombs, towers of sequences. The receiver runs in a process of its own; the tree around
its folder is compared, and its memory read.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import pdus
from support.mr import MR_IMAGE, mr_instance
from support.mutate_sessions import HOSTILE_NAMES
from support.nested import ENCODINGS, Encoding
from support.pdus import Context, Line, good_echo, line
from support.ports import free_port
from support.receiving import receiver_process, recorded
from support.scu import data_set_bytes
from support.watch import Watch, tree

MIB = 1 << 20
DEFLATED = "1.2.840.10008.1.2.1.99"
REFUSED = {0x0117, 0xA900, 0xC000}


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Watch]]:
    """Port and process of one that takes deflated objects, too."""
    folder, port = tmp_path_factory.mktemp("around") / "node", free_port()
    with receiver_process(folder, port, receive={"deflate": True}) as process:
        good_echo(port)
        yield port, Watch(process.pid, folder)
        good_echo(port)
        assert process.poll() is None


@pytest.fixture
def peer(receiver: tuple[int, Watch]) -> Iterator[Line]:
    """One association with the usual contexts, and 5: deflated, 7: implicit, 9: big endian."""
    contexts = (
        *pdus.USUAL, Context(5, MR_IMAGE, (DEFLATED,)), Context(7, MR_IMAGE, (pdus.IMPLICIT,)),
        Context(9, MR_IMAGE, ("1.2.840.10008.1.2.2",)),
    )  # fmt: skip
    with line(receiver[0]) as opened:
        kind, body = opened.associate(pdus.associate_rq(contexts=contexts))
        assert (pdus.ASSOCIATE_AC, {0}) == (kind, set(pdus.results(body).values()))
        yield opened
        opened.release()


def sent(peer: Line, instance: str, data_set: bytes, context: int = 3) -> tuple[int, str]:
    """(status, reason)."""
    peer.send(*pdus.store_pdus(instance, data_set, context=context))
    answer = peer.response()
    return int.from_bytes(answer[0x0900], "little"), answer.get(0x0902, b"").decode()


def outside(watch: Watch) -> set[Path]:
    """Everything around the node's folder, and its own names beside objects, ledger and audit trail."""
    own = {"objects", "audit", "spool"}
    around = {path for path in tree(watch.folder.parent) if not own & set(path.parts)}
    return {path for path in around if not path.name.startswith("node")}


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=[ascii(name)[:20] for name in HOSTILE_NAMES])
@pytest.mark.parametrize("where", ["command", "data set", "both"])
def test_what_is_no_uid_reaches_no_path(
    receiver: tuple[int, Watch], peer: Line, name: str, where: str
) -> None:
    """In the request, in the data set, in both: refused with a reason, and no file anywhere has its name."""
    ds = mr_instance()
    encoded = name.encode() + b"\0" * (len(name.encode()) % 2)
    plain = pdus.uid_value(str(ds.SOPInstanceUID))
    content = data_set_bytes(ds)
    if where != "command":
        head = struct.pack("<HH2s", 0x0008, 0x0018, b"UI")
        old = head + struct.pack("<H", len(plain)) + plain
        assert old in content
        content = content.replace(old, head + struct.pack("<H", len(encoded)) + encoded)
    before, stored = outside(receiver[1]), recorded(receiver[1].folder)

    status, reason = sent(peer, str(ds.SOPInstanceUID) if where == "data set" else name, content)

    assert status in REFUSED and reason
    assert before == outside(receiver[1])
    assert stored == recorded(receiver[1].folder)
    assert [] == receiver[1].spooled()


@pytest.mark.parametrize("tag", [0x0020000D, 0x0020000E, 0x00080016])
def test_paths_for_other_uids_reach_no_path(receiver: tuple[int, Watch], peer: Line, tag: int) -> None:
    """Study, Series and SOP Class UID of the data set."""
    ds = mr_instance()
    ds[tag]._value = "../../../etc/cron.d/x"
    before = outside(receiver[1])

    status, reason = sent(peer, str(ds.SOPInstanceUID), data_set_bytes(ds))

    assert status in REFUSED and reason
    assert before == outside(receiver[1])


@pytest.mark.parametrize(
    ("context", "syntax"), [(3, pdus.EXPLICIT), (7, pdus.IMPLICIT), (9, "1.2.840.10008.1.2.2")]
)
@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_a_tower_of_sequences_is_refused(
    receiver: tuple[int, Watch], peer: Line, context: int, syntax: str, depth: int
) -> None:
    """Before the UIDs, in each encoding: 0xC000 with the reason, and little memory."""
    before = receiver[1].memory_kib()

    status, reason = sent(peer, "1.2.3.4", ENCODINGS[syntax].tower(depth, tag=0x00080006), context)

    assert (0xC000, "sequences are nested more than 64 deep") == (status, reason)
    assert receiver[1].memory_kib() - before < 64 * 1024


def folded(content: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush()


def test_a_deflate_bomb_costs_little(receiver: tuple[int, Watch], peer: Line) -> None:
    """400 KB that unfold to 400 MiB before the UIDs: 0xC000, under 64 MiB."""
    bomb = folded(Encoding().head(0x00080000, "OB", 400 * MIB) + bytes(400 * MIB))
    assert len(bomb) < 420_000
    good_echo(receiver[0])
    before = receiver[1].highest_kib()

    status, reason = sent(peer, "1.2.3.4", bomb, 5)

    assert 0xC000 == status and "deflated" in reason
    assert receiver[1].highest_kib() - before < 64 * 1024


def test_an_honest_deflated_object_is_stored(receiver: tuple[int, Watch], peer: Line) -> None:
    """Where `receive.deflate` says so; bit for bit, still deflated."""
    ds = mr_instance(study="deflated")
    content = folded(data_set_bytes(ds))

    assert 0x0000 == sent(peer, str(ds.SOPInstanceUID), content, 5)[0]
    digest = recorded(receiver[1].folder)[str(ds.SOPInstanceUID)]
    assert (receiver[1].folder / "objects" / digest[:2] / digest).read_bytes().endswith(content)


def test_no_stored_file_can_be_run(receiver: tuple[int, Watch], peer: Line) -> None:
    """Mode 0600, and 128 zero bytes where a file for another program could begin (PS3.10 7.1)."""
    ds = mr_instance(study="polyglot")

    assert 0x0000 == sent(peer, str(ds.SOPInstanceUID), data_set_bytes(ds))[0]
    for path in (path for path in (receiver[1].folder / "objects").rglob("*") if path.is_file()):
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert bytes(128) == path.read_bytes()[:128]
