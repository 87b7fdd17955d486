"""Every malformed and odd file at hand, sent by its own names over the real front door."""

from __future__ import annotations

import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.domain.identity import UID
from dicom_node.errors import InvalidValue
from support import pdus
from support.mr import MR_IMAGE
from support.pdus import Context, good_echo, line
from support.ports import free_port
from support.receiving import after_file_meta, receiver_process, recorded
from support.watch import Watch, tree

pytestmark = pytest.mark.real

STATUSES = {0x0000, 0x0111, 0x0117, 0x0122, 0xA900, 0xC000}
MIB = 1 << 10
"""In KiB, as memory is read."""


def claimed(content: bytes) -> tuple[str, str, str]:
    """(SOP Class UID, SOP Instance UID, transfer syntax) that a file says of itself, else stand-ins."""
    found = [MR_IMAGE, "1.2.3.4", pdus.EXPLICIT]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ds = dcmread(BytesIO(content), stop_before_pixels=True, force=True)
            said = [ds.get("SOPClassUID"), ds.get("SOPInstanceUID"), ds.file_meta.get("TransferSyntaxUID")]
        except Exception:  # noqa: BLE001 - a reader on malformed bytes, which raises anything
            said = []
    for number, value in enumerate(said):
        try:
            found[number] = str(UID(str(value)))
        except InvalidValue:
            continue
    return found[0], found[1], found[2]


def data_set(content: bytes) -> bytes:
    try:
        return after_file_meta(content) or content[132:]
    except AssertionError:
        return content


@pytest.mark.parametrize("folder", ["bad_pwnlabmx", "dcm_orthanc_tests", "dcm_pydicom_data"])
def test_malformed_files_are_stored_or_refused(real_data: Path, tmp_path: Path, folder: str) -> None:
    """Each gets a status, with a reason where it is refused; what is acknowledged is there, as it was sent.
    The service answers, memory stays bounded, and no path outside the node's folder is touched."""
    paths = sorted(path for path in (real_data / folder).rglob("*") if path.is_file())
    node, port, answers = tmp_path / "around" / "node", free_port(), Counter[int]()
    node.parent.mkdir()
    more = {"receive": {"unwanted": "store", "deflate": True}}
    with receiver_process(node, port, **more) as process:
        watch = Watch(process.pid, node)
        good_echo(port)
        memory = watch.highest_kib()
        around = {path for path in tree(tmp_path) if node not in path.parents}
        acknowledged: dict[str, bytes] = {}
        for path in paths:
            content = path.read_bytes()
            sop_class, instance, syntax = claimed(content)
            with line(port) as peer:
                kind, body = peer.associate(pdus.associate_rq(contexts=[Context(3, sop_class, (syntax,))]))
                assert pdus.ASSOCIATE_AC == kind, path.name
                if pdus.results(body) != {3: 0}:
                    answers[0x0122] += 1
                    continue
                peer.send(*pdus.store_pdus(instance, data_set(content), sop_class))
                answer = peer.response()
                peer.release()
            status = int.from_bytes(answer[0x0900], "little")
            assert status in STATUSES and (status == 0 or answer[0x0902]), path.name
            answers[status] += 1
            if status == 0:
                acknowledged[instance] = data_set(content)
        good_echo(port)

        assert around == {path for path in tree(tmp_path) if node not in path.parents}
        assert [] == watch.spooled()
        assert watch.highest_kib() - memory < 256 * MIB
    stored = {
        name: after_file_meta((node / "objects" / digest[:2] / digest).read_bytes())
        for name, digest in recorded(node).items()
    }
    assert acknowledged == stored
    assert len(paths) == answers.total() and answers[0x0000] > 0
