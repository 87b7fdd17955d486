"""The whole service on PostgreSQL: `serve --no-worker` and `work` as two programs on one ledger."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.demo.standin import StandInPacs
from support import mr
from support.ports import end, free_port, wait_until
from support.postgres import postgres_database, postgres_server
from support.served import PROGRAM
from support.storescu import storescu

TOYS = Path(__file__).parent.parent / "support" / "toys"


@pytest.fixture
def database() -> Iterator[str]:
    with postgres_server() as server, postgres_database(server) as url:
        yield url


def configuration(folder: Path, pacs_port: int, database: str) -> Path:
    text = f"""
[node]
data_dir = "var"
pipelines_dir = "{TOYS}"
[receive]
port = {free_port()}
settle_s = 0.5
reserve_mb = 64
[http]
port = {free_port()}
[store]
database = "{database}"
[[peer]]
name = "scanner"
ae_title = "STORESCU"
host = "127.0.0.1"
[[peer]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs_port}
may_send = false
[[route]]
pipeline = "answers"
from = ["scanner"]
to = ["pacs"]
"""
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_study_goes_through_a_node_split_in_two_on_postgresql(tmp_path: Path, database: str) -> None:
    """Received by one program, computed by another, delivered once; the ledger between them is PostgreSQL."""
    images = mr.write(mr.mr_series(slices=6), tmp_path / "images")
    with StandInPacs(tmp_path / "pacs", "PACS") as pacs:
        config = configuration(tmp_path, pacs.port, database)
        port = tomllib.loads(config.read_text())["receive"]["port"]
        with (tmp_path / "log").open("wb") as log:
            node, worker = (
                subprocess.Popen([PROGRAM, *words, "--config", config], stdout=subprocess.PIPE, stderr=log)
                for words in (["serve", "--no-worker"], ["work"])
            )
        try:
            assert node.stdout is not None
            assert b"ready\n" == node.stdout.readline()
            assert len(images) == len(storescu(tmp_path / "images", port).acknowledged)
            wait_until(lambda: len(pacs.arrivals) == 2, 120.0, "SR and SC at the PACS")
        finally:
            for process in (worker, node):
                end(process, grace_s=30.0)
                if process.stdout is not None:
                    process.stdout.close()

    states = sa.text("SELECT state FROM jobs UNION ALL SELECT state FROM deliveries")
    engine = sa.create_engine(database)
    with engine.connect() as connection:
        assert ["COMPLETED"] * 3 == list(connection.execute(states).scalars())
    engine.dispose()
    assert (0, 0) == (node.returncode, worker.returncode)
