"""Opens the database: which engine, durability, migrations."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from policy.domain import InvalidFieldError

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 10
_MIGRATION_LOCK = 0x706F696E7473  # Any number that nobody else takes in the same database: "points".
_ANSWER_SECONDS = 30
_PATIENCE = "patience"
_POSTGRESQL_CONNECTION = {
    "fallback_application_name": "pointsman",
    "connect_timeout": 5,
    # A peer that is gone without a word is given up after some 10 s, whether it is waited for or written to.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
WAL_PAGES_MAX = 8000
"""Pages of 4 KiB in SQLite's write-ahead log from which on a commit copies what is left of them to be copied."""
_POSTGRESQL = ("postgresql", "postgresql+psycopg", "postgres")


class Durability(StrEnum):
    """What an acknowledged write survives."""

    POWER_LOSS = "power_loss"
    PROCESS_CRASH = "process_crash"


def open_engine(url: str, durability: Durability = Durability.POWER_LOSS, *, create: bool = True) -> Engine:
    """An engine on `url`, which names an SQLite file or a PostgreSQL database.

    With POWER_LOSS every commit is forced to the disk. With PROCESS_CRASH SQLite hands it to the operating
    system, which is faster and loses the last commits only if the machine goes down; PostgreSQL forces it too.
    Raises InvalidFieldError for any other URL, FileNotFoundError without `create` if there is no such file.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, durability, create)
    return _open_postgresql(parsed)


def open_relaxed(engine: Engine) -> Engine:
    """An engine on the same database, for what is soon written anew if it is lost: nobody waits for the disk.

    While SQLite does, it holds off who writes the log. It is `engine` itself on PostgreSQL, where each transaction
    says so by itself.
    """
    if engine.dialect.name != "sqlite":
        return engine
    return _open_sqlite(engine.url, Durability.PROCESS_CRASH, create=True)


def open_reading(engine: Engine) -> Engine:
    """The same database for reads alone.

    On PostgreSQL they are not in a transaction, whose beginning and end are as dear as a small read. As in one
    that is read committed, each statement sees what was committed when it began.
    """
    if engine.dialect.name == "sqlite":
        return engine.execution_options(read_only=True)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def shown_url(url: str) -> str:
    """The URL as it may be seen by anyone: without its password. Raises InvalidFieldError."""
    return _parsed(url).render_as_string(hide_password=True)


def _parsed(url: str) -> URL:
    right = "must be sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        shown = "one that has a password in it" if "@" in url else repr(url[:80])
        raise InvalidFieldError("database_url", f"{right}, not {shown}") from error
    if parsed.drivername in _POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite":
        raise InvalidFieldError("database_url", f"{right}, not one of {parsed.drivername}")
    return parsed


def _open_sqlite(url: URL, durability: Durability, create: bool) -> Engine:
    """In WAL mode, so that readers and the one writer do not wait for each other."""
    if not url.database or url.database == ":memory:":
        # Each connection would have one of its own.
        raise InvalidFieldError("database_url", "must name a file: an SQLite in memory cannot be shared")
    _require_plain(url, url.database)
    path = Path(url.database)
    if not create and not path.exists():
        raise FileNotFoundError(f"{url.render_as_string()}: there is no such database")
    path.parent.mkdir(parents=True, exist_ok=True)
    # What was to be written may be private, and has no place in a log of errors.
    connect = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    engine = create_engine(url, connect_args=connect, hide_parameters=True)
    synchronous = "FULL" if durability is Durability.POWER_LOSS else "NORMAL"

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # sqlite3's own transaction handling would begin too late for the order of the log.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES_MAX}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _require_plain(url: URL, database: str) -> None:
    """Refuses SQLite's own URIs: their folder would not be made, but another one of that name."""
    if database.startswith("file:") or "uri" in url.query:
        path = re.sub("^file:(//(?=/))?", "", database) or "FILE"
        raise InvalidFieldError(
            "database_url", f"must have the plain path of the file, without file: and uri, as in sqlite:///{path}"
        )


def _open_postgresql(url: URL) -> Engine:
    """Read committed, whatever the database's default: a writer that waited for the log must see what came before.

    A server that is gone, or hangs, gives the log back after some seconds: the database ends its transaction.
    And a database that is gone, or hangs, is given up by who waits for it.
    """
    try:
        from server.storage.patience import Patience, PatientConnection  # noqa: PLC0415 (psycopg need not be there)

        patience = Patience(_ANSWER_SECONDS)
        engine = create_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args=_POSTGRESQL_CONNECTION,
            execution_options={_PATIENCE: patience},
        )
    except ImportError as error:
        raise InvalidFieldError(
            "database_url", "needs psycopg for PostgreSQL: pip install 'pointsman[postgres]'"
        ) from error

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, arguments: Any, given: Any) -> Any:
        given = {**given, "connect_timeout": patience.connect_seconds(given["connect_timeout"])}
        return PatientConnection.connect(*arguments, **given)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.patience = patience
        connection.execute(f"SET statement_timeout = '{_ANSWER_SECONDS}s'")
        connection.execute(f"SET lock_timeout = '{_BUSY_SECONDS}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{_BUSY_SECONDS}s'")
        # Else a crash of the database would take back positions that others have read, and give them out again.
        # What is set for standbys stays.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )
        connection.commit()

    return engine


def hurry(engine: Engine, seconds: float) -> None:
    """Lets nobody wait for PostgreSQL for more than so many seconds from now, nor long for what is asked later.

    SQLite answers, or says after some seconds that its file is locked.
    """
    patience = engine.get_execution_options().get(_PATIENCE)
    if patience is not None:
        patience.hurry(seconds)


def let_go(engine: Engine) -> None:
    """Closes all its connections, those that are in use as soon as they come back: whoever gave up a read leaves a
    thread that reads on, and a pool that was disposed of would keep its connection.
    """
    event.listen(engine.pool, "checkin", lambda connection, _record: connection and connection.close())
    engine.dispose()


def migrate(engine: Engine) -> None:
    """Brings the database to the newest schema, one server at a time. Raises OSError if it cannot be opened."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # SQLite has one writer at a time anyway.
                # A migration takes what it takes, and waits for who is before it, on a connection of its own.
                connection.detach()
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.connection.dbapi_connection.patience = None  # type: ignore[union-attr]
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise OSError(f"{where}: cannot be opened: {error.orig}") from error
