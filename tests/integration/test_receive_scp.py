"""The receiver on real sockets: who is let in, what is stored, and what the sender is told."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_node import log
from dicom_node.dicom.provenance import MANUFACTURER, MODEL
from dicom_node.domain.identity import UID, Digest
from dicom_node.domain.job import ResultKind, ResultObject
from dicom_node.store.archive import Archive
from support.mr import CANARY, MR_IMAGE, PATIENT_ID, mr_instance, mr_series, report
from support.ports import free_port, wait_until
from support.receiving import Receiving, receiver_process, receiving, recorded
from support.scu import Scu, associated, data_set_bytes, rejection

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
SUCCESS = 0x0000
NOISE = random.Random(7).randbytes(5000)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Receiving]:
    with receiving(tmp_path) as started:
        yield started


@pytest.fixture
def scanner(node: Receiving) -> Iterator[Scu]:
    with associated(node.port, classes=(MR_IMAGE, BASIC_TEXT_SR, CT_IMAGE)) as scu:
        yield scu


def uid(ds: Dataset) -> str:
    return str(ds.SOPInstanceUID)


# ---- who is let in ----------------------------------------------------------------------


def test_a_listed_peer_is_answered(scanner: Scu) -> None:
    """C-ECHO, from the AE title and the address that are configured."""
    assert SUCCESS == scanner.echo()


@pytest.mark.parametrize(
    ("calling", "called", "answer"),
    [
        ("STRANGER", "DICOMNODE", (1, 1, 3)),  # calling AE title not recognised
        ("ELSEWHERE", "DICOMNODE", (1, 1, 3)),  # known, but at another address
        ("VIEWER", "DICOMNODE", (1, 1, 3)),  # may_send = false
        ("SCANNER", "ANYNODE", (1, 1, 7)),  # called AE title not recognised
    ],
)
def test_others_are_rejected(
    node: Receiving, calling: str, called: str, answer: tuple[int, int, int]
) -> None:
    """With the result, source and reason of PS3.8 9.3.4."""
    with associated(node.port, calling=calling, called=called) as scu:
        assert answer == rejection(scu)


def test_associations_are_counted(tmp_path: Path) -> None:
    """One above max_associations is rejected for now; after a release there is room again."""
    with receiving(tmp_path, max_associations=1) as node:
        with associated(node.port) as first:
            first.echo()  # one that has said nothing yet would make room
            with associated(node.port) as second:
                assert (SUCCESS, (2, 3, 2)) == (first.echo(), rejection(second))

        def has_room() -> bool:
            with associated(node.port) as scu:
                return scu.association.is_established

        wait_until(has_room, 5.0, "the released association counts no more")


def test_silent_connections_keep_nobody_out(tmp_path: Path) -> None:
    """Clients that connect and say nothing are not associations, and are few per address."""
    with receiving(tmp_path, max_associations=2) as node:
        silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(10)]
        try:
            with associated(node.port) as scu:
                assert SUCCESS == scu.echo()
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize(
    "bytes_sent",
    [
        struct.pack(">BBI", 1, 0, 0xFFFFFFF0),  # an A-ASSOCIATE-RQ of 4 GiB
        struct.pack(">BBI", 1, 0, 200) + bytes(10),  # one that never comes to its end
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_association_is_closed(tmp_path: Path, bytes_sent: bytes) -> None:
    """An absurd length at once, an unfinished PDU after network_timeout_s; the next one is served."""
    with receiving(tmp_path, network_timeout_s=1.0) as node:
        with socket.create_connection(("127.0.0.1", node.port)) as hostile:
            hostile.settimeout(10.0)
            hostile.sendall(bytes_sent)
            while hostile.recv(1024):  # an A-ABORT may come first
                pass

        with associated(node.port) as scu:
            assert SUCCESS == scu.echo()


def test_a_silent_association_is_aborted(tmp_path: Path) -> None:
    """After network_timeout_s without a word."""
    with receiving(tmp_path, network_timeout_s=1.0) as node, associated(node.port) as scu:
        wait_until(lambda: not scu.association.is_alive(), 10.0, "the association is aborted")

        assert scu.association.is_aborted


# ---- what is stored ---------------------------------------------------------------------


def test_what_is_acknowledged_is_stored_as_sent(node: Receiving, scanner: Scu) -> None:
    """Bit for bit, under its digest, with a row that says who sent it; nothing is left in the spool."""
    sent = mr_series(slices=5)

    assert [SUCCESS] * 5 == [scanner.store(ds) for ds in sent]
    assert {uid(ds): data_set_bytes(ds) for ds in sent} == node.data_sets()
    assert ("scanner",) == node.books.catalog.peers_of(UID(sent[0].StudyInstanceUID))
    assert [] == node.spooled()


def test_a_stored_file_says_nothing_of_its_way(node: Receiving, scanner: Scu) -> None:
    """The same data set makes the same file, whoever sends it: no AE title, no time in the file meta."""
    ds = mr_instance()
    scanner.store(ds)
    (stored,) = node.books.catalog.unread(10)

    head = stored.path.read_bytes()[:400]

    assert bytes(128) + b"DICM" == head[:132]
    assert b"SCANNER" not in head and b"PYNETDICOM" not in head


def test_the_same_instance_again_is_success(node: Receiving, scanner: Scu) -> None:
    """A sender that repeats itself is told success, and nothing changes."""
    ds = mr_instance()

    assert [SUCCESS, SUCCESS] == [scanner.store(ds), scanner.store(ds)]
    assert 1 == len(node.data_sets())


def test_another_image_under_a_known_uid_is_kept_aside(node: Receiving, scanner: Scu) -> None:
    """0x0111 Duplicate SOP Instance: the first one stays, the other one is durable but not used."""
    first, other = mr_instance(), mr_instance(PatientID="CANARY-OTHER")
    scanner.store(first)

    assert [0x0111, 0x0111] == [scanner.store(other), scanner.store(other)]
    assert {uid(first): data_set_bytes(first)} == node.data_sets()
    (aside,) = node.books.catalog.conflicts()
    assert node.books.archive.verified(aside.digest).read_bytes().endswith(data_set_bytes(other))


def test_a_large_data_set_comes_in_many_pieces(node: Receiving, scanner: Scu) -> None:
    """20 MB in PDUs of 128 KiB."""
    ds = mr_instance(Rows=3200, Columns=3200, PixelData=random.Random(1).randbytes(2 * 3200 * 3200))

    assert SUCCESS == scanner.store(ds)
    assert data_set_bytes(ds) == node.data_sets()[uid(ds)]


def test_several_senders_at_once(node: Receiving) -> None:
    """Three associations, interleaved: each data set is stored whole."""
    series = [mr_series(slices=6, study=f"study {number}") for number in range(3)]
    with associated(node.port) as a, associated(node.port) as b, associated(node.port) as c:
        for slices in zip(*series, strict=True):
            for scu, ds in zip((a, b, c), slices, strict=True):
                assert SUCCESS == scu.store(ds)

    assert {uid(ds): data_set_bytes(ds) for one in series for ds in one} == node.data_sets()


# ---- what is refused --------------------------------------------------------------------


def test_another_instance_than_announced_is_refused(node: Receiving, scanner: Scu) -> None:
    """0xA900: the request names another SOP instance, or another class, than the data set."""
    ds = mr_instance()
    other_class = report("x")

    assert 0xA900 == scanner.store_bytes(data_set_bytes(ds), "1.2.3.4")
    assert 0xA900 == scanner.store_bytes(data_set_bytes(other_class), uid(other_class))
    assert ({}, []) == (node.data_sets(), node.spooled())


@pytest.mark.parametrize("content", [b"no DICOM at all, only words", bytes(1000), NOISE, b"\x08\0"])
def test_what_is_no_data_set_is_refused(node: Receiving, scanner: Scu, content: bytes) -> None:
    """0xC000 Cannot understand."""
    assert 0xC000 == scanner.store_bytes(content, "1.2.3.4")
    assert ({}, []) == (node.data_sets(), node.spooled())


def test_a_data_set_without_its_study_is_refused(node: Receiving, scanner: Scu) -> None:
    """0xC000: nobody could say where it belongs."""
    ds = mr_instance()
    del ds.StudyInstanceUID

    assert 0xC000 == scanner.store(ds)


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/passwd", "..", "1.2.3\\4", "1." * 31 + "abc"])
def test_what_is_no_uid_is_no_path(node: Receiving, scanner: Scu, tmp_path: Path, name: str) -> None:
    """0x0117 Invalid SOP Instance; nothing is made outside the archive's own names."""
    before = {path for path in tmp_path.parent.rglob("*") if "objects" not in path.parts}

    assert 0x0117 == scanner.store_bytes(data_set_bytes(mr_instance()), name)
    assert {} == node.data_sets()
    after = {path for path in tmp_path.parent.rglob("*") if "objects" not in path.parts}
    assert set() == after - before


def test_an_unwanted_class_is_refused_before_it_is_sent(scanner: Scu) -> None:
    """The presentation context of a CT image is rejected; the other ones of the association stand."""
    assert {MR_IMAGE, BASIC_TEXT_SR} < scanner.accepted
    assert CT_IMAGE not in scanner.accepted


def test_an_unwanted_class_sent_anyway_is_refused(node: Receiving, scanner: Scu) -> None:
    """A CT image under the MR presentation context: 0x0122 SOP Class not supported."""
    ds = mr_instance(SOPClassUID=CT_IMAGE)

    assert 0x0122 == scanner.store_bytes(data_set_bytes(ds), uid(ds), CT_IMAGE)
    assert {} == node.data_sets()


def test_unwanted_classes_can_be_stored(tmp_path: Path) -> None:
    """With unwanted = "store" a secondary capture is kept with its study."""
    ds = mr_instance(SOPClassUID=SECONDARY_CAPTURE)
    with (
        receiving(tmp_path, unwanted="store") as node,
        associated(node.port, classes=(SECONDARY_CAPTURE,)) as scu,
    ):
        assert SUCCESS == scu.store_bytes(data_set_bytes(ds), uid(ds), SECONDARY_CAPTURE)
        assert {uid(ds)} == set(node.data_sets())


def test_deflated_data_sets_are_not_agreed_on(node: Receiving) -> None:
    """A small message must not become a large file."""
    with associated(node.port, syntaxes=(DeflatedExplicitVRLittleEndian,)) as scu:
        assert MR_IMAGE not in scu.accepted


def test_an_own_result_starts_nothing(node: Receiving, scanner: Scu) -> None:
    """What this node made and a PACS routes back: success, since it is held, and no new image."""
    ds = report("AI", Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL)
    books = node.books
    books.scheduled()
    _, lease = books.claimed()
    made = ResultObject(ResultKind.SR, UID(BASIC_TEXT_SR), UID(uid(ds)), UID("1.2"), b"x")
    books.queue.finish(lease, [(made, Digest("0" * 64))], {}, {})

    assert SUCCESS == scanner.store_bytes(data_set_bytes(ds), uid(ds), BASIC_TEXT_SR)
    assert uid(ds) not in books.catalog.unread(10) and [] == books.catalog.pending()


def test_a_result_of_another_node_is_refused(node: Receiving, scanner: Scu) -> None:
    """0x0122: an AI result is no earlier report; two nodes must not answer each other for ever."""
    own = report("AI", Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL)
    human = report("leiomyoma")

    assert 0x0122 == scanner.store_bytes(data_set_bytes(own), uid(own), BASIC_TEXT_SR)
    assert SUCCESS == scanner.store_bytes(data_set_bytes(human), uid(human), BASIC_TEXT_SR)


def test_a_data_set_above_the_limit_is_refused(tmp_path: Path) -> None:
    """0xA700 above max_instance_mb; the association goes on, and nothing is left on disk."""
    with receiving(tmp_path, max_instance_mb=1) as node, associated(node.port) as scu:
        large = mr_instance(index=1, Rows=1000, Columns=1000, PixelData=bytes(2_000_000))

        assert [0xA700, SUCCESS] == [scu.store(large), scu.store(mr_instance())]
        assert ([], 1) == (node.spooled(), len(list(node.books.archive.digests())))


def test_a_disk_below_its_reserve_refuses_and_recovers(tmp_path: Path) -> None:
    """0xA700 while the disk is full; success again as soon as there is room, without a restart."""
    margin_mb = 300
    reserve_mb = shutil.disk_usage(tmp_path).free // 1_000_000 - margin_mb
    ballast = tmp_path / "ballast"
    with receiving(tmp_path, reserve_mb=reserve_mb) as node, associated(node.port) as scu:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * margin_mb * 1_000_000)
        full = scu.store(mr_instance())
        ballast.unlink()

        assert (0xA700, SUCCESS) == (full, scu.store(mr_instance()))


def test_a_ledger_that_fails_refuses(node: Receiving, scanner: Scu) -> None:
    """0xA700 when the row cannot be written: the file is durable, but the sender sees no success."""
    with node.books.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE instances RENAME TO gone")

    assert scanner.store(mr_instance()) in (0xA700, 0x0110)

    with node.books.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO instances")
    assert SUCCESS == scanner.store(mr_instance())


# ---- what breaks ------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Scu.cut, lambda scu: scu.association.abort()], ids=["cut", "abort"])
def test_a_transfer_that_breaks_leaves_nothing(
    node: Receiving, scanner: Scu, end: Callable[[Scu], None]
) -> None:
    """Cut or aborted in the middle of a data set: no spool file, no object, no row."""
    ds = mr_instance(Rows=1000, Columns=1000, PixelData=bytes(2_000_000))
    scanner.begin(data_set_bytes(ds), uid(ds), parts=8)
    wait_until(lambda: bool(node.spooled()), 5.0, "the data set is on its way")

    end(scanner)

    wait_until(lambda: not node.spooled(), 5.0, "the spool is empty")
    assert ({}, []) == (node.data_sets(), list(node.books.archive.digests()))


@pytest.mark.parametrize(
    "pdv",
    [
        b"\x02data without a command",
        b"\x03" + bytes(20),
        b"\x03" + NOISE[:64],
        b"\x01" + bytes(20_000),
        b"",
    ],
)
def test_nonsense_inside_an_association_is_aborted(node: Receiving, pdv: bytes) -> None:
    """A fragment that has no place in the protocol: A-ABORT, and the next association is served."""
    with associated(node.port) as scu:
        body = struct.pack(">IB", len(pdv) + 1, scu.context()) + pdv
        scu.association.dul.socket.send(struct.pack(">BBI", 4, 0, len(body)) + body)
        wait_until(lambda: not scu.association.is_alive(), 10.0, "the association is aborted")

        assert scu.association.is_aborted
    with associated(node.port) as scu:
        assert SUCCESS == scu.echo()


@pytest.mark.parametrize("after", [1, 7, 20, 33])
def test_a_killed_receiver_has_lost_nothing_it_acknowledged(tmp_path: Path, after: int) -> None:
    """SIGKILL while instances stream in: each one that was acknowledged has its row and its whole file."""
    port = free_port()
    acknowledged = []
    with receiver_process(tmp_path, port) as process, associated(port) as scu:
        for number, ds in enumerate(mr_series(slices=40)):
            if number == after:
                scu.begin(data_set_bytes(ds) + bytes(4_000_000), uid(ds), parts=10)
                os.kill(process.pid, signal.SIGKILL)
                break
            assert SUCCESS == scu.store(ds)
            acknowledged.append(uid(ds))

    rows, archive = recorded(tmp_path), Archive(tmp_path)
    assert acknowledged == [name for name in acknowledged if name in rows]
    assert len(rows) == len([archive.verified(Digest(digest)) for digest in rows.values()])
    archive.sweep_spool()
    assert [] == list((tmp_path / "spool").iterdir())


def test_stopping_lets_an_association_end(node: Receiving, scanner: Scu) -> None:
    """Nobody is let in any more; what does not end within the grace time is aborted."""
    port = node.port

    node.receiver.stop(0.2)

    wait_until(lambda: not scanner.association.is_alive(), 10.0, "the association is aborted")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


# ---- what is told -----------------------------------------------------------------------


def test_nothing_about_a_patient_is_logged(tmp_path: Path) -> None:
    """Neither name nor id nor any UID, for what is stored, refused, broken or rejected."""
    lines = io.StringIO()
    log.start("INFO", lines)
    try:
        with receiving(tmp_path) as node:
            with associated(node.port) as scu:
                ds = mr_instance()
                scu.store(ds)
                scu.store(mr_instance(PatientName="CANARY^OTHER"))
                scu.store_bytes(data_set_bytes(ds), "1.2.3.4")
                scu.store_bytes(data_set_bytes(ds), f"{CANARY}/x")
            with associated(node.port, calling="STRANGER"):
                pass
    finally:
        log.start()
    told = lines.getvalue()

    assert '"event": "receive.association"' in told and '"event": "receive.rejected"' in told
    for secret in ("CANARY", PATIENT_ID, uid(ds), ds.StudyInstanceUID, "STRANGER"):
        assert secret not in told


# ---- other programs ---------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("echoscu") is None, reason="echoscu is not installed (Debian: dcmtk)")
def test_dcmtk_is_answered(node: Receiving) -> None:
    """echoscu of DCMTK: a listed AE title is answered, another one is rejected."""
    status = [
        subprocess.run(
            ["echoscu", "-aet", calling, "-aec", "DICOMNODE", "127.0.0.1", str(node.port)],
            check=False, capture_output=True, timeout=30,
        ).returncode
        for calling in ("SCANNER", "STRANGER")
    ]  # fmt: skip

    assert 0 == status[0] != status[1]


def test_a_data_set_in_pieces_of_the_smallest_pdu(tmp_path: Path) -> None:
    """max_pdu_bytes is what the peer is asked to keep to."""
    with receiving(tmp_path, max_pdu_bytes=4096) as node, associated(node.port) as scu:
        ds = mr_instance(Rows=200, Columns=200, PixelData=bytes(80_000))

        assert 4096 == scu.association.dimse.maximum_pdu_size
        assert SUCCESS == scu.store(ds)
        assert {uid(ds): data_set_bytes(ds)} == node.data_sets()
        assert ExplicitVRLittleEndian == node.books.catalog.unread(1)[0].transfer_syntax_uid
