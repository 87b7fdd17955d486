"""What a long job has computed, kept so that an attempt after a crash does not start over.

Each step's arrays are one file, written whole or not at all, and used only where key and digest are
right: a file of another input, another model, another runtime, or one that is torn, is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.domain.pipeline import Progress, silent

Array = npt.NDArray[Any]  # Any: of whatever type a step computes
Arrays = Mapping[str, Array]
_DIGEST_BYTES = 32
_GROUPS = 64


@dataclass(frozen=True, slots=True)
class Resume:
    """Steps by name. `folder` is this job's own and outlives a crash; None keeps nothing.

    `key` stands for all that decides the arrays: the input, the models, what runs them
    (`Engine.choice.sentence`), the parameters of the work.
    """

    folder: Path | None
    key: str

    def load(self, step: str) -> dict[str, Array] | None:
        """The arrays of a step, or None where there are none that can be used."""
        if self.folder is None:
            return None
        try:
            content = self._file(step).read_bytes()
        except OSError:
            return None
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if digest != self._digest(step, payload):
            return None
        try:
            with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, step: str, arrays: Arrays) -> None:
        """Raises OSError where the disk is full; what was there before is still there then."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        payload = buffer.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        whole, part = self._file(step), self._file(step).with_suffix(f".{os.getpid()}")
        try:
            with part.open("wb") as file:
                file.write(self._digest(step, payload) + payload)
                file.flush()
                os.fsync(file.fileno())
            part.rename(whole)  # after the bytes are on disk: a name never stands for half a step
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise

    def _file(self, step: str) -> Path:
        name = hashlib.sha256(f"{self.key}\x1f{step}".encode()).hexdigest()[:32]
        return (self.folder or Path()) / f"{name}.step"

    def _digest(self, step: str, payload: bytes) -> bytes:
        return hashlib.sha256(f"{self.key}\x1f{step}\x1f".encode() + payload).digest()


NOWHERE = Resume(None, "")


def sweep(
    work: Callable[[int], Iterator[Arrays]], units: int, *, resume: Resume = NOWHERE, step: str,
    progress: Progress = silent,
) -> dict[str, Array]:  # fmt: skip
    """The arrays of all units of a long work, joined along their first axis in the order of the units.

    `work(first)` gives one mapping per unit, from unit number `first` to the last: `bands` and `crops` do.
    Units are saved in groups, at most 64 of them; what is saved is not computed again. `progress` is
    called after each unit and may raise: then the groups done stay for the next attempt.
    """
    each = max(1, -(-units // _GROUPS))
    groups: list[dict[str, Array]] = []
    while len(groups) * each < units and (known := resume.load(f"{step} {len(groups)}")) is not None:
        groups.append(known)
    first = min(units, len(groups) * each)
    if first:
        progress(first / units, step)
    waiting: list[Arrays] = []
    if first < units:
        for unit, arrays in enumerate(work(first), first):
            waiting.append(arrays)
            if len(waiting) == each or unit == units - 1:
                groups.append(joined(waiting))
                resume.save(f"{step} {len(groups) - 1}", groups[-1])
                waiting = []
            progress((unit + 1) / units, step)
    return joined(groups)


def joined(parts: list[Any]) -> dict[str, Array]:  # Any: mappings of arrays
    """Mappings of the same names, their arrays one behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
