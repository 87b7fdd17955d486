"""Peers that drip, flood, lie, break off or say nothing: everybody else is served, and nothing stays behind.

Real sockets against a receiver in a process of its own; the hostile peers come from the same address as
the good one. What is held afterwards is read from /proc.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from support import pdus
from support.certificates import Hospital, hospital
from support.mr import MR_IMAGE, mr_instance
from support.pdus import Closed, Context, Line, good_echo, line
from support.ports import free_port, wait_until
from support.receiving import SCANNER, receiver_process, recorded
from support.scu import data_set_bytes
from support.watch import Watch

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which is Linux")

GIB_4 = 0xFFFFFFF0
TRIES = 100
AT_ONCE_S = 3.0
"""A refusal that waits for nothing is here by then, on a busy machine too; every timeout is longer."""


@dataclass(frozen=True)
class Node:
    port: int
    tls_port: int
    watch: Watch

    def stored(self) -> set[str]:
        return set(recorded(self.watch.folder))

    def echoes(self, tls: ssl.SSLContext | None = None) -> float:
        """The 99th percentile of a good peer's association with one C-ECHO, seconds."""
        port = self.tls_port if tls else self.port
        taken = sorted(good_echo(port, tls=tls) for _ in range(TRIES))
        return taken[int(0.99 * TRIES) - 1]


@contextlib.contextmanager
def started(folder: Path, *, prefix: tuple[str, ...] = (), **more: object) -> Iterator[Node]:
    port, tls = free_port(), more.get("tls")
    with receiver_process(folder / "node", port, prefix=prefix, **more) as process:  # type: ignore[arg-type]
        node = Node(
            port, int(tls["port"]) if isinstance(tls, dict) else 0, Watch(process.pid, folder / "node")
        )
        good_echo(port)
        yield node
        assert process.poll() is None
        good_echo(port)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with started(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One for all tests that store nothing; that it still answers is asked at the end, too."""
    with started(tmp_path_factory.mktemp("standing")) as running:
        yield running


@pytest.fixture
def pki(tmp_path: Path) -> Hospital:
    return hospital(tmp_path / "pki")


@pytest.fixture
def tls_node(tmp_path: Path, pki: Hospital) -> Iterator[Node]:
    by_tls = {**SCANNER, "name": "by-tls", "ae_title": "BYTLS", "certificates": [pki.peer.fingerprint]}
    with started(tmp_path, tls=pki.tls(port=free_port()), peer=[SCANNER, by_tls]) as running:
        yield running


def of_peer(pki: Hospital) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.authority.file))
    context.load_cert_chain(pki.peer.certificate, pki.peer.private_key)
    return context


def image(size: int = 20_000) -> tuple[str, bytes]:
    """(SOP Instance UID, data set) of an MR image with about `size` bytes of noise as pixels."""
    rows = size // 128
    ds: Dataset = mr_instance(Rows=rows, Columns=64, PixelData=random.Random(size).randbytes(rows * 128))
    return str(ds.SOPInstanceUID), data_set_bytes(ds)


# ---- who takes the time of others ---------------------------------------------------------------


def test_silent_tls_clients_keep_nobody_waiting(tls_node: Node, pki: Hospital) -> None:
    """A client that connects to the TLS port and says nothing; then twenty of them."""
    with contextlib.ExitStack() as silent:
        silent.enter_context(socket.create_connection(("127.0.0.1", tls_node.tls_port)))
        context = of_peer(pki)

        def good() -> float:
            started_at = time.monotonic()
            with line(tls_node.tls_port, tls=context) as peer:
                kind, _ = peer.associate(pdus.associate_rq(calling="BYTLS"))
                assert (pdus.ASSOCIATE_AC, 0) == (kind, peer.echo())
                peer.release()
            return time.monotonic() - started_at

        one = sorted(good() for _ in range(TRIES))
        for _ in range(20):
            silent.enter_context(socket.create_connection(("127.0.0.1", tls_node.tls_port)))
        many = sorted(good() for _ in range(TRIES))

    assert max(one[int(0.99 * TRIES) - 1], many[int(0.99 * TRIES) - 1]) < 1.0


def test_a_thousand_idle_connections_keep_nobody_out(node: Node) -> None:
    """They are closed to make room; the good peer's p99 stays under a second, and nothing is left of them."""
    before = node.watch.held()
    idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(1000)]
    try:
        assert node.echoes() < 1.0
        assert node.watch.held().sockets < 400
    finally:
        for connection in idle:
            connection.close()
    node.watch.returns_to(before)


class Drips(threading.Thread):
    """`count` connections that send one byte a second; one that is closed is opened anew."""

    def __init__(self, count: int, begin: Callable[[], Line], content: bytes) -> None:
        super().__init__(daemon=True)
        self._begin, self._content, self._over = begin, content, threading.Event()
        self._lines: list[Line | None] = [None] * count
        self.sent = 0
        self.all_begun = threading.Event()

    def run(self) -> None:
        at = 0
        while not self._over.is_set():
            until = time.monotonic() + 1.0
            for number in range(len(self._lines)):
                self._drip(number, self._content[at % len(self._content) :][:1])
            at += 1
            self.all_begun.set()
            self._over.wait(until - time.monotonic())

    def _drip(self, number: int, byte: bytes) -> None:
        with contextlib.suppress(Closed, OSError):
            drop = self._lines[number]
            if drop is None:
                self._lines[number] = self._begin()
                return
            try:
                drop.send(byte)
                self.sent += 1
            except Closed:
                drop.close()
                self._lines[number] = None

    def end(self) -> None:
        self._over.set()
        self.join(30)
        for drop in self._lines:
            if drop is not None:
                drop.close()


def within_request(port: int) -> Line:
    opened = Line(port)
    opened.send(pdus.associate_rq()[:6])
    return opened


def within_data(port: int) -> Line:
    """An association, a C-STORE request, and a data set that has begun; all at once, without waiting."""
    opened = Line(port)
    begun = struct.pack(">BxIIBB", pdus.P_DATA, 16000, 15996, 3, 0)
    opened.send(pdus.associate_rq(), *pdus.message(3, pdus.COMMAND, pdus.store_rq("1.2.3.4")), begun)
    return opened


@pytest.mark.parametrize("begin", [within_request, within_data])
def test_a_hundred_drip_feeders_keep_nobody_out(node: Node, begin: Callable[[int], Line]) -> None:
    """One byte a second inside A-ASSOCIATE-RQ, or inside the data set of an established association."""
    before = node.watch.held()
    drips = Drips(100, lambda: begin(node.port), bytes(16000))
    drips.start()
    try:
        assert drips.all_begun.wait(30)
        sent = drips.sent
        assert node.echoes() < 1.0
        wait_until(lambda: drips.sent > sent, 10.0, "they still drip")
        assert node.echoes() < 1.0
    finally:
        drips.end()
    node.watch.returns_to(before)
    assert set() == node.stored()


# ---- what is announced and never comes ----------------------------------------------------------


@pytest.mark.parametrize("kind", range(9))
@pytest.mark.parametrize("established", [False, True], ids=["before", "after"])
def test_a_pdu_of_four_gib_is_refused_by_its_header(standing: Node, kind: int, established: bool) -> None:
    """Before an association and in one: the connection ends at once, and less than 1 MiB is taken."""
    good_echo(standing.port)
    before = standing.watch.memory_kib()
    started_at = time.monotonic()
    with line(standing.port) as hostile:
        if established:
            hostile.associate()
            hostile.send(*pdus.message(3, pdus.COMMAND, pdus.store_rq("1.2.3.4")))
        with contextlib.suppress(Closed):
            data = pdus.pdv(3, 0, bytes(64_000), length=GIB_4 - 4)
            hostile.send(pdus.pdu(kind, data, length=GIB_4))
        hostile.ended()
        assert time.monotonic() - started_at < AT_ONCE_S
        grown = standing.watch.memory_kib() - before

    assert grown < 1024


def test_absurd_lengths_inside_an_association_are_refused(standing: Node) -> None:
    """A PDV longer than its PDU, one of 4 GiB, one shorter than its own head, a PDU of no length: A-ABORT."""
    echo = pdus.echo_rq()
    for lie in (
        pdus.p_data(pdus.pdv(1, 3, echo, length=len(echo) + 3)),
        pdus.p_data(pdus.pdv(1, 3, echo, length=GIB_4)),
        pdus.p_data(pdus.pdv(1, 3, echo, length=1)),
        pdus.p_data(pdus.pdv(1, 3, echo, length=0)),
        pdus.p_data(),
        pdus.p_data(b"\0\0\0"),
    ):
        with line(standing.port) as hostile:
            hostile.associate()
            hostile.send(lie)
            assert [pdus.ABORT] == [kind for kind, _ in hostile.ended()]


# ---- who breaks off -----------------------------------------------------------------------------


def breaks_off(node: Node, how: int, instance: str, data_set: bytes) -> None:
    """One connection that ends in one of five ways."""
    with line(node.port) as hostile, contextlib.suppress(Closed, TimeoutError):
        if how == 1:
            hostile.send(pdus.associate_rq()[:100])
        if how >= 2:
            hostile.associate()
        if how >= 3:
            hostile.send(*pdus.store_pdus(instance, data_set)[:-1])
        if how in (2, 3):
            hostile.send(pdus.abort())
        else:
            hostile.break_off()


def test_ten_thousand_aborted_associations_leave_nothing(node: Node) -> None:
    """No thread, descriptor or file, and no memory that grows with their number."""
    instance, data_set = image()
    for number in range(500):
        breaks_off(node, number % 5, instance, data_set)
    good_echo(node.port)
    before, memory = node.watch.held(), node.watch.memory_kib()

    for number in range(10_000):
        breaks_off(node, number % 5, instance, data_set)

    node.watch.returns_to(before)
    assert node.watch.memory_kib() - memory < 16 * 1024
    assert set() == node.stored()


def test_a_connection_cut_anywhere_stores_nothing(node: Node) -> None:
    """At 200 places from the first byte to the last but one: no row, object or spool file; then it works."""
    instance, data_set = image(50_000)
    whole = b"".join([pdus.associate_rq(), *pdus.store_pdus(instance, data_set)])
    before = node.watch.held()
    ends = sorted({round(1 + number * (len(whole) - 2) / 199) for number in range(200)})
    assert 200 == len(ends)

    for number, end in enumerate(ends):
        with line(node.port) as hostile:
            hostile.send(whole[:end])
            if number % 2:
                hostile.break_off()

    node.watch.returns_to(before)
    objects = [path for path in (node.watch.folder / "objects").rglob("*") if path.is_file()]
    assert (set(), []) == (node.stored(), objects)
    with line(node.port) as good:
        good.associate()
        assert 0x0000 == good.store(instance, data_set)
    assert {instance} == node.stored()


# ---- where the machine is short -----------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_descriptors_beyond_1024_are_no_limit(tmp_path: Path) -> None:
    """With 1,100 descriptors open already: select() could not, poll and blocking reads can."""
    opened = 'ulimit -n 4096 && for n in $(seq 1100); do exec {fd}</dev/null; done && exec "$@"'
    instance, data_set = image()
    with started(tmp_path, prefix=("bash", "-c", opened, "bash")) as node:
        assert node.watch.held().descriptors > 1100
        with line(node.port) as good:
            good.associate()
            assert (0, 0) == (good.echo(), good.store(instance, data_set))


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed (Debian: util-linux)")
def test_no_descriptors_left_is_a_pause_and_no_end(tmp_path: Path) -> None:
    """64 descriptors and 200 silent connections: who calls then waits for a moment, and is served."""
    short = {"receive": {"network_timeout_s": 2.0}}
    with started(tmp_path, prefix=("prlimit", "--nofile=64"), **short) as node:
        before = node.watch.held()
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(200)]
        try:
            wait_until(lambda: node.watch.held().descriptors >= 60, 10.0, "there are no descriptors left")
            assert good_echo(node.port, timeout_s=60.0) < 60.0
        finally:
            for connection in silent:
                connection.close()
        node.watch.returns_to(before, 30.0)


# ---- who speaks something else ------------------------------------------------------------------


def test_plain_dicom_on_the_tls_port_is_closed(tls_node: Node) -> None:
    """And leaves nothing."""
    before = tls_node.watch.held()
    for _ in range(20):
        with line(tls_node.tls_port) as mistaken:
            mistaken.send(pdus.associate_rq())
            assert pdus.ASSOCIATE_AC not in [kind for kind, _ in mistaken.ended()]
    tls_node.watch.returns_to(before)


def test_tls_on_the_plain_port_is_closed(tls_node: Node, pki: Hospital) -> None:
    """A ClientHello is no PDU."""
    before = tls_node.watch.held()
    for _ in range(20):
        with pytest.raises(OSError), line(tls_node.port, tls=of_peer(pki)):
            pass
    tls_node.watch.returns_to(before)


# ---- presentation contexts and what else is negotiated ------------------------------------------


def test_unknown_contexts_are_refused_one_by_one(standing: Node) -> None:
    """Abstract syntax (3) or transfer syntaxes (4) not supported, acceptance (0): PS3.8 9.3.3.2."""
    proposed = (
        Context(1, pdus.VERIFICATION),
        Context(3, "1.2.3.4"),
        Context(5, MR_IMAGE, ("1.2.3",)),
        Context(255),
    )
    with line(standing.port) as peer:
        kind, body = peer.associate(pdus.associate_rq(contexts=proposed))

        assert (pdus.ASSOCIATE_AC, {1: 0, 3: 3, 5: 4, 255: 0}) == (kind, pdus.results(body))
        assert 0 == peer.echo()


def test_128_contexts_are_answered(standing: Node) -> None:
    """As many as there are odd numbers in a byte, each with its result."""
    contexts = tuple(
        Context(number, pdus.VERIFICATION if number == 1 else MR_IMAGE) for number in range(1, 256, 2)
    )
    with line(standing.port) as peer:
        kind, body = peer.associate(pdus.associate_rq(contexts=contexts))

        assert (pdus.ASSOCIATE_AC, 128) == (kind, len(pdus.results(body)))


@pytest.mark.parametrize(
    "numbers", [range(256), (1, 3, 3), (0,), (2,), (1, 4), ()], ids=["256", "twice", "0", "2", "1-4", "none"]
)
def test_impossible_contexts_are_aborted(standing: Node, numbers: range | tuple[int, ...]) -> None:
    """Even or repeated ids, or no context at all: A-ABORT, no association (PS3.8 9.3.2.2)."""
    with line(standing.port) as hostile:
        kind, _ = hostile.associate(pdus.associate_rq(contexts=tuple(Context(number) for number in numbers)))

        assert kind in (pdus.ABORT, pdus.ASSOCIATE_RJ)


@pytest.mark.parametrize(
    "item",
    [pdus.ASYNCHRONOUS, pdus.BOTH_ROLES, pdus.IDENTITY, pdus.EXTENDED, pdus.COMMON_EXTENDED,
     pdus.item(0x5F, b"unknown"), pdus.ASYNCHRONOUS + pdus.BOTH_ROLES + pdus.IDENTITY],
    ids=["asynchronous", "roles", "identity", "extended", "common extended", "unknown", "all"],
)  # fmt: skip
def test_what_is_offered_besides_is_answered_by_silence(standing: Node, item: bytes) -> None:
    """No answer means: one operation at a time, requestor as SCU, no identity (PS3.7 D.3.3)."""
    with line(standing.port) as peer:
        kind, body = peer.associate(pdus.associate_rq(user_items=item))

        assert pdus.ASSOCIATE_AC == kind
        assert b"\x53\0\0\4" not in body and b"\x54\0" not in body and b"\x59\0" not in body
        assert 0 == peer.echo()


def test_requests_sent_ahead_are_answered_in_order(node: Node) -> None:
    """Three messages without waiting, though no asynchronous operations were agreed on: nothing is lost."""
    instance, data_set = image()
    with line(node.port) as peer:
        peer.associate()
        peer.send(*pdus.echo_pdus(), *pdus.store_pdus(instance, data_set), *pdus.echo_pdus())

        answers = [peer.response() for _ in range(3)]

    fields = [int.from_bytes(answer[0x0100], "little") for answer in answers]
    assert [0x8030, 0x8001, 0x8030] == fields
    assert {instance} == node.stored()


# ---- messages that are none ---------------------------------------------------------------------


def command_of(field: bytes, values: dict[int, bytes]) -> list[bytes]:
    return pdus.message(1, pdus.COMMAND, pdus.command_set({0x0100: field, **values}))


@pytest.mark.parametrize(
    "content",
    [
        pdus.message(3, pdus.COMMAND, pdus.store_rq("1.2.3", data_set=pdus.NO_DATA_SET)),
        pdus.message(1, pdus.COMMAND, pdus.store_rq("1.2.3")),  # in the context of Verification
        pdus.message(9, pdus.COMMAND, pdus.echo_rq()),  # a context nobody agreed on
        pdus.message(3, 0, b"a data set nobody announced"),
        [*pdus.message(3, pdus.COMMAND, pdus.store_rq("1.2.3")), *pdus.message(1, 0, b"in another context")],
        [*pdus.message(3, pdus.COMMAND, pdus.store_rq("1.2.3")), *pdus.echo_pdus()],
        command_of(b"\xff\x0f", {0x0110: b"\1\0", 0x0800: b"\1\1"}),
        command_of(b"\x30\0", {}),
        command_of(b"\x30\x80", {0x0110: b"\1\0", 0x0800: b"\1\1"}),
        pdus.message(1, pdus.COMMAND, b""),
        pdus.message(1, pdus.COMMAND, bytes(20_000)),
        [pdus.associate_rq()],
        [pdus.pdu(pdus.ASSOCIATE_AC, bytes(100))],
        [pdus.pdu(0x42, bytes(10))],
        [b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"],
    ],
    ids=["no data set", "wrong service", "unknown context", "data alone", "context changes", "command within",
         "unknown command", "no message id", "a response", "empty", "too long", "second request", "answer",
         "unknown pdu", "http"],
)  # fmt: skip
def test_what_has_no_place_in_the_protocol_ends_the_association(standing: Node, content: list[bytes]) -> None:
    """A-ABORT or a closed connection at once, nothing stored, and the next one is served."""
    before = standing.watch.held()
    started_at = time.monotonic()
    with line(standing.port) as hostile:
        hostile.associate()
        hostile.send(*content)
        answers = [kind for kind, _ in hostile.ended()]

    assert answers in ([pdus.ABORT], [])
    assert time.monotonic() - started_at < AT_ONCE_S
    standing.watch.returns_to(before)
    assert set() == standing.stored()
