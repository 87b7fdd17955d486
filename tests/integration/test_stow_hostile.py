"""STOW-RS when the other side is slow, gone, too much or up to no good: raw sockets, real processes."""

from __future__ import annotations

import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from dicom_node.web import protocol, upload
from dicom_node.web.stow import Pace
from support.mr import file_bytes, mr_instance, mr_series
from support.ports import wait_until
from support.receiving import recorded
from support.stowing import (
    BOUNDARY,
    OTHER,
    TOKEN,
    Stowing,
    answered,
    body,
    content_type,
    head,
    part,
    reasons,
    references,
    stowing,
    up_to_pixels,
    web_process,
)

HALF = part(up_to_pixels(1_000_000)) + bytes(400_000)
"""A part that has begun, and is well on its way to the disk."""


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Stowing]:
    with stowing(tmp_path) as opened:
        yield opened


@contextmanager
def arriving(door: Stowing) -> Iterator[None]:
    """An upload that has begun and does not go on; ended with the block."""
    with closing(door.connect()) as connection:
        connection.sendall(head(length=10_000_000) + HALF)
        wait_until(lambda: len(door.spooled()) == 1, 20, "the part is on its way to the disk")
        yield


@contextmanager
def locked(folder: Path) -> Iterator[sqlite3.Connection]:
    """A ledger that nobody else can write to, until it is rolled back."""
    ledger = sqlite3.connect(folder / "node.sqlite3", isolation_level=None, check_same_thread=False)
    with closing(ledger):
        ledger.execute("BEGIN IMMEDIATE")
        yield ledger


def test_silence_is_cut(tmp_path: Path) -> None:
    """Nothing for receive.network_timeout_s: 408, closed, and nothing is left of the part."""
    with stowing(tmp_path, network_timeout_s=0.4) as door, closing(door.connect()) as connection:
        connection.sendall(head(length=10_000_000) + HALF)

        answer = answered(connection, within_s=10)

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert ([], []) == (door.rows(), door.spooled())


def test_a_drip_is_cut(tmp_path: Path) -> None:
    """A byte now and then is no silence, and no upload either: there is a least rate."""
    pace = Pace(silence_s=10, grace_s=0.3, slowest_bytes_per_s=1_000_000)
    with stowing(tmp_path, pace=pace) as door, closing(door.connect()) as connection:
        connection.sendall(head(length=10_000_000) + part(up_to_pixels(1_000_000)))
        over = threading.Event()
        dripping = threading.Thread(target=_drip, args=(connection, over))
        dripping.start()

        answer = answered(connection)

        over.set()
        dripping.join()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert ([], []) == (door.rows(), door.spooled())


def _drip(connection: object, over: threading.Event) -> None:
    while not over.wait(0.02):
        try:
            connection.send(b"\0")  # type: ignore[attr-defined]
        except OSError:
            return


def test_no_request_takes_for_ever(tmp_path: Path) -> None:
    """However steadily it comes."""
    with stowing(tmp_path, pace=Pace(longest_s=0.0)) as door, closing(door.connect()) as connection:
        connection.sendall(head(length=10_000_000) + HALF)

        assert answered(connection).startswith(b"HTTP/1.1 408 ")


def test_the_node_s_own_slowness_is_nobody_s_drip(tmp_path: Path) -> None:
    """Time that the disk and the ledger take does not count against the sender."""
    with stowing(tmp_path, pace=Pace(grace_s=2.0, slowest_bytes_per_s=10**9)) as door:
        with locked(door.books.folder) as ledger:
            release = threading.Timer(3.0, ledger.rollback)
            release.start()
            answer = door.post(*mr_series(slices=3, rows=512, columns=512))
            release.join()

        assert 200 == answer.status_code


def test_a_client_that_goes_leaves_nothing(door: Stowing) -> None:
    """A part that was cut is removed, one that was whole stays."""
    whole = mr_instance(index=3)
    with closing(door.connect()) as connection:
        connection.sendall(head(length=10_000_000) + part(whole) + HALF)
        wait_until(lambda: len(door.rows()) == 1 and len(door.spooled()) == 1, 20, "the second part comes")

    wait_until(lambda: door.spooled() == [], 20, "the cut part is removed")
    assert [str(whole.SOPInstanceUID)] == [row[0] for row in door.rows()]


def test_a_stranger_s_body_is_not_read(door: Stowing) -> None:
    """401 at once, not even 100 Continue, and closed although all of the body is missing."""
    with closing(door.connect()) as connection:
        connection.sendall(head(length=10**9, token="x" * 32, Expect="100-continue"))

        answer = answered(connection)

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_a_peer_is_told_to_go_on(door: Stowing) -> None:
    """100 Continue for a peer, as curl asks before large bodies."""
    content = body([mr_instance()])
    with closing(door.connect()) as connection:
        connection.sendall(head(length=len(content), Expect="100-continue", Connection="close"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")

        connection.sendall(content)

        assert answered(connection).startswith(b"HTTP/1.1 200 ")


def test_uploads_of_a_peer_are_counted(tmp_path: Path) -> None:
    """peer.max_associations holds for uploads: one more is 503 with Retry-After, and takes nobody's place."""
    with stowing(tmp_path, scanner={"max_associations": 1}) as door:
        with arriving(door):
            answer = door.post(mr_instance())

            assert 503 == answer.status_code
            assert int(answer.headers["retry-after"]) > 0
        wait_until(lambda: door.spooled() == [], 20, "the first upload is gone")
        assert 200 == door.post(mr_instance()).status_code


def test_uploads_of_all_are_counted(tmp_path: Path) -> None:
    """receive.max_associations bounds all uploads together."""
    with stowing(tmp_path, max_associations=1) as door, arriving(door):
        assert 503 == door.post(mr_instance()).status_code


def test_pages_answer_while_uploads_wait(door: Stowing) -> None:
    """A ledger that makes uploads wait keeps no page from answering."""
    with locked(door.books.folder) as ledger:
        answers: list[httpx.Response] = []
        posting = threading.Thread(target=lambda: answers.append(door.post(mr_instance())))
        posting.start()
        try:
            url = f"http://127.0.0.1:{door.port}/health"
            assert all(httpx.get(url, trust_env=False, timeout=10).status_code == 200 for _ in range(3))
        finally:
            ledger.rollback()
            posting.join()

    assert [200] == [answer.status_code for answer in answers]


def test_parts_are_counted(door: Stowing, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part too many ends the request; what came before is stored and said."""
    monkeypatch.setattr(upload, "PARTS_AT_MOST", 2)

    answer = door.post(*mr_series(slices=4))

    assert (answer.status_code, len(references(answer))) == (202, 2)
    assert reasons(answer, OTHER) == [0xA700]


def test_silence_after_connecting_is_not_waited_for(door: Stowing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing holds no place for long."""
    monkeypatch.setattr(protocol, "FIRST_WORD_S", 0.3)
    with closing(door.connect()) as connection:
        assert b"" == connection.recv(1)


@pytest.mark.parametrize(
    "words",
    [b"GET /hea", b"GET /health HTTP/1.1\r\nHost: node\r\n\r\nGET /he",
     b"POST /health HTTP/1.1\r\nHost: node\r\nContent-Length: 100000000\r\n\r\nxxxx"],
    ids=["half a line", "half a second request", "a body nobody wants"],
)  # fmt: skip
def test_a_request_that_comes_byte_by_byte_is_cut(
    door: Stowing, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    """A head has its time as a whole, and so has the rest of a body after its answer."""
    monkeypatch.setattr(protocol, "FIRST_WORD_S", 0.3)
    with closing(door.connect()) as connection:
        connection.sendall(words)
        over = threading.Event()

        dripping = threading.Thread(target=_drip, args=(connection, over))
        dripping.start()
        dripping.join(20)
        still = dripping.is_alive()
        over.set()
        dripping.join()

    assert not still


def test_the_oldest_idle_connection_makes_room(door: Stowing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an address has all its places, silent connections keep nobody out."""
    monkeypatch.setattr(protocol, "PER_ADDRESS", 2)
    first, second = door.connect(), door.connect()
    with closing(first), closing(second), closing(door.connect()) as third:
        third.sendall(b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n")

        assert third.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert b"" == first.recv(1)
        second.sendall(b"GET /health HTTP/1.1\r\nHost: node\r\n\r\n")
        assert second.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_an_upload_is_never_put_out(door: Stowing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all places are at work, the newcomer is closed at once; later there is a place again."""
    monkeypatch.setattr(protocol, "CONNECTIONS", 1)
    with arriving(door):
        assert _closed_at_once(door)
        assert 1 == len(door.spooled())

    wait_until(lambda: not _closed_at_once(door), 20, "there is a place again")


def test_hundreds_of_silent_connections_keep_nobody_out(door: Stowing) -> None:
    """Each takes the place of an older one; a peer sends meanwhile."""
    with ExitStack() as silent:
        for _ in range(300):
            silent.enter_context(closing(door.connect()))
        assert 200 == door.post(mr_instance()).status_code


def _closed_at_once(door: Stowing) -> bool:
    with closing(door.connect()) as connection:
        connection.settimeout(0.3)
        try:
            return connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /studies HTTP/1.1\r\nHost: n\r\nContent-Length: x\r\n\r\n",
        b"POST /studies HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /studies HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST /studies HTTP/1.1\r\nHost: n\r\nX: " + b"y" * 40_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"\x01\x00\x00\x00\x00\xcd\x00\x01\x00\x00" + bytes(195),
    ],
    ids=["length", "two lengths", "encoding", "long head", "TLS", "DICOM"],
)
def test_what_is_no_http_is_closed(door: Stowing, request_: bytes) -> None:
    """A request that h11 does not understand ends its connection, and no other."""
    with closing(door.connect()) as connection:
        connection.sendall(request_)

        answer = answered(connection)

    assert answer[9:12] in (b"400", b"431", b"501")
    assert 200 == door.post(mr_instance()).status_code


def test_chunks_of_any_size_make_the_same_file(door: Stowing) -> None:
    """The data set is bit for bit what was sent, however the body was cut up, delimiters included."""
    pixels = (b"\r\n--" + BOUNDARY[:-1].encode() + b"\r" + b"\r\n-" + b"\r\n") * 40
    ds = mr_instance(PixelData=pixels + bytes(len(pixels) % 2))
    content = body([ds])
    with closing(door.connect()) as connection:
        connection.sendall(head(Connection="close"))
        for at in range(0, len(content), 37):
            piece = content[at : at + 37]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")

        assert answered(connection).startswith(b"HTTP/1.1 200 ")

    assert door.data_sets()[str(ds.SOPInstanceUID)] in file_bytes(ds)


def test_stopping_ends_what_is_on_its_way(tmp_path: Path) -> None:
    """An upload that does not come to its end keeps no node from stopping, and leaves nothing behind."""
    with stowing(tmp_path) as door:
        connection = door.connect()
        connection.sendall(head(length=10_000_000) + HALF)
        wait_until(lambda: len(door.spooled()) == 1, 20, "the part is on its way to the disk")

    assert [] == list((tmp_path / "spool").iterdir())
    connection.close()


def test_a_large_instance_takes_no_memory(tmp_path: Path) -> None:
    """500 MB in one part: the process grows by less than 40 MB, and stays under 150 MB."""
    size = 500_000_000
    begin, end = part(up_to_pixels(size)), f"\r\n--{BOUNDARY}--\r\n".encode()
    block = bytes(range(256)) * 3906 + bytes(64)

    def content() -> Iterator[bytes]:
        yield begin
        yield from (block for _ in range(size // len(block)))
        yield end

    with web_process(tmp_path) as (process, port):
        before = psutil.Process(process.pid).memory_info().rss

        answer = httpx.post(
            f"http://127.0.0.1:{port}/studies", content=content(), timeout=200, trust_env=False,
            headers={**content_type(), "Authorization": f"Bearer {TOKEN}"},
        )  # fmt: skip

        peak = _peak_bytes(process.pid)
        assert 200 == answer.status_code
        assert peak - before < 40_000_000
        assert peak < 150_000_000


def _peak_bytes(pid: int) -> int:
    """VmHWM, the high-water mark of resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM: is this Linux?")


def test_a_killed_process_keeps_what_it_answered(tmp_path: Path) -> None:
    """SIGKILL during the second request: the first one's instances are there, of the second nothing."""
    done, cut = mr_series(slices=3), part(up_to_pixels(1_000_000)) + bytes(400_000)
    with web_process(tmp_path) as (process, port), closing(_connected(port)) as connection:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/studies", content=body(done), timeout=60, trust_env=False,
            headers={**content_type(), "Authorization": f"Bearer {TOKEN}"},
        )  # fmt: skip
        assert 200 == answer.status_code
        connection.sendall(head(length=10_000_000) + cut)
        wait_until(lambda: any((tmp_path / "spool").iterdir()), 20, "the second request comes")
        process.kill()
        process.wait()

    with stowing(tmp_path) as door:
        assert 1 == door.books.archive.sweep_spool()
        assert set(recorded(tmp_path)) == {str(ds.SOPInstanceUID) for ds in done} == set(door.data_sets())


def _connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)
