"""Storage commitment (PS3.4 Annex J): a destination is asked to vouch for what it took, and reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.audit import report as audit_report
from dicom_node.config import Config
from dicom_node.deliver import commitment
from dicom_node.receive.scp import Receiver
from dicom_node.store.history import History
from support.deliveries import Bench
from support.orthanc import orthanc
from support.ports import free_port, wait_until
from support.results import result_file
from support.scripted_scp import ScriptedScp
from support.vouching import Vouching, announce, event_information

RESULTS = [result_file("sr"), result_file("sc")]


class Site(Bench):
    """A bench whose front door is open to the PACS it delivers to."""

    def __init__(self, folder: Path, pacs_port: int, door: int = 0, **peer: Any) -> None:
        super().__init__(folder, {"pacs": pacs_port}, peer={"commitment": True, **peer}, timeout_s=5.0)
        other = {"name": "other", "ae_title": "OTHER", "host": "127.0.0.1"}
        self.door = Config.model_validate(
            {
                "node": {"data_dir": str(folder)},
                "receive": {"port": door or free_port()},
                "peer": [*(one.model_dump() for one in self.config.peer), other],
            }
        )
        # No object is sent here: the catalog is never asked.
        self.receiver = Receiver(self.door, self.archive, None, self.trail, self.commitments)  # type: ignore[arg-type]
        self.receiver.start()

    @property
    def port(self) -> int:
        return self.receiver.port

    def words(self) -> list[str]:
        """How far the commitment of each object is, without its time."""
        return [words.split(" 20")[0] for _, words in sorted(self.commitments.of_job(1).items())]

    def due(self) -> int:
        return self.deliverer.deliver_due()

    def events(self) -> list[str]:
        return [row.event for row in History(self.engine).of(self.study(0))]

    def close(self) -> None:
        self.receiver.stop(1.0)
        super().close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(commitment, "HELD_S", 0.3)
    made: list[Site] = []

    def make(port: int, **peer: Any) -> Site:
        made.append(Site(tmp_path, port, **peer))
        made[-1].schedule(RESULTS, "pacs")
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_report_on_the_same_association_commits(site: Any) -> None:
    """Delivered, asked about in one transaction, and committed; nothing is asked again."""
    with Vouching(at_once=True) as pacs:
        at = site(pacs.port)
        at.due()
        at.clock.forward(days=1)
        at.due()

    assert ["committed", "committed"] == at.words()
    assert [pacs.stored] == [uids for _, uids in pacs.asked]
    assert [0x0000] == pacs.answers
    assert 2 == at.events().count("commitment.completed")


@pytest.mark.parametrize("roles", [True, False])
def test_a_report_by_an_association_of_the_pacs_commits(site: Any, roles: bool) -> None:
    """To the front door, where it is SCP of the service; one that proposes no role is let in as well."""
    with Vouching() as pacs:
        at = site(pacs.port)
        at.due()
        assert ["commitment asked for"] * 2 == at.words()

        ((transaction, uids),) = pacs.asked
        assert 0x0000 == announce(at.port, event_information(transaction, uids), roles=roles)

    assert ["committed", "committed"] == at.words()
    assert ["COMPLETED", "COMPLETED"] == at.states()


def test_what_was_not_committed_is_sent_again_and_asked_about_anew(site: Any) -> None:
    """The rest stands; the repeat is the same object, and the old report coming twice sends nothing more."""
    with Vouching() as pacs:
        at = site(pacs.port)
        at.due()
        ((transaction, (sr, sc)),) = pacs.asked
        failure = event_information(transaction, [sr], [sc])
        assert 0x0000 == announce(at.port, failure)
        assert ["COMPLETED", "SCHEDULED"] == at.states()
        assert "no such object there (0x0112)" in at.rows()[1].reason

        at.clock.forward(minutes=2)
        at.due()
        assert 0x0000 == announce(at.port, failure)
        at.clock.forward(minutes=2)
        at.due()
        assert [sr, sc, sc] == pacs.stored

        again, named = pacs.asked[-1]
        assert ([sc], True) == (named, again != transaction)
        assert 0x0000 == announce(at.port, event_information(again, [sc]))

    assert ["committed", "committed"] == at.words()


def test_an_object_that_is_never_committed_ends_with_a_sentence(site: Any) -> None:
    """Sent again ten times; then the record says what to look at, and it stops."""
    with Vouching() as pacs:
        at = site(pacs.port)
        at.due()
        for _ in range(12):
            transaction, uids = pacs.asked[-1]
            announce(at.port, event_information(transaction, [], uids))
            at.clock.forward(minutes=30)
            at.due()

    assert 2 * 11 == len(pacs.stored)
    assert all(words.startswith("not committed: PACS 'pacs' took this object") for words in at.words())
    assert ["COMPLETED", "COMPLETED"] == at.states()


def test_a_late_report_counts(site: Any) -> None:
    """Asked again after an hour without a word; the report on the first question then still counts."""
    with Vouching() as pacs:
        at = site(pacs.port)
        at.due()
        at.clock.forward(minutes=59)
        at.due()
        assert 1 == len(pacs.asked)
        at.clock.forward(minutes=2)
        at.due()
        assert 2 == len(pacs.asked)

        transaction, uids = pacs.asked[0]
        announce(at.port, event_information(transaction, uids))

    assert ["committed", "committed"] == at.words()


def test_a_strangers_report_changes_nothing_and_is_audited(site: Any) -> None:
    """A transaction nobody asked, or one asked of another peer; each is answered 0x0115 and recorded."""
    with Vouching() as pacs:
        at = site(pacs.port)
        at.due()
        ((transaction, uids),) = pacs.asked

        assert 0x0115 == announce(at.port, event_information("1.2.3.4.5", uids))
        assert 0x0115 == announce(at.port, event_information(transaction, uids), calling="OTHER")
        assert None is announce(at.port, event_information(transaction, uids), calling="NOBODY")

    assert ["commitment asked for"] * 2 == at.words()
    reasons = [str(row["detail"]) for row in audit_report.rows(at.trail.folder)]
    assert 2 == sum("unknown transaction" in reason for reason in reasons)


def test_a_report_that_cannot_be_read_or_is_too_long_is_refused(site: Any) -> None:
    """Nothing of it counts, and the node goes on."""
    with Vouching() as pacs:
        at = site(pacs.port)
        at.due()
        ((transaction, uids),) = pacs.asked
        without = event_information(transaction, uids)
        del without.TransactionUID
        long = event_information(transaction, [*uids, *(f"1.2.{number}" for number in range(20_000))])

        assert 0xC000 == announce(at.port, without)
        assert 0xA700 == announce(at.port, long)
        assert ["commitment asked for"] * 2 == at.words()
        assert 0x0000 == announce(at.port, event_information(transaction, uids))


def test_a_pacs_without_the_service_is_said_plainly_and_asked_later(site: Any) -> None:
    """The objects are delivered all the same; the question is put off, and given up after the days."""
    with ScriptedScp() as pacs:
        at = site(pacs.port)
        at.due()
        assert ["COMPLETED", "COMPLETED"] == at.states()
        assert all("does not offer storage commitment" in words for words in at.words())

        at.clock.forward(days=15)
        at.due()

    assert all("not committed: no report on storage commitment in 14 days" in words for words in at.words())


@pytest.mark.parametrize("status", [0x0110, 0x0211])
def test_a_refused_question_is_put_again(site: Any, status: int) -> None:
    """N-ACTION answered with a failure: later again, with the status on record."""
    with Vouching(status=status) as pacs:
        at = site(pacs.port)
        at.due()
        assert all(f"0x{status:04X}" in words for words in at.words())
        at.clock.forward(minutes=1)
        at.due()

    assert 2 == len(pacs.asked)


def test_a_pacs_that_aborts_the_question_is_asked_again(site: Any) -> None:
    """The objects are delivered; the question is put again after the pause, with another transaction."""
    with Vouching(aborts=True) as pacs:
        at = site(pacs.port)
        at.due()
        assert all("commitment asked for: PACS 'pacs'" in words for words in at.words())
        at.clock.forward(minutes=1)
        at.due()

    assert 2 == len({transaction for transaction, _ in pacs.asked})
    assert ["COMPLETED", "COMPLETED"] == at.states()


def test_nobody_is_asked_who_is_not_configured_for_it(site: Any) -> None:
    """`commitment = false`: no question, and no such service at the front door."""
    with Vouching() as pacs:
        at = site(pacs.port, commitment=False)
        at.due()

        assert [] == pacs.asked
        assert None is announce(at.port, event_information("1.2.3", []))
    assert [] == at.words()


def test_orthanc_commits_what_it_has(tmp_path: Path) -> None:
    """Debian's Orthanc is asked, and reports on an association of its own to the front door."""
    folder = tmp_path / "node"
    folder.mkdir()
    door = free_port()
    known = {"AET": "DICOMNODE", "Host": "127.0.0.1", "Port": door, "AllowStorageCommitment": True}
    settings = {"DicomModalities": {"node": known}}
    with orthanc(tmp_path / "orthanc", ae_title="PACS", settings=settings) as pacs:
        at = Site(folder, pacs.dicom_port, door)
        try:
            at.schedule(RESULTS, "pacs")
            at.due()
            wait_until(lambda: at.words() == ["committed", "committed"], 60.0, lambda: str(at.words()))
            assert 2 == pacs.count()
        finally:
            at.close()
