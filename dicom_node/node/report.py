"""What the commands print: jobs, a study's story, models, pipelines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from dicom_node.config import Config
from dicom_node.domain.findings import Algorithm
from dicom_node.domain.identity import UID
from dicom_node.domain.job import Delivery, State
from dicom_node.errors import InvalidValue
from dicom_node.infer.manifest import read_manifest
from dicom_node.infer.registry import pipelines
from dicom_node.node.build import Node, build
from dicom_node.store.database import migrate


def opened(config: Config) -> Node:
    """The node's parts with the database at the current schema."""
    node = build(config)
    migrate(node.engine)
    return node


def job_rows(config: Config, state: str | None, limit: int) -> list[dict[str, object]]:
    """Jobs, newest first, each with what became of its results."""
    node = opened(config)
    return [
        _job_row(node, job_id) for job_id in (job.id for job in node.queue.jobs(_state(state), limit=limit))
    ]


def _state(word: str | None) -> State | None:
    if word is None:
        return None
    try:
        return State(word.upper().replace("_", " "))
    except ValueError as error:
        raise InvalidValue(f"no state {word!r}; there are {', '.join(State)}") from error


def _job_row(node: Node, job_id: int) -> dict[str, object]:
    job = node.queue.job(job_id)
    told = node.commitments.of_job(job.id), node.sightings.of_job(job.id)
    deliveries = [
        f"{row.result.kind.value} to {row.destination}: "
        + ", ".join(filter(None, (*_progress(row), *(words.get(row.id) for words in told), row.reason)))
        for row in node.ledger.rows(job_id=job.id)
    ]
    return {
        "job": job.id,
        "pipeline": f"{job.pipeline} {job.version}",
        "study": job.study_uid,
        "revision": job.revision,
        "state": job.state.value,
        "attempts": job.attempts,
        "progress": f"{job.progress:.0%}",
        "reason": job.reason,
        "deliveries": deliveries,
    }


def _progress(row: Delivery) -> Iterator[str]:
    """How far it is: its state, how often it was tried, and when and by which status it was accepted."""
    yield row.state.value
    if row.attempts:
        sent = row.state is State.COMPLETED
        yield f"sent at attempt {row.attempts}" if sent else f"{row.attempts} attempts"
    if row.state is State.COMPLETED and row.status is not None and row.finished_at is not None:
        yield f"accepted {row.finished_at:%Y-%m-%d %H:%M} (0x{row.status:04X})"


def workitem_rows(config: Config, limit: int) -> list[dict[str, object]]:
    """Work items, newest first: how far each is, and why it is not further."""
    node = opened(config)
    return [
        {
            "item": one.id, "worklist": one.peer, "uid": one.uid, "pipeline": one.pipeline,
            "step": one.step.value, "claimed": f"{one.claimed_at:%Y-%m-%d %H:%M:%S}",
            "studies": sorted({part.study_uid for part in one.inputs}), "jobs": list(map(str, one.jobs)),
            "told": one.said, "reason": one.reason,
        }
        for one in node.work_items.latest(limit)
    ]  # fmt: skip


def study_story(config: Config, study: str) -> dict[str, object]:
    """Explain my routing: what came, what was chosen and why, what was made, what the PACS answered."""
    node = opened(config)
    uid = UID(study)
    instances = node.catalog.instances(uid)
    series: dict[str, int] = {}
    for instance in instances:
        series[instance.series_uid] = series.get(instance.series_uid, 0) + 1
    jobs = list(node.queue.jobs(None, study_uid=uid, limit=1000))
    return {
        "instances": len(instances),
        "series": series,
        "history": [f"{row.at:%Y-%m-%d %H:%M:%S} {row.event}: {row.detail}" for row in node.history.of(uid)],
        "jobs": [_job_row(node, job.id) | {"plan": node.queue.plan(job.id)} for job in jobs],
    }


def retry_job(config: Config, job_id: int) -> dict[str, object]:
    """FAILED -> SCHEDULED."""
    node = opened(config)
    node.queue.retry(job_id)
    return _job_row(node, job_id)


def retry_deliveries(config: Config) -> dict[str, object]:
    """All FAILED deliveries -> SCHEDULED."""
    return {"deliveries scheduled again": opened(config).ledger.retry()}


def redeliver(config: Config, study: str, to: str | None) -> dict[str, object]:
    """The results of a study are sent again, with the bytes first made. Raises InvalidValue."""
    if to is not None and to not in config.peers:
        raise InvalidValue(f"no peer {to!r}; there are {', '.join(config.peers) or 'none'}")
    node = opened(config)
    count = node.ledger.redeliver(UID(study), to)
    if not count:
        raise InvalidValue("this study has no results that could be sent; see `dicom-node jobs --study UID`")
    return {"deliveries scheduled again": count}


def model_rows(config: Config) -> list[dict[str, object]]:
    """Every bundle in models_dir: version, digest, training data."""
    folder = config.node.models_dir
    names = sorted(path.parent.parent.name for path in folder.glob("*/configs/metadata.json"))
    return [_model_row(read_manifest(name, folder).algorithm()) for name in names]


def _model_row(model: Algorithm) -> dict[str, object]:
    return {
        "model": f"{model.name} {model.version}",
        "digest": model.digest,
        "trained on": model.trained_on,
        "limits": model.limits,
    }


def pipeline_rows(config: Config) -> list[dict[str, object]]:
    """Every pipeline: needs, intended use, models, where it is routed."""
    return [
        {
            "pipeline": f"{name} {kind.version}",
            "title": kind.title,
            "needs": [_need(need) for need in kind.needs],
            "intended use": kind.intended_use.statement,
            "models": list(kind.models),
            "routes": [
                f"{'+'.join(r.from_)} to {'+'.join(r.to)}" for r in config.route if r.pipeline == name
            ],
        }
        for name, kind in sorted(pipelines(config.node.pipelines_dir).items())
    ]


def _need(need: object) -> str:
    name, required = getattr(need, "name", "?"), getattr(need, "required", False)
    return f"{name}{' (required)' if required else ''}"


def print_report(rows: object, title: str) -> None:
    """A list of rows as a table, a mapping as a two-column one."""
    console = Console(markup=False)  # a peer's AE title may look like markup
    if isinstance(rows, Mapping):
        table = Table("", "", title=title, box=box.SIMPLE, show_header=False)
        for key, value in rows.items():
            table.add_row(str(key), _cell(value))
        console.print(table)
        return
    if not isinstance(rows, Sequence) or not rows:
        console.print(f"{title}: none")
        return
    columns = list(rows[0])
    table = Table(*columns, title=title, box=box.SIMPLE)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, str | int | float | bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return json.dumps(value, indent=1, default=str)
