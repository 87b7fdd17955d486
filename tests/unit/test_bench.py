"""The benchmark of receiving: its files, its shares, its arithmetic, its table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames

from dicom_node.bench import material, receivers, table
from dicom_node.bench.command import CaseName, Wire, cells, typed
from dicom_node.bench.command import receivers as named
from dicom_node.bench.material import Case, Material
from dicom_node.bench.measure import Cell, Measured, Place, check, faster
from dicom_node.bench.processes import Watch, family, running
from dicom_node.bench.receivers import Held, Orthanc, StoreScp
from dicom_node.bench.sender import shares
from dicom_node.bench.statistics import Run, figures
from dicom_node.demo.loopback import free_ports
from dicom_node.errors import DicomNodeError, InvalidValue

TMPFS, DISK = Place("tmpfs", Path("memory")), Place("disk", Path("disk"))


def run(number: int, receiver: str, seconds: float, peak_mb: float = 50.0) -> Run:
    return Run(number, receiver, seconds, peak_mb)


def measured(*runs: Run, absent: tuple[str, ...] = (), tls: bool = False) -> Measured:
    return Measured(Cell(material.small(), TMPFS, 4, tls), runs, absent)


# ---- what is sent


def test_the_files_are_instances_of_their_own(tmp_path: Path) -> None:
    """Every file is a whole MR image with a UID of its own; a hundred make a series, all one study."""
    case = Case("small", 110, 6, 4)

    written = material.write(case, tmp_path)

    paths = [path for part in written.parts for path in part.iterdir()]
    images = [dcmread(path) for path in paths]
    assert 110 == len({image.SOPInstanceUID for image in images})
    assert all(image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID for image in images)
    assert (2, 1) == (len({i.SeriesInstanceUID for i in images}), len({i.StudyInstanceUID for i in images}))
    assert set(range(1, 111)) == {image.InstanceNumber for image in images}
    assert {(6, 4)} == {image.pixel_array.shape for image in images}
    assert written.file_bytes == sum(path.stat().st_size for path in paths)


def test_sizes_are_those_that_the_table_names() -> None:
    """1,000 x 525 kB, 5,000 x 40 kB and one instance of 1 GB, pixels alone."""
    assert (1000, 524_288) == (material.small().instances, material.small().pixel_bytes)
    assert (5000, 39_936) == (material.tiny().instances, material.tiny().pixel_bytes)
    assert 1 == material.large().instances
    assert abs(material.large(1.0).pixel_bytes - 1e9) < 1e6
    assert not material.large(1.0).is_slide
    assert material.large(5.0).is_slide


def test_what_no_length_can_say_is_sent_encapsulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past 32 bits of length pixel data goes in fragments, PS3.5 A.4."""
    monkeypatch.setattr(material, "LARGEST_NATIVE_BYTES", 100_000)
    case = Case("large", 1, 512, 512, 4)

    (part,) = material.write(case, tmp_path).parts

    (path,) = part.iterdir()
    image = dcmread(path)
    assert material.WHOLE_SLIDE_IMAGE == image.SOPClassUID
    assert image.file_meta.TransferSyntaxUID.is_encapsulated
    assert case.pixel_bytes == sum(len(one) for one in generate_frames(image.PixelData, number_of_frames=1))


@pytest.mark.parametrize("associations", [1, 2, 4, 8])
def test_associations_share_all_files_and_none_goes_without(associations: int) -> None:
    """Each folder is sent by one association; each association has as many as the others."""
    parts = [Path(f"part{number}") for number in range(material.PARTS)]

    shared = shares(parts, associations)

    assert sorted(parts) == sorted(part for share in shared for part in share)
    assert [material.PARTS // associations] * associations == [len(share) for share in shared]


# ---- the receivers


def test_a_program_of_the_same_name_is_not_taken_for_dcmtk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom installs a `storescu` too; ours is the one that says that it is DCMTK's."""
    for folder, says in (("a", "pynetdicom"), ("b", "$dcmtk: storescu v3.6.7 $")):
        program = tmp_path / folder / "storescu"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)

    other, right = str(tmp_path / "a" / "storescu"), str(tmp_path / "b" / "storescu")

    assert not receivers.is_dcmtk(other)
    assert receivers.is_dcmtk(right)


def test_a_name_that_is_no_receiver_is_refused() -> None:
    """The sentence names it, and those there are."""
    with pytest.raises(InvalidValue, match="no receiver 'orthanx'; there are storescp"):
        named("storescp,orthanx")


def test_of_two_ways_to_run_a_program_the_faster_is_shown() -> None:
    """The peer's better setting is compared, not the one that flatters the node."""
    ways = (StoreScp("one"), StoreScp("two"), Orthanc("three"))
    seconds = {"node": (0.1, 0.1, 0.1), "one": (3.0, 1.0, 3.0), "two": (2.0, 2.0, 9.0), "three": (2.5,) * 3}
    runs = [run(number, name, each[number]) for name, each in seconds.items() for number in range(3)]

    assert ways[1] is faster(ways, runs)


@pytest.mark.parametrize("held", [Held(9, 10_000), Held(10, 10 * 48 - 1), Held(11, 10_000)])
def test_a_receiver_that_acknowledged_what_it_has_not_fails_the_run(held: Held) -> None:
    """Counted after it ended: instances, and bytes of pixels."""
    files = Material(Case("small", 10, 6, 4), (), 10_000)

    check("node", Held(10, 10 * 48), files)
    with pytest.raises(DicomNodeError, match="node acknowledged 10 instances of 48 bytes and holds"):
        check("node", held, files)


def test_a_receiver_that_ends_at_start_is_reported(tmp_path: Path) -> None:
    """Not waited for, and not taken for one that listens; what it said is kept."""
    command = [sys.executable, "-c", "raise SystemExit('no room at the inn')"]

    with (
        pytest.raises(DicomNodeError, match=r"ended with 1 on port \d+"),
        running(command, free_ports(1)[0], tmp_path / "log"),
    ):
        pytest.fail("it never listened")
    assert b"no room at the inn" in (tmp_path / "log").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="memory is counted where there is a /proc")
def test_memory_is_that_of_all_processes_of_a_receiver() -> None:
    """A parent of 10 MB or so with a child that held 60 MB: the child's counts, though it gave it back."""
    child = "import sys; b = bytearray(60_000_000); del b; print('up', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=-1, stdout=-1)  # inherited by the child
    try:
        assert process.stdout is not None and b"up\n" == process.stdout.readline()
        watch = Watch(process.pid)

        peak_mb = watch.end()

        assert 2 == len(family(process.pid))
        assert 65.0 < peak_mb < 200.0
    finally:
        process.communicate()


# ---- arithmetic and table


def test_a_peer_is_compared_within_each_round() -> None:
    """The ratio is the median over the rounds of its time by the node's in the same round."""
    runs = [
        run(0, "node", 1.0), run(0, "peer", 2.0, 10.0), run(1, "node", 2.0), run(1, "peer", 2.0, 30.0),
        run(2, "node", 1.0), run(2, "peer", 9.0, 20.0),
    ]  # fmt: skip

    of_peer = figures(runs, "peer", "node")

    assert (3, 2.0, 30.0) == (of_peer.rounds, of_peer.seconds, of_peer.peak_mb)
    assert (2.0, 1.0, 9.0) == (of_peer.ratio, of_peer.ratio_least, of_peer.ratio_most)
    assert 1.0 == figures(runs, "node", "node").ratio


def test_the_table_has_a_line_per_cell_and_a_column_per_program() -> None:
    """The two ways of storescp share a column; a program that was not there leaves its place empty."""
    results = [
        measured(run(0, "node", 1.0), run(0, "storescp +B", 0.5), run(0, "Orthanc", 2.25)),
        measured(run(0, "node", 1.0), run(0, "storescp", 2.0), absent=("no Orthanc here",), tls=True),
    ]

    lines = table.block(results, "dicom-node bench receive").splitlines()

    assert lines[0] == "| case | associations | files on | node | storescp | Orthanc |"
    assert lines[2].endswith(
        "| 4 | tmpfs | 1.00 s, 50 MB | 0.50 s, 50 MB, **0.50** | 2.25 s, 50 MB, **2.25** |"
    )
    assert (
        lines[3] == "| small: 1,000 x 524 kB, TLS | 4 | tmpfs | 1.00 s, 50 MB | 2.00 s, 50 MB, **2.00** |  |"
    )
    assert "`dicom-node bench receive`, on" in lines[-1] and "Left out: no Orthanc here." in lines[-1]


def test_json_has_a_row_per_receiver_with_its_rate() -> None:
    """What the table says, for programs."""
    (node, peer) = table.rows([measured(run(0, "node", 1.0), run(0, "storescp", 2.0))])

    assert ("node", 1.0, 524.3) == (node["receiver"], node["ratio"], node["mb_per_s"])
    assert ("storescp", 2.0, 262.1) == (peer["receiver"], peer["ratio"], peer["mb_per_s"])


def test_only_the_block_between_the_marks_is_rewritten() -> None:
    """README keeps what people wrote around it; a file without the marks is refused."""
    text = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    results = [measured(run(0, "node", 1.0))]

    new = table.replaced(text, results, "the command")

    assert new.startswith(f"before\n{table.BEGIN}\n| case |")
    assert new.endswith(f"\n{table.END}\nafter\n") and "old" not in new
    assert new == table.replaced(new, results, "the command")
    with pytest.raises(DicomNodeError, match="no place for the table"):
        table.replaced("without", results, "the command")


# ---- what is asked for


def asked(
    case: CaseName | None = None, counts: list[int] | None = None, wire: Wire | None = None
) -> set[str]:
    found = cells(case, counts, wire, [TMPFS, DISK], large_gb=1.0, tiny=False)
    return {cell.sentence for cell in found}


def test_asked_for_nothing_a_choice_of_lines_is_measured() -> None:
    """Each case, on both places, with TLS and without; one and more associations."""
    lines = asked()

    assert {
        "small, 1 association, plain, tmpfs", "small, 4 associations, plain, tmpfs",
        "small, 1 association, TLS, tmpfs", "small, 1 association, plain, disk",
        "tiny, 1 association, plain, tmpfs", "large, 1 association, plain, tmpfs",
    } <= lines  # fmt: skip


def test_asked_for_a_part_only_that_is_measured() -> None:
    """What was left open is small, one association, plain; one instance goes over one association."""
    assert {"tiny, 2 associations, TLS, tmpfs", "tiny, 2 associations, TLS, disk"} == asked(
        CaseName.TINY, [2], Wire.TLS
    )
    assert {"small, 1 association, TLS, tmpfs", "small, 1 association, TLS, disk"} == asked(wire=Wire.TLS)
    assert {"large, 1 association, plain, tmpfs", "large, 1 association, plain, disk"} == asked(
        CaseName.LARGE, [1, 4, 8]
    )
    assert 14 == len(asked(CaseName.ALL, [1, 4, 8]))


@pytest.mark.parametrize("wanted", [(None, None, None), (CaseName.ALL, [1, 4], Wire.BOTH)])
def test_lines_with_the_same_files_stand_together(
    wanted: tuple[CaseName | None, list[int] | None, Wire | None],
) -> None:
    """They are written once."""
    found = cells(*wanted, [TMPFS, DISK], large_gb=1.0, tiny=False)
    groups = [(cell.place.name, cell.case.name) for cell in found]
    changes = [here for here, before in zip(groups, [None, *groups], strict=False) if here != before]

    assert len(changes) == len(set(changes))


def test_the_command_in_the_table_leaves_out_where_its_output_goes() -> None:
    """The table is the same whether it was printed or written into a file."""
    arguments = ["--case", "small", "--markdown", "README.md", "--json", "--rounds", "3"]

    assert "dicom-node bench receive --case small --rounds 3" == typed(arguments)
