"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.errors import DicomNodeError

app = typer.Typer(
    name="dicom-node",
    help="A DICOM node that runs AI on what the PACS sends and returns the results to it. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Measure this node on this machine.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", envvar="DICOM_NODE_CONFIG", help="TOML file; see config/node.example.toml."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def serve(
    config: ConfigFile = None,
    worker: Annotated[
        bool, typer.Option(help="Run the workers too; --no-worker leaves them to `work`.")
    ] = True,
) -> None:
    """Run the node: receive, assemble, route, infer, encode, deliver. Prints `ready` once it accepts."""
    from dicom_node import log, service

    log.start()
    code = service.serve(_load(config), workers=worker, announce=lambda: typer.echo("ready"))
    raise typer.Exit(code)


@app.command()
def work(config: ConfigFile = None) -> None:
    """Run workers only, for a node that runs with `serve --no-worker` on the same database and data_dir."""
    from dicom_node import log, service

    log.start()
    raise typer.Exit(service.work(_load(config)))


@app.command()
def demo(
    input_: Annotated[
        Path | None, typer.Option("--input", help="Folder of DICOM files; else a generated study.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for results, previews and index.html.")] = Path(
        "demo-out"
    ),
) -> None:
    """A node and a stand-in PACS on loopback: send a study, watch the stages, look at the results."""
    from dicom_node.demo.demo import demo as run_demo

    raise typer.Exit(run_demo(input_, out))


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="Name of the pipeline; see `dicom-node pipelines`.")],
    path: Annotated[Path, typer.Argument(help="Folder (or file) of DICOM: one study.")],
    out: Annotated[Path, typer.Option(help="Folder for the result objects.")],
    intended_use: Annotated[str, typer.Option(help="`enforce` or `warn`.")] = "enforce",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Run a pipeline on files, without network and ledger."""
    from dicom_node.node.offline import readable, run_files

    if intended_use not in ("enforce", "warn"):
        raise typer.BadParameter("is `enforce` or `warn`", param_hint="--intended-use")
    report = run_files(_load(config), pipeline, path, out, intended_use)
    _show(report if as_json else readable(report), as_json, title=f"{pipeline}: {out}")


@app.command()
def check(
    config: ConfigFile = None,
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest", help="Also send marked phantoms through the whole path and look for the marks."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check configuration, disk, database, models and every peer; exit 1 if anything is wrong."""
    from dicom_node import log
    from dicom_node.node.check import check_all, selftests

    findings = check_all(_load(config))
    if selftest:
        from dicom_node.train.phantoms import orientation

        log.start("WARNING")
        findings += selftests({"MR": orientation.mr, "slide": orientation.slide})
    if as_json:
        typer.echo(json.dumps([vars(item) for item in findings], indent=2))
    else:
        for item in findings:
            typer.echo(f"{'ok   ' if item.ok else 'WRONG'}  {item.what}: {item.sentence}")
    raise typer.Exit(0 if all(item.ok for item in findings) else 1)


@app.command()
def jobs(
    config: ConfigFile = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state, e.g. FAILED.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Explain this Study Instance UID: what came, why, what was sent.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Json = False,
) -> None:
    """List jobs with their deliveries, newest first; or explain one study."""
    from dicom_node.node.report import job_rows, study_story

    loaded = _load(config)
    if study is not None:
        _show(study_story(loaded, study), as_json, title=f"study {study}")
        return
    _show(job_rows(loaded, state, limit), as_json, title="jobs")


@app.command()
def workitems(
    config: ConfigFile = None,
    limit: Annotated[int, typer.Option(min=1, max=10000)] = 50,
    as_json: Json = False,
) -> None:
    """List the work items taken from worklists (UPS), newest first: step, jobs, and why not further."""
    from dicom_node.node.report import workitem_rows

    _show(workitem_rows(_load(config), limit), as_json, title="work items")


@app.command()
def retry(
    job: Annotated[int | None, typer.Argument(help="Number of a FAILED job.")] = None,
    deliveries: Annotated[bool, typer.Option("--deliveries", help="All FAILED deliveries.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Put a FAILED job, or all FAILED deliveries, back to SCHEDULED."""
    from dicom_node.node.report import retry_deliveries, retry_job

    if (job is None) == (not deliveries):
        raise typer.BadParameter("give the number of a job, or --deliveries")
    loaded = _load(config)
    report = retry_deliveries(loaded) if job is None else retry_job(loaded, job)
    _show(report, as_json, title="retry")


@app.command()
def redeliver(
    study: Annotated[str, typer.Option(help="Study Instance UID.")],
    to: Annotated[
        str | None, typer.Option(help="Only to this peer, also if it got nothing of the study before.")
    ] = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Send the results of a study again, whatever became of them: the bytes first made, under the same UIDs.

    A running node sends them; else the next start does.
    """
    from dicom_node.node.report import redeliver as send_again

    _show(send_again(_load(config), study, to), as_json, title="redeliver")


@app.command()
def fetch(
    peer: Annotated[str, typer.Argument(help="Name of the peer in the configuration.")],
    study: Annotated[str, typer.Option(help="Study Instance UID.")],
    series: Annotated[str | None, typer.Option(help="Only this Series Instance UID.")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Only what is not here yet.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Ask a peer what it has of a study, and retrieve it; exit 1 if something could not be had.

    Works beside a running node. With `retrieve = "move"` the node must be running.
    """
    from dicom_node.node.fetch import fetch_for

    report = fetch_for(_load(config), peer, study, series, missing=missing)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        for sentence in report.sentences:
            typer.echo(sentence)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def audit(
    config: ConfigFile = None,
    since: Annotated[
        str | None, typer.Option(help="From this day or time on, e.g. 2026-11-20 or 2026-11-20T08:30; UTC.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Follow the chain of hashes; exit 1 where it is broken.")
    ] = False,
    anchor: Annotated[
        str | None, typer.Option(help="NUMBER:HASH of an earlier --verify; it must be part of the chain.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the audit trail: who sent, got, asked for or was refused what; or verify that it is whole."""
    from dicom_node import log
    from dicom_node.audit import command, report

    log.start()
    loaded = _load(config)
    if verify or anchor:
        verdict = command.verdict(loaded, anchor)
        if as_json:
            typer.echo(json.dumps(asdict(verdict), indent=2))
        else:
            for sentence in command.sentences(verdict):
                typer.echo(sentence)
        raise typer.Exit(1 if verdict.broken else 0)
    rows = command.shown(loaded, since)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            typer.echo(report.sentence(row))


@app.command()
def models(config: ConfigFile = None, as_json: Json = False) -> None:
    """List the model bundles with version, digest and what they were trained on."""
    from dicom_node.node.report import model_rows

    _show(model_rows(_load(config)), as_json, title="models")


@app.command()
def pipelines(config: ConfigFile = None, as_json: Json = False) -> None:
    """List the pipelines with their needs and intended use."""
    from dicom_node.node.report import pipeline_rows

    _show(pipeline_rows(_load(config)), as_json, title="pipelines")


@bench_app.command("latency")
def bench_latency(
    slices: Annotated[int, typer.Option(min=20, max=2000, help="Slices of the generated study.")] = 200,
    as_json: Json = False,
) -> None:
    """From the last image of a study to the SR accepted by the PACS, split by step; with peak memory."""
    from dicom_node.bench.latency import measure

    _show(measure(slices), as_json, title=f"latency, {slices} slices")


def _load(path: Path | None) -> Any:  # Any: Config; its import waits until a command runs
    from dicom_node.config import load

    if path is None and Path("node.toml").is_file():
        path = Path("node.toml")
    return load(path)


def _show(rows: Any, as_json: bool, *, title: str) -> None:  # Any: JSON-able; lists of rows become tables
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    from dicom_node.node.report import print_report

    print_report(rows, title)


def _mount() -> None:
    """Commands that live beside what they do."""
    from dicom_node.bench.command import receive
    from dicom_node.bench.slide import slide
    from dicom_node.train.command import evaluate, train
    from dicom_node.train.phantoms.command import app as phantom_app

    bench_app.command("receive")(receive)
    bench_app.command("slide")(slide)
    app.command("train")(train)
    app.command("evaluate")(evaluate)
    app.add_typer(phantom_app, name="phantom")


def main() -> None:
    """The program `dicom-node`; errors of the one family become a sentence and exit code 1."""
    _mount()
    try:
        app()
    except DicomNodeError as error:
        typer.echo(f"dicom-node: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
