"""A plain storage SCU for machines without DCMTK: one association, a blocking socket, no threads.

`python -m dicom_node.bench.scu PORT [--tls KEY CERTIFICATE TRUSTED] FOLDER ...` says `ready`, waits for a
line, and sends the files of the folders to loopback: such as `material` wrote, one SOP class in one
transfer syntax. It ends with code 1, and a sentence, at the first answer that is not success.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import struct
import sys
from collections.abc import Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from dicom_node.bench.receivers import CALLED, CALLING, PDU_BYTES
from dicom_node.dicom.uids import IMPLEMENTATION_CLASS_UID
from dicom_node.errors import DeliveryRefused, DicomNodeError, PeerRefused, PeerUnreachable

_ASSOCIATE_AC, _P_DATA_TF = 0x02, 0x04
_RELEASE_RQ = bytes.fromhex("05000000000400000000")
_CONTEXT = 1
_COMMAND, _LAST = 0x01, 0x02
_HEAD_BYTES = 12
"""PDU header, PDV length, context and message control header (PS3.8 9.3.5)."""
_TIMEOUT_S = 600.0


class Scu:
    """One association on a connected socket. Mutable: `_message`, the number of the last request."""

    def __init__(self, connection: socket.socket, first: FileMetaDataset) -> None:
        self._connection, self._message = connection, 0
        connection.sendall(_proposal(first))
        kind, body = self._received()
        if kind != _ASSOCIATE_AC:
            raise PeerRefused(f"the receiver answered the association with a PDU of type {kind:02X}")
        answer = A_ASSOCIATE_AC()
        answer.decode(struct.pack(">BBI", kind, 0, len(body)) + body)
        if answer.presentation_context[0].result != 0:
            raise PeerRefused("the receiver did not accept the SOP class")
        length = answer.user_information.maximum_length or PDU_BYTES
        self._buffer = memoryview(bytearray(6 + min(length, PDU_BYTES)))

    def store(self, path: Path) -> None:
        """C-STORE (PS3.7 9.3.1) of one file. Raises DeliveryRefused unless the status is 0x0000."""
        meta, self._message = read_file_meta_info(path), self._message % 65535 + 1
        request = Dataset()
        request.AffectedSOPClassUID, request.CommandField = meta.MediaStorageSOPClassUID, 0x0001
        request.MessageID, request.Priority, request.CommandDataSetType = self._message, 0, 0x0000
        request.AffectedSOPInstanceUID = meta.MediaStorageSOPInstanceUID
        command = _command_set(request)
        self._connection.sendall(_head(len(command), _COMMAND | _LAST) + command)
        self._send_data_set(path, _data_set_at(meta))
        kind, body = self._received()
        status = decode(BytesIO(body[6:]), True, True).get("Status") if kind == _P_DATA_TF else None
        if status != 0x0000:
            raise DeliveryRefused(f"the receiver answered {path.name} with status {status}")

    def release(self) -> None:
        self._connection.sendall(_RELEASE_RQ)
        self._received()

    def _send_data_set(self, path: Path, at: int) -> None:
        left = path.stat().st_size - at
        with path.open("rb", buffering=0) as file:
            file.seek(at)
            while left:
                count = file.readinto(self._buffer[_HEAD_BYTES:])
                if not count:
                    raise DicomNodeError(f"{path.name} became shorter while it was sent")
                left -= count
                self._buffer[:_HEAD_BYTES] = _head(count, 0 if left else _LAST)
                self._connection.sendall(self._buffer[: _HEAD_BYTES + count])

    def _received(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBI", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            piece = self._connection.recv(count - len(found))
            if not piece:
                raise PeerUnreachable("the receiver closed the connection")
            found += piece
        return bytes(found)


def _proposal(meta: FileMetaDataset) -> bytes:
    """A-ASSOCIATE-RQ for the class and encoding of one file."""
    context = build_context(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
    context.context_id = _CONTEXT
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = PDU_BYTES
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = CALLING, CALLED
    request.presentation_context_definition_list = [context]
    request.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


def _command_set(request: Dataset) -> bytes:
    """With its group length in front (PS3.7 6.3.1)."""
    encoded = encode(request, True, True) or b""
    return struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded


def _data_set_at(meta: FileMetaDataset) -> int:
    """Preamble, prefix, the group length's element, and what it counts (PS3.10 7.1)."""
    return 132 + 12 + int(meta.FileMetaInformationGroupLength)


def _head(count: int, control: int) -> bytes:
    """Of a P-DATA-TF PDU with one fragment of `count` bytes."""
    return struct.pack(">BBIIBB", _P_DATA_TF, 0, count + 6, count + 2, _CONTEXT, control)


def connected(port: int, tls: Sequence[str] | None) -> socket.socket:
    """To loopback; `tls` names the files with key, own certificate and the receiver's."""
    connection = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not tls:
        return connection
    key, certificate, trusted = tls
    context = ssl.create_default_context(cafile=trusted)
    context.load_cert_chain(certificate, key)
    return context.wrap_socket(connection, server_hostname="localhost")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--tls", nargs=3, metavar=("KEY", "CERTIFICATE", "TRUSTED"))
    given = parser.parse_args(arguments)
    files = sorted(path for folder in given.folders for path in folder.iterdir())
    first = read_file_meta_info(files[0])  # also loads what pydicom loads late
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    try:
        with closing(connected(given.port, given.tls)) as connection:
            scu = Scu(connection, first)
            for path in files:
                scu.store(path)
            scu.release()
    except (OSError, DicomNodeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
