"""Real data sets of every vendor and encoding at hand go in and stand on disk bit for bit."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.receive.policy import TRANSFER_SYNTAXES
from support.receiving import Receiving, after_file_meta, receiving
from support.scu import associated

pytestmark = [
    pytest.mark.real,
    # real files hold values that the Standard does not allow; the sender's pydicom says so
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MR_FOLDERS = (
    "mr_prostatex", "mr_dcm_qa_canon", "mr_dcm_qa_enh", "mr_dcm_qa_nih", "mr_dcm_qa_philips",
    "mr_dcm_qa_xa30",
)  # fmt: skip
UIDS = ["SOPClassUID", "SOPInstanceUID"]
OTHER_FOLDERS = ("dcm_orthanc_tests", "dcm_pydicom_data", "dcm_highdicom", "dcm_dcmqi")


@dataclass(frozen=True)
class File:
    sop_class: str
    instance: str
    syntax: str
    data_set: bytes


def files(folder: Path) -> Iterator[File]:
    """Every file that is PS3.10 (also gzipped) with the UIDs which a C-STORE needs."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content[128:132] != b"DICM":
            continue
        try:
            ds = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=UIDS)
            syntax = str(ds.file_meta.TransferSyntaxUID)
            yield File(str(ds.SOPClassUID), str(ds.SOPInstanceUID), syntax, after_file_meta(content))
        except (InvalidDicomError, AttributeError, KeyError, NotImplementedError, zlib.error):
            continue


def sent(node: Receiving, found: list[File]) -> dict[int | None, list[File]]:
    """Send the bytes of each file as they are; the files by the status that came back."""
    by_status: dict[int | None, list[File]] = {}
    for kind in sorted({(file.sop_class, file.syntax) for file in found}):
        with associated(node.port, classes=kind[:1], syntaxes=kind[1:]) as scu:
            for file in (file for file in found if (file.sop_class, file.syntax) == kind):
                if file.sop_class not in scu.accepted:
                    by_status.setdefault(0x0122, []).append(file)
                    continue
                status = scu.store_bytes(file.data_set, file.instance, file.sop_class)
                by_status.setdefault(status, []).append(file)
    return by_status


def values(data_set: bytes) -> Dataset:
    """Of an explicit VR little endian data set."""
    return dcmread(BytesIO(data_set), force=True)


@pytest.mark.parametrize("folder", MR_FOLDERS)
def test_real_mr_is_stored_bit_for_bit(real_data: Path, tmp_path: Path, folder: str) -> None:
    """Siemens, GE, Philips, Canon; classic and Enhanced: each is taken, none is changed."""
    found = list(files(real_data / folder))
    assert found
    with receiving(tmp_path) as node:
        by_status = sent(node, found)

        assert {file.instance: file.data_set for file in found} == node.data_sets()
    assert {0x0000} == set(by_status) - {0x0111}


@pytest.mark.parametrize("folder", OTHER_FOLDERS)
def test_real_objects_of_every_kind_and_encoding(real_data: Path, tmp_path: Path, folder: str) -> None:
    """With unwanted = "store": what is acknowledged is stored as it was; the rest has a stated status."""
    found = list(files(real_data / folder))
    with receiving(tmp_path, unwanted="store") as node:
        by_status = sent(node, found)

        assert {file.instance: file.data_set for file in by_status[0x0000]} == node.data_sets()
    assert set(by_status) <= {0x0000, 0x0111, 0x0117, 0x0122, 0xA900, 0xC000}
    judged = {file.syntax for status, of_it in by_status.items() for file in of_it if status != 0x0122}
    assert judged == {file.syntax for file in found if file.syntax in TRANSFER_SYNTAXES}


@pytest.mark.skipif(shutil.which("storescu") is None, reason="storescu is not installed (Debian: dcmtk)")
def test_dcmtk_sends_a_whole_study(real_data: Path, tmp_path: Path) -> None:
    """storescu with ProstateX-0000: all instances acknowledged and stored, twice the same."""
    folder = real_data / "mr_prostatex" / "ProstateX" / "ProstateX-0000"
    found = {file.instance: file for file in files(folder)}
    with receiving(tmp_path) as node:
        for _ in range(2):
            done = subprocess.run(
                ["storescu", "-aet", "SCANNER", "-aec", "DICOMNODE", "+sd", "+r", "127.0.0.1",
                 str(node.port), str(folder)],
                check=False, capture_output=True, timeout=200,
            )  # fmt: skip

            assert 0 == done.returncode, done.stderr[-500:]
        stored = node.data_sets()

        assert set(found) == set(stored)
        assert () == node.books.catalog.conflicts()
        # DCMTK encodes lengths of sequences anew, so that bytes differ; the values do not
        assert [] == [name for name, file in found.items() if values(file.data_set) != values(stored[name])]


def test_malformed_files_harm_nobody(real_data: Path, tmp_path: Path) -> None:
    """226 malformed files as data sets: each gets a status, and the next C-ECHO is answered."""
    paths = [path for path in sorted((real_data / "bad_pwnlabmx").rglob("*")) if path.is_file()]
    with receiving(tmp_path, unwanted="store") as node, associated(node.port) as scu:
        answers = set()
        for path in paths:
            content = path.read_bytes()
            answers.add(scu.store_bytes(content[132:] or b"\0", "1.2.3.4"))

        assert answers <= {0xA900, 0xC000}
        assert 0x0000 == scu.echo()
        assert {} == node.data_sets()
