"""One campaign of mutated data sets against everything that reads them, in a process with limits.

`python -m support.fuzz_data_sets SEED CASES SECONDS CRASHES [FOLDER ...]` reads `CASES` mutations, or as many
as fit into `SECONDS`, of generated seeds and of the files in the folders; prints a line of JSON. What is
raised besides the node's own errors is a crash, and so is a case that takes long: its bytes are kept in
CRASHES. The case at hand stands there as `current`, for a decoder that takes the process with it.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.assemble.stacks import stacks
from dicom_node.dicom.header import identify, read_header
from dicom_node.dicom.volume import read_volume
from dicom_node.errors import DicomNodeError
from dicom_node.node.offline import stored
from dicom_node.receive.policy import made_by_a_node
from support.mutate import corpus, generated_seeds, mutated_data_set

MEMORY_BYTES = 6 << 30
LONGEST_S = 5.0
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


@dataclass
class Totals:
    cases: int = 0
    crashes: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    highest_mib: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def read_all(path: Path, outcomes: Counter[str]) -> None:
    """What the node does to an object, from the first glance to its pixels."""
    content = path.read_bytes()
    head = content[:65536]
    made_by_a_node(REPORT, head)
    for syntax in SYNTAXES:
        tried(lambda syntax=syntax: identify(content[132:65668], syntax), outcomes, "identified bare")  # type: ignore[misc]
    tried(lambda: identify(head, SYNTAXES[1]), outcomes, "identified")
    tried(lambda: identify(path, SYNTAXES[1]), outcomes, "identified file")
    if tried(lambda: read_header(path), outcomes, "header"):
        tried(lambda: read_pixels(path), outcomes, "pixels")


def read_pixels(path: Path) -> None:
    found, _ = stacks([stored(path)])
    for stack in found:
        read_volume(stack)


def tried(call: object, outcomes: Counter[str], name: str) -> bool:
    try:
        call()  # type: ignore[operator]
    except DicomNodeError as refusal:
        assert str(refusal)
        outcomes[f"{name}: {type(refusal).__name__}"] += 1
        return False
    outcomes[name] += 1
    return True


def campaign(seed: int, cases: int, seconds: float, crashes: Path, folders: list[Path]) -> Totals:
    rng, totals, until = random.Random(seed), Totals(), time.monotonic() + seconds
    seeds = generated_seeds() * 3 + corpus(folders)
    current = crashes / "current"
    while totals.cases < cases and time.monotonic() < until:
        current.write_bytes(mutated_data_set(rng, seeds))
        started = time.process_time()
        reason = ""
        try:
            read_all(current, totals.outcomes)
        except BaseException as error:  # noqa: BLE001 - what is looked for; a panic in Rust is no Exception
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
        taken = time.process_time() - started
        totals.slowest_s = max(totals.slowest_s, round(taken, 3))
        if reason or taken > LONGEST_S:
            totals.crashes.append(f"seed {seed}, case {totals.cases}: {reason or f'{taken:.1f} s'}")
            current.rename(crashes / f"{seed}-{totals.cases}")
        totals.cases += 1
    current.unlink(missing_ok=True)
    totals.highest_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return totals


def main() -> None:
    warnings.simplefilter("ignore")  # as in production, where pydicom's warnings are only counted
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    seed, cases, seconds, crashes, *folders = sys.argv[1:]
    totals = campaign(
        int(seed), int(cases), float(seconds), Path(crashes), [Path(folder) for folder in folders]
    )
    print(json.dumps(vars(totals)))


if __name__ == "__main__":
    main()
