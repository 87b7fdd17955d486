"""Which objects are taken, in which encodings, and what happens to the others. Decisions only.

Wanted are MR images of every kind, slides, photographs through a microscope, and structured reports
(an earlier report may name a known finding). Everything else that comes along in a study (secondary
captures, segmentations, presentation states, encapsulated PDF ...) follows `receive.unwanted`:
"refuse" rejects its presentation context while the association is made, so the sender learns it
before it sends; "store" takes every storage class of the Standard and keeps the object with the study.

Results of a node like this one are never input: what a PACS routes back must not start the
next job. One this node made itself is held already: 0x0000, and nothing changes. One that
another node made is refused with 0x0122. Both are counted in the log.

Video is refused, and so are references to pixel data elsewhere. Deflated Explicit VR Little
Endian is taken where `receive.deflate` says so (a small file may be a huge one).
"""

from __future__ import annotations

from io import BytesIO
from typing import BinaryIO, cast

from pydicom.uid import AllTransferSyntaxes
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext, build_context
from pynetdicom.sop_class import Verification

from dicom_node.config import Receive
from dicom_node.dicom import elements
from dicom_node.dicom.provenance import MANUFACTURER, MODEL
from dicom_node.errors import UnreadableObject

MR_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.4",  # MR Image
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image
    "1.2.840.10008.5.1.4.1.1.4.3",  # Enhanced MR Color Image
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image
)
SLIDES_AND_PHOTOGRAPHS = (
    "1.2.840.10008.5.1.4.1.1.77.1.6",  # VL Whole Slide Microscopy Image
    "1.2.840.10008.5.1.4.1.1.77.1.2",  # VL Microscopic Image
    "1.2.840.10008.5.1.4.1.1.77.1.3",  # VL Slide-Coordinates Microscopic Image
    "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic Image
)
MODALITIES = ("MR", "SM", "GM", "XC")
"""Of the series that hold the images wanted."""
REPORTS = (
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
    "1.2.840.10008.5.1.4.1.1.88.35",  # Extensible SR
)
_NOT_TAKEN = ("Deflate", "MPEG", "HEVC", "JPIP", "SMPTE")
TRANSFER_SYNTAXES = tuple(
    str(uid) for uid in AllTransferSyntaxes if not any(word in uid.name for word in _NOT_TAKEN)
)
"""Implicit and explicit VR, little and big endian; RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K."""


def transfer_syntaxes(receive: Receive) -> tuple[str, ...]:
    return (*TRANSFER_SYNTAXES, elements.DEFLATED) if receive.deflate else TRANSFER_SYNTAXES


_MANUFACTURER, _MODEL = 0x00080070, 0x00081090


def contexts(receive: Receive) -> list[PresentationContext]:
    """The presentation contexts this node accepts, C-ECHO among them."""
    encodings = list(transfer_syntaxes(receive))
    taken = [build_context(uid, encodings) for uid in storage_classes(receive)]
    return [build_context(Verification), *taken]


def storage_classes(receive: Receive) -> tuple[str, ...]:
    wanted = (*MR_IMAGES, *SLIDES_AND_PHOTOGRAPHS, *REPORTS)
    if receive.unwanted == "refuse":
        return wanted
    others = (str(context.abstract_syntax) for context in AllStoragePresentationContexts)
    return (*wanted, *(uid for uid in others if uid not in wanted))


def made_by_a_node(sop_class_uid: str, head: bytes) -> bool:
    """Whether the PS3.10 file beginning with `head` is a result of this program, by its equipment.

    An MR image never is; it is not looked at.
    """
    if sop_class_uid in MR_IMAGES:
        return False
    try:
        data_set, _ = elements.parse_part10(
            cast(BinaryIO, BytesIO(head)), stop=_past_model, wanted=(_MANUFACTURER, _MODEL)
        )
    except UnreadableObject:
        return False
    return (elements.text(data_set, _MANUFACTURER), elements.text(data_set, _MODEL)) == (MANUFACTURER, MODEL)


def _past_model(tag: int, vr: str | None, length: int) -> bool:
    return tag > _MODEL
