"""C-FIND, Study Root (PS3.4 C.4.1, C.6.2), as SCU: one question and its matches, over a `Conversation`.

For whoever asks: receiving, what a sender has of a study; delivering, whether an object arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from dicom_node.dicom import elements
from dicom_node.dicom.query_status import Outcome, Service, classify
from dicom_node.errors import QueryRefused, RetrieveError, UnreadableObject
from dicom_node.scu.conversation import Answer, Conversation

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

SOP_CLASS, SOP_INSTANCE, LEVEL, MODALITY = 0x00080016, 0x00080018, 0x00080052, 0x00080060
STUDY, SERIES, SERIES_NUMBER = 0x0020000D, 0x0020000E, 0x00200011
STUDY_INSTANCES, SERIES_INSTANCES = 0x00201208, 0x00201209
_PADDED_WITH_NULL = {SOP_CLASS, SOP_INSTANCE, STUDY, SERIES}
_WANTED = (
    SOP_CLASS, SOP_INSTANCE, MODALITY, STUDY, SERIES, SERIES_NUMBER, STUDY_INSTANCES, SERIES_INSTANCES,
)  # fmt: skip


def matches(conversation: Conversation, who: str, keys: Mapping[int, str]) -> Iterator[Dataset | None]:
    """Ask once; what each answer says of the elements above, None for one that cannot be read.

    Raises QueryRefused where asking again changes nothing, RetrieveError for whatever else goes wrong.
    """
    for answer in conversation.ask(Service.FIND, STUDY_ROOT_FIND, encoded(keys)):
        if not isinstance(answer, Answer):
            continue
        said = classify(Service.FIND, answer.status)
        if said.outcome is Outcome.SUCCESS:
            return
        if said.outcome is not Outcome.PENDING:
            failure = QueryRefused if said.outcome is Outcome.REFUSED else RetrieveError
            raise failure(f"{who} answered the query: {said.sentence}")
        try:
            yield elements.parse(answer.identifier, elements.IMPLICIT_LE, wanted=_WANTED)
        except UnreadableObject:
            yield None


def encoded(keys: Mapping[int, str]) -> bytes:
    """An identifier, PS3.4 C.4.1.1.3, in implicit VR little endian; every value is ASCII."""
    made = b""
    for tag, text in sorted(keys.items()):
        padding = b"\0" if tag in _PADDED_WITH_NULL else b" "
        value = text.encode("ascii") + padding * (len(text) % 2)
        made += (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
        made += len(value).to_bytes(4, "little") + value
    return made
