"""Opens the database: engine, durability, migrations."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from policy.domain import InvalidFieldError

_MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 10


class Durability(StrEnum):
    """What an acknowledged write survives."""

    POWER_LOSS = "power_loss"
    PROCESS_CRASH = "process_crash"


def open_engine(url: str, durability: Durability = Durability.POWER_LOSS, *, create: bool = True) -> Engine:
    """An engine on `url`. SQLite runs in WAL mode, so readers and the one writer do not wait for each other.

    With POWER_LOSS every commit is forced to the disk; with PROCESS_CRASH it is handed to the
    operating system, which is faster and loses the last commits only if the machine goes down.
    Raises InvalidFieldError for a URL that is none, FileNotFoundError without `create` if there is no such file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        shown = "one that has a password in it" if "@" in url else repr(url[:80])
        raise InvalidFieldError("database_url", f"must be an SQLAlchemy URL, not {shown}") from error
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if parsed.database and parsed.database != ":memory:":
        path = Path(parsed.database)
        if not create and not path.exists():
            raise FileNotFoundError(f"{url}: there is no such database")
        path.parent.mkdir(parents=True, exist_ok=True)
    # What was to be written may be private, and has no place in a log of errors.
    connect = {"timeout": _BUSY_SECONDS, "check_same_thread": False}
    engine = create_engine(parsed, connect_args=connect, hide_parameters=True)
    synchronous = "FULL" if durability is Durability.POWER_LOSS else "NORMAL"

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # sqlite3's own transaction handling would begin too late for the order of the log.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def migrate(engine: Engine) -> None:
    """Brings the database to the newest schema. Raises OSError if it cannot be opened."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise OSError(f"{where}: cannot be opened: {error.orig}") from error
