"""`dicom-node run`: a pipeline on a folder of files, without network and ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dicom_node.config import Config
from dicom_node.dicom.header import read_header
from dicom_node.digest import file_digest
from dicom_node.domain.codebook import site_swaps
from dicom_node.domain.identity import UID
from dicom_node.domain.job import ResultKind
from dicom_node.domain.pipeline import Progress, silent
from dicom_node.domain.series import StoredInstance
from dicom_node.errors import ConfigurationError, UnreadableObject
from dicom_node.infer.bundle import bundle_digests
from dicom_node.infer.registry import pipelines
from dicom_node.infer.runtime import Runtime, choose_device, use
from dicom_node.node.flow import Work, assemble, infer_and_encode, result_name
from dicom_node.route.plan import describe, input_key, plan


def run_files(config: Config, name: str, path: Path, out: Path, intended_use: str) -> dict[str, object]:
    """Run pipeline `name` on one study of files and write its result objects to `out`.

    Raises ConfigurationError for an unknown pipeline, UnreadableObject where there is no DICOM
    or more than one study.
    """
    instances, skipped = read_folder(path)
    work = compute(config, name, instances, intended_use)
    out.mkdir(parents=True, exist_ok=True)
    for stale in _results_in(out):  # of an earlier run: never two runs' results side by side
        stale.unlink()
    files = []
    for number, result in enumerate(work.results, start=1):
        target = out / result_name(result, number)
        target.write_bytes(result.content)
        files.append({"kind": result.kind.value, "file": str(target), "bytes": len(result.content)})
    verdict, refused = work.findings.verdict, work.findings.not_performed
    return {
        "verdict": verdict.statement
        if verdict
        else f"AI not performed, because {refused.because}"
        if refused
        else "",
        "probability": verdict.probability if verdict else None,
        "warnings": list(verdict.warnings) if verdict else [],
        "plan": describe(work.plan, work.study),
        "results": files,
        "not DICOM": skipped,
        "seconds": work.seconds,
    }


def readable(report: Mapping[str, Any]) -> dict[str, object]:  # Any: JSON values
    """A report of `run_files` for a person: sentences where a program gets structures."""
    plan = report["plan"]
    return {
        "verdict": report["verdict"],
        "warnings": report["warnings"],
        "chosen": [f"{item['asked']}: {'; '.join(item['reasons'])}" for item in plan["choices"]],
        "refused": plan["refusals"],
        "results": [f"{item['file']} ({item['bytes']:,} bytes)" for item in report["results"]],
        "seconds": ", ".join(f"{step} {seconds:.2f}" for step, seconds in report["seconds"].items()),
    }


def compute(
    config: Config, name: str, instances: list[StoredInstance], intended_use: str, progress: Progress = silent
) -> Work:
    """The computing part of T3, in this process."""
    known = pipelines(config.node.pipelines_dir)
    if name not in known:
        raise ConfigurationError(f"no pipeline {name!r}; there are {', '.join(sorted(known)) or 'none'}")
    cores = config.infer.threads or os.cpu_count() or 1
    device = choose_device(config.infer.device)
    use(Runtime(config.node.models_dir, device, cores, config.infer.runtime, config.infer.precision))
    study = assemble(instances[0].study_uid, 1, instances)
    planned = plan(known[name], study, intended_use)
    key = input_key(planned, study, intended_use, bundle_digests(known[name].models, config.node.models_dir))
    return infer_and_encode(
        known[name](), study, intended_use=intended_use, key=key, device=device, progress=progress,
        swaps=site_swaps(config.node.codes),
    )  # fmt: skip


def read_folder(path: Path) -> tuple[list[StoredInstance], int]:
    """All DICOM instances under a path, one study; and how many files are none."""
    instances: dict[str, StoredInstance] = {}
    skipped = 0
    for file in _files(path):
        try:
            instance = stored(file)
        except UnreadableObject:
            skipped += 1
            continue
        instances.setdefault(instance.sop_instance_uid, instance)
    studies = {instance.study_uid for instance in instances.values()}
    if not studies:
        raise UnreadableObject(f"no DICOM file under {path}")
    if len(studies) > 1:
        raise UnreadableObject(f"{len(studies)} studies under {path}; give one study at a time")
    return [instances[uid] for uid in sorted(instances)], skipped


def stored(file: Path) -> StoredInstance:
    """A file on disk as if it stood in the archive. Raises UnreadableObject."""
    header = read_header(file)
    uids = ("sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "study_uid", "series_uid")
    return StoredInstance(
        **{name: UID(str(header[name])) for name in uids},
        digest=file_digest(file),
        size_bytes=file.stat().st_size,
        path=file.resolve(),
        header=header,
    )


def _results_in(out: Path) -> list[Path]:
    return [path for kind in ResultKind for path in out.glob(f"[0-9][0-9]-{kind.value}.dcm")]


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise UnreadableObject(f"{path} does not exist")
    if path.is_file():
        return iter([path])
    return (file for file in sorted(path.rglob("*")) if file.is_file())
