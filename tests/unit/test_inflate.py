"""A deflated data set is unfolded as far as it is needed, and a bomb costs next to nothing."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_node.assemble.stacks import stacks
from dicom_node.config import Receive
from dicom_node.dicom.header import identify, read_header
from dicom_node.dicom.inflate import FREE_BYTES, MOST_RATIO, Inflated, inflated
from dicom_node.dicom.provenance import MANUFACTURER, MODEL
from dicom_node.dicom.volume import read_volume
from dicom_node.domain.identity import UID
from dicom_node.errors import UnreadableObject
from dicom_node.receive.part10 import file_head
from dicom_node.receive.policy import TRANSFER_SYNTAXES, contexts, made_by_a_node, transfer_syntaxes
from support import mr
from support.nested import Encoding, chain
from support.stored import stored_file

DEFLATED = str(DeflatedExplicitVRLittleEndian)
MIB = 1 << 20


def folded(data_set: bytes) -> bytes:
    """Raw deflate, without zlib's header, PS3.5 A.5."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data_set) + stream.flush()


def deflated_file(data_set: bytes) -> bytes:
    return file_head(UID(mr.MR_IMAGE), UID("1.2.3"), UID(DEFLATED)) + folded(data_set)


def data_set_of(plain_file: bytes) -> bytes:
    return plain_file[144 + int.from_bytes(plain_file[140:144], "little") :]


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """398 KiB that unfold to 400 MiB: a private value of zeros before all else."""
    content = Encoding().head(0x00090010, "OB", 400 * MIB) + bytes(400 * MIB)
    path = tmp_path / "bomb"
    path.write_bytes(deflated_file(content))
    assert path.stat().st_size < 420_000
    return path


def test_a_deflated_object_is_read_like_a_plain_one(tmp_path: Path) -> None:
    """Identity, header, provenance and pixels."""
    ds = mr.mr_instance(PixelData=mr.ramp(32, 24, 3).tobytes())
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    plain.write_bytes(mr.file_bytes(ds))
    content = data_set_of(plain.read_bytes())
    packed.write_bytes(deflated_file(content))

    assert {**read_header(plain), "transfer_syntax_uid": DEFLATED} == read_header(packed)
    assert identify(plain, ExplicitVRLittleEndian) == identify(folded(content), DEFLATED)
    assert identify(plain, ExplicitVRLittleEndian) == identify(packed, DEFLATED)
    ((stack,), _) = stacks([stored_file(packed)])
    assert mr.ramp(32, 24, 3).tolist() == read_volume(stack).array[0].astype(int).tolist()


def test_the_header_is_unfolded_and_the_pixels_are_not(tmp_path: Path) -> None:
    """A megabyte of noise as pixels: cut off behind the header, the object is still read."""
    noise = np.random.default_rng(1).integers(0, 65535, (1024, 512), np.uint16).tobytes()
    content = data_set_of(mr.file_bytes(mr.mr_instance(Rows=1024, Columns=512, PixelData=noise)))
    path = tmp_path / "object"
    path.write_bytes(deflated_file(content)[:100_000])

    assert 1024 == read_header(path)["rows"]


@pytest.mark.parametrize("size", [1, 1000, 65536, 65537, 300_000])
def test_no_more_is_unfolded_than_asked(size: int) -> None:
    """To the byte."""
    stream = Inflated(folded(bytes(range(256)) * 4000), 0)

    stream.unfold(size)

    assert (bytes(range(256)) * 4000)[:size] == stream.bytes_so_far
    assert not stream.ended


def test_all_is_unfolded_within_the_limit_and_refused_beyond() -> None:
    content = bytes(range(256)) * 1000

    assert content == inflated(folded(content), 0, len(content))
    with pytest.raises(UnreadableObject, match="unfolds to more than its description says"):
        inflated(folded(content), 0, len(content) - 1)


def test_the_ratio_is_bounded() -> None:
    """Beyond the free megabyte, 250 bytes out per byte in."""
    content = folded(bytes(64 * MIB))

    with pytest.raises(UnreadableObject, match=f"more than {MOST_RATIO} times its size"):
        inflated(content, 0, 64 * MIB)

    small = bytes(FREE_BYTES // 2)
    assert small == inflated(folded(small), 0, FREE_BYTES)


@pytest.mark.parametrize(
    "content", [b"", b"\x78\x9c" * 100, bytes(100), b"\xff" * 100, folded(b"x" * 5000)[:-4]]
)
def test_what_is_no_deflate_is_unreadable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "object"
    path.write_bytes(file_head(UID(mr.MR_IMAGE), UID("1.2.3"), UID(DEFLATED)) + content)

    with pytest.raises(UnreadableObject):
        read_header(path)


def test_a_deep_data_set_is_as_deep_when_deflated(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(deflated_file(Encoding().data_set(chain(65))))

    with pytest.raises(UnreadableObject, match="nested more than 64 deep"):
        read_header(path)


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    """17 MiB of elements that do not fold well."""
    noise = np.random.default_rng(1).integers(0, 255, 60_000, np.uint8).tobytes()
    content = (Encoding().head(0x00090010, "OB", len(noise)) + noise) * 300
    path = tmp_path / "object"
    path.write_bytes(deflated_file(content))

    with pytest.raises(UnreadableObject, match="the deflated header is longer than 16 MiB"):
        read_header(path)


def test_a_bomb_is_refused_and_costs_little_memory(bomb: Path) -> None:
    """Under 64 MiB above what the program has anyway: header, identity, provenance."""
    code = r"""
import re, sys
from pathlib import Path
from dicom_node.dicom.header import identify, read_header
from dicom_node.errors import UnreadableObject
from dicom_node.receive.policy import made_by_a_node
path = Path(sys.argv[1])
head = path.read_bytes()[:65536]
def highest_kib():  # of this program; ru_maxrss would begin at the parent's
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = highest_kib()
for read in (read_header, lambda p: identify(p, ""), lambda p: identify(head, "1.2.840.10008.1.2.1.99")):
    try:
        read(path)
    except UnreadableObject as refusal:
        print(refusal, file=sys.stderr)
    else:
        sys.exit("it was read")
assert not made_by_a_node("1.2", head)
print(highest_kib() - before)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(bomb)], capture_output=True, text=True, timeout=60
    )

    assert 0 == done.returncode, done.stderr
    assert int(done.stdout) < 64 * 1024  # KiB


def test_pixels_of_a_bomb_are_refused(tmp_path: Path) -> None:
    """The header is honest, 32 x 24; the pixel data are 400 MiB of zeros."""
    content = data_set_of(mr.file_bytes(mr.mr_instance()))
    at = content.index(b"\xe0\x7f\x10\x00OW")
    path = tmp_path / "object"
    path.write_bytes(
        deflated_file(content[:at] + Encoding().head(0x7FE00010, "OW", 400 * MIB) + bytes(400 * MIB))
    )
    ((stack,), _) = stacks([stored_file(path)])

    with pytest.raises(UnreadableObject, match="unfolds to more than"):
        read_volume(stack)


def test_deflate_is_agreed_on_only_where_it_is_enabled() -> None:
    """Closed by default; `receive.deflate` opens it, for every class."""
    assert DEFLATED not in transfer_syntaxes(Receive())
    assert {DEFLATED, *TRANSFER_SYNTAXES} == set(transfer_syntaxes(Receive(deflate=True)))
    assert all(DEFLATED in context.transfer_syntax for context in contexts(Receive(deflate=True))[1:])


def test_a_deflated_result_of_a_node_is_recognised() -> None:
    """Provenance is looked for in the unfolded bytes."""
    own = mr.report("AI", Manufacturer=MANUFACTURER, ManufacturerModelName=MODEL)
    content = deflated_file(data_set_of(mr.file_bytes(own)))

    assert made_by_a_node(str(own.SOPClassUID), content[:65536])
