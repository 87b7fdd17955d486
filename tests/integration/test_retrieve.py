"""C-GET and C-MOVE as SCU: what comes is kept as if it had come through the front door, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.audit import Trail
from dicom_node.config import Config, Receive, Tls
from dicom_node.domain.identity import UID
from dicom_node.receive.intake import Intake
from dicom_node.receive.query import find
from dicom_node.receive.retrieve import NOT_ASKED_FOR, Retrieved, Wanted, get, move, requests
from dicom_node.receive.scp import Receiver
from dicom_node.store.catalog import Recorded
from dicom_node.tls import server_context
from support import mr
from support.archive_pacs import QUERY_RETRIEVE, fill
from support.certificates import hospital
from support.dcmqrscp import dcmqrscp
from support.ledger import Books
from support.orthanc import orthanc
from support.ports import free_port
from support.receiving import after_file_meta
from support.scripted_pacs import ABORT, DROP, HANG, ScriptedPacs, Step

SERIES = mr.mr_series(slices=6)
STUDY_UID, SERIES_UID = UID(SERIES[0].StudyInstanceUID), UID(SERIES[0].SeriesInstanceUID)
OTHER = mr.mr_series(slices=1, study="another study")[0]
WITHIN_S = 20.0


@dataclass
class Here:
    """The store of the node that retrieves."""

    books: Books
    intake: Intake
    trail: Trail

    def uids(self) -> set[str]:
        with self.books.engine.connect() as connection:
            return set(connection.exec_driver_sql("SELECT sop_instance_uid FROM instances").scalars())

    def files(self) -> set[bytes]:
        """The stored data sets, read back from disk."""
        with self.books.engine.connect() as connection:
            digests = connection.exec_driver_sql("SELECT digest FROM instances").scalars().all()
        return {after_file_meta(self.books.archive.verified(digest).read_bytes()) for digest in digests}

    def spooled(self) -> int:
        return len(list((self.books.folder / "spool").iterdir()))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    books = Books(f"sqlite:///{tmp_path / 'node.sqlite3'}", tmp_path / "archive")
    trail = Trail(tmp_path / "audit", "DICOMNODE")
    yield Here(books, Intake(Receive(reserve_mb=0), books.archive, books.catalog, {}), trail)
    books.engine.dispose()


def uids(instances: Sequence[Dataset]) -> set[str]:
    return {str(ds.SOPInstanceUID) for ds in instances}


def wanted(instances: Sequence[Dataset] = SERIES, *, whole: bool = False) -> list[Wanted]:
    return requests(STUDY_UID, SERIES_UID, [UID(ds.SOPInstanceUID) for ds in instances], whole=whole)


def got(
    here: Here, pacs: ScriptedPacs, asked: Sequence[Wanted] | None = None, timeout_s: float = 10.0
) -> Retrieved:
    """By C-GET; within a time, whatever the peer does."""
    started = time.monotonic()
    done = get(pacs.peer, "DICOMNODE", asked or wanted(), here.intake, here.trail, timeout_s=timeout_s)
    assert time.monotonic() - started < WITHIN_S
    assert 0 == here.spooled()
    return done


# ---- C-GET -------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_orthanc_gives_a_series_or_single_images_of_it(tmp_path: Path, here: Here, whole: bool) -> None:
    """By one request for the series, or by a list of SOP Instance UIDs; the bytes are those it holds."""
    chosen = SERIES if whole else SERIES[1:4]
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE) as pacs:
        fill(pacs, [*SERIES, OTHER])
        peer = ScriptedPacs(port=pacs.dicom_port)
        first = got(here, peer, wanted(chosen, whole=whole))
        again = got(here, peer, wanted(chosen, whole=whole))
        held = {after_file_meta(pacs.file(pacs.by_sop_instance()[uid])) for uid in uids(chosen)}

    assert uids(chosen) == here.uids()
    assert held == here.files()
    assert (len(chosen), 0, len(chosen), True) == (first.new, first.known, first.completed, first.ok)
    assert (0, len(chosen), True) == (again.new, again.known, again.ok)


def test_dcmtk_gives_a_series(tmp_path: Path, here: Here) -> None:
    """DCMTK's archive honours the proposed roles and the list of UIDs."""
    with dcmqrscp(tmp_path / "qr", [*SERIES, OTHER]) as port:
        done = got(here, ScriptedPacs(port=port), wanted(SERIES[:2]))

    assert (2, True) == (done.new, done.ok), done.problems
    assert uids(SERIES[:2]) == here.uids()


def test_success_is_answered_only_when_the_row_is_there(here: Here) -> None:
    """T1 before the status of each sub-operation."""
    rows: list[int] = []
    pacs = ScriptedPacs(SERIES, on_stored=lambda status: rows.append(len(here.uids())))

    with pacs:
        done = got(here, pacs)

    assert 6 == len(rows)
    assert all(there >= answered for answered, there in enumerate(rows, 1)), rows
    assert (6, 6, True) == (done.new, done.completed, done.ok)


def test_what_the_intake_refuses_is_answered_with_its_status(here: Here) -> None:
    """Other bytes under a known UID: kept aside, 0x0111; the others come, and the count says what did not."""
    changed = [mr.mr_series(slices=1, PatientComments="changed")[0], *SERIES[1:]]
    statuses: list[int] = []
    with ScriptedPacs(SERIES[:1]) as pacs:
        assert got(here, pacs, wanted(SERIES[:1])).ok
    with ScriptedPacs(changed, on_stored=statuses.append) as pacs:
        done = got(here, pacs)

    assert [0x0111, 0, 0, 0, 0, 0] == statuses
    assert ({0x0111: 1}, 5, 1, False) == (dict(done.refused), done.new, done.failed, done.ok)
    assert 1 == len(here.books.catalog.conflicts())
    assert "0xB000" in done.problems[0]


def test_what_was_not_asked_for_is_refused(here: Here) -> None:
    """An archive cannot use a C-GET to bring in other studies; refused with 0x0124, nothing kept."""
    statuses: list[int] = []
    with ScriptedPacs(get=lambda asked: [OTHER, *SERIES[:1], 0x0000], on_stored=statuses.append) as pacs:
        done = got(here, pacs)

    assert [NOT_ASKED_FOR, 0x0000] == statuses
    assert uids(SERIES[:1]) == here.uids()
    assert {NOT_ASKED_FOR: 1} == dict(done.refused)


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (ABORT, "PACS 'pacs' ended the association before it had answered"),
        (DROP, "PACS 'pacs' ended the association before it had answered"),
        (HANG, "PACS 'pacs' did not go on within 1 s"),
        (0xA702, "PACS 'pacs' answered C-GET: Refused: out of resources (0xA702)"),
        (0xFE00, "Cancel (0xFE00)"),
    ],
)
def test_what_came_before_a_failure_stays(here: Here, last: Step, sentence: str) -> None:
    """Acknowledged is acknowledged; the sentence says why the rest did not come."""
    with ScriptedPacs(get=lambda asked: [*SERIES[:2], last]) as pacs:
        done = got(here, pacs, timeout_s=1.0)

    assert uids(SERIES[:2]) == here.uids()
    assert (2, False) == (done.new, done.ok)
    assert sentence in done.problems[0]


def test_a_peer_that_does_not_do_it_says_what_to_change(here: Here) -> None:
    with ScriptedPacs(services=[]) as pacs:
        (problem,) = got(here, pacs).problems
    assert "does not do C-GET (Study Root): allow it there, or change `retrieve` of this peer" in problem

    with ScriptedPacs(classes=[]) as pacs:
        (problem,) = got(here, pacs).problems
    assert "does C-GET, but sends none of the objects that are wanted" in problem


_FETCH_LARGE = """
import re, sys
from pathlib import Path
from dicom_node.audit import Trail
from dicom_node.config import Peer, Receive
from dicom_node.domain.identity import UID
from dicom_node.receive.intake import Intake
from dicom_node.receive.query import find
from dicom_node.receive.retrieve import get, requests
from support.ledger import Books
folder, port, study, series, small, large = sys.argv[1:]
books = Books(f"sqlite:///{folder}/n.sqlite3", Path(folder))
intake = Intake(Receive(reserve_mb=0), books.archive, books.catalog, {})
peer = Peer(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=int(port))
peaks = []
for uid in (small, large):
    asked = requests(UID(study), UID(series), [UID(uid)], whole=False)
    done = get(peer, "DICOMNODE", asked, intake, Trail(Path(folder), "DICOMNODE"), timeout_s=60.0)
    assert done.new == 1, done
    peaks.append(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
print(peaks[1] - peaks[0])
"""


def test_a_large_instance_is_not_held_in_memory(tmp_path: Path) -> None:
    """96 MiB go to the disk as they come: the process grows by a small part of it."""
    small, large = mr.mr_series(slices=2)
    large.Rows = large.Columns = 7094
    large.PixelData = bytes(96 << 20)
    (tmp_path / "here").mkdir()
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE) as pacs:
        fill(pacs, [small, large])
        done = subprocess.run(
            [sys.executable, "-c", _FETCH_LARGE, str(tmp_path / "here"), str(pacs.dicom_port), STUDY_UID,
             SERIES_UID, small.SOPInstanceUID, large.SOPInstanceUID],
            cwd=Path(__file__).resolve().parent.parent, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert int(done.stdout) < 24 << 10  # KiB


def test_over_tls_it_is_the_same(tmp_path: Path, here: Here) -> None:
    """Both sides show a certificate; the query goes the same way."""
    made = hospital(tmp_path / "certificates")
    ours = Tls(**made.tls())
    with ScriptedPacs(SERIES, tls=server_context(ours)) as pacs:
        peer = pacs.peer.model_copy(update={"tls": True, "host": "localhost"})
        found = find(peer, "DICOMNODE", STUDY_UID, timeout_s=10.0, tls=ours)
        done = get(peer, "DICOMNODE", wanted(), here.intake, here.trail, timeout_s=10.0, tls=ours)

    assert (6, 6, True) == (found.instances, done.new, done.ok), done.problems


# ---- C-MOVE ------------------------------------------------------------------------------


def test_orthanc_sends_to_the_front_door(tmp_path: Path, here: Here) -> None:
    """C-MOVE to this node's own AE title: the images come by themselves, the answers count them."""
    port = free_port()
    node = {"DICOMNODE": ("127.0.0.1", port)}
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE, modalities=node) as pacs:
        fill(pacs, [*SERIES, OTHER])
        peer = {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": pacs.dicom_port}
        config = Config.model_validate(
            {"node": {"data_dir": str(here.books.folder)}, "receive": {"port": port, "reserve_mb": 0},
             "peer": [peer]}
        )  # fmt: skip
        trail = Trail(tmp_path / "audit", "DICOMNODE")
        receiver = Receiver(config, here.books.archive, here.books.catalog, trail)
        receiver.start()
        try:
            done = move(config.peer[0], "DICOMNODE", wanted(SERIES[:4]), timeout_s=10.0)
        finally:
            receiver.stop(5.0)

    assert (4, 0, True) == (done.completed, done.failed, done.ok), done.problems
    assert uids(SERIES[:4]) == here.uids()


def test_a_destination_that_the_peer_does_not_know_is_a_sentence() -> None:
    """0xA801, PS3.4 Table C.4-2; the destination asked for is this node's AE title."""
    with ScriptedPacs() as pacs:
        done = move(pacs.peer, "DICOMNODE", wanted(), timeout_s=10.0)

    assert ["DICOMNODE"] == pacs.destinations
    assert not done.ok
    assert "0xA801): enter this node's AE title with its host and port at the peer" in done.problems[0]


def test_nothing_is_known_of_a_peer_that_is_not_there(here: Here) -> None:
    """No exception: a retrieval ends with a sentence."""
    peer = ScriptedPacs(port=free_port()).peer

    done = [
        get(peer, "DICOMNODE", wanted(), here.intake, here.trail, timeout_s=2.0),
        move(peer, "DICOMNODE", wanted(), timeout_s=2.0),
    ]

    assert [False, False] == [one.ok for one in done]
    assert all("refuses the connection" in one.problems[0] for one in done)
    assert Recorded.NEW not in {one.new for one in done}
