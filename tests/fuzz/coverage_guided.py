"""Coverage-guided fuzzing (Atheris, libFuzzer) of what reads a stranger's bytes first.

`python tests/fuzz/coverage_guided.py TARGET SECONDS FOLDER` runs one target; what it found interesting
stays in FOLDER/corpus, an input that raised anything but the node's own errors in FOLDER/crash-*.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.simplefilter("ignore")

INSTRUMENTED = ["dicom_node.dicom", "dicom_node.receive.negotiation"]
with atheris.instrument_imports(include=INSTRUMENTED):
    from dicom_node.dicom.command import Command
    from dicom_node.dicom.header import identify, read_header
    from dicom_node.errors import DicomNodeError
    from dicom_node.receive.negotiation import proposal
    from support import pdus
    from support.mutate import generated_seeds

LONGEST_INPUT = 20_000


def fuzz_identify(content: bytes) -> None:
    for syntax in (
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1.99",
    ):
        try:
            identify(content, syntax)
        except DicomNodeError:
            continue


def fuzz_header(content: bytes) -> None:
    path = FOLDER / "object"
    path.write_bytes(content)
    try:
        read_header(path)
    except DicomNodeError:
        return


def fuzz_command(content: bytes) -> None:
    try:
        asked = Command.decoded(content)
    except DicomNodeError:
        return
    asked.echo_response()
    asked.store_response(0xC000, "a comment")


def fuzz_associate(content: bytes) -> None:
    try:
        proposal(content)
    except DicomNodeError:
        return


def fuzz_all(content: bytes) -> None:
    """The first byte says which."""
    (fuzz_identify, fuzz_header, fuzz_command, fuzz_associate)[(content or b"\0")[0] % 4](content[1:])


def all_seeds() -> tuple[bytes, ...]:
    groups = [TARGETS[name][1]() for name in ("identify", "header", "command", "associate")]
    return tuple(bytes([number]) + seed for number, group in enumerate(groups) for seed in group)


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], tuple[bytes, ...]]]] = {
    "all": (fuzz_all, all_seeds),
    "identify": (fuzz_identify, lambda: tuple(seed[132:4000] for seed in generated_seeds())),
    "header": (fuzz_header, generated_seeds),
    "command": (fuzz_command, lambda: (pdus.echo_rq(), pdus.store_rq("1.2.3"))),
    "associate": (
        fuzz_associate,
        lambda: (
            pdus.associate_rq(),
            pdus.associate_rq(user_items=pdus.ASYNCHRONOUS + pdus.BOTH_ROLES + pdus.IDENTITY),
            pdus.associate_rq(user_items=pdus.EXTENDED + pdus.COMMON_EXTENDED),
        ),
    ),
}

if __name__ == "__main__":
    name, seconds, folder = sys.argv[1:]
    FOLDER = Path(folder)
    corpus = FOLDER / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    target, seeds = TARGETS[name]
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[:LONGEST_INPUT])
    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup(
        [
            sys.argv[0],
            *limits,
            "-seed=1",
            f"-artifact_prefix={FOLDER}/",
            "-print_final_stats=1",
            str(corpus),
        ],
        target,
    )
    atheris.Fuzz()
