"""C-FIND as SCU: what a peer has of a study, and what a peer that misbehaves cannot do to the node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.identity import UID
from dicom_node.errors import PeerUnreachable, RetrieveError
from dicom_node.receive import query
from dicom_node.receive.query import PeerStudy, find
from support import mr
from support.archive_pacs import QUERY_RETRIEVE, fill
from support.orthanc import orthanc
from support.ports import wait_until
from support.scripted_pacs import ABORT, DROP, FLOOD, HANG, ScriptedPacs, Step, matches, put_anyhow
from support.scripted_scp import closed_port, silent

STUDY = [*mr.mr_series(slices=5), *mr.mr_series(mr.T1, 3, SeriesNumber=4)]
UIDS = {UID(ds.SOPInstanceUID) for ds in STUDY}
STUDY_UID = UID(STUDY[0].StudyInstanceUID)
AT_ONCE_S, WITHIN_S = 1.0, 20.0


def asked(pacs: ScriptedPacs, timeout_s: float = 10.0) -> PeerStudy:
    return find(pacs.peer, "DICOMNODE", STUDY_UID, timeout_s=timeout_s)


def refusal(pacs: ScriptedPacs, timeout_s: float = 10.0) -> str:
    """The sentence with which the query fails; within a time, whatever the peer does."""
    started = time.monotonic()
    with pytest.raises(RetrieveError) as caught:
        asked(pacs, timeout_s)
    assert time.monotonic() - started < WITHIN_S
    return str(caught.value)


def instances_of(found: PeerStudy) -> set[UID]:
    return {one.sop_instance_uid for series in found.series for one in series.instances}


def test_orthanc_says_what_it_has(tmp_path: Path) -> None:
    """Series with number and modality, instances with their class; the numbers it states are the same."""
    other = mr.mr_series(slices=2, study="another study")
    with orthanc(tmp_path / "orthanc", settings=QUERY_RETRIEVE) as pacs:
        fill(pacs, [*STUDY, *other])
        peer = ScriptedPacs(port=pacs.dicom_port).peer
        found = find(peer, "DICOMNODE", STUDY_UID, timeout_s=10.0)
        unknown = find(peer, "DICOMNODE", UID("1.2.3"), timeout_s=10.0)
        one = find(peer, "DICOMNODE", STUDY_UID, series_uid=UID(STUDY[-1].SeriesInstanceUID), timeout_s=10.0)

    assert UIDS == instances_of(found)
    assert {(1, "MR", 5, 5), (4, "MR", 3, 3)} == {
        (series.number, series.modality, series.stated, len(series.instances)) for series in found.series
    }
    assert {mr.MR_IMAGE} == {one.sop_class_uid for series in found.series for one in series.instances}
    assert (8, 0) == (found.stated, found.unusable)
    assert (0, ()) == (unknown.instances, unknown.series)
    assert [4] == [series.number for series in one.series]


def test_answers_that_are_no_uids_or_of_another_study_are_not_used() -> None:
    """Answers come from outside: they are counted, and nothing of them is believed."""

    def find_wrongly(level: str, wanted: Dataset) -> Iterator[Step]:
        yield from matches(STUDY, level, wanted)
        if level == "IMAGE":
            for wrong in ({"SOPInstanceUID": "../../../etc/x"}, {"StudyInstanceUID": "1.2.3"},
                          {"SeriesInstanceUID": "1.2.3.4"}, {"SOPInstanceUID": ""}):  # fmt: skip
                match = next(matches(STUDY, level, wanted))
                for keyword, value in wrong.items():
                    put_anyhow(match, keyword, value)
                yield match

    with ScriptedPacs(find=find_wrongly) as pacs:
        found = asked(pacs)

    assert UIDS == instances_of(found)
    assert 2 * 4 == found.unusable


def test_an_answer_without_optional_keys_is_an_answer() -> None:
    """SOP class, number and modality are optional to a peer; a number that is none counts as not stated."""

    def find_sparsely(level: str, wanted: Dataset) -> Iterator[Step]:
        for match in matches(STUDY, level, wanted):
            for keyword in ("SOPClassUID", "Modality", "NumberOfSeriesRelatedInstances"):
                if keyword in match:
                    del match[keyword]
            if level == "SERIES":
                put_anyhow(match, "SeriesNumber", "four")
            yield match

    with ScriptedPacs(find=find_sparsely) as pacs:
        found = asked(pacs)

    assert UIDS == instances_of(found)
    assert [(None, "", None)] * 2 == [(one.number, one.modality, one.stated) for one in found.series]


def in_images(steps: Callable[[ScriptedPacs], Iterable[Step]]) -> ScriptedPacs:
    """A PACS that is honest until it is asked for images."""

    def answer(level: str, wanted: Dataset) -> Iterable[Step]:
        return steps(pacs) if level == "IMAGE" else matches(STUDY, level, wanted)

    pacs = ScriptedPacs(find=answer)
    return pacs


def endless(pacs: ScriptedPacs, pause_s: float = 0.0) -> Iterator[Step]:
    wanted = Dataset()
    wanted.StudyInstanceUID, wanted.QueryRetrieveLevel, wanted.SOPInstanceUID = STUDY_UID, "IMAGE", ""
    number = 0
    while not pacs._let_go.is_set():
        number += 1
        match = next(matches(STUDY, "IMAGE", wanted))
        match.SOPInstanceUID = f"1.2.3.{number}"
        pacs.pause(pause_s)
        yield match


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([0xA700], "PACS 'pacs' answered the query: Refused: out of resources (0xA700)"),
        ([0xC001], "Unable to process (0xC001)"),
        ([STUDY[0], ABORT], "PACS 'pacs' ended the association before it had answered"),
        ([STUDY[0], DROP], "PACS 'pacs' ended the association before it had answered"),
    ],
)  # fmt: skip
def test_a_query_that_fails_says_why(steps: list[Step], sentence: str) -> None:
    """Half an answer is none: the numbers of a study must not be too small."""
    steps = [ds if not isinstance(ds, Dataset) else image_match() for ds in steps]
    with in_images(lambda pacs: steps) as pacs:
        assert sentence in refusal(pacs)


def image_match() -> Dataset:
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID, wanted.SOPInstanceUID = "IMAGE", STUDY_UID, ""
    return next(matches(STUDY, "IMAGE", wanted))


def test_a_peer_that_falls_silent_ends_the_query() -> None:
    """After deliver.timeout_s without a word, also in the middle of the answers."""
    with in_images(lambda pacs: [image_match(), HANG]) as pacs:
        assert "PACS 'pacs' did not go on within 1 s" in refusal(pacs, AT_ONCE_S)


def test_endless_answers_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of answers is the limit, and the association is aborted there."""
    monkeypatch.setattr(query, "MOST_ANSWERS", 50)
    with in_images(endless) as pacs:
        assert "gave more than 50 answers" in refusal(pacs)


def test_a_peer_that_drips_answers_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is in time; the whole query has a limit too."""
    monkeypatch.setattr(query, "LONGEST_QUERY_S", 0.5)
    with in_images(lambda pacs: endless(pacs, 0.1)) as pacs:
        assert "took longer than 0.5 s over one query" in refusal(pacs)


def test_an_answer_of_no_reasonable_length_is_not_held() -> None:
    match = image_match()
    match.TextValue = "x" * (2 << 20)
    with in_images(lambda pacs: [match]) as pacs:
        assert "sends longer answers than this node holds" in refusal(pacs)


def test_an_association_that_is_aborted_at_once_is_no_wait() -> None:
    """Whether the abort comes before the question or after it, nobody waits for the time to run out."""
    with ScriptedPacs(let_in=False) as pacs:
        for _ in range(10):
            started = time.monotonic()
            with pytest.raises((PeerUnreachable, RetrieveError), match=r"ended the (association|connection)"):
                asked(pacs, 60.0)
            assert time.monotonic() - started < WITHIN_S


def test_a_pdu_of_four_gigabytes_is_not_collected() -> None:
    """The header is enough to end the connection: no more than the buffers of the line were sent."""
    with in_images(lambda pacs: [image_match(), FLOOD]) as pacs:
        assert "ended the association before it had answered" in refusal(pacs)

        assert pacs.flooded_bytes < 64 << 20


def test_a_peer_without_the_service_is_told_apart() -> None:
    with ScriptedPacs(services=[]) as pacs:
        assert "does not answer queries (C-FIND, Study Root): allow it there" in refusal(pacs)


def test_a_peer_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(PeerUnreachable, match="refuses the connection"):
        asked(ScriptedPacs(port=closed_port()))
    with silent() as port, pytest.raises(PeerUnreachable, match="did not answer within 1 s"):
        asked(ScriptedPacs(port=port), AT_ONCE_S)


def test_a_peer_that_was_cut_off_leaves_no_thread() -> None:
    """The association ends with the query, also when the peer has to be cut off."""
    before = set(threading.enumerate())
    with in_images(lambda pacs: [image_match(), HANG]) as pacs:
        refusal(pacs, AT_ONCE_S)

        def left() -> set[threading.Thread]:
            return {thread for thread in threading.enumerate() if thread not in before and is_ours(thread)}

        wait_until(lambda: not left(), 10.0, lambda: f"left: {left()}")


def is_ours(thread: threading.Thread) -> bool:
    """Of the association that this node requested: the PACS's are in this process too."""
    return getattr(getattr(thread, "assoc", thread), "is_requestor", False)
