"""The health and metrics pages, asked over real HTTP. For STOW-RS see test_stow.py."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from dicom_node.config import Config
from dicom_node.domain.job import State
from dicom_node.errors import ConfigurationError
from dicom_node.store.archive import Archive
from dicom_node.store.database import migrate, open_engine
from dicom_node.store.schema import deliveries, instances, jobs, results
from dicom_node.web import app as web_app
from dicom_node.web import metrics as web_metrics
from dicom_node.web import server as web_server
from dicom_node.web.app import create_app
from dicom_node.web.server import start

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
CANARY = "KANARIENVOGEL"
"""A patient's name that must never be seen on these pages."""
STUDY = "1.2.826.0.1.3680043.8.498.1"


def configured(**receive: object) -> Config:
    return Config.model_validate(
        {
            "receive": receive,
            "peer": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1"}],
            "route": [{"pipeline": "uterine_mri", "from": ["pacs"], "to": ["pacs"]}],
        }
    )


class Pages:
    """A running node's pages; `receiver_is_up` is what the receiver would say."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.engine = open_engine(f"sqlite:///{folder / 'node.sqlite3'}")
        migrate(self.engine)
        self.archive = Archive(folder)
        self.receiver_is_up = True
        app = create_app(self.engine, self.archive, config, lambda: self.receiver_is_up, lambda: NOW)
        self.server = start(app, "127.0.0.1", 0)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.server.port}", timeout=10)

    def close(self) -> None:
        self.client.close()
        self.server.stop()
        self.engine.dispose()

    def metrics(self) -> dict[tuple[str, ...], float]:
        """(name, label values...) -> number."""
        text = self.client.get("/metrics").raise_for_status().text
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def open_pages(tmp_path: Path) -> Iterator[Callable[..., Pages]]:
    opened: list[Pages] = []

    def make(**receive: object) -> Pages:
        opened.append(Pages(tmp_path, configured(**receive)))
        return opened[-1]

    yield make
    for pages in opened:
        pages.close()


@pytest.fixture
def pages(open_pages: Callable[..., Pages]) -> Pages:
    return open_pages(reserve_mb=0)


def fill(engine: Engine) -> None:
    """Three instances (one unreadable), two jobs, a result on its way and one that failed."""
    with engine.begin() as connection:
        for number in range(3):
            connection.execute(
                instances.insert().values(
                    sop_instance_uid=f"{STUDY}.{number}", sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
                    transfer_syntax_uid="1.2.840.10008.1.2.1", study_uid=STUDY, series_uid=f"{STUDY}.9",
                    digest=f"{number:064d}", size_bytes=10, peer="pacs", received_at=NOW,
                    header={"PatientName": CANARY}, unreadable=CANARY if number == 2 else None,
                )
            )  # fmt: skip
        for number, state in enumerate((State.SCHEDULED, State.COMPLETED)):
            connection.execute(
                jobs.insert().values(
                    id=number + 1, subject_uid=STUDY, study_uid=STUDY, level="study", revision=number + 1,
                    pipeline="uterine_mri", version="1", route=0, input_key="k", plan={"reason": CANARY},
                    state=state.value, scheduled_at=NOW - timedelta(seconds=90), reason=CANARY,
                )
            )  # fmt: skip
        for number, state in enumerate((State.SCHEDULED, State.FAILED)):
            connection.execute(
                results.insert().values(
                    id=number + 1, job_id=2, kind="sr", sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
                    sop_instance_uid=f"{STUDY}.7.{number}", series_uid=f"{STUDY}.7", digest=f"{number:064d}",
                    size_bytes=10, created_at=NOW,
                )
            )  # fmt: skip
            connection.execute(
                deliveries.insert().values(
                    result_id=number + 1, destination="pacs", state=state.value, reason=CANARY,
                    scheduled_at=NOW - timedelta(seconds=30),
                )
            )  # fmt: skip


def test_health_says_that_the_process_answers(pages: Pages) -> None:
    """/health is 200 as long as the process lives, whatever else is wrong."""
    pages.receiver_is_up = False

    answer = pages.client.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"alive": True})


def test_ready_when_everything_is(pages: Pages) -> None:
    """/ready is 200 when associations are accepted, the ledger answers and the disk has room."""
    answer = pages.client.get("/ready")

    assert (answer.status_code, answer.json()) == (200, {"ready": True, "reasons": []})


def test_not_ready_without_receiver(pages: Pages) -> None:
    """A node that does not listen says so."""
    pages.receiver_is_up = False

    answer = pages.client.get("/ready")

    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reasons": ["the receiver does not accept associations"]}


def test_not_ready_without_room(open_pages: Callable[..., Pages]) -> None:
    """Below the reserve images are refused, and /ready gives both numbers."""
    answer = open_pages(reserve_mb=10**12).client.get("/ready")

    (reason,) = answer.json()["reasons"]
    assert answer.status_code == 503
    assert reason.endswith("MB free, less than receive.reserve_mb = 1000000000000")


def test_not_ready_without_database(pages: Pages) -> None:
    """A ledger that cannot be opened is one reason, in a sentence without host or user."""
    break_database(pages)

    answer = pages.client.get("/ready")

    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the database does not answer"])


def test_a_damaged_ledger_is_no_answer(pages: Pages) -> None:
    """A file that is no database any more makes the node not ready, not broken."""
    pages.engine.dispose()
    (pages.folder / "node.sqlite3").write_bytes(b"no database" * 1000)

    answer = pages.client.get("/ready")

    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the database does not answer"])
    assert pages.metrics()["dicom_node_database_up",] == 0


def test_a_database_that_hangs_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostgreSQL that accepts and says nothing is given seconds, not the half minute of the driver."""
    monkeypatch.setattr(web_app, "DATABASE_ANSWERS_WITHIN_S", 0.3)
    monkeypatch.setattr(web_metrics, "COUNTED_WITHIN_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = open_engine(f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/none")
        server = start(
            create_app(engine, Archive(tmp_path), configured(reserve_mb=0), lambda: True), "127.0.0.1", 0
        )
        try:
            url = f"http://127.0.0.1:{server.port}"
            answers = [httpx.get(f"{url}/ready", timeout=10, trust_env=False) for _ in range(3)]
            metrics = httpx.get(f"{url}/metrics", timeout=10, trust_env=False).text
        finally:
            server.stop()
    engine.dispose()

    for answer in answers:
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["the database does not answer"])
    assert "dicom_node_database_up 0.0" in metrics


def break_database(pages: Pages) -> None:
    """Put a folder where the ledger's file was."""
    pages.engine.dispose()
    for file in pages.folder.glob("node.sqlite3*"):
        file.unlink()
    (pages.folder / "node.sqlite3").mkdir()


def test_metrics_count_the_ledger(pages: Pages) -> None:
    """Instances, jobs and deliveries by state, ages, free space: as they stand in the ledger."""
    fill(pages.engine)

    found = pages.metrics()

    assert found["dicom_node_instances_received_total",] == 3
    assert found["dicom_node_instances_unreadable_total",] == 1
    assert found["dicom_node_instance_conflicts_total",] == 0
    assert found["dicom_node_jobs", "uterine_mri", "SCHEDULED"] == 1
    assert found["dicom_node_jobs", "uterine_mri", "COMPLETED"] == 1
    assert found["dicom_node_deliveries", "pacs", "SCHEDULED"] == 1
    assert found["dicom_node_deliveries", "pacs", "FAILED"] == 1
    assert found["dicom_node_queue_age_seconds",] == 90
    assert found["dicom_node_delivery_age_seconds", "pacs"] == 30
    assert found["dicom_node_free_bytes",] > 0
    assert found["dicom_node_receiver_up",] == 1
    assert found["dicom_node_database_up",] == 1


def test_metrics_show_zeros_from_the_start(pages: Pages) -> None:
    """Every state of every configured pipeline and destination is there before anything happened."""
    found = pages.metrics()

    for state in State:
        assert found["dicom_node_jobs", "uterine_mri", state.value] == 0
        assert found["dicom_node_deliveries", "pacs", state.value] == 0
    assert found["dicom_node_queue_age_seconds",] == 0


def test_metrics_without_database(pages: Pages) -> None:
    """A scrape still succeeds, and says that the ledger does not answer."""
    break_database(pages)

    found = pages.metrics()

    assert found["dicom_node_database_up",] == 0
    assert ("dicom_node_queue_age_seconds",) not in found


def test_no_page_shows_patient_data_or_uids(pages: Pages) -> None:
    """Neither a name nor a UID of what the ledger holds reaches a page."""
    fill(pages.engine)

    for path in ("/health", "/ready", "/metrics", "/", f"/studies/{STUDY}"):
        answer = pages.client.get(path)
        assert CANARY not in answer.text
        assert STUDY not in answer.text


def test_there_are_no_other_routes(pages: Pages) -> None:
    """Three pages, to be read only."""
    assert pages.client.get("/").status_code == 404
    assert pages.client.get("/docs").status_code == 404
    assert pages.client.post("/health").status_code == 405
    assert pages.client.delete("/metrics").status_code == 405


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/nowhere"])
def test_every_answer_carries_strict_headers(pages: Pages, path: str) -> None:
    """Nothing is cached, framed, sniffed or run, and the server does not name itself."""
    headers = pages.client.get(path).headers

    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_an_unforeseen_error_shows_nothing(pages: Pages) -> None:
    """The caller gets a plain 500; the cause is for the log."""

    def broken() -> bool:
        raise RuntimeError(CANARY)

    app = create_app(pages.engine, pages.archive, configured(), broken)
    server = start(app, "127.0.0.1", 0)
    try:
        answer = httpx.get(f"http://127.0.0.1:{server.port}/ready")
    finally:
        server.stop()

    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})
    assert answer.headers["cache-control"] == "no-store"


def test_a_taken_port_is_a_configuration_error(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the keys to change."""
    monkeypatch.setattr(web_server, "BINDS_WITHIN_S", 0.0)
    app = create_app(pages.engine, pages.archive, configured(), lambda: True)

    with pytest.raises(ConfigurationError, match=rf"http\.port {pages.server.port}: "):
        start(app, "127.0.0.1", pages.server.port)


def test_stopping_frees_the_port(tmp_path: Path) -> None:
    """After stop() nothing listens and no thread is left."""
    engine = open_engine(f"sqlite:///{tmp_path / 'node.sqlite3'}")
    server = start(create_app(engine, Archive(tmp_path), configured(), lambda: True), "127.0.0.1", 0)

    server.stop()
    engine.dispose()

    assert "web" not in {thread.name for thread in threading.enumerate()}
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", server.port))


def test_an_archive_that_is_gone_is_a_reason(pages: Pages) -> None:
    """An unmounted archive makes the node not ready instead of breaking the page."""
    pages.engine.dispose()
    shutil.rmtree(pages.folder)

    reasons = pages.client.get("/ready").json()["reasons"]

    assert any("disk" in reason for reason in reasons)
