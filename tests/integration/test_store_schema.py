"""The database: migrations make the schema, commits are durable, errors are the node's own."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dicom_node.config import Config, Node, Store
from dicom_node.errors import ConfigurationError, InvalidValue, LedgerUnavailable
from dicom_node.store.database import engine_for, migrate, open_engine, reading, writing
from dicom_node.store.history import History
from dicom_node.store.schema import history, jobs, metadata
from support.ledger import START, Books


def test_the_migrations_make_the_schema(store: Books) -> None:
    """What the migrations leave is what `schema.py` says: no difference that Alembic can see."""
    with store.engine.connect() as connection:
        # Alembic mistakes SQLite's '' for another default
        defaults = connection.dialect.name == "postgresql"
        context = MigrationContext.configure(connection, opts={"compare_server_default": defaults})

        assert [] == compare_metadata(context, metadata)


def test_the_migrations_make_the_checks(store: Books, database: str) -> None:
    """Constraints that Alembic does not compare are those of a database made from the schema directly."""
    by_hand = open_engine(database)
    names = {
        table.name: {str(check.name) for check in table.constraints if isinstance(check, sa.CheckConstraint)}
        for table in metadata.sorted_tables
    }
    inspector = sa.inspect(by_hand)
    found = {name: {check["name"] for check in inspector.get_check_constraints(name)} for name in names}
    by_hand.dispose()

    assert names == found


def test_migrating_again_changes_nothing(store: Books) -> None:
    """Every start migrates; rows survive it."""
    store.arrives(1)

    migrate(store.engine)

    assert 1 == len(store.catalog.instances(store.catalog.pending()[0].study_uid))


def test_processes_may_migrate_at_once(database: str) -> None:
    """Four processes started together on an empty database all find the schema."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_migrate, args=(database,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [0] * 4 == [process.exitcode for process in processes]


def _migrate(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()


def test_a_newer_database_is_refused(store: Books) -> None:
    """An older program does not touch what a newer one wrote."""
    with writing(store.engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(ConfigurationError, match="newer version"):
        migrate(store.engine)


def test_sqlite_is_durable(tmp_path: Path) -> None:
    """WAL with synchronous=FULL on every connection; foreign keys are kept."""
    engine = open_engine(f"sqlite:///{tmp_path / 'x'}")
    with engine.connect() as first, engine.connect() as second:
        found = [
            [
                connection.exec_driver_sql(f"PRAGMA {what}").scalar()
                for what in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            for connection in (first, second)
        ]
    engine.dispose()

    assert [["wal", 2, 1, 30000]] * 2 == found


def test_postgresql_is_durable(postgres: str) -> None:
    """synchronous_commit is on, whatever the server's default is."""
    engine = open_engine(f"{postgres}/postgres")
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
    engine.dispose()

    assert "on" == found


def test_times_are_aware_utc(store: Books) -> None:
    """A time comes back as it went in, with its zone; one without zone is refused."""
    History(store.engine, store.clock).add("1.2", "study.complete")  # type: ignore[arg-type]

    with store.engine.connect() as connection:
        assert START == connection.execute(sa.select(history.c.at)).scalar_one()
        with pytest.raises(InvalidValue, match="without zone"):
            _insert_at(connection, START.replace(tzinfo=None))


def _insert_at(connection: sa.Connection, at: object) -> None:
    try:
        connection.execute(sa.insert(history).values(at=at, study_uid="1", event="x"))
    except sa.exc.StatementError as error:
        raise error.orig or error from error


def test_an_error_rolls_everything_back(store: Books) -> None:
    """A transaction that raises leaves nothing."""
    with pytest.raises(InvalidValue), writing(store.engine) as connection:
        connection.execute(sa.insert(history).values(at=START, study_uid="1", event="x"))
        raise InvalidValue

    with reading(store.engine) as connection:
        assert [] == connection.execute(sa.select(history)).all()


def test_an_unknown_state_is_refused_by_the_schema(store: Books) -> None:
    """A state that no code knows cannot stand in the ledger."""
    store.scheduled()

    with pytest.raises(sa.exc.IntegrityError), writing(store.engine) as connection:
        connection.execute(sa.update(jobs).values(state="LOST"))


def test_a_ledger_that_does_not_answer_is_the_nodes_own_error(tmp_path: Path, postgres: str) -> None:
    """Neither driver's exception gets out, and no message holds host, user or password."""
    for url in ("sqlite:////nowhere/at/all", f"{postgres}/no_such_database"):
        engine = open_engine(url, password="secret")

        with pytest.raises(LedgerUnavailable) as caught:
            migrate(engine)

        assert str(LedgerUnavailable()) == str(caught.value)
        engine.dispose()


@pytest.mark.parametrize("url", ["mysql://localhost/x", "nonsense", "postgresql+asyncpg://localhost/x"])
def test_other_databases_are_refused(url: str) -> None:
    """The configuration is refused at start, by the key's name."""
    with pytest.raises(ConfigurationError, match=r"store\.database"):
        open_engine(url)


def test_the_password_comes_from_its_file(tmp_path: Path) -> None:
    """The first line of `password_file`; a file that is not there is a sentence."""
    file = tmp_path / "password"
    file.write_text("secret\nmore\n")
    store = Store(database="postgresql://node@localhost/node", password_file=file)

    assert "secret" == engine_for(Config(store=store)).url.password
    with pytest.raises(ConfigurationError, match="password_file"):
        engine_for(Config(store=store.model_copy(update={"password_file": tmp_path / "none"})))


def test_sqlite_stands_in_data_dir(tmp_path: Path) -> None:
    """Without further words the ledger is `node.sqlite3` in data_dir, which is made private."""
    engine = engine_for(Config(node=Node(data_dir=tmp_path / "var")))
    migrate(engine)
    engine.dispose()

    assert (tmp_path / "var" / "node.sqlite3").is_file()
    assert 0o700 == (tmp_path / "var").stat().st_mode & 0o777
