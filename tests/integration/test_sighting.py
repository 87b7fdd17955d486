"""Seen: each object is looked for at the destination that took it, and sent again where it is not shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset

from dicom_node.audit import report as audit_report
from dicom_node.config import Config, Peer
from dicom_node.deliver import sighting
from dicom_node.dicom.uids import derived_uid
from dicom_node.domain.identity import UID
from dicom_node.node.check import check_all
from dicom_node.store.history import History
from dicom_node.store.sightings import QUESTIONS, SENT_AGAIN_AT_MOST
from support.deliveries import Bench
from support.dicomweb import DicomWeb
from support.orthanc import orthanc
from support.ports import free_port
from support.results import data_set_bytes, result_file
from support.scripted_scp import ScriptedScp
from support.showing import Showing, match
from support.vouching import Vouching

RESULTS = [result_file("sr"), result_file("sc")]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ASKABLE = {"DicomAlwaysAllowFind": True}


class Site(Bench):
    """A bench whose PACS is asked for what it took, and whose study is that of the files."""

    def __init__(self, folder: Path, port: int, **peer: Any) -> None:
        super().__init__(folder, {"pacs": port}, peer={"confirm": "query", **peer}, timeout_s=3.0)
        self.schedule(RESULTS, "pacs")

    def study(self, number: int) -> UID:
        return derived_uid("test study", "study")

    def words(self) -> list[str]:
        return [words.split(" 20")[0] for _, words in sorted(self.sightings.of_job(1).items())]

    def due(self, **later: float) -> None:
        self.clock.forward(**later)
        self.deliverer.deliver_due()

    def looks(self, times: int) -> None:
        """As many questions as are due one after the other, each when its time has come."""
        for _ in range(times):
            self.due(minutes=22)

    def events(self) -> list[str]:
        return [row.event for row in History(self.engine).of(self.study(0))]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Any]:
    made: list[Site] = []

    def make(port: int, **peer: Any) -> Site:
        made.append(Site(tmp_path, port, **peer))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_orthanc_shows_what_it_took(site: Any, tmp_path: Path) -> None:
    """Not asked at once, but after ten seconds; then seen, and never asked again."""
    with orthanc(tmp_path / "orthanc", ae_title="PACS", settings=ASKABLE) as pacs:
        at = site(pacs.dicom_port)
        at.due()
        assert ["not seen yet", "not seen yet"] == at.words()

        at.due(seconds=11)

    assert ["seen", "seen"] == at.words()
    assert [] == at.sightings.destinations_due()
    assert 2 == at.events().count("delivery.seen")
    queries = [row for row in audit_report.rows(at.trail.folder) if "Query" in str(row["what"])]
    assert 1 == len(queries)


def test_an_object_deleted_from_orthanc_is_sent_again_and_seen(site: Any, tmp_path: Path) -> None:
    """Deleted before the question: asked seven times, sent again with the same bytes, and seen."""
    with orthanc(tmp_path / "orthanc", ae_title="PACS", settings=ASKABLE) as pacs:
        at = site(pacs.dicom_port)
        at.due()
        sr, sc = at.last_uids(2)
        gone = f"http://127.0.0.1:{pacs.http_port}/instances/{pacs.by_sop_instance()[sr]}"
        httpx.delete(gone, timeout=10, trust_env=False).raise_for_status()

        at.due(seconds=11)
        assert ["not seen yet: question 1 of 7", "seen"] == at.words()
        at.looks(QUESTIONS - 2)
        assert [sc] == list(pacs.by_sop_instance())
        at.looks(1)
        (again, _) = at.rows()
        assert "took this object and does not show it (C-FIND, 7 times): sent again" in again.reason
        at.due()
        at.due(seconds=11)

        held = {uid: data_set_bytes(pacs.file(one)) for uid, one in pacs.by_sop_instance().items()}

    assert ["seen", "seen"] == at.words()
    assert dict(zip([sr, sc], map(data_set_bytes, RESULTS), strict=True)) == held
    assert 1 == at.events().count("delivery.sent_again")
    assert ["COMPLETED", "COMPLETED"] == at.states()


def test_an_object_that_is_never_shown_ends_with_a_sentence(site: Any) -> None:
    """Sent again three times; then the record says where to look. Delivered it stays: the PACS said so."""
    with Showing(hides=True) as pacs:
        at = site(pacs.port)
        at.due()
        at.looks((QUESTIONS + 1) * (SENT_AGAIN_AT_MOST + 2))

    assert 2 * (1 + SENT_AGAIN_AT_MOST) == len(pacs.stored)
    assert 2 == len(set(pacs.data_sets))
    assert all("Sent again 3 times: look among its deleted" in words for words in at.words())
    assert ["COMPLETED", "COMPLETED"] == at.states()
    assert 2 == at.events().count("delivery.not_seen")


def test_a_person_has_it_sent_again_and_it_counts_anew(site: Any) -> None:
    """`redeliver`: what was not shown before is looked for again."""
    with Showing(hides=True) as pacs:
        at = site(pacs.port)
        at.due()
        at.looks((QUESTIONS + 1) * (SENT_AGAIN_AT_MOST + 2))

        pacs.hides = False
        at.ledger.redeliver(at.study(0))
        at.due()
        at.due(seconds=11)

    assert ["seen", "seen"] == at.words()


def test_the_question_names_the_object_with_its_study_and_series(site: Any) -> None:
    """PS3.4 C.4.1.2.1: the unique keys of the levels above, and the one of IMAGE."""
    with Showing() as pacs:
        at = site(pacs.port)
        at.due()
        at.due(seconds=11)

    sr = pacs.asked[0]
    expected = ("IMAGE", at.study(0), derived_uid("test series", "study", "sr"), at.last_uids(2)[0])
    assert expected == (
        sr.QueryRetrieveLevel, sr.StudyInstanceUID, sr.SeriesInstanceUID, sr.SOPInstanceUID,
    )  # fmt: skip


def test_a_pacs_without_queries_is_no_error(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Delivered all the same; asked again later, and given up after the days; no warning in the log."""
    with ScriptedScp() as pacs:
        at = site(pacs.port)
        at.due()
        at.due(seconds=11)
        assert all("cannot be asked: PACS 'pacs' does not answer queries" in words for words in at.words())
        calls = pacs.associations
        at.due(minutes=9)
        assert calls == pacs.associations
        at.due(minutes=2)
        assert calls + 1 == pacs.associations

        at.due(days=8)
        at.due(days=8)
        assert [] == at.sightings.destinations_due()

    assert ["COMPLETED", "COMPLETED"] == at.states()
    assert all(words.startswith("cannot be asked") for words in at.words())


def many(asked: Dataset) -> Iterator[Any]:
    for number in range(sighting.MOST_ANSWERS + 5):
        yield match(f"1.2.3.{number}")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda asked: iter([(0xA900, None)]), "does not match SOP class (0xA900)"),
        (lambda asked: iter([(0x0124, None)]), "not authorised (0x0124)"),
        (lambda asked: iter([(0xC001, None)]), "Unable to process (0xC001)"),
        (lambda asked: iter(["abort", (0x0000, None)]), "ended the association"),
        (lambda asked: iter(["hang"]), "did not go on within 3 s"),
        (many, "does not come to an end"),
    ],
)
def test_a_question_that_fails_is_put_again_later(site: Any, answer: Callable[..., Any], words: str) -> None:
    """Nothing is sent again because of it; when it is answered, the object is seen."""
    with Showing(answer=answer) as pacs:
        at = site(pacs.port)
        at.due()
        at.due(seconds=11)
        assert all(one.startswith("cannot be asked: PACS") for one in at.words())
        assert all(words in one for one in at.words()), at.words()

        pacs.answer = None
        at.due(minutes=11)

    assert ["seen", "seen"] == at.words()
    assert 2 == len(pacs.stored)


@pytest.mark.parametrize("uid", ["", "1.2.3.4"])
def test_an_answer_about_another_object_is_not_the_object(site: Any, uid: str) -> None:
    """A PACS that overlooks the key and answers with others of the series."""
    with Showing(answer=lambda asked: iter([match(uid)])) as pacs:
        at = site(pacs.port)
        at.due()
        at.due(seconds=11)

    assert ["not seen yet: question 1 of 7"] * 2 == at.words()


def test_commitment_and_sight_are_two_things(site: Any) -> None:
    """A PACS that vouches and answers no query: committed, and cannot be asked."""
    with Vouching(at_once=True) as pacs:
        at = site(pacs.port, commitment=True)
        at.due()
        at.due(seconds=11)

    committed = list(at.commitments.of_job(1).values())
    assert all(words.startswith("committed") for words in committed)
    assert all("cannot be asked" in words for words in at.words())


def test_without_confirm_nobody_is_asked(site: Any) -> None:
    """The default."""
    with Showing() as pacs:
        at = site(pacs.port, confirm="no")
        at.due()
        at.due(hours=1)

    assert ([], []) == (pacs.asked, at.words())


def test_a_pacs_that_went_away_is_asked_when_it_is_back(site: Any) -> None:
    """Unreachable is no answer: nothing is sent again."""
    port = free_port()
    with Showing(port=port):
        at = site(port)
        at.due()
    at.due(seconds=11)
    assert all("refuses the connection" in words for words in at.words())

    with Showing(port=port) as pacs:
        pacs.stored = at.last_uids(2)
        at.due(minutes=11)

    assert ["seen", "seen"] == at.words()
    assert 2 == len(pacs.stored)


def test_a_peer_with_a_url_is_searched(site: Any) -> None:
    """QIDO-RS, PS3.18 10.6: by study, series and instance; what it does not show is sent again."""
    with DicomWeb(shows=False) as pacs:
        at = site(104, url=pacs.url)
        at.due()
        at.looks(QUESTIONS)
        assert all("does not show it" in row.reason for row in at.rows())

        pacs.shows = True
        at.due()
        at.due(seconds=11)

    assert ["seen", "seen"] == at.words()
    assert [RESULTS[0], RESULTS[1]] * 2 == pacs.files()
    series, uid = derived_uid("test series", "study", "sr"), at.last_uids(2)[0]
    expected = f"/dicom-web/studies/{at.study(0)}/series/{series}/instances?SOPInstanceUID={uid}"
    assert expected == pacs.searches[0]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (404, "answers no search of this node (QIDO-RS, HTTP 404)"),
        (403, "answers no search of this node (QIDO-RS, HTTP 403)"),
        (400, "answers no search of this node (QIDO-RS, HTTP 400)"),
        (503, "answers a search with HTTP 503"),
    ],
)
def test_a_search_that_is_not_answered_is_no_error(site: Any, search: int, words: str) -> None:
    """Delivered, and asked again later."""
    with DicomWeb(search=search) as pacs:
        at = site(104, url=pacs.url)
        at.due()
        at.due(seconds=11)
        assert all(words in one for one in at.words()), at.words()

        pacs.search = 200
        at.due(minutes=11)

    assert ["seen", "seen"] == at.words()


def test_orthanc_is_searched_by_qido(site: Any, tmp_path: Path) -> None:
    """Its DICOMweb plugin: one object there, one deleted."""
    if not PLUGIN.exists():
        pytest.skip("orthanc-dicomweb is not installed (Debian: apt install orthanc-dicomweb)")
    settings = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with orthanc(tmp_path / "orthanc", settings=settings) as pacs:
        at = site(104, url=f"http://127.0.0.1:{pacs.http_port}/dicom-web")
        at.due()
        held = pacs.by_sop_instance()
        gone = f"http://127.0.0.1:{pacs.http_port}/instances/{held[at.last_uids(2)[1]]}"
        httpx.delete(gone, timeout=10, trust_env=False).raise_for_status()
        at.due(seconds=11)

    assert ["seen", "not seen yet: question 1 of 7"] == at.words()


def checked(port: int) -> tuple[bool, str]:
    config = Config(peer=[Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, confirm="query")])
    (found,) = (one for one in check_all(config) if one.what == "results shown by pacs")
    return found.ok, found.sentence


def test_check_says_whether_the_pacs_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first result is sent: one that may be asked, and one that answers no query."""
    monkeypatch.chdir(tmp_path)
    with orthanc(tmp_path / "orthanc", ae_title="PACS", settings=ASKABLE) as pacs:
        assert (True, "can be asked whether it shows an object") == checked(pacs.dicom_port)
    with ScriptedScp() as deaf:
        ok, sentence = checked(deaf.port)

    assert not ok and "does not answer queries (C-FIND, Study Root): allow it there" in sentence
