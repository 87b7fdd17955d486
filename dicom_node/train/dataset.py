"""Phantom studies as slices for training: rendered once, preprocessed as at inference, kept in a folder.

A case's file name holds a digest of everything it depends on (the case, how it is rendered,
the preprocessing), so a cache is never stale: what changed is rendered again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.domain.series import Contrast
from dicom_node.train.phantoms.cases import CaseSpec, case_specs

NEEDS = {
    "t2_axial": Contrast.T2, "t2_sagittal": Contrast.T2, "dwi_b1000": Contrast.DWI, "adc": Contrast.ADC,
}  # fmt: skip
"""The pipeline's inputs by name, and their contrast."""
MATRIX = 160
"""Rows and columns that studies are rendered with for training; finer than the networks' 2.25 mm."""

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Slices:
    """All slices of some cases, one row each; `case` counts into `specs`, `need` into NEEDS."""

    specs: tuple[CaseSpec, ...]
    images: Bytes
    """(slices, rows, columns): the networks' input, -1..1 kept as 0..255."""
    case: Ints
    need: Ints
    leiomyoma_mm2: Floats
    sarcoma_mm2: Floats

    @property
    def tumour(self) -> npt.NDArray[np.bool_]:
        """Whether a slice shows any tumour: the filter's truth."""
        return (self.leiomyoma_mm2 > 0) | (self.sarcoma_mm2 > 0)

    @property
    def sarcoma(self) -> npt.NDArray[np.bool_]:
        """Whether a slice shows any sarcoma: the evaluator's truth."""
        shows: npt.NDArray[np.bool_] = self.sarcoma_mm2 > 0
        return shows

    @property
    def case_is_sarcoma(self) -> npt.NDArray[np.bool_]:
        """By case: the label of the verdict."""
        return np.array([spec.label == "sarcoma" for spec in self.specs])


def render_missing(
    specs: Sequence[CaseSpec], folder: Path, inference: Path, jobs: int, report: Report
) -> None:  # fmt: skip
    """Render the cases that the cache in `folder` lacks; `inference` is a bundle's .json."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = ((spec, cached(spec, folder, inference), inference) for spec in specs)
    missing = [task for task in wanted if not task[1].is_file()]
    if not missing:
        return
    report(f"rendering {len(missing)} of {len(specs)} cases")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        for done, _ in enumerate(pool.map(_make, missing, chunksize=2), start=1):
            if done % 50 == 0:
                report(f"rendered {done} of {len(missing)}")


def load(specs: Sequence[CaseSpec], folder: Path, inference: Path) -> Slices:
    """Slices of rendered cases."""
    parts = [np.load(cached(spec, folder, inference)) for spec in specs]
    return Slices(
        specs=tuple(specs),
        images=np.concatenate([part["images"] for part in parts]),
        case=np.concatenate([np.full(len(part["need"]), at, np.int64) for at, part in enumerate(parts)]),
        need=np.concatenate([part["need"] for part in parts]),
        leiomyoma_mm2=np.concatenate([part["leiomyoma_mm2"] for part in parts]),
        sarcoma_mm2=np.concatenate([part["sarcoma_mm2"] for part in parts]),
    )


def render_case(spec: CaseSpec, preprocess: Callable[..., Any]) -> dict[str, npt.NDArray[Any]]:
    """One case as arrays; `preprocess` is `infer.preprocessing.Preprocessing`."""
    from dicom_node.train.phantoms.generate import render

    study = render(spec, matrix=MATRIX, only=tuple(NEEDS))
    images, need, leiomyoma, sarcoma = [], [], [], []
    for at, (name, contrast) in enumerate(NEEDS.items()):
        sequence = study.sequences[name]
        row_mm, column_mm = (float(np.linalg.norm(sequence.affine[:3, axis])) for axis in (1, 2))
        prepared = preprocess(sequence.array, (row_mm, column_mm), contrast).numpy()
        images.append(np.clip(np.rint((prepared + 1) * 127.5), 0, 255).astype(np.uint8))
        need.append(np.full(len(prepared), at, np.int64))
        area = row_mm * column_mm
        leiomyoma.append((sequence.tumour_mask == 1).sum(axis=(1, 2)) * np.float32(area))
        sarcoma.append((sequence.tumour_mask == 2).sum(axis=(1, 2)) * np.float32(area))
    return {
        "images": np.concatenate(images), "need": np.concatenate(need),
        "leiomyoma_mm2": np.concatenate(leiomyoma).astype(np.float32),
        "sarcoma_mm2": np.concatenate(sarcoma).astype(np.float32),
    }  # fmt: skip


def _make(task: tuple[CaseSpec, Path, Path]) -> None:
    spec, path, inference = task
    arrays = render_case(spec, _preprocessing(inference))
    partial = path.with_suffix(f".{os.getpid()}.part")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(path)  # whole or not at all: an interrupted rendering leaves no half file


@cache
def _preprocessing(inference: Path) -> Any:  # Any: Preprocessing, imported where torch is
    from dicom_node.infer.configuration import parse
    from dicom_node.infer.preprocessing import Preprocessing

    raw = json.loads(inference.read_text(encoding="utf-8"))
    parser = parse(raw, inference.name)
    keys = [key for key in raw if key.startswith("preprocessing")]
    return Preprocessing({key: parser.get_parsed_content(key) for key in keys})


def one_thread() -> None:
    """For processes of a pool: several of one thread each share few cores better than threads do."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)


@cache
def recipe(inference: Path) -> str:
    """What every case depends on: the preprocessing, and how phantoms are rendered."""
    raw = json.loads(inference.read_text(encoding="utf-8"))
    used = {key: value for key, value in raw.items() if key.startswith("preprocessing") or key == "field"}
    return json.dumps([used, MATRIX, list(NEEDS), _fingerprint()], sort_keys=True)


@cache
def _fingerprint() -> str:
    """A digest of four small renderings: changes when phantoms do, not when their source is tidied."""
    from dicom_node.train.phantoms.generate import render

    digest = hashlib.sha256()
    for spec in case_specs("development")[:4]:
        for sequence in render(spec, matrix=48, slices=5, only=tuple(NEEDS)).sequences.values():
            digest.update(np.ascontiguousarray(sequence.array).tobytes() + sequence.tumour_mask.tobytes())
    return digest.hexdigest()


def cached(spec: CaseSpec, folder: Path, inference: Path) -> Path:
    """Where a case is kept."""
    facts = json.dumps(asdict(spec), sort_keys=True) + recipe(inference)
    return folder / f"{spec.name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.npz"
