"""A C-STORE SCU that does as it is told: whole data sets, raw bytes under any UID, half messages."""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from support.mr import MR_IMAGE

logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
logging.getLogger("pynetdicom").propagate = False


class Scu:
    """One association, established or not."""

    def __init__(self, association: Any) -> None:  # Any: pynetdicom ships no types
        self.association = association

    @property
    def accepted(self) -> set[str]:
        """The abstract syntaxes of the accepted presentation contexts."""
        return {str(context.abstract_syntax) for context in self.association.accepted_contexts}

    def echo(self) -> int | None:
        return self.association.send_c_echo().get("Status")

    def store(self, ds: Dataset) -> int | None:
        """The status; None when the peer answered nothing."""
        with contextlib.suppress(AttributeError):
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            return self.association.send_c_store(ds).get("Status")
        return self.store_bytes(data_set_bytes(ds), ds.SOPInstanceUID, ds.SOPClassUID)

    def store_bytes(self, content: bytes, instance: str, sop_class: str = MR_IMAGE) -> int | None:
        """Send `content` as the data set of a request that says `instance` and `sop_class`, valid or not."""
        context_id = self._context(sop_class)
        command = command_set(sop_class, instance)
        self.association._reactor_checkpoint.clear()
        for header, message in ((1, command), (0, content)):
            pieces = [message[at : at + 16000] for at in range(0, len(message), 16000)] or [b""]
            for number, piece in enumerate(pieces):
                self.send_pdv(context_id, header | 2 * (number == len(pieces) - 1), piece)
        _, answer = self.association.dimse.get_msg(block=True)
        self.association._reactor_checkpoint.set()
        return getattr(answer, "Status", None)

    def send_pdv(self, context_id: int, header: int, fragment: bytes) -> None:
        """One P-DATA-TF PDU with one fragment (PS3.8 9.3.5), past pynetdicom's own checks."""
        pdv = struct.pack(">IBB", len(fragment) + 2, context_id, header) + fragment
        self.association.dul.socket.send(struct.pack(">BBI", 4, 0, len(pdv)) + pdv)

    def begin(self, content: bytes, instance: str, *, parts: int) -> None:
        """Send the first `parts` PDUs of a request, and no more."""
        message = C_STORE_RQ()
        message.primitive_to_message(self.request(content, instance, MR_IMAGE))
        context_id = self._context(MR_IMAGE)
        message.context_id = context_id
        fragments = list(message.encode_msg(context_id, self.association.dimse.maximum_pdu_size))
        assert parts < len(fragments)
        for fragment in fragments[:parts]:
            self.association.dul.send_pdu(fragment)

    def cut(self) -> None:
        """The network is gone: the connection is closed without a word."""
        self.association.dul.socket.close()

    def context(self, sop_class: str = MR_IMAGE) -> int:
        """The id of an accepted presentation context, of this class if there is one."""
        return self._context(sop_class)

    @staticmethod
    def request(content: bytes, instance: str, sop_class: str) -> C_STORE:
        request = C_STORE()
        request.MessageID = 7
        request.AffectedSOPClassUID = UID(sop_class)
        request.AffectedSOPInstanceUID = UID(instance)
        request.Priority = 2
        request.DataSet = BytesIO(content)
        return request

    def _context(self, sop_class: str) -> int:
        contexts = self.association.accepted_contexts
        fitting = [context for context in contexts if context.abstract_syntax == sop_class]
        return int((fitting or contexts)[-1].context_id)


@contextlib.contextmanager
def associated(
    port: int, *, classes: Sequence[str] = (MR_IMAGE,), syntaxes: Sequence[str] = (ExplicitVRLittleEndian,),
    calling: str = "SCANNER", called: str = "DICOMNODE",
) -> Iterator[Scu]:  # fmt: skip
    """An association with the node at loopback `port`, released at the end unless it ended before."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    contexts = [build_context(uid, list(syntaxes)) for uid in classes]
    association = ae.associate(
        "127.0.0.1", port, contexts=[build_context(Verification), *contexts], ae_title=called, max_pdu=0
    )
    try:
        yield Scu(association)
    finally:
        if association.is_established:
            association.release()
        if association.ident is not None:  # a rejected one never ran
            association.join(10)
        if (left := getattr(association.dul.socket, "socket", None)) is not None:
            left.close()  # pynetdicom forgets it when the peer died


def rejection(scu: Scu) -> tuple[int, int, int] | None:
    """(result, source, reason) of an association that was rejected, PS3.8 9.3.4."""
    if not scu.association.is_rejected:
        return None
    answer = scu.association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def command_set(sop_class: str, instance: str) -> bytes:
    """C-STORE-RQ (PS3.7 9.3.1.1) in implicit VR little endian, with whatever values."""
    values = {
        0x0002: sop_class.encode(), 0x0100: b"\x01\0", 0x0110: b"\x07\0", 0x0700: b"\x02\0",
        0x0800: b"\0\0", 0x1000: instance.encode(),
    }  # fmt: skip
    elements = b""
    for element, value in values.items():
        padded = value + b"\0" * (len(value) % 2)
        elements += struct.pack("<HHI", 0, element, len(padded)) + padded
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def data_set_bytes(ds: Dataset) -> bytes:
    """Explicit VR little endian, as it goes over the wire."""
    encoded = encode(ds, False, True)
    assert encoded is not None
    return encoded
