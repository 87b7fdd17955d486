"""A disk that fills up under the receiver: a small tmpfs, really full. Refused, nothing lost, no restart."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mr import mr_instance
from support.ports import wait_until
from support.receiving import receiving
from support.scu import Scu, associated, data_set_bytes

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
DISK_MB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def slices(count: int) -> list[bytes]:
    """Data sets of 2 MB."""
    return [
        data_set_bytes(
            mr_instance(Rows=1000, Columns=1000, PixelData=bytes(2_000_000), SOPInstanceUID=uid(n))
        )
        for n in range(count)
    ]


def uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.7.{number}"


def filled(scu: Scu, sent: list[bytes]) -> tuple[list[int], int]:
    """Numbers of the instances that were acknowledged, and the first answer that was no success."""
    kept = []
    for number, content in enumerate(sent):
        status = scu.store_bytes(content, uid(number))
        if status != SUCCESS:
            return kept, status
        kept.append(number)
    return kept, SUCCESS


@pytest.mark.parametrize("reserve_mb", [0, 4], ids=["to the last byte", "with a reserve"])
def test_a_full_disk_is_out_of_resources_until_there_is_room(disk: Path, reserve_mb: int) -> None:
    """0xA700 on an association that stays; what was acknowledged is whole; then success again."""
    sent = slices(DISK_MB)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(8_000_000))
    (disk / "node").mkdir()
    with receiving(disk / "node", reserve_mb=reserve_mb) as node, associated(node.port) as scu:
        kept, refusal = filled(scu, sent)
        assert OUT_OF_RESOURCES == refusal
        assert 0 < len(kept) < len(sent)
        assert [OUT_OF_RESOURCES] * 3 == [scu.store_bytes(sent[-1], uid(len(sent) - 1)) for _ in range(3)]
        assert node.data_sets() == {uid(number): sent[number] for number in kept}
        assert [] == node.spooled()

        ballast.unlink()
        again = len(kept)
        wait_until(
            lambda: scu.store_bytes(sent[again], uid(again)) == SUCCESS, 5.0, "there is room, so it is taken"
        )
        assert SUCCESS == scu.echo()
        assert node.data_sets() == {uid(number): sent[number] for number in [*kept, again]}
