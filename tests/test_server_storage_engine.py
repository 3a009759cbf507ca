"""How the database is opened, and that migrations make the tables that the code means."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from engines import BOTH_ENGINES, POSTGRESQL, PostgreSQL
from servers import Disk, draft_decision, hex_id
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

import server.storage.engine
from policy.domain import InvalidFieldError, RouterSpec
from server.storage.engine import Durability, let_go, migrate, open_engine, open_relaxed, shown_url
from server.storage.schema import metadata


@pytest.mark.parametrize(("durability", "level"), [(Durability.POWER_LOSS, 2), (Durability.PROCESS_CRASH, 1)])
def test_sqlite_runs_in_wal_mode_and_syncs_as_durability_asks(
    url: str, durability: Durability, level: int
) -> None:
    engine = open_engine(url, durability)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == level
    engine.dispose()


def test_who_publishes_what_is_soon_published_again_waits_for_no_disk(url: str) -> None:
    engine = open_engine(url)
    relaxed = open_relaxed(engine)
    for each, level in ((relaxed, 1), (engine, 2), (relaxed, 1)):
        with each.connect() as connection:
            assert connection.execute(text("PRAGMA synchronous")).scalar_one() == level
    relaxed.dispose()
    engine.dispose()


@POSTGRESQL
@pytest.mark.parametrize("durability", list(Durability))
@pytest.mark.parametrize(("level", "becomes"), [("off", "on"), ("remote_apply", "remote_apply")])
def test_postgresql_commits_to_the_disk_whatever_its_default(
    url: str, postgresql: PostgreSQL, durability: Durability, level: str, becomes: str
) -> None:
    postgresql.execute(f"ALTER DATABASE {make_url(url).database} SET synchronous_commit = {level}")
    engine = open_engine(url, durability)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == becomes
    engine.dispose()


@POSTGRESQL
def test_a_writer_that_hangs_gives_the_log_back(disk: Disk) -> None:
    with disk.engine.connect() as connection:
        connection.execute(text("SET idle_in_transaction_session_timeout = '50ms'"))
        connection.commit()
        connection.execute(text("UPDATE log_head SET seq = 99"))
        disk.put_router("default", RouterSpec(), "a")
        assert disk.reader.head() == 2
        connection.invalidate()


def driver(connection: Connection) -> Any:
    """psycopg's own connection."""
    return connection.connection.dbapi_connection


def hang_up(connection: Any) -> None:
    """The connection's socket is as one that was cut is seen for a moment: hung up, with no end yet to be read."""
    with socket.socket() as unconnected:
        os.dup2(unconnected.fileno(), connection.pgconn.socket)


@POSTGRESQL
def test_a_pooled_connection_that_was_cut_is_replaced_when_it_is_tried_out(disk: Disk) -> None:
    with disk.engine.connect() as connection:
        cut = driver(connection)
    hang_up(cut)
    with disk.engine.connect() as connection:
        assert driver(connection) is not cut
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    assert cut.closed


@POSTGRESQL
def test_a_connection_that_is_cut_in_a_transaction_is_known_to_be_lost(disk: Disk) -> None:
    """Whoever commits on it has to say that it is not known what has become of it."""
    with disk.engine.connect() as connection:
        connection.execute(text("UPDATE log_head SET seq = 99"))
        hang_up(driver(connection))
        with pytest.raises(DBAPIError) as caught:
            connection.commit()
    assert caught.value.connection_invalidated
    assert disk.reader.head() == 0


def test_a_database_that_must_be_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such database"):
        open_engine(f"sqlite:///{tmp_path / 'none.db'}", create=False)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("file:{}/deep/p.db?uri=true", "{}/deep/p.db"),
        ("file://{}/deep/p.db?mode=rwc&uri=true", "{}/deep/p.db"),
        ("file:p.db", "p.db"),
        ("file:p.db?uri=true", "p.db"),
        ("file%3Ap.db", "p.db"),
        ("p.db?cache=shared&uri=true", "p.db"),
    ],
)
def test_a_uri_of_sqlites_own_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, right: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidFieldError) as caught:
        open_engine(f"sqlite:///{given.format(tmp_path)}")
    assert caught.value.field == "database_url"
    assert str(caught.value).endswith(f"as in sqlite:///{right.format(tmp_path)}")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_new_database_is_created(tmp_path: Path) -> None:
    disk = Disk(f"sqlite:///{tmp_path / 'deep' / 'er' / 'p.db'}")
    assert disk.reader.head() == 0
    disk.close()


@BOTH_ENGINES
def test_migrating_twice_changes_nothing_and_keeps_what_is_there(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(), "a", "b")
    disk.decide(draft_decision(hex_id(1)))
    migrate(disk.engine)
    assert disk.reader.decision(hex_id(1)) is not None
    assert disk.reader.head() == 4


def test_a_database_from_before_there_was_a_retention_goes_on_with_what_is_in_it(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(), "a", "b")
    before = disk.decide(draft_decision(hex_id(1), request_id="r"))
    config = Config()
    config.set_main_option("script_location", str(Path(server.storage.engine.__file__).parent / "migrations"))
    with disk.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
        columns = {each["name"] for each in inspect(connection).get_columns("log_head")}
        assert columns == {"id", "seq", "time_us"}
    migrate(disk.engine)
    assert disk.reader.dropped() == (0, 0)
    assert disk.decide(draft_decision(hex_id(2), request_id="r")).decision_id == before.decision_id
    assert disk.decide(draft_decision(hex_id(3))).seq == before.seq + 2


@BOTH_ENGINES
def test_the_migrations_make_exactly_the_tables_of_the_schema(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(), "a", "b")
    disk.decide(draft_decision(hex_id(1)))

    def alike(_object: object, name: str | None, kind: str, *_rest: object) -> bool:
        """Not the partitions, and not the one index that cannot be unique where there are any."""
        partition = kind == "table" and "_until_" in str(name)
        return not (partition or (disk.engine.dialect.name == "postgresql" and name == "ix_decisions_request"))

    with disk.engine.connect() as connection:
        opts = {"compare_type": True, "include_object": alike}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []


@BOTH_ENGINES
def test_a_reader_sees_no_part_of_an_open_transaction_and_does_not_wait_for_it(disk: Disk) -> None:
    with disk.engine.begin() as connection:
        connection.execute(text("UPDATE log_head SET seq = 99"))
        assert disk.reader.head() == 0
    assert disk.reader.head() == 99


@BOTH_ENGINES
def test_a_reader_cannot_be_the_one_that_holds_up_the_writer(disk: Disk) -> None:
    reading = disk.engine.execution_options(read_only=True)
    with reading.connect() as open_reader:
        open_reader.execute(text("SELECT seq FROM log_head"))
        disk.put_router("default", RouterSpec(), "a")
        assert disk.reader.head() == 2


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    engine = open_engine(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(OSError, match="not a database"):
        migrate(engine)
    engine.dispose()


@BOTH_ENGINES
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO decisions (prompt) VALUES (:prompt)",
        # PostgreSQL tells the whole row of which this is missing.
        "UPDATE decisions SET prompt = :prompt, model = NULL",
    ],
)
def test_an_error_of_the_database_does_not_tell_what_was_to_be_written(
    disk: Disk, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    disk.decide(draft_decision(hex_id(1)))
    prompt = {"prompt": " ".join(("a", "secret"))}  # Not as it is in the source, whose lines the log has.
    with pytest.raises(DBAPIError) as caught, disk.engine.begin() as connection:
        connection.execute(text(statement), prompt)
    logging.getLogger("test").error("a failure: %s", caught.value, exc_info=caught.value)
    assert "decisions" in str(caught.value.orig)
    assert type(caught.value.orig).__name__ in caplog.text
    assert "a secret" not in caplog.text


@BOTH_ENGINES
def test_a_connection_that_is_in_use_when_the_database_is_let_go_of_is_closed_when_it_comes_back(url: str) -> None:
    engine = open_engine(url)
    used = engine.connect()
    raw: Any = used.connection.dbapi_connection
    let_go(engine)
    assert used.execute(text("SELECT 1")).scalar_one() == 1
    used.close()
    with pytest.raises(engine.dialect.import_dbapi().Error, match="closed"):
        raw.execute("SELECT 1")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_password_is_never_shown(scheme: str) -> None:
    url = f"{scheme}://me:secret@localhost:1/pointsman"
    assert "secret" not in shown_url(url)
    engine = open_engine(url)
    with pytest.raises(OSError, match="cannot be opened") as caught:
        migrate(engine)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(engine)


@pytest.mark.parametrize("url", ["mysql://me:secret@host/db", "postgresql+asyncpg://me:secret@host/db"])
def test_another_engine_is_refused_and_what_would_be_right_is_said(url: str) -> None:
    with pytest.raises(InvalidFieldError, match="postgresql://USER@HOST/DATABASE") as caught:
        open_engine(url)
    assert "secret" not in str(caught.value)
