"""What is taken, from whom, and what a stored file begins with: decisions, no sockets."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.uid import UID as AnyUID

from dicom_node.config import Peer, Receive
from dicom_node.dicom.provenance import MANUFACTURER, MODEL
from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID
from dicom_node.domain.identity import UID
from dicom_node.receive.part10 import file_head
from dicom_node.receive.peers import Peers, Rejection
from dicom_node.receive.policy import TRANSFER_SYNTAXES, contexts, made_by_a_node, storage_classes
from support.mr import MR_IMAGE, file_bytes, mr_instance, report

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


def test_images_and_reports_are_wanted() -> None:
    """By default four MR image classes, slides, three of photographs and five of SR; else C-ECHO only."""
    assert 1 + 4 + 1 + 3 + 5 == len(contexts(Receive()))
    assert {MR_IMAGE, WHOLE_SLIDE, BASIC_TEXT_SR} < set(storage_classes(Receive()))
    assert SECONDARY_CAPTURE not in storage_classes(Receive())


def test_unwanted_classes_can_be_stored() -> None:
    """With unwanted = "store" every storage class of the Standard is taken, each once."""
    taken = storage_classes(Receive(unwanted="store"))

    assert {MR_IMAGE, SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.66.4"} < set(taken)
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize(
    ("uid", "taken"),
    [
        ("1.2.840.10008.1.2", True),  # implicit little endian
        ("1.2.840.10008.1.2.1", True),  # explicit little endian
        ("1.2.840.10008.1.2.1.99", False),  # deflated
        ("1.2.840.10008.1.2.2", True),  # explicit big endian
        ("1.2.840.10008.1.2.4.50", True),  # JPEG baseline
        ("1.2.840.10008.1.2.4.51", True),  # JPEG extended
        ("1.2.840.10008.1.2.4.57", True),  # JPEG lossless
        ("1.2.840.10008.1.2.4.70", True),  # JPEG lossless, first order
        ("1.2.840.10008.1.2.4.80", True),  # JPEG-LS lossless
        ("1.2.840.10008.1.2.4.81", True),  # JPEG-LS near lossless
        ("1.2.840.10008.1.2.4.90", True),  # JPEG 2000 lossless
        ("1.2.840.10008.1.2.4.91", True),  # JPEG 2000
        ("1.2.840.10008.1.2.4.100", False),  # MPEG2
        ("1.2.840.10008.1.2.4.201", True),  # HTJ2K lossless
        ("1.2.840.10008.1.2.4.202", True),  # HTJ2K lossless RPCL
        ("1.2.840.10008.1.2.4.203", True),  # HTJ2K
        ("1.2.840.10008.1.2.4.204", False),  # JPIP: the pixels are elsewhere
        ("1.2.840.10008.1.2.5", True),  # RLE
        ("1.2.840.10008.1.2.8.1", False),  # deflated frames
    ],
)
def test_transfer_syntaxes(uid: str, *, taken: bool) -> None:
    """Every encoding of still images of PS3.5 Annex A, and none that inflates or points elsewhere."""
    assert taken == (uid in TRANSFER_SYNTAXES)


SHOWN, ANOTHER = "ab" * 32, "cd" * 32
"""Fingerprints of certificates."""


def peer(name: str, host: str, *, ae_title: str = "SCANNER", may_send: bool = True, shows: str = "") -> Peer:
    certificates = (shows,) if shows else ()
    return Peer(name=name, ae_title=ae_title, host=host, may_send=may_send, certificates=certificates)


PEERS = Peers.resolved(
    "DICOMNODE",
    (
        peer("here", "localhost"),
        peer("there", "192.0.2.7"),
        peer("six", "2001:db8::1", ae_title="SIX"),
        peer("viewer", "192.0.2.7", ae_title="VIEWER", may_send=False),
        peer("nowhere", "no.such.host.invalid", ae_title="NOWHERE"),
        peer("proved", "192.0.2.7", ae_title="PROVED", shows=SHOWN),
    ),
)


@pytest.mark.parametrize(
    ("calling", "called", "address", "answer"),
    [
        ("SCANNER", "DICOMNODE", "127.0.0.1", "here"),
        ("SCANNER ", " DICOMNODE", "127.0.0.1", "here"),
        ("SCANNER", "DICOMNODE", "127.0.0.2", "here"),
        ("SCANNER", "DICOMNODE", "::1", "here"),
        ("SCANNER", "DICOMNODE", "192.0.2.7", "there"),
        ("SCANNER", "DICOMNODE", "::ffff:192.0.2.7", "there"),
        ("SIX", "DICOMNODE", "2001:db8:0:0::1", "six"),
        ("SCANNER", "DICOMNODE", "192.0.2.8", Rejection.CALLING),
        ("scanner", "DICOMNODE", "127.0.0.1", Rejection.CALLING),
        ("STRANGER", "DICOMNODE", "127.0.0.1", Rejection.CALLING),
        ("VIEWER", "DICOMNODE", "192.0.2.7", Rejection.CALLING),
        ("NOWHERE", "DICOMNODE", "192.0.2.7", Rejection.CALLING),
        ("SCANNER", "OTHER", "127.0.0.1", Rejection.CALLED),
    ],
)
def test_who_may_come_in(calling: str, called: str, address: str, answer: str | Rejection) -> None:
    """AE title and address of one listed peer that may send; a loopback peer from any loopback address."""
    admitted = PEERS.admit(calling, called, address, None)

    assert answer == (admitted.name if isinstance(admitted, Peer) else admitted)


@pytest.mark.parametrize(
    ("calling", "address", "certificate", "answer"),
    [
        ("PROVED", "192.0.2.7", SHOWN, "proved"),
        ("PROVED", "198.51.100.9", SHOWN, "proved"),  # behind a router: the certificate says who it is
        ("PROVED", "192.0.2.7", None, Rejection.CALLING),  # without TLS
        ("PROVED", "192.0.2.7", ANOTHER, Rejection.CALLING),
        ("SCANNER", "192.0.2.7", SHOWN, Rejection.CALLING),  # another peer's certificate
        ("SCANNER", "192.0.2.7", ANOTHER, Rejection.CALLING),  # trusted, but listed for nobody
    ],
)
def test_a_certificate_lets_in_the_peer_that_lists_it(
    calling: str, address: str, certificate: str | None, answer: str | Rejection
) -> None:
    """From any address, under its own AE title only; and a peer that lists one gets in no other way."""
    admitted = PEERS.admit(calling, "DICOMNODE", address, certificate)

    assert answer == (admitted.name if isinstance(admitted, Peer) else admitted)


def test_the_file_head_is_part_10() -> None:
    """128 zero bytes, DICM, and the five elements that tell the instance and its encoding."""
    head = file_head(UID(MR_IMAGE), UID("1.2.3.45"), UID("1.2.840.10008.1.2.1"))

    meta = dcmread(BytesIO(head)).file_meta

    assert bytes(128) + b"DICM" == head[:132]
    assert (MR_IMAGE, "1.2.3.45", "1.2.840.10008.1.2.1", IMPLEMENTATION_CLASS_UID) == (
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID,
        meta.TransferSyntaxUID, meta.ImplementationClassUID,
    )  # fmt: skip
    assert len(head) == 144 + meta.FileMetaInformationGroupLength
    assert head == file_head(UID(MR_IMAGE), UID("1.2.3.45"), UID("1.2.840.10008.1.2.1"))


def test_a_result_of_a_node_is_recognised() -> None:
    """By Manufacturer and model of a report, capture or segmentation; an MR image is never one."""
    own = report("AI", Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL)
    theirs = report("leiomyoma", Manufacturer=MANUFACTURER, ManufacturerModelName="other")
    image = mr_instance(Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL)

    assert [True, False, False] == [
        made_by_a_node(ds.SOPClassUID, file_bytes(ds)[:65536]) for ds in (own, theirs, image)
    ]
    assert not made_by_a_node(AnyUID(BASIC_TEXT_SR), b"no DICOM")
