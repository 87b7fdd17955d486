"""STOW-RS over real HTTP: what is stored, what is answered, and who is let in (PS3.18 10.5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node.dicom.provenance import MANUFACTURER, MODEL
from support.mr import MR_IMAGE, file_bytes, mr_instance, mr_series, report
from support.receiving import after_file_meta, receiving
from support.scu import associated
from support.stowing import (
    FAILED,
    OTHER,
    REFERENCED,
    VIEWER_TOKEN,
    Stowing,
    body,
    content_type,
    part,
    reasons,
    references,
    stowing,
)

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Stowing]:
    with stowing(tmp_path / "node") as opened:
        yield opened


def test_what_is_sent_is_stored(door: Stowing) -> None:
    """Each part's data set is on the disk, bit for bit, under the peer's name, and 200 says so."""
    files = {str(ds.SOPInstanceUID): file_bytes(ds) for ds in mr_series(slices=3)}

    answer = door.post(*files.values())

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert references(answer) == list(files)
    assert FAILED not in answer.json()
    assert door.data_sets() == {uid: after_file_meta(file) for uid, file in files.items()}
    assert {row[2] for row in door.rows()} == {"scanner"}
    assert [] == door.spooled()


def test_the_response_is_that_of_the_standard(door: Stowing) -> None:
    """PS3.18 Table I.2-1: references with an empty Retrieve URL; failures with a reason."""
    good, bad = mr_instance(index=1), mr_instance(index=2, SOPClassUID=SECONDARY_CAPTURE)

    answer = door.post(good, bad).json()

    assert answer["00081190"] == {"vr": "UR"}
    assert answer[REFERENCED] == {
        "vr": "SQ",
        "Value": [
            {
                "00081150": {"vr": "UI", "Value": [MR_IMAGE]},
                "00081155": {"vr": "UI", "Value": [str(good.SOPInstanceUID)]},
                "00081190": {"vr": "UR"},
            }
        ],
    }
    (failure,) = answer[FAILED]["Value"]
    assert failure["00081150"] == {"vr": "UI", "Value": [SECONDARY_CAPTURE]}
    assert failure["00081155"] == {"vr": "UI", "Value": [str(bad.SOPInstanceUID)]}
    assert failure["00081197"] == {"vr": "US", "Value": [0x0122]}
    assert failure["00000902"]["Value"] == ["this node does not take objects of this SOP class"]


def test_the_same_instance_both_ways_is_one(tmp_path: Path) -> None:
    """C-STORE and STOW of one data set make the same file: one row, no conflict, success for both."""
    ds = mr_instance()
    with receiving(tmp_path) as receiver, associated(receiver.port) as scu:
        assert 0x0000 == scu.store(ds)
    with stowing(tmp_path) as door:
        before = door.rows()

        answer = door.post(file_bytes(ds))

        assert (answer.status_code, references(answer)) == (200, [str(ds.SOPInstanceUID)])
        assert before == door.rows()
        assert 0 == len(door.books.catalog.conflicts())


def test_the_sender_s_preamble_and_meta_are_not_kept(door: Stowing) -> None:
    """A preamble may be a program, and meta information names systems: the node writes its own."""
    ds = mr_instance()
    file = b"MZ" + b"\x90" * 126 + file_bytes(ds)[128:]

    door.post(file)

    (row,) = door.rows()
    stored = door.books.archive.verified(row[1]).read_bytes()
    assert stored[:128] == bytes(128)
    assert after_file_meta(stored) == after_file_meta(file)


def test_some_stored_is_202(door: Stowing) -> None:
    """Failure of one part does not touch the others."""
    good, bad = mr_instance(index=1), mr_instance(index=2, StudyInstanceUID=None)

    answer = door.post(bad, good)

    assert (answer.status_code, references(answer)) == (202, [str(good.SOPInstanceUID)])
    assert (references(answer, FAILED), reasons(answer)) == ([str(bad.SOPInstanceUID)], [0xC000])


def _conflicting() -> list[bytes]:
    return [file_bytes(mr_instance(SeriesDescription="other bytes"))]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (file_bytes(mr_instance(SOPClassUID=SECONDARY_CAPTURE)), 0x0122),
        (file_bytes(mr_instance()).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"), 0xC122),
        (file_bytes(mr_instance(SeriesInstanceUID=None)), 0xC000),
        (file_bytes(mr_instance(index=1)).replace(b"CS\x02\0MR", b"CS\xff\xffMR"), 0xC000),
        (file_bytes(report("x", Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL)), 0x0122),
    ],
    ids=["SOP class", "transfer syntax", "no series", "garbled", "a node's result"],
)  # fmt: skip
def test_a_refused_part_has_the_status_c_store_would_have(door: Stowing, file: bytes, reason: int) -> None:
    """Failure Reason is the DIMSE status; none stored is 409, and nothing is left behind."""
    answer = door.post(file)

    assert (answer.status_code, reasons(answer)) == (409, [reason])
    assert ([], []) == (door.rows(), door.spooled())


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"too short",
        bytes(128) + b"DICM",
        file_bytes(mr_instance())[132:],
        file_bytes(mr_instance())[:200],
    ],
    ids=["empty", "short", "no meta", "no preamble", "cut meta"],
)
def test_what_is_no_file_is_another_failure(door: Stowing, file: bytes) -> None:
    """A part that cannot be told to be an instance is in Other Failures, with 0xC000."""
    answer = door.post(file)

    assert (answer.status_code, reasons(answer, OTHER)) == (409, [0xC000])
    assert ([], []) == (door.rows(), door.spooled())


def test_a_part_without_preamble_is_told_so(door: Stowing) -> None:
    """As soon as its first bytes are there: nothing more of it is collected."""
    (failure,) = door.post(bytes(3_000_000)).json()[OTHER]["Value"]

    assert failure["00000902"]["Value"][0].startswith("a part without preamble and DICM")


def test_deflated_objects_follow_the_policy(door: Stowing) -> None:
    """What associations would not agree on is refused by name, not unfolded."""
    answer = door.post(file_bytes(mr_instance(), DeflatedExplicitVRLittleEndian))

    assert (answer.status_code, reasons(answer)) == (409, [0xC122])


def test_other_bytes_under_a_known_uid_are_a_conflict(door: Stowing) -> None:
    """0x0111, and the other object is kept aside: as for C-STORE."""
    assert 200 == door.post(mr_instance()).status_code

    answer = door.post(mr_instance(SeriesDescription="other bytes"))

    assert (answer.status_code, reasons(answer)) == (409, [0x0111])
    assert (1, 1) == (len(door.rows()), len(door.books.catalog.conflicts()))


def test_the_study_of_the_url_is_the_only_one_taken(door: Stowing) -> None:
    """PS3.18 10.5.1: an instance of another study fails with 0xA901 and is not kept."""
    ours, theirs = mr_instance(index=1), mr_instance(index=2, study="another")

    answer = door.post(ours, theirs, study=str(ours.StudyInstanceUID))

    assert (answer.status_code, references(answer)) == (202, [str(ours.SOPInstanceUID)])
    assert (references(answer, FAILED), reasons(answer)) == ([str(theirs.SOPInstanceUID)], [0xA901])
    assert [str(ours.SOPInstanceUID)] == [row[0] for row in door.rows()]
    assert [] == door.spooled()


def test_a_study_that_is_no_uid_is_400(door: Stowing) -> None:
    """Nothing from the URL goes further than a UID."""
    assert 404 == door.post(mr_instance(), study="..%2f..%2fetc").status_code
    assert 400 == door.post(mr_instance(), study="1.2.x").status_code


def test_no_room_is_503_with_retry_after(tmp_path: Path) -> None:
    """All failures out of resources: the sender is told to come again."""
    with stowing(tmp_path, reserve_mb=10**12) as door:
        answer = door.post(mr_instance())

        assert (answer.status_code, reasons(answer)) == (503, [0xA700])
        assert int(answer.headers["retry-after"]) > 0


def test_an_instance_above_the_limit_is_413(tmp_path: Path) -> None:
    """The request is cut there; nothing of the instance is left."""
    large = mr_instance(PixelData=bytes(3_000_000), Rows=1000, Columns=1500)
    with stowing(tmp_path, max_instance_mb=1) as door:
        answer = door.post(large)

        assert (answer.status_code, reasons(answer)) == (413, [0xA700])
        assert ([], []) == (door.rows(), door.spooled())
        assert 202 == door.post(mr_instance(), large).status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/dicom"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=x'}, 415),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, 400),
        ({"Content-Type": f'multipart/related; type="application/dicom"; boundary={"x" * 129}'}, 400),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Accept": "application/dicom+xml"}, 406),
        ({"Accept": "text/html, */*;q=0.1"}, 200),
        ({"Accept": "application/dicom+json"}, 200),
        ({"Content-Type": "multipart/related; boundary=a-boundary-of-the-tests"}, 200),
        ({"Content-Type": 'Multipart/Related; Boundary="a-boundary-of-the-tests"'}, 200),
    ],
)  # fmt: skip
def test_media_types(door: Stowing, headers: dict[str, str], status: int) -> None:
    """What is taken and what can be answered, decided before the body is read."""
    assert status == door.post(mr_instance(), headers=headers).status_code


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no multipart at all",
        b"\r\n--another-boundary\r\n\r\nx\r\n--another-boundary--\r\n",
        b"--a-boundary-of-the-tests--\r\n",
        part(mr_instance()),
        part(mr_instance()) + b"\r\n--a-boundary-of-the-tests",
        b"--a-boundary-of-the-tests\r\n" + b"X: " + b"y" * 5000 + b"\r\n\r\n\r\n--a-boundary-of-the-tests--",
        b"--a-boundary-of-the-tests\r\n" + b"X: y\r\n" * 50 + b"\r\n\r\n--a-boundary-of-the-tests--",
    ],
    ids=[
        "empty",
        "text",
        "other boundary",
        "no part",
        "no end",
        "half an end",
        "long header",
        "many headers",
    ],
)
def test_a_malformed_body_is_400(door: Stowing, content: bytes) -> None:
    """A body that is not whole is no request: its last part may be cut, and is not kept."""
    answer = door.client.post("/studies", content=content, headers=content_type())

    assert 400 == answer.status_code
    assert ([], []) == (door.rows(), door.spooled())


def test_what_came_whole_before_the_break_is_stored_and_said(door: Stowing) -> None:
    """A body that ends too early: 202, the stored ones by name, and one failure for the rest."""
    first, second = mr_instance(index=1), mr_instance(index=2)

    answer = door.client.post("/studies", content=part(first) + part(second), headers=content_type())

    assert (answer.status_code, references(answer)) == (202, [str(first.SOPInstanceUID)])
    assert reasons(answer, OTHER) == [0xC000]
    assert [str(first.SOPInstanceUID)] == [row[0] for row in door.rows()]


def test_parts_of_another_type_are_refused(door: Stowing) -> None:
    """Metadata and bulk data (application/dicom+json) are not taken: the part fails."""
    content = part(mr_instance(), kind="application/dicom+json") + body([mr_instance(index=1)])

    answer = door.client.post("/studies", content=content, headers=content_type())

    assert (answer.status_code, reasons(answer, OTHER)) == (202, [0xC000])


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz", "Bearer \xff\xfe"]
)
def test_a_stranger_is_401(door: Stowing, authorization: str) -> None:
    """No token, or none that is known: WWW-Authenticate says what is wanted."""
    answer = door.client.post(
        "/studies", content=body([mr_instance()]),
        headers={**content_type(), "Authorization": authorization.encode("latin-1")},  # type: ignore[dict-item]
    )  # fmt: skip

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["connection"] == "close"
    assert [] == door.rows()


def test_a_peer_that_may_not_send_is_403(door: Stowing) -> None:
    """peer.may_send holds for both ways in."""
    answer = door.post(mr_instance(), headers={"Authorization": f"Bearer {VIEWER_TOKEN}"})

    assert 403 == answer.status_code
    assert [] == door.rows()


def test_only_post_is_understood(door: Stowing) -> None:
    """No search, no retrieval."""
    assert 405 == door.client.get("/studies").status_code
    assert 405 == door.client.delete("/studies/1.2.3").status_code
    assert 404 == door.client.post("/studies/1.2.3/series").status_code


def test_the_audit_trail_tells_of_it(door: Stowing) -> None:
    """Begun, Transferred with classes, and what was declined, under the peer's name; tokens nowhere."""
    door.post(mr_instance(index=1), mr_instance(index=2), mr_instance(SOPClassUID=SECONDARY_CAPTURE))
    door.post(mr_instance(), headers={"Authorization": "Bearer a-token-that-nobody-knows-here-at-all"})

    study = f"ParticipantObjectID='{mr_instance().StudyInstanceUID}'"
    text = "".join(
        path.read_text(encoding="utf-8") for path in (door.books.folder / "audit").iterdir() if path.is_file()
    ).replace('\\"', "'")
    assert text.count(study) >= 2, text
    assert all(word in text for word in ("scanner", "Security Alert", "refused with status 0x0122"))
    assert "a-token-that-nobody-knows" not in text
